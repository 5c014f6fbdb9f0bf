//! Events of the `lifecycle` programs: cgroups made, emptied and removed.

use super::{events::Header, snapshot::SnapshotRecord};

/// Longest path that an event carries, with its closing 0. Longer ones are cut and marked.
pub const PATH_BYTES: usize = 448;

/// Something happened to a cgroup.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LifecycleEvent {
    /// What, to which cgroup, when.
    pub header: Header,
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
    /// Its counters at that moment. Its CPU time includes what no flush has taken along yet, where the kernel's types
    /// tell where the CPUs keep that.
    pub record: SnapshotRecord,
}

/// The most CPUs whose counters a final record adds up.
pub const MOST_CPUS: u32 = 1024;
