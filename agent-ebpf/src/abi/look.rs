//! The programs `look` and `revisit`: cgroups that a walk has met, seen once more without another walk.

/// Hierarchies that are followed at most.
pub const MOST_HIERARCHIES: usize = 4;

/// Places that one run of `look` sees.
pub const LOOK_CHUNK: u32 = 512;

/// Places that one run of `revisit` sees: the verifier follows all their branches.
pub const REVISIT_CHUNK: u32 = 32;

/// What the programs return when cgroups were made or removed since the last walk: they have seen none.
pub const STALE: u32 = 1;

/// In place of a hierarchy: nobody will look at what the walk meets.
pub const NOT_FOLLOWED: u32 = u32::MAX;

/// What the agent wants of the next walk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Groups of fields: `HAS_*`.
    pub groups: u32,
    /// Which of the followed hierarchies is walked, so that looks can follow; else [`NOT_FOLLOWED`].
    pub hierarchy: u32,
}

/// A cgroup that the last walk met.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The address of its `struct cgroup`.
    pub cgroup: u64,
    /// kernfs id.
    pub id: u64,
    /// The kernel's serial number of it; 0 = not known.
    pub serial: u64,
    /// CPU time when last seen, nanoseconds.
    pub cpu_usage_ns: u64,
    /// Depth below the root, which has 0.
    pub level: u32,
    /// 0.
    pub reserved: u32,
}

/// What walks over a hierarchy and looks at it tell each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookState {
    /// 1 from the beginning of a walk until a cgroup is made or removed; else 0.
    pub fresh: u32,
    /// Places that the last walk left.
    pub places: u32,
}
