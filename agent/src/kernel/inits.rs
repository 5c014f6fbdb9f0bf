//! Init processes that ran before the programs did, made known to them.

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

/// `BPF_NOEXIST`: what the programs have found themselves is better.
const IF_NEW: u64 = 1;

/// The init processes that the kernel half follows.
pub struct Inits {
    by_cgroup: HashMap<MapData, u64, InitValue>,
    by_pid: HashMap<MapData, u32, TaskValue>,
}

impl Inits {
    pub(super) fn new(by_cgroup: Map, by_pid: Map) -> Result<Self, MapError> {
        Ok(Self { by_cgroup: HashMap::try_from(by_cgroup)?, by_pid: HashMap::try_from(by_pid)? })
    }

    /// Whether the programs know the init process of a cgroup.
    pub fn knows(&self, cgroup: u64) -> bool {
        self.by_cgroup.get(&cgroup, 0).is_ok()
    }

    /// Has the programs follow an init process that started before they did.
    ///
    /// # Errors
    /// When the maps are full, or the programs came first.
    pub fn follow(&mut self, pid: u32, task: InitTask) -> Result<(), MapError> {
        // It has run for a while: nothing that a runtime does before a program.
        let init = Init { pid, ended: 0, contained: 1 };
        self.by_cgroup.insert(task.cgroup, InitValue(init), IF_NEW)?;
        self.by_pid.insert(pid, TaskValue(task), IF_NEW)
    }
}
