//! The ring that carries events, and what is counted when something found no room.

/// A cgroup was made.
pub const MADE: u32 = 1;
/// The last task left a cgroup and everything below it.
pub const EMPTY: u32 = 2;
/// A cgroup was removed.
pub const REMOVED: u32 = 3;
/// A cgroup's init process runs its program.
pub const STARTED: u32 = 4;
/// A cgroup's init process has ended.
pub const EXITED: u32 = 5;
/// The OOM killer has chosen a victim.
pub const OOM_KILL: u32 = 6;

/// What every event begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// [`MADE`] … [`OOM_KILL`].
    pub kind: u32,
    /// The hierarchy of the cgroup; 0 is cgroup v2.
    pub hierarchy: u32,
    /// The cgroup's kernfs id.
    pub id: u64,
    /// `CLOCK_MONOTONIC` at the event, nanoseconds.
    pub at_ns: u64,
}

/// Bytes of the ring.
pub const RING_BYTES: u32 = 4 << 20;

/// What only says that something came or changed finds the ring full when so much is in use: the rest is kept for ends,
/// which nothing else would tell.
pub const RING_BYTES_FOR_ALL: u64 = RING_BYTES as u64 / 4 * 3;

/// What can be lost, as indexes of the `LOST` map. Events come first, each at its kind less one.
pub const LOST_KINDS: [&str; 9] = [
    "cgroup_made",
    "cgroup_empty",
    "cgroup_removed",
    "process_started",
    "process_exited",
    "oom_kill",
    "network_counters",
    "process_inits",
    "runqueue_counters",
];

/// Place in [`LOST_KINDS`] of packets and connections that could not be counted because the map was full.
pub const LOST_NETWORK: u32 = 6;
/// Place in [`LOST_KINDS`] of init processes that could not be followed because the map was full.
pub const LOST_INITS: u32 = 7;
/// Place in [`LOST_KINDS`] of waits for a CPU that could not be counted because the map was full.
pub const LOST_RUNQUEUE: u32 = 8;
