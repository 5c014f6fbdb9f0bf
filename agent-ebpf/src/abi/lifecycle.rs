//! Events of the `lifecycle` programs: cgroups made, populated and removed.

use super::snapshot::SnapshotRecord;

/// Longest path that an event carries, with its closing 0. Longer ones are cut and marked.
pub const PATH_BYTES: usize = 448;

/// A cgroup was made.
pub const MADE: u32 = 1;
/// The first task entered it or something below it.
pub const POPULATED: u32 = 2;
/// The last task left it and everything below it.
pub const EMPTY: u32 = 3;
/// It was removed; the event is a [`FinalRecord`].
pub const REMOVED: u32 = 4;

/// Something happened to a cgroup.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LifecycleEvent {
    /// [`MADE`], [`POPULATED`], [`EMPTY`] or [`REMOVED`].
    pub kind: u32,
    /// The hierarchy; 0 is cgroup v2.
    pub hierarchy: u32,
    /// The cgroup's kernfs id.
    pub id: u64,
    /// `CLOCK_MONOTONIC` at the event, nanoseconds.
    pub at_ns: u64,
    /// Depth below the root.
    pub level: u32,
    /// Bytes of `path` in use, without the closing 0. [`PATH_BYTES`] - 1 = perhaps cut.
    pub path_len: u32,
    /// Path below the hierarchy's root.
    pub path: [u8; PATH_BYTES],
}

/// The last state of a cgroup, read while its removal was under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FinalRecord {
    /// The removal.
    pub event: LifecycleEvent,
    /// Its counters at that moment, without a flush of its CPU time.
    pub record: SnapshotRecord,
}

/// Kinds of events that can be lost, as indexes of the `LOST` map.
pub const LOST_KINDS: [&str; 4] = ["cgroup_made", "cgroup_populated", "cgroup_empty", "cgroup_removed"];
