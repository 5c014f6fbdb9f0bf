//! Cgroups whose descendants a walk leaves out, so that what a container makes below itself takes no room from others.

/// The key of the map `SUBTREES`. Its value is the number of descendants that get a record: none below a container, some below a
/// unit, which may contain containers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubtreeKey {
    /// kernfs id of the cgroup.
    pub id: u64,
    /// Index of its hierarchy among the sampled ones.
    pub hierarchy: u32,
    /// Padding; 0.
    pub reserved: u32,
}
