//! Cgroup files that take long to read, or that change rarely.
//!
//! Files, for a scrape and at least once per `slow-interval`: `cpu.stat`, `memory.stat`, `io.stat`, `cpu.weight`, `memory.min` (cgroup
//! v1: their counterparts). Metrics: `snug_container_cpu_user_seconds_total`, `snug_container_cpu_system_seconds_total`,
//! `snug_container_memory_stat_bytes`, `snug_container_page_faults_total`, `snug_container_refaults_total`,
//! `snug_container_page_scans_total`, `snug_container_io_bytes_total`, `snug_container_io_operations_total`.

use std::{
    collections::hash_map::Entry,
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{Component, Round, round_robin::RoundRobin};
use crate::{
    cgroupfs::Measurements,
    model::AgentRule,
    store::Key,
    values::{Cpu, Measurement, Memory, Values, WorkingSet},
};

/// The slow files are read once per interval; those that rarely change, and those of idle cgroups, only every fourth time.
const COMPLETE_READ_EVERY: u8 = 4;

/// Readers have the slow files of all cgroups read at most this many times per interval.
const MAX_READINGS_TOGETHER: u32 = 3;
/// How late the reader may be that asks once per interval. Files that it had read are not read in between.
const READING_TOGETHER_MARGIN: Duration = Duration::from_secs(1);

/// Maximum number of new cgroups per round whose slow files are read at once, before their turn.
const MAX_NEW_PER_ROUND: usize = 20;

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

#[derive(Default)]
pub(super) struct SlowFiles {
    /// The cgroups in the order in which their files are read.
    queue: RoundRobin<Key>,
    last_reads: FxHashMap<Key, LastRead>,
    /// When the files of all cgroups were last read together.
    read_together: Option<Instant>,
}

impl Component for SlowFiles {
    /// Reads the files of the cgroups that are due, so that each is read once per `slow-interval`, unless readers had all of them read
    /// within it.
    fn round(&mut self, round: &mut Round) {
        let (now, interval) = (round.now, round.config.slow_interval);
        let read_lately = self
            .read_together
            .is_some_and(|at| now.saturating_duration_since(at) < interval + READING_TOGETHER_MARGIN);
        if !read_lately {
            let store = &round.store;
            let due = self.queue.due(now, interval, || store.living().map(|(key, _)| key).collect());
            due.into_iter().for_each(|key| self.read(round, key));
        }
        let mut left = MAX_NEW_PER_ROUND;
        while left > 0
            && let Some(key) = round.store.next_appeared()
        {
            let values = round.store.values(key);
            if values.is_some_and(|values| values.cpu_split.is_none() && values.memory_stat.is_none()) {
                self.read(round, key);
                left -= 1;
            }
        }
        self.set_age(round);
    }

    /// Reads the files of all cgroups: what one scrape shows belongs to one moment. `rate()` of values whose age differs from scrape
    /// to scrape would jitter. Not more often than three times per `slow-interval`.
    fn refresh(&mut self, round: &mut Round) {
        let (now, interval) = (round.now, round.config.slow_interval);
        let age = self.read_together.map(|at| now.saturating_duration_since(at));
        let is_fresh = age.is_some_and(|age| age < interval / MAX_READINGS_TOGETHER);
        if !is_fresh && AgentRule::OneMoment.is_on() {
            self.read_together = Some(now);
            let all: Vec<Key> = round.store.living().map(|(key, _)| key).collect();
            all.into_iter().for_each(|key| self.read(round, key));
            self.queue.restart(now);
        }
        self.set_age(round);
    }

    fn forget(&mut self, _: &mut Round, settled: &[Key]) {
        for key in settled {
            self.last_reads.remove(key);
        }
    }
}

impl SlowFiles {
    /// Sets the age of the values: that of the oldest one.
    fn set_age(&self, round: &mut Round) {
        if let Some(oldest) = self.last_reads.values().map(|read| read.at).min() {
            round.sources.sampled(Measurements::ONLY_IN_FILES, oldest);
        }
        if let Some(oldest) = self.last_reads.values().map(|read| read.complete_at).min() {
            round.sources.sampled(Measurements::NONE.with(Measurement::Spec), oldest);
        }
    }

    fn read(&mut self, round: &mut Round, key: Key) {
        let Round { store, now, .. } = round;
        let now = *now;
        let Some(values) = store.values(key) else { return };
        let activity = activity(values);
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
        round.files.sample(store, &[key], measurements, &mut round.skipped);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::FileExt as _, path::Path};

    use proptest::prelude::*;

    use super::*;
    use crate::{identity::path, store::Appearance};

    const INTERVAL: Duration = Duration::from_secs(30);

    /// Some cgroups with one `cpu.stat`.
    struct Fixture {
        files: SlowFiles,
        round: Round,
        cgroups: Vec<Key>,
    }

    impl Fixture {
        fn new(mount: &Path, cgroups: usize, now: Instant) -> Self {
            let mut round = Round::for_tests(mount, now);
            round.config.slow_interval = INTERVAL;
            let add = |number: usize| {
                let path = format!("/{number}");
                let appearance = Appearance {
                    path: path.as_str().into(),
                    of_path: path::parse(&path).unwrap(),
                    created_unix: 0.0,
                    present_at_start: true,
                };
                round.store.appear(appearance, 0, now)
            };
            let cgroups = (0..cgroups).map(add).collect();
            Self { files: SlowFiles::default(), round, cgroups }
        }

        /// CPU time and user time of each cgroup, seconds.
        fn shown(&self) -> Vec<Option<[u64; 2]>> {
            let of = |key: &Key| {
                let values = self.round.store.values(*key)?;
                Some([values.cpu?.usage_ns, values.cpu_split?.user_ns].map(|ns| ns / 1_000_000_000))
            };
            self.cgroups.iter().map(of).collect()
        }

        fn oldest(&self) -> Option<Instant> {
            let mut sources = self.round.sources.rows();
            sources.find(|source| source.measurement == Measurement::SlowRows)?.sampled_at
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
            let begun = Instant::now();
            let mut fixture = Fixture::new(folder.path(), *cgroups, begun);
            // Always three digits, so that the file is written over.
            let (mut seconds, mut read_at) = (100, None);
            for (passed, is_reader) in steps {
                seconds += passed;
                let micros = seconds * 1_000_000;
                let text = format!("usage_usec {micros}\nuser_usec {micros}\nsystem_usec 0\n");
                stat.write_all_at(text.as_bytes(), 0).unwrap();
                let now = begun + Duration::from_secs(seconds);
                let Fixture { files, round, .. } = &mut fixture;
                round.now = now;
                if !is_reader {
                    files.round(round);
                    continue;
                }
                files.refresh(round);
                if read_at.is_none_or(|at| seconds - at >= INTERVAL.as_secs() / 3) {
                    read_at = Some(seconds);
                }
                let at = read_at.unwrap_or_default();
                let (shown, oldest) = (fixture.shown(), fixture.oldest());
                let is_of_one_moment = shown == vec![Some([at; 2]); *cgroups]
                    && oldest.is_some_and(|oldest| oldest == begun + Duration::from_secs(at));
                if !is_of_one_moment {
                    return Err(format!("{shown:?} at {seconds} s, read at {at} s"));
                }
            }
            Ok(())
        });
    }
}
