//! Events of the `process` programs: a cgroup's init process starts and ends.

use super::events::Header;

/// Bytes of a task's name, `TASK_COMM_LEN`.
pub const COMM_BYTES: usize = 16;

/// The init process of a cgroup, by the cgroup's id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Init {
    /// Its process id in the kernel's own namespace.
    pub pid: u32,
    /// 1 once it has ended.
    pub ended: u32,
    /// As [`ProcessEvent::contained`].
    pub contained: u32,
}

/// An init process, by its process id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitTask {
    /// kernfs id of the cgroup v2 that it is the init process of, wherever it moved since.
    pub cgroup: u64,
    /// When it was forked, in ticks of 10 ms since boot as /proc/PID/stat has it: tells apart who got the same pid.
    pub start_ticks: u64,
    /// `CLOCK_MONOTONIC` when it began to run its program, nanoseconds.
    pub started_ns: u64,
}

/// Nanoseconds in a tick of [`InitTask::start_ticks`]: the kernel's `USER_HZ` is 100 on all machines that Snug runs on.
pub const TICK_NS: u64 = 10_000_000;

/// An init process has started or ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessEvent {
    /// What, in which cgroup, when.
    pub header: Header,
    /// `CLOCK_MONOTONIC` when it began to run its program, nanoseconds.
    pub started_ns: u64,
    /// Its process id in the kernel's own namespace.
    pub pid: u32,
    /// How it ended, as `wait(2)` reports it: exit code in bits 8 to 15, else the signal in bits 0 to 6.
    pub status: u32,
    /// 1 if its mount namespace was not its parent's when it began to run its program. What a runtime runs of itself in
    /// a container's cgroup has its parent's.
    pub contained: u32,
    /// Zero.
    pub reserved: u32,
    /// Its name.
    pub comm: [u8; COMM_BYTES],
}
