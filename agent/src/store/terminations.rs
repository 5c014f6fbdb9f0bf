//! Terminations of containers: the init process and the OOM kills of each living container, and the records of the last
//! terminated ones.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::{
    Exit, ExitStatus, Identity, Init, Level, OomKill, TerminatedContainer, Termination, TerminationReason,
};

/// The maximum number of terminated containers that are kept.
pub const MAX_TERMINATED: usize = 256;
/// The maximum number of names of removed containers that are kept to recognise restarts.
const MAX_RESTART_NAMES: usize = 4096;
/// An exit by SIGKILL this close to an OOM kill in the cgroup, in seconds, counts as OOM-killed. With `memory.oom.group`
/// the kernel kills the init process although another process is the victim.
const MAX_OOM_KILL_DISTANCE: f64 = 2.0;
const SIGKILL: u8 = 9;
/// How long a runtime may take from the exit of its own last process in a new cgroup to the start of the container's program.
const PROGRAM_START_TIMEOUT: Duration = Duration::from_secs(5);

/// The init process and the OOM kills of a container.
#[derive(Clone, Debug, Default)]
pub(super) struct InitLifecycle {
    pub(super) init: Option<Init>,
    pub(super) termination: Option<Termination>,
    /// The exit of a process in a cgroup of unknown kind, which may be a container's, and when it was reported. The process may
    /// be the runtime's.
    unconfirmed: Option<(Exit, Instant)>,
    pub(super) last_oom_kill: Option<OomKill>,
    pub(super) oom_kills: u64,
}

impl InitLifecycle {
    /// An init process starts; `false` if it is ignored. A container has one init process, because its cgroup is not reused:
    /// a later process of the runtime was meant for the exited one. The cgroup of a systemd unit may be reused by its next run.
    pub(super) fn start(&mut self, init: Init, level: Level) -> bool {
        let ended = self.termination.is_some() || (self.unconfirmed.is_some() && !init.contained);
        if ended && level != Level::Unit {
            return false;
        }
        self.init = Some(init);
        self.termination = None;
        self.unconfirmed = None;
        true
    }

    /// The init process has exited. Returns the reason and the exit code; `None` if a termination is known already or this one
    /// is not confirmed. The exit of a container's own runtime is none: where the program cannot be started, only the runtime
    /// knows the reason, and a pod status reports it.
    pub(super) fn exit(&mut self, exit: Exit, level: Level, now: Instant) -> Option<(TerminationReason, u8)> {
        if self.termination.is_some() || self.unconfirmed.is_some() {
            return None;
        }
        if exit.init.contained || level == Level::Unit {
            return Some(self.record(exit));
        }
        if matches!(level, Level::Container | Level::Sandbox) {
            return None;
        }
        self.unconfirmed = Some((exit, now));
        None
    }

    /// No other program can start: an unconfirmed exit was the termination.
    pub(super) fn confirm_exit(&mut self) -> Option<(TerminationReason, u8)> {
        let (exit, _) = self.unconfirmed.take()?;
        Some(self.record(exit))
    }

    /// Like [`Self::confirm_exit`], if another program would have started by now.
    pub(super) fn confirm_exit_if_due(&mut self, now: Instant) -> Option<(TerminationReason, u8)> {
        let (_, since) = self.unconfirmed.as_ref()?;
        (now.saturating_duration_since(*since) >= PROGRAM_START_TIMEOUT).then(|| self.confirm_exit())?
    }

    fn record(&mut self, exit: Exit) -> (TerminationReason, u8) {
        let by_oom = self.last_oom_kill.as_ref().is_some_and(|kill| {
            kill.pid == exit.init.pid || (exit.ended_unix - kill.at_unix).abs() <= MAX_OOM_KILL_DISTANCE
        });
        let reason = match exit.status {
            ExitStatus::Signal(SIGKILL) if by_oom => TerminationReason::OomKilled,
            ExitStatus::Code(0) => TerminationReason::Completed,
            _ => TerminationReason::Error,
        };
        let code = exit.status.code();
        self.init = Some(exit.init.clone());
        self.termination = Some(Termination::from_exit(exit, reason));
        (reason, code)
    }

    pub(super) fn add_oom_kill(&mut self, kill: OomKill) {
        self.oom_kills += 1;
        self.last_oom_kill = Some(kill);
    }
}

/// The last terminated containers, newest last, and the names of more.
#[derive(Debug, Default)]
pub(super) struct RecentTerminations {
    recent: VecDeque<Arc<TerminatedContainer>>,
    remembered: HashSet<Box<str>>,
    order: VecDeque<Box<str>>,
}

impl RecentTerminations {
    pub(super) fn push(&mut self, row: TerminatedContainer) {
        if self.recent.len() == MAX_TERMINATED {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::new(row));
    }

    pub(super) fn rows(&self) -> Arc<[Arc<TerminatedContainer>]> {
        self.recent.iter().cloned().collect()
    }

    /// Keeps the names of a removed container.
    pub(super) fn remember(&mut self, identity: &Identity) {
        for name in names_across_restarts(identity) {
            if self.remembered.insert(name.clone()) {
                self.order.push_back(name);
            }
            if self.order.len() > MAX_RESTART_NAMES
                && let Some(oldest) = self.order.pop_front()
            {
                self.remembered.remove(&oldest);
            }
        }
    }

    /// Whether the container is a restart of a removed one.
    pub(super) fn is_restart(&self, identity: &Identity) -> bool {
        names_across_restarts(identity).any(|name| self.remembered.contains(&name))
    }
}

/// Names that a container shares with its restarts: its path (Docker, podman, units), or its pod and its name in the pod.
fn names_across_restarts(identity: &Identity) -> impl Iterator<Item = Box<str>> {
    let of_path = &identity.of_path;
    let restartable = matches!(of_path.level, Level::Container | Level::Sandbox | Level::Unit);
    let in_pod = match (&of_path.pod_uid, &identity.names) {
        (Some(uid), Some(names)) if !names.container.is_empty() => {
            Some(format!("{uid} {}", names.container).into_boxed_str())
        }
        _ => None,
    };
    let path: Option<Box<str>> = restartable.then(|| (*identity.path).into());
    path.into_iter().chain(in_pod)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::OomScope;

    fn exit(pid: u32, at: f64, status: u32) -> Exit {
        let init = Init { pid, comm: "app".to_owned(), started_unix: 0.0, contained: true };
        Exit { init, ended_unix: at, status: ExitStatus::from_wait(status) }
    }

    fn kill(pid: u32, at: f64) -> OomKill {
        let comm = "app".to_owned();
        OomKill { at_unix: at, scope: OomScope::Node, usage_bytes: 1, limit_bytes: None, pid, comm }
    }

    #[test]
    fn exit_status_and_oom_kills_give_the_reason() {
        let reason = |status, kill: Option<OomKill>| {
            let mut lifecycle = InitLifecycle::default();
            kill.into_iter().for_each(|kill| lifecycle.add_oom_kill(kill));
            lifecycle.exit(exit(5, 100.0, status), Level::Container, Instant::now()).unwrap().0
        };
        assert_eq!(reason(0, None), TerminationReason::Completed);
        assert_eq!(reason(3 << 8, None), TerminationReason::Error);
        assert_eq!(reason(9, None), TerminationReason::Error);
        assert_eq!(reason(9, Some(kill(5, 10.0))), TerminationReason::OomKilled, "the victim itself");
        assert_eq!(reason(9, Some(kill(6, 99.5))), TerminationReason::OomKilled, "with its whole group");
        assert_eq!(reason(9, Some(kill(6, 10.0))), TerminationReason::Error, "a child, long ago");
        assert_eq!(
            reason(1 << 8, Some(kill(6, 99.9))),
            TerminationReason::Error,
            "it ended by itself after its child"
        );
    }

    #[test]
    fn a_container_terminates_once_and_a_unit_can_run_again() {
        let mut lifecycle = InitLifecycle::default();
        let now = Instant::now();
        assert!(lifecycle.start(exit(5, 0.0, 0).init, Level::Container));
        assert!(lifecycle.exit(exit(5, 1.0, 0), Level::Container, now).is_some());
        assert!(lifecycle.exit(exit(5, 1.0, 0), Level::Container, now).is_none());
        assert!(!lifecycle.start(exit(6, 0.0, 0).init, Level::Container));
        assert!(lifecycle.start(exit(6, 0.0, 0).init, Level::Unit));
        assert!(lifecycle.exit(exit(6, 2.0, 0), Level::Unit, now).is_some());
    }

    #[test]
    fn a_process_of_the_runtime_is_replaced_by_the_program() {
        let outside = |pid, status| {
            let exit = exit(pid, 1.0, status);
            Exit { init: Init { contained: false, ..exit.init }, ..exit }
        };
        let now = Instant::now();
        let before_program = || {
            let mut lifecycle = InitLifecycle::default();
            assert!(lifecycle.start(outside(5, 0).init, Level::Cgroup));
            assert_eq!(lifecycle.exit(outside(5, 0), Level::Cgroup, now), None);
            assert!(!lifecycle.start(outside(6, 0).init, Level::Cgroup), "another process of the runtime");
            assert_eq!(lifecycle.exit(outside(6, 1), Level::Cgroup, now), None);
            lifecycle
        };
        let mut lifecycle = before_program();
        assert!(lifecycle.start(exit(7, 1.0, 0).init, Level::Cgroup));
        assert_eq!(lifecycle.confirm_exit(), None);
        assert_eq!(
            lifecycle.exit(exit(7, 2.0, 3 << 8), Level::Cgroup, now),
            Some((TerminationReason::Error, 3))
        );

        let mut lifecycle = before_program();
        assert_eq!(lifecycle.confirm_exit_if_due(now + PROGRAM_START_TIMEOUT / 2), None);
        assert_eq!(
            lifecycle.confirm_exit_if_due(now + PROGRAM_START_TIMEOUT),
            Some((TerminationReason::Completed, 0))
        );
        assert!(!lifecycle.start(exit(7, 1.0, 0).init, Level::Cgroup), "too late");
        assert_eq!(before_program().confirm_exit(), Some((TerminationReason::Completed, 0)));
        let mut unit = InitLifecycle::default();
        assert_eq!(
            unit.exit(outside(5, 0), Level::Unit, now),
            Some((TerminationReason::Completed, 0)),
            "no container"
        );
    }
    /// Processes in the cgroup of a container, as pid, whether it exits, and its code: those of the runtime start and exit before
    /// the program and after it, and the program may never start, or not exit.
    fn processes() -> impl Strategy<Value = Vec<(u32, bool, u8)>> {
        let of_runtime = || prop::collection::vec((10..14_u32, any::<bool>(), any::<u8>()), 0..6);
        let program = prop::option::of((any::<bool>(), any::<u8>()));
        (of_runtime(), program, of_runtime()).prop_map(|(before, program, after)| {
            let starts = program.map(|(_, code)| (PROGRAM, false, code));
            let exits = program.filter(|(exits, _)| *exits).map(|(_, code)| (PROGRAM, true, code));
            // The eBPF program reports no other process while the container's program runs.
            let after = after.into_iter().filter(|_| exits.is_some() || starts.is_none());
            before.into_iter().chain(starts).chain(exits).chain(after).collect()
        })
    }

    const PROGRAM: u32 = 5;

    proptest! {
        #[test]
        fn only_the_exit_of_its_program_is_the_termination_of_a_container(processes in processes()) {
            let (mut lifecycle, now) = (InitLifecycle::default(), Instant::now());
            let mut counted = Vec::new();
            for (pid, exits, code) in &processes {
                let ended = exit(*pid, 1.0, u32::from(*code) << 8);
                let ended = Exit { init: Init { contained: *pid == PROGRAM, ..ended.init }, ..ended };
                if *exits {
                    counted.extend(lifecycle.exit(ended, Level::Container, now));
                } else {
                    lifecycle.start(ended.init, Level::Container);
                }
            }
            counted.extend(lifecycle.confirm_exit_if_due(now + PROGRAM_START_TIMEOUT));
            counted.extend(lifecycle.confirm_exit());
            let ends = |(pid, exits, code): &(u32, bool, u8)| (*pid == PROGRAM && *exits).then_some(*code);
            let expected: Vec<u8> = processes.iter().filter_map(ends).collect();
            prop_assert_eq!(counted.iter().map(|(_, code)| *code).collect::<Vec<_>>(), expected);
        }
    }
}
