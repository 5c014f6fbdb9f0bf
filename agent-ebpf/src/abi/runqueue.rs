//! What the `runqueue` programs need to count how long tasks wait for a CPU, and what that costs.

/// Tasks that may wait at the same time, without one in another's place.
pub const SLOTS: u32 = 1 << 15;

/// A task that waits, in the place that its pid names.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// When it began to wait, nanoseconds of `CLOCK_MONOTONIC`; 0: it does not wait.
    pub since_ns: u64,
    /// The task.
    pub pid: u32,
    /// Keeps the layout without holes.
    pub reserved: u32,
}

/// Of so many runs of the programs one is timed.
pub const TIMED: u64 = 64;

/// What the programs cost on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunqueueCost {
    /// Runs.
    pub runs: u64,
    /// Time in those that were timed, nanoseconds.
    pub timed_ns: u64,
}
