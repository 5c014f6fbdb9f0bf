//! The agent itself: CPU time, memory, its eBPF programs, and how long no agent ran before.
//!
//! Files: `/proc/self/stat`; `agent.json` in the data directory. Metrics: `snug_agent_cpu_seconds_total`,
//! `snug_agent_resident_bytes`, `snug_agent_downtime_seconds`, `snug_agent_starts_total`, `snug_agent_program_*`,
//! `snug_agent_map_*`, `snug_agent_lost_events_total`, `snug_agent_skipped_total`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Component, Round, evidence::UsageCollector};
use crate::{
    clock::unix_now,
    config::Config,
    kernel::EbpfPrograms,
    model::{AgentRow, ProgramRow, Verdict},
};

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(5);

pub(super) struct Agent {
    /// Why there are no eBPF programs.
    absent: Option<Verdict>,
    heartbeat: Option<Heartbeat>,
    next_heartbeat: Instant,
}

impl Agent {
    /// Sets what does not change while the agent runs.
    pub(super) fn start(round: &mut Round, absent: Option<Verdict>) -> Self {
        let heartbeat = round.config.data_dir.as_deref().and_then(|directory| {
            Heartbeat::start(directory, &round.config.proc_root)
                .inspect_err(|error| tracing::warn!(%error, "no heartbeat is written"))
                .ok()
        });
        round.agent = AgentRow {
            node: node_name(&round.config).into(),
            map_bytes: round.kernel.as_ref().map_or(0, EbpfPrograms::map_bytes),
            started_unix: unix_now(),
            downtime_seconds: heartbeat.as_ref().map_or(0.0, |heartbeat| heartbeat.downtime_seconds),
            starts: heartbeat.as_ref().map_or(1, |heartbeat| heartbeat.starts),
            ..AgentRow::default()
        };
        Self { absent, heartbeat, next_heartbeat: round.now }
    }
}

impl Component for Agent {
    fn round(&mut self, round: &mut Round) {
        if !round.is_full {
            return;
        }
        let Round { agent, kernel, config, naming, .. } = round;
        match (kernel, &self.absent) {
            (Some(kernel), _) => {
                agent.programs = kernel.programs();
                agent.maps = kernel.maps(agent.pass_cgroups);
                agent.lost_events = kernel.lost();
            }
            (None, Some(verdict)) => agent.programs = absent_programs(verdict, config),
            (None, None) => {}
        }
        agent.skipped = round.skipped.rows().chain(naming.skipped()).collect();
        agent.skipped.push(("containers_never_named", round.store.never_named()));
        agent.skipped.sort_unstable();
        agent.unresolved_cgroups = round.hierarchies.iter().map(|tracked| tracked.unresolved).sum();
        (agent.cpu_seconds, agent.resident_bytes) = own_cost();
        agent.kubernetes = naming.watch_row();
        agent.history = round.evidence.as_ref().map(UsageCollector::history);
        if round.now >= self.next_heartbeat {
            self.next_heartbeat = round.now + HEARTBEAT;
            self.finish(round);
        }
    }

    fn finish(&mut self, _: &mut Round) {
        let failed = self.heartbeat.as_ref().and_then(|heartbeat| heartbeat.beat().err());
        if let Some(error) = failed {
            tracing::warn!(%error, "cannot write the heartbeat; no further ones are written");
            self.heartbeat = None;
        }
    }
}

fn absent_programs(verdict: &Verdict, config: &Config) -> Vec<ProgramRow> {
    EbpfPrograms::program_names(config.runqueue, config.packets)
        .map(|name| ProgramRow { name, verdict: verdict.clone(), run_time_ns: 0, run_count: 0 })
        .collect()
}

/// The configured name of the node, else the host name.
pub fn node_name(config: &Config) -> String {
    config.node_name.clone().unwrap_or_else(|| {
        let name = fs::read_to_string(config.proc_root.join("sys/kernel/hostname")).unwrap_or_default();
        name.trim().to_owned()
    })
}

/// CPU time in seconds and resident memory in bytes of this process; zeros if `/proc/self/stat` cannot be read.
fn own_cost() -> (f64, u64) {
    let Ok(stat) = procfs::process::Process::myself().and_then(|process| process.stat()) else {
        return (0.0, 0);
    };
    let ticks = procfs::ticks_per_second().max(1) as f64;
    ((stat.utime + stat.stime) as f64 / ticks, stat.rss * procfs::page_size())
}

/// Why the heartbeat cannot be written. The agent samples without it.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// The directory or the file cannot be read or written.
    #[error(
        "cannot write the heartbeat {}: {source}; without it the agent's downtime is not known \
         (set --data-dir to a directory that the agent can write)",
        path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// The content of the heartbeat file.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// The kernel's boot id. Across a reboot the downtime is not the agent's, and the kernel's counters start at 0.
    boot_id: String,
    /// Time of the last heartbeat, seconds since the Unix epoch.
    last_alive: f64,
    /// Number of agents started with this data directory.
    starts: u64,
}

/// A file in the data directory with the time when the agent was last alive.
#[derive(Debug)]
struct Heartbeat {
    path: PathBuf,
    boot_id: String,
    /// Number of agents started with this data directory, including this one.
    starts: u64,
    /// Seconds between the last heartbeat of the previous agent and the start of this one; 0: no agent ran before on this boot.
    downtime_seconds: f64,
}

impl Heartbeat {
    /// Reads the last heartbeat and writes the first of this run. A file that cannot be parsed is ignored.
    fn start(data_dir: &Path, proc_root: &Path) -> Result<Self, HeartbeatError> {
        let path = data_dir.join("agent.json");
        let error = |source| HeartbeatError::Io { path: path.clone(), source };
        fs::create_dir_all(data_dir).map_err(error)?;
        let boot_id = fs::read_to_string(proc_root.join("sys/kernel/random/boot_id")).unwrap_or_default();
        let boot_id = boot_id.trim().to_owned();
        let last: Option<State> = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .inspect_err(|error| {
                    tracing::warn!(file = %path.display(), %error, "the heartbeat file cannot be parsed; starting anew");
                })
                .ok(),
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(error(source)),
        };
        let downtime_seconds = last
            .as_ref()
            .filter(|state| state.boot_id == boot_id)
            .map_or(0.0, |state| (unix_now() - state.last_alive).max(0.0));
        let starts = last.map_or(0, |state| state.starts) + 1;
        let heartbeat = Self { path, boot_id, starts, downtime_seconds };
        heartbeat.beat()?;
        Ok(heartbeat)
    }

    /// Writes a heartbeat: to a new file that is then renamed, so that a killed agent leaves the old or the new one.
    fn beat(&self) -> Result<(), HeartbeatError> {
        let error = |source| HeartbeatError::Io { path: self.path.clone(), source };
        let state = State { boot_id: self.boot_id.clone(), last_alive: unix_now(), starts: self.starts };
        let bytes = serde_json::to_vec(&state).map_err(|source| error(source.into()))?;
        let new = self.path.with_extension("json.new");
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, &self.path)).map_err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc_root(boot_id: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/kernel/random")).unwrap();
        fs::write(root.path().join("sys/kernel/random/boot_id"), boot_id).unwrap();
        root
    }

    fn age(data: &Path, seconds: f64) {
        let path = data.join("agent.json");
        let mut state: State = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        state.last_alive -= seconds;
        fs::write(path, serde_json::to_vec(&state).unwrap()).unwrap();
    }

    #[test]
    fn downtime_on_the_same_boot_is_measured() {
        let (data, proc) = (tempfile::tempdir().unwrap(), proc_root("one\n"));
        let first = Heartbeat::start(data.path(), proc.path()).unwrap();
        assert_eq!((first.starts, first.downtime_seconds), (1, 0.0));
        age(data.path(), 60.0);
        let second = Heartbeat::start(data.path(), proc.path()).unwrap();
        assert_eq!(second.starts, 2);
        assert!((60.0..70.0).contains(&second.downtime_seconds), "{}", second.downtime_seconds);
    }

    #[test]
    fn a_reboot_is_no_downtime_of_the_agent() {
        let data = tempfile::tempdir().unwrap();
        Heartbeat::start(data.path(), proc_root("one").path()).unwrap();
        age(data.path(), 60.0);
        let next = Heartbeat::start(data.path(), proc_root("two").path()).unwrap();
        assert_eq!((next.starts, next.downtime_seconds), (2, 0.0));
    }

    #[test]
    fn a_broken_file_is_ignored_and_a_broken_directory_is_an_error() {
        let (data, proc) = (tempfile::tempdir().unwrap(), proc_root("one"));
        fs::write(data.path().join("agent.json"), "{").unwrap();
        assert_eq!(Heartbeat::start(data.path(), proc.path()).unwrap().starts, 1);
        let file = data.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Heartbeat::start(&file, proc.path()).unwrap_err();
        assert!(error.to_string().contains("agent.json"), "{error}");
    }

    #[test]
    fn own_cost_is_measured() {
        let (_, resident) = own_cost();
        assert!(resident > 100_000, "{resident}");
    }
}
