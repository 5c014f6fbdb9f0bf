//! Events of the `lifecycle` programs: a cgroup was created, emptied or removed.

use super::{events::Header, snapshot::SnapshotRecord};

/// Size of the path buffer in an event, including the terminating NUL. Longer paths are truncated.
pub const PATH_BYTES: usize = 448;

/// A cgroup was created, emptied or removed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LifecycleEvent {
    /// Kind of the event, cgroup and time.
    pub header: Header,
    /// `cgroup.level`: depth below the root, which has 0.
    pub level: u32,
    /// Bytes of `path` in use, without the terminating NUL. [`PATH_BYTES`] - 1: possibly truncated.
    pub path_len: u32,
    /// Path below the root of the hierarchy.
    pub path: [u8; PATH_BYTES],
}

/// The final values of a cgroup, read in its `cgroup_rmdir` tracepoint.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FinalRecord {
    /// The event of the removal.
    pub event: LifecycleEvent,
    /// The values at the removal. CPU time includes the per-CPU time that no rstat flush has propagated yet, if the
    /// kernel's BTF has the fields of the per-CPU counters.
    pub record: SnapshotRecord,
}

/// Per-CPU counters of at most this many CPUs are added up for a final record.
pub const MAX_CPUS: u32 = 1024;
