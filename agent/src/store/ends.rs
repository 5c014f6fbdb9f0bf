//! How containers end: what is known of their init processes and OOM kills while they live, and a record of each when
//! they are gone.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    identity::{Identity, Level},
    values::Values,
};

/// Ends that are remembered.
pub const MOST_ENDS: usize = 256;
/// Containers that are remembered for seeing that another is their restart.
const MOST_REMEMBERED: usize = 4096;
/// Different reasons and exit codes of one workload; more are counted together.
const MOST_TERMINATIONS: usize = 16;
/// A kill by signal 9 so soon after an OOM kill in the cgroup is one: with `memory.oom.group` the init process need not
/// be the victim that was chosen. Seconds.
const OOM_WITHIN: f64 = 2.0;
const SIGKILL: u8 = 9;
/// How long a runtime may take from its own last process in a new cgroup to the container's program.
const BEFORE_PROGRAM: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

impl ExitStatus {
    /// From what `wait(2)` reports.
    pub const fn from_wait(status: u32) -> Self {
        let signal = (status & 0x7f) as u8;
        if signal == 0 { Self::Code((status >> 8) as u8) } else { Self::Signal(signal) }
    }

    /// The exit code as container runtimes and Kubernetes report it: 128 and the signal's number for a signal.
    pub const fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// The signal, if there was one.
    pub const fn signal(self) -> Option<u8> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => Some(signal),
        }
    }
}

/// Why a container's init process ended, in the words of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// With exit code 0.
    Completed,
    /// With another code, or by a signal.
    Error,
    /// By the OOM killer.
    OomKilled,
    /// Its program could not be started. Only a pod's status tells.
    StartError,
    /// Something else that a pod's status gives for a reason.
    Other,
}

impl Reason {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::Other => "Other",
        }
    }

    /// From a status. Runtimes other than containerd and CRI-O say `ContainerCannotRun` for `StartError`.
    pub(crate) fn of_status(reason: &str) -> Self {
        match reason {
            "Completed" => Self::Completed,
            "Error" => Self::Error,
            "OOMKilled" => Self::OomKilled,
            "StartError" | "ContainerCannotRun" => Self::StartError,
            _ => Self::Other,
        }
    }
}

/// Whose limit an OOM kill was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OomScope {
    /// The container's own.
    Container,
    /// Its pod's.
    Pod,
    /// Of another cgroup above it.
    Ancestor,
    /// None: the node ran out of memory.
    Node,
}

impl OomScope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Container, Self::Pod, Self::Ancestor, Self::Node];

    /// The name in the `limit` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Ancestor => "ancestor",
            Self::Node => "node",
        }
    }
}

/// An OOM kill.
#[derive(Clone, Debug, PartialEq)]
pub struct OomKill {
    /// When, seconds since the Unix epoch.
    pub at_unix: f64,
    /// Whose limit.
    pub scope: OomScope,
    /// Memory charged to the cgroup whose limit it was (the victim's own for the node), bytes.
    pub usage_bytes: u64,
    /// That limit, bytes; `None` = none.
    pub limit_bytes: Option<u64>,
    /// The victim's process id.
    pub pid: u32,
    /// The victim's name.
    pub comm: String,
}

/// The init process of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Init {
    /// Its process id.
    pub pid: u32,
    /// Its name when last heard of.
    pub comm: String,
    /// When it began to run its program, seconds since the Unix epoch.
    pub started_unix: f64,
    /// Whether it had a mount namespace other than its parent's, as the program of a container has and what a runtime
    /// runs of itself in the new cgroup has not.
    pub contained: bool,
}

/// An end of an init process.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// Who.
    pub init: Init,
    /// When, seconds since the Unix epoch.
    pub ended_unix: f64,
    /// How.
    pub status: ExitStatus,
}

/// What is known of a container's processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) init: Option<Init>,
    pub(super) exit: Option<(Exit, Reason)>,
    /// An end that may yet prove to be one of the runtime's own processes, and when it was told.
    doubtful: Option<(Exit, Instant)>,
    pub(super) last_oom_kill: Option<OomKill>,
    pub(super) oom_kills: u64,
}

impl Life {
    /// An init process starts. In a container only the first is one: its cgroup is not used again, and what a runtime
    /// still puts there was meant for the one that has ended. A unit's cgroup may stay from one run to the next.
    pub(super) fn start(&mut self, init: Init, level: Level) -> bool {
        let ended = self.exit.is_some() || (self.doubtful.is_some() && !init.contained);
        if ended && level != Level::Unit {
            return false;
        }
        self.init = Some(init);
        self.exit = None;
        self.doubtful = None;
        true
    }

    /// The init process has ended; returns why, and its exit code. `None` if that is known already, or is in doubt.
    pub(super) fn end(&mut self, exit: Exit, level: Level, now: Instant) -> Option<(Reason, u8)> {
        if self.exit.is_some() || self.doubtful.is_some() {
            return None;
        }
        if exit.init.contained || level == Level::Unit {
            return Some(self.record(exit));
        }
        self.doubtful = Some((exit, now));
        None
    }

    /// No program will come any more: what was in doubt was the end.
    pub(super) fn nothing_follows(&mut self) -> Option<(Reason, u8)> {
        let (exit, _) = self.doubtful.take()?;
        Some(self.record(exit))
    }

    /// As [`Self::nothing_follows`], if it would have come by now.
    pub(super) fn nothing_followed(&mut self, now: Instant) -> Option<(Reason, u8)> {
        let (_, since) = self.doubtful.as_ref()?;
        (now.saturating_duration_since(*since) >= BEFORE_PROGRAM).then(|| self.nothing_follows())?
    }

    fn record(&mut self, exit: Exit) -> (Reason, u8) {
        let by_oom = self.last_oom_kill.as_ref().is_some_and(|kill| {
            kill.pid == exit.init.pid || (exit.ended_unix - kill.at_unix).abs() <= OOM_WITHIN
        });
        let reason = match exit.status {
            ExitStatus::Signal(SIGKILL) if by_oom => Reason::OomKilled,
            ExitStatus::Code(0) => Reason::Completed,
            _ => Reason::Error,
        };
        let code = exit.status.code();
        self.init = Some(exit.init.clone());
        self.exit = Some((exit, reason));
        (reason, code)
    }

    pub(super) fn kill(&mut self, kill: OomKill) {
        self.oom_kills += 1;
        self.last_oom_kill = Some(kill);
    }
}

/// A container that has ended: its final record.
#[derive(Clone, Debug)]
pub struct EndRow {
    /// Who it was.
    pub identity: Arc<Identity>,
    /// When its cgroup was made, seconds since the Unix epoch.
    pub created_unix: f64,
    /// When its cgroup was removed, seconds since the Unix epoch.
    pub removed_unix: f64,
    /// Its init process, if its start or end was seen.
    pub init: Option<Init>,
    /// How that ended, and why; `None` if nobody saw.
    pub exit: Option<(Exit, Reason)>,
    /// The last OOM kill in it.
    pub last_oom_kill: Option<OomKill>,
    /// OOM kills in it.
    pub oom_kills: u64,
    /// Its last values.
    pub values: Values,
}

/// Ends of init processes by reason and exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terminations(BTreeMap<(Reason, Option<u8>), u64>);

impl Terminations {
    pub(super) fn count(&mut self, reason: Reason, code: u8) {
        let key = (reason, Some(code));
        let has_room = self.0.len() < MOST_TERMINATIONS || self.0.contains_key(&key);
        *self.0.entry(if has_room { key } else { (reason, None) }).or_default() += 1;
    }

    /// Reason, exit code and number; the code is `None` for codes beyond the number that are told apart.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, Option<u8>, u64)> {
        self.0.iter().map(|((reason, code), count)| (*reason, *code, *count))
    }
}

impl FromIterator<(Reason, u8)> for Terminations {
    fn from_iter<I: IntoIterator<Item = (Reason, u8)>>(ends: I) -> Self {
        let mut terminations = Self::default();
        ends.into_iter().for_each(|(reason, code)| terminations.count(reason, code));
        terminations
    }
}

/// The last ends, newest last, and who else has ended.
#[derive(Debug, Default)]
pub(super) struct Ends {
    recent: VecDeque<Arc<EndRow>>,
    remembered: HashSet<Box<str>>,
    order: VecDeque<Box<str>>,
}

impl Ends {
    pub(super) fn push(&mut self, row: EndRow) {
        if self.recent.len() == MOST_ENDS {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::new(row));
    }

    pub(super) fn rows(&self) -> Arc<[Arc<EndRow>]> {
        self.recent.iter().cloned().collect()
    }

    /// Remembers who ended.
    pub(super) fn remember(&mut self, identity: &Identity) {
        for name in names_across_restarts(identity) {
            if self.remembered.insert(name.clone()) {
                self.order.push_back(name);
            }
            if self.order.len() > MOST_REMEMBERED
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

    fn exit(pid: u32, at: f64, status: u32) -> Exit {
        let init = Init { pid, comm: "app".to_owned(), started_unix: 0.0, contained: true };
        Exit { init, ended_unix: at, status: ExitStatus::from_wait(status) }
    }

    fn kill(pid: u32, at: f64) -> OomKill {
        let comm = "app".to_owned();
        OomKill { at_unix: at, scope: OomScope::Node, usage_bytes: 1, limit_bytes: None, pid, comm }
    }

    #[test]
    fn exit_codes_are_those_of_container_runtimes() {
        assert_eq!(ExitStatus::from_wait(7 << 8).code(), 7);
        assert_eq!(ExitStatus::from_wait(7 << 8).signal(), None);
        // Killed, and with a core dump aborted.
        assert_eq!((ExitStatus::from_wait(9).code(), ExitStatus::from_wait(9).signal()), (137, Some(9)));
        assert_eq!(ExitStatus::from_wait(6 | 0x80).code(), 134);
    }

    #[test]
    fn reasons_are_told_apart() {
        let reason = |status, kill: Option<OomKill>| {
            let mut life = Life::default();
            kill.into_iter().for_each(|kill| life.kill(kill));
            life.end(exit(5, 100.0, status), Level::Container, Instant::now()).unwrap().0
        };
        assert_eq!(reason(0, None), Reason::Completed);
        assert_eq!(reason(3 << 8, None), Reason::Error);
        assert_eq!(reason(9, None), Reason::Error);
        assert_eq!(reason(9, Some(kill(5, 10.0))), Reason::OomKilled, "the victim itself");
        assert_eq!(reason(9, Some(kill(6, 99.5))), Reason::OomKilled, "with its whole group");
        assert_eq!(reason(9, Some(kill(6, 10.0))), Reason::Error, "a child, long ago");
        assert_eq!(reason(1 << 8, Some(kill(6, 99.9))), Reason::Error, "it ended by itself after its child");
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
        assert_eq!(life.end(exit(7, 2.0, 3 << 8), Level::Container, now), Some((Reason::Error, 3)));

        let mut life = before_program();
        assert_eq!(life.nothing_followed(now + BEFORE_PROGRAM / 2), None);
        assert_eq!(life.nothing_followed(now + BEFORE_PROGRAM), Some((Reason::Completed, 0)));
        assert!(!life.start(exit(7, 1.0, 0).init, Level::Container), "too late");
        assert_eq!(before_program().nothing_follows(), Some((Reason::Completed, 0)));
        let mut unit = Life::default();
        assert_eq!(unit.end(outside(5, 0), Level::Unit, now), Some((Reason::Completed, 0)), "no container");
    }

    #[test]
    fn terminations_stay_bounded_and_none_is_lost() {
        let mut terminations = Terminations::default();
        for code in 0..=255 {
            terminations.count(Reason::Error, code);
        }
        assert!(terminations.iter().count() <= MOST_TERMINATIONS + 1);
        assert_eq!(terminations.iter().map(|(_, _, count)| count).sum::<u64>(), 256);
    }
}
