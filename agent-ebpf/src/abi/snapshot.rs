//! Records of the `snapshot` program: one per cgroup and pass. A pass samples all cgroups of a hierarchy once.

use super::memory::MemoryRecord;

/// The record has CPU time ([`SnapshotRecord::cpu_usage_ns`]).
pub const HAS_CPU: u32 = 1;
/// The record has CFS bandwidth control (`cfs_*`).
pub const HAS_THROTTLING: u32 = 1 << 1;
/// The record has [`SnapshotRecord::memory`].
pub const HAS_MEMORY: u32 = 1 << 2;
/// The record has PSI totals ([`SnapshotRecord::pressure_ns`]).
pub const HAS_PRESSURE: u32 = 1 << 3;
/// The record has the number of tasks and their limit (`pids_*`).
pub const HAS_PIDS: u32 = 1 << 4;
/// The record has [`SnapshotRecord::memory_inactive_file_pages`]; only together with [`HAS_MEMORY`].
pub const HAS_WORKING_SET: u32 = 1 << 5;
/// All groups of fields.
pub const HAS_ALL: u32 = HAS_CPU | HAS_THROTTLING | HAS_MEMORY | HAS_PRESSURE | HAS_PIDS | HAS_WORKING_SET;

/// The counters and limits of one cgroup, in the kernel's units: memory in pages, time in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// kernfs id: the inode number of the cgroup's directory, never reused within a hierarchy.
    pub id: u64,
    /// Groups of fields that are filled (`HAS_*`).
    pub has: u32,
    /// `cgroup.level`: depth below the root, which has 0.
    pub level: u32,
    /// `cgroup.bstat.cputime.sum_exec_runtime`: CPU time as of the last rstat flush.
    pub cpu_usage_ns: u64,
    /// `cgroup.self.serial_nr`, never reused; 0: not known.
    pub serial: u64,
    /// `cfs_bandwidth.period`.
    pub cfs_period_ns: u64,
    /// `cfs_bandwidth.quota`: CPU time allowed per period; `u64::MAX`: no limit.
    pub cfs_quota_ns: u64,
    /// `cfs_bandwidth.burst`: unused quota that may accumulate.
    pub cfs_burst_limit_ns: u64,
    /// `cfs_bandwidth.throttled_time`, summed over CPUs.
    pub cfs_throttled_ns: u64,
    /// `cfs_bandwidth.burst_time`: CPU time used above the quota.
    pub cfs_burst_ns: u64,
    /// `cfs_bandwidth.nr_periods`: periods in which the cgroup was runnable.
    pub cfs_periods: u32,
    /// `cfs_bandwidth.nr_throttled`: periods in which the cgroup was throttled.
    pub cfs_throttled_periods: u32,
    /// `cfs_bandwidth.nr_burst`: periods in which the cgroup used more than its quota.
    pub cfs_burst_periods: u32,
    /// Padding; 0.
    pub reserved: u32,
    /// Memory and swap.
    pub memory: MemoryRecord,
    /// `memcg_vmstats.state[NR_INACTIVE_FILE]`: inactive file cache as of the last rstat flush.
    pub memory_inactive_file_pages: u64,
    /// `psi_group.total` in the order of `enum psi_states`: I/O some and full, memory some and full, CPU some and full.
    pub pressure_ns: [u64; PRESSURE_TOTALS],
    /// `pids_cgroup.counter`: tasks.
    pub pids_current: u64,
    /// `pids_cgroup.limit`; `PID_MAX_LIMIT` + 1: none.
    pub pids_limit: u64,
}

/// Length of [`SnapshotRecord::pressure_ns`]: some and full of three resources.
pub const PRESSURE_TOTALS: usize = 6;

/// Statistics of a pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassStats {
    /// Cgroups visited.
    pub cgroups: u64,
    /// Cgroups below a container, or above the room of a unit ([`super::subtree`]). They have no record and are not in `cgroups`.
    pub enclosed: u64,
    /// Cgroups without a record because the map `RECORDS` was full.
    pub lost: u64,
    /// Cgroups without a record because not even their id could be read.
    pub unreadable: u64,
    /// Duration of a walk, nanoseconds: how long it held `cgroup_mutex`. 0 after `sample_active` and `resample`.
    pub held_ns: u64,
    /// Start of a walk, nanoseconds of `CLOCK_MONOTONIC`. 0 after `sample_active` and `resample`.
    pub started_ns: u64,
}
