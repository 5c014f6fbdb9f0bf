//! Records of the `snapshot` program: one per cgroup and pass.

/// A field that this kernel does not have. The verifier then drops the code that would read it.
pub const ABSENT: u32 = u32::MAX;

/// Where the kernel keeps what the programs read, in bytes from the start of the structure named by the prefix.
///
/// The agent fills it from the kernel's BTF before the programs are loaded; the kernel freezes it, so that the verifier
/// sees constants. [`ABSENT`] marks what this kernel lacks.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// `cgroup.kn`, a `kernfs_node *`.
    pub cgroup_kn: u32,
    /// `cgroup.level`, an `int`; 0 is the root.
    pub cgroup_level: u32,
    /// `cgroup.root`, a `cgroup_root *`.
    pub cgroup_root: u32,
    /// `cgroup.bstat.cputime.sum_exec_runtime`, nanoseconds.
    pub cgroup_cpu_runtime: u32,
    /// `cgroup.subsys[cpu_cgrp_id]`, a `task_group *`.
    pub cgroup_cpu: u32,
    /// `cgroup.subsys[memory_cgrp_id]`, a `mem_cgroup *`.
    pub cgroup_memory: u32,
    /// `cgroup.subsys[pids_cgrp_id]`, a `pids_cgroup *`.
    pub cgroup_pids: u32,
    /// `cgroup.psi`, a `psi_group *` (since 6.1).
    pub cgroup_psi: u32,
    /// `kernfs_node.id`, the inode number of the cgroup's directory.
    pub kernfs_id: u32,
    /// `cgroup_root.hierarchy_id`, an `int`; 0 is cgroup v2.
    pub root_hierarchy: u32,
    /// `task_group.cfs_bandwidth.period`, nanoseconds.
    pub cfs_period: u32,
    /// `task_group.cfs_bandwidth.quota`, nanoseconds; all ones = no limit.
    pub cfs_quota: u32,
    /// `task_group.cfs_bandwidth.burst`, nanoseconds.
    pub cfs_burst: u32,
    /// `task_group.cfs_bandwidth.nr_periods`, an `int`.
    pub cfs_periods: u32,
    /// `task_group.cfs_bandwidth.nr_throttled`, an `int`.
    pub cfs_throttled_periods: u32,
    /// `task_group.cfs_bandwidth.throttled_time`, nanoseconds.
    pub cfs_throttled_time: u32,
    /// `task_group.cfs_bandwidth.nr_burst`, an `int`.
    pub cfs_burst_periods: u32,
    /// `task_group.cfs_bandwidth.burst_time`, nanoseconds.
    pub cfs_burst_time: u32,
    /// `mem_cgroup.memory.usage`, pages.
    pub memory_usage: u32,
    /// `mem_cgroup.memory.watermark`, pages.
    pub memory_peak: u32,
    /// `mem_cgroup.memory.max`, pages.
    pub memory_limit: u32,
    /// `mem_cgroup.memory.failcnt`: charges that hit the limit.
    pub memory_failcnt: u32,
    /// `mem_cgroup.swap.usage`, pages; on cgroup v1 the same place is `memsw.usage`.
    pub swap_usage: u32,
    /// `mem_cgroup.swap.max`, pages; on cgroup v1 `memsw.max`.
    pub swap_limit: u32,
    /// `mem_cgroup.memory_events[0]`.
    pub memory_events: u32,
    /// `mem_cgroup.vmstats`, a `memcg_vmstats *`.
    pub memory_vmstats: u32,
    /// `memcg_vmstats.state[inactive file]`, pages.
    pub vmstats_inactive_file: u32,
    /// `psi_group.total[0]`, nanoseconds.
    pub psi_total: u32,
    /// `pids_cgroup.counter`.
    pub pids_counter: u32,
    /// `pids_cgroup.limit`.
    pub pids_limit: u32,
}

impl Offsets {
    /// Nothing known: the programs read nothing.
    pub const NONE: Self = Self {
        cgroup_kn: ABSENT,
        cgroup_level: ABSENT,
        cgroup_root: ABSENT,
        cgroup_cpu_runtime: ABSENT,
        cgroup_cpu: ABSENT,
        cgroup_memory: ABSENT,
        cgroup_pids: ABSENT,
        cgroup_psi: ABSENT,
        kernfs_id: ABSENT,
        root_hierarchy: ABSENT,
        cfs_period: ABSENT,
        cfs_quota: ABSENT,
        cfs_burst: ABSENT,
        cfs_periods: ABSENT,
        cfs_throttled_periods: ABSENT,
        cfs_throttled_time: ABSENT,
        cfs_burst_periods: ABSENT,
        cfs_burst_time: ABSENT,
        memory_usage: ABSENT,
        memory_peak: ABSENT,
        memory_limit: ABSENT,
        memory_failcnt: ABSENT,
        swap_usage: ABSENT,
        swap_limit: ABSENT,
        memory_events: ABSENT,
        memory_vmstats: ABSENT,
        vmstats_inactive_file: ABSENT,
        psi_total: ABSENT,
        pids_counter: ABSENT,
        pids_limit: ABSENT,
    };
}

/// The record has CPU time ([`SnapshotRecord::cpu_usage_ns`]).
pub const HAS_CPU: u32 = 1;
/// The record has CFS bandwidth (`cfs_*`).
pub const HAS_THROTTLING: u32 = 1 << 1;
/// The record has memory usage, peak and limit, swap and events.
pub const HAS_MEMORY: u32 = 1 << 2;
/// The record has pressure.
pub const HAS_PRESSURE: u32 = 1 << 3;
/// The record has tasks.
pub const HAS_PIDS: u32 = 1 << 4;
/// The record has the working set's inactive file; only together with [`HAS_MEMORY`].
pub const HAS_WORKING_SET: u32 = 1 << 5;
/// Every group of fields.
pub const HAS_ALL: u32 = HAS_CPU | HAS_THROTTLING | HAS_MEMORY | HAS_PRESSURE | HAS_PIDS | HAS_WORKING_SET;

/// Everything the kernel keeps of one cgroup, as it keeps it: memory in pages, time in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// kernfs id: the inode number of the cgroup's directory, never used twice in a hierarchy.
    pub id: u64,
    /// Which groups of fields are filled: `HAS_*`.
    pub has: u32,
    /// Depth below the root, which has 0.
    pub level: u32,
    /// CPU time; flushed values only.
    pub cpu_usage_ns: u64,
    /// CFS period.
    pub cfs_period_ns: u64,
    /// CFS quota per period; all ones = none.
    pub cfs_quota_ns: u64,
    /// CFS burst allowance.
    pub cfs_burst_limit_ns: u64,
    /// Throttled time.
    pub cfs_throttled_ns: u64,
    /// Time used by bursting.
    pub cfs_burst_ns: u64,
    /// CFS periods.
    pub cfs_periods: u32,
    /// Throttled CFS periods.
    pub cfs_throttled_periods: u32,
    /// CFS periods with a burst.
    pub cfs_burst_periods: u32,
    /// Keeps the following fields aligned; 0.
    pub reserved: u32,
    /// Memory charged, pages.
    pub memory_usage_pages: u64,
    /// Highest memory charged, pages.
    pub memory_peak_pages: u64,
    /// Memory limit, pages.
    pub memory_limit_pages: u64,
    /// Charges that hit the limit.
    pub memory_failcnt: u64,
    /// Inactive file cache, pages; flushed values only.
    pub memory_inactive_file_pages: u64,
    /// Swap (v1: memory and swap) charged, pages.
    pub swap_usage_pages: u64,
    /// Swap (v1: memory and swap) limit, pages.
    pub swap_limit_pages: u64,
    /// memory.events: low, high, max, oom, oom_kill.
    pub memory_events: [u64; MEMORY_EVENTS],
    /// Pressure totals in the kernel's order: I/O some, I/O full, memory some, memory full, CPU some, CPU full.
    pub pressure_ns: [u64; PRESSURE_TOTALS],
    /// Tasks.
    pub pids_current: u64,
    /// Limit of tasks.
    pub pids_limit: u64,
}

/// Number of counters taken of `mem_cgroup.memory_events`.
pub const MEMORY_EVENTS: usize = 5;
/// Number of pressure totals.
pub const PRESSURE_TOTALS: usize = 6;

/// How a pass went, written by its last call.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassEnd {
    /// Cgroups that the kernel walked.
    pub cgroups: u64,
    /// Of these, the ones that found no place in the map.
    pub lost: u64,
    /// Cgroups whose records could not be read (a structure was not readable).
    pub unreadable: u64,
    /// Nanoseconds from the first cgroup to the end, all under `cgroup_mutex`.
    pub held_ns: u64,
    /// `bpf_ktime_get_ns` at the first cgroup.
    pub started_ns: u64,
}
