//! Init processes of containers: start, exit code, and those that were running before the agent.
//!
//! Programs: `process_started` (tracepoint `sched_process_exec`), `process_exited` (`sched_process_exit`). Files, at start:
//! `cgroup.procs` and `/proc/PID/stat`. Metrics: `snug_workload_terminations_total`, `snug_workload_restarts_total`.

use std::{collections::HashMap, path::Path};

use procfs::process::Process;
use snug_ebpf::abi::process::{InitTask, TICK_NS};

use super::{Component, Round, cgroups::unix_of, hierarchy::ResolvedCgroup};
use crate::{
    clock::unix_now,
    kernel::{InitProcess, KernelEvent, KernelEventKind},
    model::{Exit, ExitStatus, Init},
};

pub(super) struct InitProcesses;

impl Component for InitProcesses {
    fn event(&mut self, round: &mut Round, index: usize, event: &KernelEvent) {
        // A process of a cgroup inside a container is not the container's init.
        let Some(ResolvedCgroup::Cgroup(key)) = round.resolve(index, event.id) else { return };
        match &event.kind {
            KernelEventKind::Started(init) => round.store.record_start(key, known_init(init)),
            KernelEventKind::Exited { init, status } => {
                let status = ExitStatus::from_wait(*status);
                let exit = Exit { init: known_init(init), ended_unix: unix_of(event.at_ns), status };
                round.store.record_exit(key, exit, round.now);
            }
            _ => {}
        }
    }
}

impl InitProcesses {
    /// Registers the init processes of the containers that were running before the agent.
    pub(super) fn start(round: &mut Round) -> Self {
        let Round { kernel: Some(kernel), store, hierarchies, config, .. } = round else { return Self };
        store.set_oom_kills_reported(kernel.is_running("oom_kill"));
        let unified = hierarchies.iter().find(|tracked| tracked.id == 0);
        let Some(unified) = unified.filter(|_| kernel.is_running("process_exited")) else { return Self };
        let containers = store.living().filter(|(_, identity)| identity.of_path.level.is_container());
        let containers: Vec<_> = containers
            .filter_map(|(key, identity)| Some((key, unified.id_of(key)?, identity.path.clone())))
            .collect();
        for (key, cgroup, path) in containers {
            if kernel.inits.knows(cgroup) {
                continue;
            }
            let procs = unified.hierarchy.mount.join(path.trim_start_matches('/')).join("cgroup.procs");
            let Some(found) = oldest_init(&procs, &config.proc_root) else { continue };
            let started_ns = (found.start_ticks * TICK_NS).saturating_sub(suspended_ns());
            let task = InitTask { cgroup, start_ticks: found.start_ticks, started_ns };
            if let Err(error) = kernel.inits.follow(found.pid, task) {
                tracing::debug!(%error, path = &*path, "cannot track an init process; its exit will not be seen");
                continue;
            }
            let started_unix = unix_of(started_ns);
            let init = Init { pid: found.pid, comm: found.comm, started_unix, contained: true };
            store.record_start(key, init);
        }
        Self
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

struct InitCandidate {
    pid: u32,
    comm: String,
    start_ticks: u64,
}

/// The oldest process of a cgroup whose parent is not in the cgroup.
fn oldest_init(procs: &Path, proc_root: &Path) -> Option<InitCandidate> {
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
    Some(InitCandidate { pid, comm: oldest.comm.clone(), start_ticks: oldest.starttime })
}

/// Time that the machine was suspended since boot: `CLOCK_BOOTTIME` minus `CLOCK_MONOTONIC`, nanoseconds.
fn suspended_ns() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let ns = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
    };
    ns(ClockId::Boottime).saturating_sub(ns(ClockId::Monotonic))
}
