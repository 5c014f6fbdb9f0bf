//! Reads cgroup files: measurements that do not come from the eBPF programs, and flushing the kernel's counters.
//!
//! Files, every full round: those of the measurements whose source is `files`, and those of the root cgroup. Files, for a scrape and
//! at least once per `slow-interval`: `cpu.stat`, `memory.stat`, `io.stat`, `cpu.weight`, `memory.min` (cgroup v1: their counterparts).
//! Metrics only from here: `snug_container_cpu_user_seconds_total`, `_cpu_system_seconds_total`, `_memory_stat_bytes`,
//! `_page_faults_total`, `_refaults_total`, `_page_scans_total`, `_io_bytes_total`, `_io_operations_total`.

use std::{
    collections::hash_map::Entry,
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{
    round_robin::RoundRobin,
    skipped::{Cause, Skipped},
};
use crate::{
    cgroupfs::{
        Measurements,
        flush::Flusher,
        mounts::Hierarchies,
        reader::{CgroupReader, ReadError},
    },
    identity::Level,
    model::AgentRule,
    store::{Key, Store},
    values::{Cpu, Measurement, Memory, Values, WorkingSet},
};

/// Measurements of the root cgroup, which the eBPF programs skip: the kernel keeps the root's counters elsewhere. cgroup v2
/// has files for some of them only.
const ROOT_MEASUREMENTS: Measurements = Measurements::new(&[
    Measurement::Cpu,
    Measurement::Pressure,
    Measurement::Memory,
    Measurement::WorkingSet,
    Measurement::MemoryEvents,
    Measurement::Swap,
]);

const CPU: Measurements = Measurements::new(&[Measurement::Cpu]);

/// The slow files are read once per interval; those that rarely change, and those of idle cgroups, only every fourth time.
const COMPLETE_READ_EVERY: u8 = 4;

/// Readers have the slow files of all cgroups read at most this many times per interval.
const MAX_READINGS_TOGETHER: u32 = 3;
/// How late the reader may be that asks once per interval. Files that it had read are not read in between.
const READING_TOGETHER_MARGIN: Duration = Duration::from_secs(1);

/// Maximum number of new cgroups per round whose slow files are read at once, before their turn.
const MAX_NEW_PER_ROUND: usize = 20;

/// Number of problems that are logged; further ones are only counted.
const MAX_LOGGED_PROBLEMS: u64 = 10;

/// The last reading of a cgroup's slow files.
#[derive(Debug)]
struct LastRead {
    /// The cgroup's activity at the reading, if all values were known.
    activity: Option<Activity>,
    /// Readings until all files are read again.
    readings_until_complete: u8,
    /// Time of the reading.
    at: Instant,
    /// Time of the last reading of all files.
    complete_at: Instant,
}

/// Values that change when a cgroup is active. If they have not changed, the cgroup used no CPU time and its memory is the
/// same, so the slow files are the same or nearly so: only the kernel may have written dirty pages or aged LRU lists.
type Activity = (Cpu, Memory, WorkingSet);

fn activity(values: &Values) -> Option<Activity> {
    Some((values.cpu?, values.memory?, values.working_set?))
}

/// Reads cgroup files into the store.
pub(super) struct FileSampler {
    reader: CgroupReader,
    flusher: Flusher,
    /// The cgroups in the order in which their slow files are read.
    queue: RoundRobin<Key>,
    last_reads: FxHashMap<Key, LastRead>,
    /// When the slow files of all cgroups were last read together.
    read_together: Option<Instant>,
    logged: u64,
}

impl FileSampler {
    pub(super) fn new(hierarchies: &Hierarchies) -> Result<Self, ReadError> {
        Ok(Self {
            reader: CgroupReader::new(hierarchies)?,
            flusher: Flusher::new(hierarchies)?,
            queue: RoundRobin::default(),
            last_reads: FxHashMap::default(),
            read_together: None,
            logged: 0,
        })
    }

    /// Reads these measurements of all present cgroups; in any case the root, and the CPU time of the cgroups `outside_primary`: on a
    /// hybrid host, cgroups of v1 hierarchies that do not exist in the v2 hierarchy, which has the CPU time.
    pub(super) fn sample(
        &mut self,
        store: &mut Store,
        measurements: Measurements,
        outside_primary: &[Key],
        skipped: &mut Skipped,
    ) {
        if let Some(root) = store.get_by_path("/") {
            self.read_into(store, root, "/", ROOT_MEASUREMENTS, skipped);
        }
        for key in outside_primary {
            let path = store.identity(*key).map(|identity| identity.path.clone());
            if let Some(path) = path {
                self.read_into(store, *key, &path, CPU, skipped);
            }
        }
        if measurements.is_empty() {
            return;
        }
        for (key, path) in living(store) {
            self.read_into(store, key, &path, measurements, skipped);
        }
    }

    /// Reads these measurements of some cgroups.
    pub(super) fn sample_some(
        &mut self,
        store: &mut Store,
        keys: &[Key],
        measurements: Measurements,
        skipped: &mut Skipped,
    ) {
        for key in keys {
            let path = store.identity(*key).map(|identity| identity.path.clone());
            if let Some(path) = path {
                self.read_into(store, *key, &path, measurements, skipped);
            }
        }
    }

    /// Reads the slow files of all cgroups now, for a reader: what one scrape shows belongs to one moment. `rate()` of values
    /// whose age differs from scrape to scrape would jitter. Not more often than three times per `interval`.
    pub(super) fn read_slow_files_together(
        &mut self,
        store: &mut Store,
        now: Instant,
        interval: Duration,
        skipped: &mut Skipped,
    ) {
        let age = self.read_together.map(|at| now.saturating_duration_since(at));
        let is_fresh = age.is_some_and(|age| age < interval / MAX_READINGS_TOGETHER);
        if is_fresh || !AgentRule::OneMoment.is_on() {
            return;
        }
        self.read_together = Some(now);
        let all: Vec<Key> = store.living().map(|(key, _)| key).collect();
        for key in all {
            self.read_slow_files(store, key, now, skipped);
        }
        self.queue.restart(now);
    }

    /// The times of the oldest value that a reading of slow files gave, and of the oldest one that only complete readings give.
    pub(super) fn oldest_slow_reading(&self) -> Option<(Instant, Instant)> {
        let oldest = self.last_reads.values().map(|read| read.at).min()?;
        Some((oldest, self.last_reads.values().map(|read| read.complete_at).min()?))
    }

    /// Reads the slow files of the cgroups that are due, so that each is read once per `interval`, unless readers had all of
    /// them read within it.
    pub(super) fn sample_slow_files(
        &mut self,
        store: &mut Store,
        now: Instant,
        interval: Duration,
        skipped: &mut Skipped,
    ) {
        let read_lately = self
            .read_together
            .is_some_and(|at| now.saturating_duration_since(at) < interval + READING_TOGETHER_MARGIN);
        if !read_lately {
            let due = self.queue.due(now, interval, || store.living().map(|(key, _)| key).collect());
            for key in due {
                self.read_slow_files(store, key, now, skipped);
            }
        }
        let mut left = MAX_NEW_PER_ROUND;
        while left > 0
            && let Some(key) = store.next_appeared()
        {
            if store
                .values(key)
                .is_some_and(|values| values.cpu_split.is_none() && values.memory_stat.is_none())
            {
                self.read_slow_files(store, key, now, skipped);
                left -= 1;
            }
        }
    }

    fn read_slow_files(&mut self, store: &mut Store, key: Key, now: Instant, skipped: &mut Skipped) {
        let (Some(values), Some(identity)) = (store.values(key), store.identity(key)) else { return };
        let (activity, path) = (activity(values), identity.path.clone());
        // With the CPU time of the same moment: user and system time are parts of it.
        let mut measurements = Measurements::ONLY_IN_FILES.with(Measurement::Cpu);
        match self.last_reads.entry(key) {
            // The container runtime creates a cgroup first and sets limits afterwards: the next reading is complete, too.
            Entry::Vacant(place) => drop(place.insert(LastRead {
                activity,
                readings_until_complete: 0,
                at: now,
                complete_at: now,
            })),
            Entry::Occupied(read) => {
                let read = read.into_mut();
                let before = std::mem::replace(&mut read.activity, activity);
                read.at = now;
                if let Some(left) = read.readings_until_complete.checked_sub(1) {
                    read.readings_until_complete = left;
                    if activity.is_some() && activity == before {
                        // Idle: the previous values count as a new reading, so that their histograms get a sample.
                        let memory_stat = values.memory_stat.as_deref().copied().map(Arc::new);
                        return store.update(key, Values { memory_stat, ..Values::default() });
                    }
                    measurements = measurements.without(Measurement::Spec);
                } else {
                    read.readings_until_complete = COMPLETE_READ_EVERY - 1;
                    read.complete_at = now;
                }
            }
        }
        self.read_into(store, key, &path, measurements, skipped);
    }

    /// Drops the state of removed cgroups.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        for key in gone {
            self.last_reads.remove(key);
        }
    }

    fn read_into(
        &mut self,
        store: &mut Store,
        key: Key,
        path: &str,
        measurements: Measurements,
        skipped: &mut Skipped,
    ) {
        let reading = match self.reader.read(path, measurements) {
            Ok(reading) => reading,
            // The removal is handled elsewhere.
            Err(ReadError::Gone { .. }) => return,
            Err(error) => return self.problem(&error, skipped),
        };
        for problem in &reading.problems {
            self.problem(problem, skipped);
        }
        skipped[Cause::IoLines] += reading.skipped_lines;
        let mut values = reading.values;
        // Files have microseconds: a lower value is the same one, rounded.
        let known = store.values(key).and_then(|values| values.cpu);
        values.cpu = values.cpu.filter(|cpu| known.is_none_or(|known| known.usage_ns < cpu.usage_ns));
        store.update(key, values);
    }

    fn problem(&mut self, error: &ReadError, skipped: &mut Skipped) {
        skipped[Cause::CgroupFiles] += 1;
        self.logged += 1;
        if self.logged <= MAX_LOGGED_PROBLEMS {
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, source, "cannot use a cgroup file; after a few of these they are only counted, in snug_agent_skipped_total");
        }
    }

    /// The pids of a cgroup's processes; `None` if the cgroup does not exist or its file cannot be read.
    pub(super) fn processes(&mut self, path: &str, skipped: &mut Skipped) -> Option<Vec<u32>> {
        match self.reader.processes(path) {
            Ok(processes) => Some(processes),
            Err(ReadError::Gone { .. }) => None,
            Err(error) => {
                self.problem(&error, skipped);
                None
            }
        }
    }

    /// Reads the files of one cgroup for the verification.
    pub(super) fn read(&mut self, path: &str, measurements: Measurements) -> Option<Values> {
        self.reader.read(path, measurements).ok().map(|reading| reading.values)
    }

    /// Makes the kernel flush the CPU time of all cgroups.
    pub(super) fn flush_cpu(&mut self) {
        if let Err(error) = self.flusher.flush_cpu() {
            tracing::debug!(%error, "the CPU time of some cgroups could not be flushed");
        }
    }

    /// Makes the kernel flush the memory statistics of all cgroups.
    pub(super) fn flush_memory(&mut self) {
        if let Err(error) = self.flusher.flush_memory() {
            tracing::debug!(%error, "memory statistics could not be flushed");
        }
    }

    /// Makes the kernel flush the CPU time of a cgroup and its descendants, by reading `cpu.stat`.
    pub(super) fn flush_cpu_of(&mut self, path: &str) {
        let _ = self.reader.read(path, CPU);
    }

    /// Sets the top-level cgroups, whose files are read to flush CPU time.
    pub(super) fn refresh_flush_points(&mut self, tops: &[Arc<str>]) {
        if let Err(error) = self.flusher.refresh(tops.iter().map(|top| &**top)) {
            tracing::debug!(%error, "cannot open a cpu.stat; the CPU time below is flushed by the kernel only, every two seconds");
        }
    }
}

fn living(store: &Store) -> Vec<(Key, Arc<str>)> {
    store
        .living()
        .filter(|(_, identity)| identity.of_path.level != Level::Root)
        .map(|(key, identity)| (key, identity.path.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::FileExt as _, path::Path};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        cgroupfs::mounts::{Hierarchy, Version},
        identity::path,
        store::Appearance,
    };

    const INTERVAL: Duration = Duration::from_secs(30);

    /// Some cgroups with one `cpu.stat`.
    struct Fixture {
        files: FileSampler,
        store: Store,
        cgroups: Vec<Key>,
    }

    impl Fixture {
        fn new(mount: &Path, cgroups: usize, now: Instant) -> Self {
            let unified = Hierarchy {
                mount: mount.to_owned(),
                version: Version::V2,
                controllers: Vec::new(),
                root_in_hierarchy: "/".to_owned(),
            };
            let files = FileSampler::new(&Hierarchies { unified: Some(unified), v1: Vec::new() }).unwrap();
            let mut store = Store::new(16);
            let add = |number: usize| {
                let path = format!("/{number}");
                let appearance = Appearance {
                    path: path.as_str().into(),
                    of_path: path::parse(&path).unwrap(),
                    created_unix: 0.0,
                    present_at_start: true,
                };
                store.appear(appearance, 0, now)
            };
            let cgroups = (0..cgroups).map(add).collect();
            Self { files, store, cgroups }
        }

        /// CPU time and user time of each cgroup, seconds.
        fn shown(&self) -> Vec<Option<[u64; 2]>> {
            let of = |key: &Key| {
                let values = self.store.values(*key)?;
                Some([values.cpu?.usage_ns, values.cpu_split?.user_ns].map(|ns| ns / 1_000_000_000))
            };
            self.cgroups.iter().map(of).collect()
        }
    }

    #[test]
    fn a_reader_gets_what_is_read_slowly_as_of_one_moment() {
        let folder = tempfile::tempdir().unwrap();
        let stat = fs::File::create(folder.path().join("cpu.stat")).unwrap();
        for number in 0..3 {
            let cgroup = folder.path().join(number.to_string());
            fs::create_dir(&cgroup).unwrap();
            fs::hard_link(folder.path().join("cpu.stat"), cgroup.join("cpu.stat")).unwrap();
        }
        // Seconds since the last step, and whether a reader asks, not the next round.
        let steps = prop::collection::vec((1..25_u64, any::<bool>()), 1..6);
        let applies = |(_, steps): &(usize, Vec<(u64, bool)>)| steps.iter().any(|(_, is_reader)| *is_reader);
        AgentRule::OneMoment.prove(&(1..4_usize, steps), applies, |(cgroups, steps)| {
            let (begun, mut skipped) = (Instant::now(), Skipped::default());
            let mut fixture = Fixture::new(folder.path(), *cgroups, begun);
            // Always three digits, so that the file is written over.
            let (mut seconds, mut read_at) = (100, None);
            for (passed, is_reader) in steps {
                seconds += passed;
                let micros = seconds * 1_000_000;
                let text = format!("usage_usec {micros}\nuser_usec {micros}\nsystem_usec 0\n");
                stat.write_all_at(text.as_bytes(), 0).unwrap();
                let now = begun + Duration::from_secs(seconds);
                let Fixture { files, store, .. } = &mut fixture;
                if !is_reader {
                    files.sample_slow_files(store, now, INTERVAL, &mut skipped);
                    continue;
                }
                files.read_slow_files_together(store, now, INTERVAL, &mut skipped);
                if read_at.is_none_or(|at| seconds - at >= INTERVAL.as_secs() / 3) {
                    read_at = Some(seconds);
                }
                let at = read_at.unwrap_or_default();
                let (shown, oldest) = (fixture.shown(), fixture.files.oldest_slow_reading());
                let is_of_one_moment = shown == vec![Some([at; 2]); *cgroups]
                    && oldest.is_some_and(|(oldest, _)| oldest == begun + Duration::from_secs(at));
                if !is_of_one_moment {
                    return Err(format!("{shown:?} at {seconds} s, read at {at} s"));
                }
            }
            Ok(())
        });
    }
}
