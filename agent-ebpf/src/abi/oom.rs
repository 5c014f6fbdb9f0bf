//! Events of the `oom` program: the OOM killer has chosen a victim.

use super::{events::Header, process::COMM_BYTES};

/// The OOM killer has chosen a victim. The header's cgroup is the victim's, in the hierarchy that limits memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomEvent {
    /// What, to whom, when.
    pub header: Header,
    /// kernfs id of the cgroup whose limit was hit; 0 = none: the node is out of memory.
    pub limit_id: u64,
    /// Memory charged to the cgroup whose limit was hit, else to the victim's, pages.
    pub usage_pages: u64,
    /// The limit of that cgroup, pages.
    pub limit_pages: u64,
    /// The victim's process id in the kernel's own namespace.
    pub pid: u32,
    /// Keeps the following fields aligned; 0.
    pub reserved: u32,
    /// The victim's name.
    pub comm: [u8; COMM_BYTES],
}
