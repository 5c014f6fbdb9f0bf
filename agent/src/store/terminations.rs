//! How containers end: what is known of their init processes and OOM kills while they live, and a record of each when
//! they are gone.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::{
    Exit, ExitStatus, Identity, Init, Level, OomKill, TerminatedContainer, Termination, TerminationReason,
};

/// Ends that are remembered.
pub const MAX_TERMINATED: usize = 256;
/// Containers that are remembered for seeing that another is their restart.
const MAX_REMEMBERED: usize = 4096;
/// A kill by signal 9 so soon after an OOM kill in the cgroup is one: with `memory.oom.group` the init process need not
/// be the victim that was chosen. Seconds.
const OOM_WITHIN: f64 = 2.0;
const SIGKILL: u8 = 9;
/// How long a runtime may take from its own last process in a new cgroup to the container's program.
const BEFORE_PROGRAM: Duration = Duration::from_secs(5);

/// What is known of a container's processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) init: Option<Init>,
    pub(super) termination: Option<Termination>,
    /// An end that may yet prove to be one of the runtime's own processes, and when it was told.
    doubtful: Option<(Exit, Instant)>,
    pub(super) last_oom_kill: Option<OomKill>,
    pub(super) oom_kills: u64,
}

impl Life {
    /// An init process starts. In a container only the first is one: its cgroup is not used again, and what a runtime
    /// still puts there was meant for the one that has ended. A unit's cgroup may stay from one run to the next.
    pub(super) fn start(&mut self, init: Init, level: Level) -> bool {
        let ended = self.termination.is_some() || (self.doubtful.is_some() && !init.contained);
        if ended && level != Level::Unit {
            return false;
        }
        self.init = Some(init);
        self.termination = None;
        self.doubtful = None;
        true
    }

    /// The init process has ended; returns why, and its exit code. `None` if that is known already, or is in doubt.
    pub(super) fn end(&mut self, exit: Exit, level: Level, now: Instant) -> Option<(TerminationReason, u8)> {
        if self.termination.is_some() || self.doubtful.is_some() {
            return None;
        }
        if exit.init.contained || level == Level::Unit {
            return Some(self.record(exit));
        }
        self.doubtful = Some((exit, now));
        None
    }

    /// No program will come any more: what was in doubt was the end.
    pub(super) fn nothing_follows(&mut self) -> Option<(TerminationReason, u8)> {
        let (exit, _) = self.doubtful.take()?;
        Some(self.record(exit))
    }

    /// As [`Self::nothing_follows`], if it would have come by now.
    pub(super) fn nothing_followed(&mut self, now: Instant) -> Option<(TerminationReason, u8)> {
        let (_, since) = self.doubtful.as_ref()?;
        (now.saturating_duration_since(*since) >= BEFORE_PROGRAM).then(|| self.nothing_follows())?
    }

    fn record(&mut self, exit: Exit) -> (TerminationReason, u8) {
        let by_oom = self.last_oom_kill.as_ref().is_some_and(|kill| {
            kill.pid == exit.init.pid || (exit.ended_unix - kill.at_unix).abs() <= OOM_WITHIN
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

    pub(super) fn kill(&mut self, kill: OomKill) {
        self.oom_kills += 1;
        self.last_oom_kill = Some(kill);
    }
}

/// The last ends, newest last, and who else has ended.
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

    /// Remembers who ended.
    pub(super) fn remember(&mut self, identity: &Identity) {
        for name in names_across_restarts(identity) {
            if self.remembered.insert(name.clone()) {
                self.order.push_back(name);
            }
            if self.order.len() > MAX_REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.remembered.remove(&oldest);
            }
        }
    }

    /// Whether the container is another run of one that ended.
    pub(super) fn is_restart(&self, identity: &Identity) -> bool {
        names_across_restarts(identity).any(|name| self.remembered.contains(&name))
    }
}

/// What a container and its restarts have in common: the path (Docker, podman, units), or the pod and the name in it.
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
    fn reasons_are_told_apart() {
        let reason = |status, kill: Option<OomKill>| {
            let mut life = Life::default();
            kill.into_iter().for_each(|kill| life.kill(kill));
            life.end(exit(5, 100.0, status), Level::Container, Instant::now()).unwrap().0
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
    fn a_container_ends_once_and_a_unit_runs_again() {
        let mut life = Life::default();
        let now = Instant::now();
        assert!(life.start(exit(5, 0.0, 0).init, Level::Container));
        assert!(life.end(exit(5, 1.0, 0), Level::Container, now).is_some());
        assert!(life.end(exit(5, 1.0, 0), Level::Container, now).is_none());
        assert!(!life.start(exit(6, 0.0, 0).init, Level::Container));
        assert!(life.start(exit(6, 0.0, 0).init, Level::Unit));
        assert!(life.end(exit(6, 2.0, 0), Level::Unit, now).is_some());
    }

    #[test]
    fn what_the_runtime_runs_of_itself_gives_way_to_the_program() {
        let outside = |pid, status| {
            let exit = exit(pid, 1.0, status);
            Exit { init: Init { contained: false, ..exit.init }, ..exit }
        };
        let now = Instant::now();
        let before_program = || {
            let mut life = Life::default();
            assert!(life.start(outside(5, 0).init, Level::Container));
            assert_eq!(life.end(outside(5, 0), Level::Container, now), None);
            assert!(!life.start(outside(6, 0).init, Level::Container), "another process of the runtime");
            assert_eq!(life.end(outside(6, 1), Level::Container, now), None);
            life
        };
        let mut life = before_program();
        assert!(life.start(exit(7, 1.0, 0).init, Level::Container));
        assert_eq!(life.nothing_follows(), None);
        assert_eq!(
            life.end(exit(7, 2.0, 3 << 8), Level::Container, now),
            Some((TerminationReason::Error, 3))
        );

        let mut life = before_program();
        assert_eq!(life.nothing_followed(now + BEFORE_PROGRAM / 2), None);
        assert_eq!(life.nothing_followed(now + BEFORE_PROGRAM), Some((TerminationReason::Completed, 0)));
        assert!(!life.start(exit(7, 1.0, 0).init, Level::Container), "too late");
        assert_eq!(before_program().nothing_follows(), Some((TerminationReason::Completed, 0)));
        let mut unit = Life::default();
        assert_eq!(
            unit.end(outside(5, 0), Level::Unit, now),
            Some((TerminationReason::Completed, 0)),
            "no container"
        );
    }
}
