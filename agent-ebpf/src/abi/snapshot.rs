//! Records of the `snapshot` program: one per cgroup and pass.

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
    /// The kernel's serial number of the cgroup, never used twice; 0 = not known.
    pub serial: u64,
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
