//! Sampling by cgroup files: what the kernel half does not measure, the slow rows, and flushing.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::round_robin::RoundRobin;
use crate::{
    cgroupfs::{
        Measurements,
        flush::Flusher,
        mounts::Hierarchies,
        reader::{CgroupReader, ReadError},
    },
    identity::Level,
    store::{Key, Store},
    values::{Cpu, Measurement, Memory, Values, WorkingSet},
};

/// The root is in no snapshot: the kernel keeps its sums elsewhere. Some of these only v1 has of it.
const ROOT_MEASUREMENTS: Measurements = Measurements::new(&[
    Measurement::Cpu,
    Measurement::Pressure,
    Measurement::Memory,
    Measurement::WorkingSet,
    Measurement::MemoryEvents,
    Measurement::Swap,
]);

const CPU: Measurements = Measurements::new(&[Measurement::Cpu]);

/// Turns from one reading of all slow rows to the next: of what seldom changes, and of cgroups at rest.
const FULL_READ_EVERY: u8 = 4;

/// New cgroups whose slow rows are read ahead of their turn, per round.
const MAX_NEW_PER_ROUND: usize = 20;

/// Problems that are logged; after these they are only counted.
const MAX_LOGGED_PROBLEMS: u64 = 10;

/// A cgroup whose slow rows were read.
#[derive(Debug)]
struct LastRead {
    /// What else was known of it then, if all of it was.
    activity: Option<Activity>,
    /// Turns until all of it is read again.
    left: u8,
}

/// A cgroup of which this is as it was has used no CPU time and no other memory: its slow rows are as they were, too, or nearly so.
/// The kernel can write its dirty pages and age its lists without it.
type Activity = (Cpu, Memory, WorkingSet);

fn activity(values: &Values) -> Option<Activity> {
    Some((values.cpu?, values.memory?, values.working_set?))
}

/// Reads files for the store.
pub(super) struct FileSampler {
    reader: CgroupReader,
    flusher: Flusher,
    /// Whose slow rows are read next.
    queue: RoundRobin<Key>,
    last_reads: FxHashMap<Key, LastRead>,
    logged: u64,
}

impl FileSampler {
    pub(super) fn new(hierarchies: &Hierarchies) -> Result<Self, ReadError> {
        Ok(Self {
            reader: CgroupReader::new(hierarchies)?,
            flusher: Flusher::new(hierarchies)?,
            queue: RoundRobin::default(),
            last_reads: FxHashMap::default(),
            logged: 0,
        })
    }

    /// Reads `which` of all living cgroups, and what the kernel half never has: the root, and the CPU time of cgroups
    /// that are not in the hierarchy which keeps it (`outside_primary`; a hybrid host's v1 cgroups without a twin in v2).
    pub(super) fn sample(
        &mut self,
        store: &mut Store,
        which: Measurements,
        outside_primary: &[Key],
        skipped: &mut HashMap<&'static str, u64>,
    ) {
        if let Some(root) = store.at("/") {
            self.read_into(store, root, "/", ROOT_MEASUREMENTS, skipped);
        }
        for key in outside_primary {
            let path = store.identity(*key).map(|identity| identity.path.clone());
            if let Some(path) = path {
                self.read_into(store, *key, &path, CPU, skipped);
            }
        }
        if which.is_empty() {
            return;
        }
        for (key, path) in living(store) {
            self.read_into(store, key, &path, which, skipped);
        }
    }

    /// Reads the slow rows of as many cgroups as are due, so that each has its turn once in `interval`.
    pub(super) fn slow_rows(
        &mut self,
        store: &mut Store,
        now: Instant,
        interval: Duration,
        skipped: &mut HashMap<&'static str, u64>,
    ) {
        let due = self.queue.due(now, interval, || store.living().map(|(key, _)| key).collect());
        for key in due {
            self.slow_row(store, key, skipped);
        }
        let mut left = MAX_NEW_PER_ROUND;
        while left > 0
            && let Some(key) = store.next_appeared()
        {
            if store
                .values(key)
                .is_some_and(|values| values.cpu_split.is_none() && values.memory_stat.is_none())
            {
                self.slow_row(store, key, skipped);
                left -= 1;
            }
        }
    }

    fn slow_row(&mut self, store: &mut Store, key: Key, skipped: &mut HashMap<&'static str, u64>) {
        let (Some(values), Some(identity)) = (store.values(key), store.identity(key)) else { return };
        let (activity, path) = (activity(values), identity.path.clone());
        let mut which = Measurements::ONLY_IN_FILES;
        match self.last_reads.entry(key) {
            // A runtime makes a cgroup first and sets it up then: in its next turn all of it is read once more.
            Entry::Vacant(place) => drop(place.insert(LastRead { activity, left: 0 })),
            Entry::Occupied(read) => {
                let read = read.into_mut();
                let before = std::mem::replace(&mut read.activity, activity);
                if let Some(left) = read.left.checked_sub(1) {
                    read.left = left;
                    if activity.is_some() && activity == before {
                        // Once more as it was: what is sampled by these readings is sampled.
                        let memory_stat = values.memory_stat.as_deref().copied().map(Arc::new);
                        return store.update(key, Values { memory_stat, ..Values::default() });
                    }
                    which = which.without(Measurement::Spec);
                } else {
                    read.left = FULL_READ_EVERY - 1;
                }
            }
        }
        self.read_into(store, key, &path, which, skipped);
    }

    /// Forgets cgroups that have gone.
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
        which: Measurements,
        skipped: &mut HashMap<&'static str, u64>,
    ) {
        let reading = match self.reader.read(path, which) {
            Ok(reading) => reading,
            // Its end is noticed elsewhere.
            Err(ReadError::Gone { .. }) => return,
            Err(error) => return self.problem(&error, skipped),
        };
        for problem in &reading.problems {
            self.problem(problem, skipped);
        }
        *skipped.entry("io_lines_without_device").or_default() += reading.skipped_lines;
        store.update(key, reading.values);
    }

    fn problem(&mut self, error: &ReadError, skipped: &mut HashMap<&'static str, u64>) {
        *skipped.entry("cgroup_files").or_default() += 1;
        self.logged += 1;
        if self.logged <= MAX_LOGGED_PROBLEMS {
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, source, "a cgroup file is skipped; further ones are only counted in the metrics");
        }
    }

    /// The processes of a cgroup; `None` if it has gone. A file that cannot be read is a problem of its own.
    pub(super) fn processes(
        &mut self,
        path: &str,
        skipped: &mut HashMap<&'static str, u64>,
    ) -> Option<Vec<u32>> {
        match self.reader.processes(path) {
            Ok(processes) => Some(processes),
            Err(ReadError::Gone { .. }) => None,
            Err(error) => {
                self.problem(&error, skipped);
                None
            }
        }
    }

    /// What the files of one cgroup say now, for a comparison.
    pub(super) fn read(&mut self, path: &str, which: Measurements) -> Option<Values> {
        self.reader.read(path, which).ok().map(|reading| reading.values)
    }

    /// Has the kernel sum up CPU time everywhere.
    pub(super) fn flush_cpu(&mut self) {
        if let Err(error) = self.flusher.flush_cpu() {
            tracing::debug!(%error, "CPU time could not be brought up to date everywhere");
        }
    }

    /// Has the kernel sum up memory statistics everywhere.
    pub(super) fn flush_memory(&mut self) {
        if let Err(error) = self.flusher.flush_memory() {
            tracing::debug!(%error, "memory statistics could not be brought up to date");
        }
    }

    /// Has the kernel sum up the CPU time of one cgroup and all below it: reading its file does that.
    pub(super) fn flush_cpu_of(&mut self, path: &str) {
        let _ = self.reader.read(path, CPU);
    }

    /// Takes over which cgroups lie directly below the root.
    pub(super) fn refresh_flush_points(&mut self, tops: &[Arc<str>]) {
        if let Err(error) = self.flusher.refresh(tops.iter().map(|top| &**top)) {
            tracing::debug!(%error, "a cgroup's CPU time will only be brought up to date by the kernel itself");
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
