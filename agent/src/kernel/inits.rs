//! Registers init processes that started before the eBPF programs were attached.

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use snug_ebpf::abi::process::{Init, InitTask};

/// [`Init`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct InitValue(Init);
// SAFETY: integers without padding.
unsafe impl Pod for InitValue {}

/// [`InitTask`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct TaskValue(InitTask);
// SAFETY: integers without padding.
unsafe impl Pod for TaskValue {}

/// Insert only new keys: entries of the programs themselves are more exact.
const BPF_NOEXIST: u64 = 1;

/// The init processes whose exit the programs report.
pub struct Inits {
    by_cgroup: HashMap<MapData, u64, InitValue>,
    by_pid: HashMap<MapData, u32, TaskValue>,
}

impl Inits {
    pub(super) fn new(by_cgroup: Map, by_pid: Map) -> Result<Self, MapError> {
        Ok(Self { by_cgroup: HashMap::try_from(by_cgroup)?, by_pid: HashMap::try_from(by_pid)? })
    }

    /// Whether the map has an init process of the cgroup with this kernfs id.
    pub fn knows(&self, cgroup: u64) -> bool {
        self.by_cgroup.get(&cgroup, 0).is_ok()
    }

    /// Registers an init process that started before the programs were attached.
    ///
    /// # Errors
    /// When the maps are full, or the programs have an entry already.
    pub fn follow(&mut self, pid: u32, task: InitTask) -> Result<(), MapError> {
        // The process has run for a while, so it is not the container runtime's own.
        let init = Init { pid, ended: 0, contained: 1 };
        self.by_cgroup.insert(task.cgroup, InitValue(init), BPF_NOEXIST)?;
        self.by_pid.insert(pid, TaskValue(task), BPF_NOEXIST)
    }
}
