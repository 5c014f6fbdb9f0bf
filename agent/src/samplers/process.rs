//! Init processes of containers: the kernel half tells when they start and end; those that were there before it are
//! looked up once and made known to it.

use std::{collections::HashMap, path::Path, time::Instant};

use procfs::process::Process;
use snug_ebpf::abi::process::{InitTask, TICK_NS};

use super::{Sampler, hierarchy::Known, lifecycle::unix_of};
use crate::{
    clock::unix_now,
    kernel::{Event, InitProcess},
    model::{Exit, ExitStatus, Init},
    store::Key,
};

impl Sampler {
    pub(super) fn init_started(&mut self, index: usize, event: &Event, init: &InitProcess) {
        if let Some(key) = self.container_of(index, event.id) {
            self.store.started(key, known_init(init));
        }
    }

    pub(super) fn init_exited(
        &mut self,
        index: usize,
        event: &Event,
        init: &InitProcess,
        status: u32,
        now: Instant,
    ) {
        if let Some(key) = self.container_of(index, event.id) {
            let status = ExitStatus::from_wait(status);
            let exit = Exit { init: known_init(init), ended_unix: unix_of(event.at_ns), status };
            self.store.exited(key, exit, now);
        }
    }

    /// The cgroup in the store with this very id; what starts inside of a container is not its init process.
    fn container_of(&self, index: usize, id: u64) -> Option<Key> {
        match self.followed.get(index)?.known(id)? {
            Known::Cgroup(key) => Some(key),
            Known::Inner(_) => None,
        }
    }

    /// Has the kernel half follow the init processes of the containers that are there already.
    pub(super) fn follow_living(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        self.store.tell_oom_kills(kernel.runs("oom_kill"));
        if !kernel.runs("process_exited") {
            return;
        }
        let Some(unified) = self.followed.iter().find(|one| one.id == 0) else { return };
        let living: Vec<(Key, u64, std::sync::Arc<str>)> = self
            .store
            .living()
            .filter(|(_, identity)| identity.of_path.level.is_container())
            .filter_map(|(key, identity)| Some((key, unified.id_of(key)?, identity.path.clone())))
            .collect();
        for (key, cgroup, path) in living {
            if kernel.inits.knows(cgroup) {
                continue;
            }
            let procs = unified.hierarchy.mount.join(path.trim_start_matches('/')).join("cgroup.procs");
            let Some(found) = oldest_from_outside(&procs, &self.config.proc_root) else { continue };
            let started_ns = (found.start_ticks * TICK_NS).saturating_sub(suspended_ns());
            let task = InitTask { cgroup, start_ticks: found.start_ticks, started_ns };
            if let Err(error) = kernel.inits.follow(found.pid, task) {
                tracing::debug!(%error, path = &*path, "the end of an init process will not be seen");
                continue;
            }
            let started_unix = unix_of(started_ns);
            let init = Init { pid: found.pid, comm: found.comm, started_unix, contained: true };
            self.store.started(key, init);
        }
    }
}

fn known_init(init: &InitProcess) -> Init {
    Init {
        pid: init.pid,
        comm: init.comm.clone(),
        started_unix: unix_of(init.started_ns).min(unix_now()),
        contained: init.contained,
    }
}

struct Found {
    pid: u32,
    comm: String,
    start_ticks: u64,
}

/// The oldest process of a cgroup whose parent is not in it.
fn oldest_from_outside(procs: &Path, proc_root: &Path) -> Option<Found> {
    let text = std::fs::read_to_string(procs).ok()?;
    let inside: HashMap<i32, procfs::process::Stat> = text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter_map(|pid: i32| {
            let process = Process::new_with_root(proc_root.join(pid.to_string())).ok()?;
            Some((pid, process.stat().ok()?))
        })
        .collect();
    let oldest = inside
        .values()
        .filter(|stat| !inside.contains_key(&stat.ppid))
        .min_by_key(|stat| (stat.starttime, stat.pid))?;
    let pid = u32::try_from(oldest.pid).ok()?;
    Some(Found { pid, comm: oldest.comm.clone(), start_ticks: oldest.starttime })
}

/// Time that the machine was suspended since boot: what the two clocks of the kernel differ by, nanoseconds.
fn suspended_ns() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let ns = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
    };
    ns(ClockId::Boottime).saturating_sub(ns(ClockId::Monotonic))
}
