//! The run time of programs that time themselves, without the kernel's statistics, which need `CAP_SYS_ADMIN`.

/// One of this many runs of the programs is timed.
pub const TIMING_INTERVAL: u64 = 64;

/// Run time of the programs on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// Number of runs.
    pub runs: u64,
    /// Total duration of the timed runs, nanoseconds.
    pub timed_ns: u64,
}
