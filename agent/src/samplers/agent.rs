//! What the agent knows of itself: its cost, and how long no agent was there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::clock::unix_now;

/// How often the sign of life is written.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);

/// CPU time in seconds and resident memory in bytes of this process.
pub(super) fn own_cost() -> (f64, u64) {
    let Ok(stat) = procfs::process::Process::myself().and_then(|process| process.stat()) else {
        return (0.0, 0);
    };
    let ticks = procfs::ticks_per_second().max(1) as f64;
    ((stat.utime + stat.stime) as f64 / ticks, stat.rss * procfs::page_size())
}

/// Why the sign of life cannot be kept. The agent measures all the same.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// The directory or file cannot be used.
    #[error(
        "cannot keep {}: {source}; without it a gap between two runs of the agent is not seen \
         (give --data-dir a directory that the agent may write)",
        path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// What is kept between runs.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// The kernel's boot id: a gap across a reboot is no gap of the agent alone, but counters begin anew.
    boot_id: String,
    /// Seconds since the Unix epoch.
    last_alive: f64,
    /// Agents that started with this directory.
    starts: u64,
}

/// A sign of life in the data directory.
#[derive(Debug)]
pub(super) struct Heartbeat {
    path: PathBuf,
    boot_id: String,
    /// Agents that started with this directory, this one included.
    pub(super) starts: u64,
    /// Seconds without an agent before this one; 0 if none is known on this boot.
    pub(super) away_seconds: f64,
}

impl Heartbeat {
    /// Reads the last sign of life and leaves the first of this run. An unreadable one counts as none.
    pub(super) fn begin(data_dir: &Path, proc_root: &Path) -> Result<Self, HeartbeatError> {
        let path = data_dir.join("agent.json");
        let error = |source| HeartbeatError::Io { path: path.clone(), source };
        fs::create_dir_all(data_dir).map_err(error)?;
        let boot_id = fs::read_to_string(proc_root.join("sys/kernel/random/boot_id")).unwrap_or_default();
        let boot_id = boot_id.trim().to_owned();
        let last: Option<State> = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .inspect_err(|error| {
                    tracing::warn!(file = %path.display(), %error, "the last sign of life is unusable; begun anew");
                })
                .ok(),
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(error(source)),
        };
        let away_seconds = last
            .as_ref()
            .filter(|state| state.boot_id == boot_id)
            .map_or(0.0, |state| (unix_now() - state.last_alive).max(0.0));
        let starts = last.map_or(0, |state| state.starts) + 1;
        let heartbeat = Self { path, boot_id, starts, away_seconds };
        heartbeat.beat()?;
        Ok(heartbeat)
    }

    /// Leaves a sign of life: written beside and renamed, so that a kill leaves the old or the new.
    pub(super) fn beat(&self) -> Result<(), HeartbeatError> {
        let error = |source| HeartbeatError::Io { path: self.path.clone(), source };
        let state = State { boot_id: self.boot_id.clone(), last_alive: unix_now(), starts: self.starts };
        let bytes = serde_json::to_vec(&state).map_err(|source| error(source.into()))?;
        let beside = self.path.with_extension("json.new");
        fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, &self.path)).map_err(error)
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
    fn a_gap_on_the_same_boot_is_seen() {
        let (data, proc) = (tempfile::tempdir().unwrap(), proc_root("one\n"));
        let first = Heartbeat::begin(data.path(), proc.path()).unwrap();
        assert_eq!((first.starts, first.away_seconds), (1, 0.0));
        age(data.path(), 60.0);
        let second = Heartbeat::begin(data.path(), proc.path()).unwrap();
        assert_eq!(second.starts, 2);
        assert!((60.0..70.0).contains(&second.away_seconds), "{}", second.away_seconds);
    }

    #[test]
    fn a_reboot_is_no_gap_of_the_agent() {
        let data = tempfile::tempdir().unwrap();
        Heartbeat::begin(data.path(), proc_root("one").path()).unwrap();
        age(data.path(), 60.0);
        let next = Heartbeat::begin(data.path(), proc_root("two").path()).unwrap();
        assert_eq!((next.starts, next.away_seconds), (2, 0.0));
    }

    #[test]
    fn a_broken_file_is_begun_anew_and_a_broken_directory_named() {
        let (data, proc) = (tempfile::tempdir().unwrap(), proc_root("one"));
        fs::write(data.path().join("agent.json"), "{").unwrap();
        assert_eq!(Heartbeat::begin(data.path(), proc.path()).unwrap().starts, 1);
        let file = data.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Heartbeat::begin(&file, proc.path()).unwrap_err();
        assert!(error.to_string().contains("agent.json"), "{error}");
    }

    #[test]
    fn own_cost_is_measured() {
        let (_, resident) = own_cost();
        assert!(resident > 100_000, "{resident}");
    }
}
