//! Events of the `process` programs: the init process of a cgroup started or exited.

use super::events::Header;

/// `TASK_COMM_LEN`: size of a task's name, bytes.
pub const COMM_BYTES: usize = 16;

/// The init process of a cgroup; value of the map `INITS`, whose key is the cgroup's kernfs id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Init {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// 1: the process has exited.
    pub ended: u32,
    /// As [`ProcessEvent::contained`].
    pub contained: u32,
}

/// A running init process; value of the map `INIT_TASKS`, whose key is the process id in the initial PID namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitTask {
    /// kernfs id of the cgroup v2 in which the process became the init process; later moves do not change it.
    pub cgroup: u64,
    /// Start time as in field 22 of `/proc/PID/stat`: ticks of 10 ms since boot. Identifies the process if the pid is reused.
    pub start_ticks: u64,
    /// Time of its `execve`, nanoseconds of `CLOCK_MONOTONIC`.
    pub started_ns: u64,
}

/// Nanoseconds per tick of [`InitTask::start_ticks`]: `USER_HZ` is 100 on x86-64 and arm64.
pub const TICK_NS: u64 = 10_000_000;

/// An init process has started or exited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessEvent {
    /// Kind of the event, cgroup and time.
    pub header: Header,
    /// Time of its `execve`, nanoseconds of `CLOCK_MONOTONIC`.
    pub started_ns: u64,
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Exit status as `wait(2)` reports it: exit code in bits 8 to 15, or the signal in bits 0 to 6.
    pub status: u32,
    /// 1: at `execve` the process had another mount namespace than its parent. 0: it shared its parent's, as processes of
    /// the container runtime itself do that run in the container's cgroup.
    pub contained: u32,
    /// Padding; 0.
    pub reserved: u32,
    /// `task_struct.comm` of the process.
    pub comm: [u8; COMM_BYTES],
}
