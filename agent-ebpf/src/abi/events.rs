//! The ring buffer that carries events to the agent, and the counters of records lost because a map was full.

/// A cgroup was created.
pub const MADE: u32 = 1;
/// The last task of a cgroup and of all its descendants has exited or moved away (`populated` became 0).
pub const EMPTIED: u32 = 2;
/// A cgroup was removed.
pub const REMOVED: u32 = 3;
/// The init process of a cgroup called `execve`.
pub const STARTED: u32 = 4;
/// The init process of a cgroup has exited.
pub const EXITED: u32 = 5;
/// The OOM killer has chosen a victim.
pub const OOM_KILL: u32 = 6;

/// The first fields of every event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// One of [`MADE`] to [`OOM_KILL`].
    pub kind: u32,
    /// `cgroup_root.hierarchy_id` of the cgroup's hierarchy; 0 is cgroup v2.
    pub hierarchy: u32,
    /// kernfs id of the cgroup: the inode number of its directory.
    pub id: u64,
    /// Time of the event, nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

/// Size of the ring buffer, bytes.
pub const RING_BYTES: u32 = 4 << 20;

/// Once this many bytes of the ring buffer are in use, only final events (removals, exits, OOM kills) are accepted. The
/// agent finds a created or changed cgroup in its next sample anyway; a lost final event could not be replaced.
pub const RING_BYTES_BEFORE_RESERVE: u64 = RING_BYTES as u64 / 4 * 3;

/// What the `LOST` map counts, by index. The kinds of events come first: event kind `n` has index `n - 1`.
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

/// Index in [`LOST_KINDS`]: packets and connections not counted because the map `NETWORK` or `ROUND_TRIPS` was full.
pub const LOST_NETWORK: u32 = 6;
/// Index in [`LOST_KINDS`]: init processes not tracked because the map `INITS` was full.
pub const LOST_INITS: u32 = 7;
/// Index in [`LOST_KINDS`]: waits for a CPU not counted because the map `RUNQUEUE` was full.
pub const LOST_RUNQUEUE: u32 = 8;
