//! Events of the `oom` program: the OOM killer has chosen a victim. One that takes all processes of a cgroup with it
//! (`memory.oom.group`) is one event.

use super::{events::Header, process::COMM_BYTES};

/// The OOM killer has chosen a victim. The header's cgroup is the victim's, in the hierarchy of the memory controller; its id is
/// 0 if the cgroup is not known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomEvent {
    /// Kind of the event, the victim's cgroup and time.
    pub header: Header,
    /// kernfs id of the cgroup whose memory limit caused the OOM kill; 0: none, the node ran out of memory.
    pub limit_id: u64,
    /// Memory charged to the cgroup of `limit_id`, or to the victim's cgroup if there is none; pages.
    pub usage_pages: u64,
    /// Memory limit of the same cgroup, pages.
    pub limit_pages: u64,
    /// Process id of the victim in the initial PID namespace.
    pub pid: u32,
    /// Padding; 0.
    pub reserved: u32,
    /// `task_struct.comm` of the victim; before Linux 6.9 of the task that triggered the OOM kill.
    pub comm: [u8; COMM_BYTES],
}
