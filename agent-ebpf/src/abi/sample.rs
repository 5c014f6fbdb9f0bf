//! Cgroups cached by a walk of the `snapshot` iterator, and the programs `sample_active` and `resample`, which sample the
//! cached cgroups without another walk.

/// The agent samples at most this many cgroup hierarchies.
pub const MAX_HIERARCHIES: usize = 4;

/// Cached cgroups that one run of `sample_active` checks. Few, because the verifier follows every iteration.
pub const SAMPLE_ACTIVE_CHUNK: u32 = 128;

/// Cached cgroups that one run of `resample` reads. Small, because the verifier explores the branches of every iteration.
pub const RESAMPLE_CHUNK: u32 = 32;

/// Return value of both programs: a cgroup was created or removed since the last walk, so the cached addresses are invalid
/// and nothing was sampled.
pub const STALE: u32 = 1;

/// [`WalkRequest::hierarchy`] of a walk whose cgroups are not cached.
pub const NOT_CACHED: u32 = u32::MAX;

/// Parameters of the next walk, set by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkRequest {
    /// Groups of fields to read (`HAS_*`).
    pub groups: u32,
    /// Index of the sampled hierarchy whose cgroups are to be cached; else [`NOT_CACHED`].
    pub hierarchy: u32,
}

/// A cgroup of the last walk, cached for sampling.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupRef {
    /// Address of its `struct cgroup`.
    pub cgroup: u64,
    /// kernfs id: the inode number of its directory.
    pub id: u64,
    /// `cgroup.self.serial_nr`; 0: not known.
    pub serial: u64,
    /// CPU time when last sampled, nanoseconds.
    pub cpu_usage_ns: u64,
    /// `cgroup.level`: depth below the root, which has 0.
    pub level: u32,
    /// Padding; 0.
    pub reserved: u32,
}

/// State of the cached cgroups of one hierarchy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheState {
    /// 1 from the start of a walk until a cgroup of the hierarchy is created or removed; else 0.
    pub valid: u32,
    /// Cgroups that the last walk cached.
    pub cgroups: u32,
    /// While `sample_active` runs: level of the last cgroup that used no CPU time, if it is above the next one.
    pub idle_level: u32,
    /// Padding; 0.
    pub reserved: u32,
}
