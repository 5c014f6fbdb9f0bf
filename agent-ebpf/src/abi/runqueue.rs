//! Map of the `runqueue` programs: tasks waiting for a CPU.

/// Slots for waiting tasks; a power of two. A task's slot is its pid modulo this.
pub const SLOTS: u32 = 1 << 15;

/// A task waiting for a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitingTask {
    /// When the task became runnable, nanoseconds of `CLOCK_MONOTONIC`; 0: the slot is free.
    pub since_ns: u64,
    /// Thread id of the task in the initial PID namespace.
    pub pid: u32,
    /// Padding; 0.
    pub reserved: u32,
}
