//! Records of the `look` program: CPU time between two walks.

/// Cgroups that one run of the program looks at.
pub const CHUNK: u32 = 512;

/// What the program returns when cgroups were made or removed since the last walk: it has looked at none.
pub const STALE: u32 = 1;

/// Beside the groups of fields (`HAS_*`) that are wanted of a walk: looks will follow it.
pub const LOOKS_FOLLOW: u32 = 1 << 31;

/// A cgroup that the last walk met.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The address of its `struct cgroup`.
    pub cgroup: u64,
    /// kernfs id.
    pub id: u64,
    /// CPU time when last seen, nanoseconds.
    pub cpu_usage_ns: u64,
    /// Depth below the root, which has 0.
    pub level: u32,
    /// 0.
    pub reserved: u32,
}

/// A cgroup that has used CPU time since it was last seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookRecord {
    /// kernfs id.
    pub id: u64,
    /// CPU time, nanoseconds.
    pub cpu_usage_ns: u64,
    /// Memory charged, pages; 0 where cgroup v2 does not keep it.
    pub memory_usage_pages: u64,
}

/// What walks and looks tell each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookState {
    /// 1 from the beginning of a walk until a cgroup is made or removed; else 0.
    pub fresh: u64,
    /// Places that the last walk left.
    pub places: u64,
    /// Records of the last look.
    pub records: u64,
}
