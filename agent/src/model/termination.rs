//! Terminations of containers.

use std::{collections::BTreeMap, sync::Arc};

use super::{Identity, OomKill, pod::Terminated};
use crate::values::Values;

/// The maximum number of pairs of reason and exit code per workload. Further codes are counted together.
const MAX_REASONS: usize = 16;

/// The exit status of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Exited with this code.
    Code(u8),
    /// Killed by this signal.
    Signal(u8),
}

impl ExitStatus {
    /// From a status of `wait(2)`.
    pub const fn from_wait(status: u32) -> Self {
        let signal = (status & 0x7f) as u8;
        if signal == 0 { Self::Code((status >> 8) as u8) } else { Self::Signal(signal) }
    }

    /// The exit code as container runtimes and Kubernetes report it: 128 plus the signal number for a signal.
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

/// The reason of a termination, as Kubernetes names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TerminationReason {
    /// Exit code 0.
    Completed,
    /// Another exit code, or a signal.
    Error,
    /// Killed by the OOM killer.
    OomKilled,
    /// The program could not be started. Only pod statuses report this.
    StartError,
    /// Any other reason of a pod status.
    Other,
}

impl TerminationReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::Other => "Other",
        }
    }

    /// From a status. Runtimes other than containerd and CRI-O report `ContainerCannotRun` for `StartError`.
    pub(crate) fn from_status(reason: &str) -> Self {
        match reason {
            "Completed" => Self::Completed,
            "Error" => Self::Error,
            "OOMKilled" => Self::OomKilled,
            "StartError" | "ContainerCannotRun" => Self::StartError,
            _ => Self::Other,
        }
    }
}

/// The init process of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Init {
    /// Its process id.
    pub pid: u32,
    /// Its last known command name.
    pub comm: String,
    /// When it executed its program, seconds since the Unix epoch.
    pub started_unix: f64,
    /// Whether its mount namespace differs from its parent's. That is the case for the program of a container, and not for a
    /// process that the runtime runs in the new cgroup.
    pub contained: bool,
}

/// The exit of an init process, as the kernel reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    pub init: Init,
    /// Time of the exit, seconds since the Unix epoch.
    pub ended_unix: f64,
    pub status: ExitStatus,
}

/// The termination of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Termination {
    pub reason: TerminationReason,
    /// The exit code; 128 plus the signal number for a signal.
    pub exit_code: u8,
    /// The signal that killed the init process, if an eBPF program reported it.
    pub signal: Option<u8>,
    /// Time of the termination, seconds since the Unix epoch.
    pub ended_unix: f64,
    /// The init process, if an eBPF program reported it.
    pub init: Option<Init>,
}

impl Termination {
    /// From an exit that an eBPF program reports.
    pub fn from_exit(exit: Exit, reason: TerminationReason) -> Self {
        let Exit { init, ended_unix, status } = exit;
        Self { reason, exit_code: status.code(), signal: status.signal(), ended_unix, init: Some(init) }
    }

    /// From a pod status.
    pub fn from_status(status: &Terminated) -> Self {
        Self {
            reason: TerminationReason::from_status(&status.reason),
            exit_code: u8::try_from(status.exit_code).unwrap_or(u8::MAX),
            signal: None,
            ended_unix: status.finished_unix,
            init: None,
        }
    }

    /// How long the init process ran, in seconds, if an eBPF program reported it.
    pub fn run_seconds(&self) -> Option<f64> {
        self.init.as_ref().map(|init| (self.ended_unix - init.started_unix).max(0.0))
    }
}

/// The final record of a terminated container.
#[derive(Clone, Debug)]
pub struct TerminatedContainer {
    pub identity: Arc<Identity>,
    /// When its cgroup was created, seconds since the Unix epoch.
    pub created_unix: f64,
    /// When its cgroup was removed, seconds since the Unix epoch.
    pub removed_unix: f64,
    /// Its init process, if an eBPF program reported its start or exit.
    pub init: Option<Init>,
    /// Its termination; `None` if no eBPF program reported it.
    pub termination: Option<Termination>,
    /// The last OOM kill in the container.
    pub last_oom_kill: Option<OomKill>,
    /// The number of OOM kills in the container.
    pub oom_kills: u64,
    /// Its last values.
    pub values: Values,
}

/// Terminations by reason and exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TerminationCounts(BTreeMap<(TerminationReason, Option<u8>), u64>);

impl TerminationCounts {
    pub(crate) fn count(&mut self, reason: TerminationReason, code: u8) {
        let key = (reason, Some(code));
        let has_room = self.0.len() < MAX_REASONS || self.0.contains_key(&key);
        *self.0.entry(if has_room { key } else { (reason, None) }).or_default() += 1;
    }

    /// Reason, exit code and count. The code is `None` for the codes that are counted together.
    pub fn iter(&self) -> impl Iterator<Item = (TerminationReason, Option<u8>, u64)> {
        self.0.iter().map(|((reason, code), count)| (*reason, *code, *count))
    }
}

impl FromIterator<(TerminationReason, u8)> for TerminationCounts {
    fn from_iter<I: IntoIterator<Item = (TerminationReason, u8)>>(terminations: I) -> Self {
        let mut counts = Self::default();
        terminations.into_iter().for_each(|(reason, code)| counts.count(reason, code));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_container_runtimes() {
        assert_eq!(ExitStatus::from_wait(7 << 8).code(), 7);
        assert_eq!(ExitStatus::from_wait(7 << 8).signal(), None);
        // Killed, and with a core dump aborted.
        assert_eq!((ExitStatus::from_wait(9).code(), ExitStatus::from_wait(9).signal()), (137, Some(9)));
        assert_eq!(ExitStatus::from_wait(6 | 0x80).code(), 134);
    }

    #[test]
    fn terminations_stay_bounded_and_none_is_lost() {
        let mut counts = TerminationCounts::default();
        for code in 0..=255 {
            counts.count(TerminationReason::Error, code);
        }
        assert!(counts.iter().count() <= MAX_REASONS + 1);
        assert_eq!(counts.iter().map(|(_, _, count)| count).sum::<u64>(), 256);
    }
}
