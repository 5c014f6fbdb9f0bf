//! Evidence for sizing: what the containers of each workload used, gathered by the hour and handed to the history.

mod watched;

use std::{collections::btree_map::Entry, sync::Arc, time::Instant};

use rustc_hash::FxHashMap;
use snug_sizing::{
    evidence::{Hour, OomKill},
    ladder::Ladder,
    workload::Role,
};

use self::watched::Watched;
use super::Sampler;
use crate::{
    clock::unix_now,
    history::{Batch, Sink},
    identity::{ContainerKind, Identity, Level},
    store::{Key, Store, WorkloadKey, published::HistoryRow},
    values::{Cpu, Distribution, Measurement, Source, Values},
};

/// Seconds between two hand-overs: what is lost when the agent is killed.
const HAND_OVER: u64 = 30;
/// Subjects that may wait to be handed over: who makes containers without end costs no more than this.
const MOST_WAITING: usize = 4096;
/// A container without a workload that lived shorter than this, in seconds, is nobody's to size.
const LEAST_LIFE: f64 = 60.0;
/// The period of CFS bandwidth that every container runtime sets unless told otherwise.
const CFS_PERIOD_MILLIS: u64 = 100;

impl Sampler {
    /// Gathers evidence for a history, too.
    #[must_use]
    pub fn gathering(mut self, sink: Sink) -> Self {
        let window = u64::try_from(self.interval().as_millis()).unwrap_or(u64::MAX);
        self.evidence = Some(Gatherer::new(sink, window, unix_now()));
        self
    }

    pub(super) fn gather_evidence(&mut self, now: Instant, second: bool) {
        let Some(evidence) = &mut self.evidence else { return };
        let now_unix = unix_now();
        evidence.observe_leaving(&self.store, now, now_unix);
        if second {
            let by_files = !self.origins.with(Source::Kernel).contains(Measurement::Cpu);
            evidence.observe(&self.store, by_files.then_some(now), now_unix);
            for (key, windows, ladder) in evidence.new_windows(self.config.cpu_ladder) {
                let (cpu_windows, cpu_ladder) = (Some(Arc::new(windows)), ladder.map(Arc::new));
                self.store.update(key, Values { cpu_windows, cpu_ladder, ..Values::default() });
            }
        }
    }
}

impl Sampler {
    /// How containers ended, and those of which nothing more is to come.
    pub(super) fn gather_exits(&mut self, settled: &[Key]) {
        let exits = self.store.take_exits();
        let Some(evidence) = &mut self.evidence else { return };
        for (key, code) in exits {
            evidence.exited(&self.store, key, code, unix_now());
        }
        if !settled.is_empty() {
            evidence.end(settled, unix_now());
        }
    }
}

/// Gathers evidence. Only containers and units are watched: what slices use is theirs already.
#[derive(Debug)]
pub(super) struct Gatherer {
    watched: FxHashMap<Key, Watched>,
    window_millis: u64,
    began_unix: f64,
    hour: Hour,
    handed_over: u64,
    /// Evidence that nobody has taken yet, by subject.
    waiting: Batch,
    sink: Sink,
}

impl Gatherer {
    pub(super) fn new(sink: Sink, window_millis: u64, now_unix: f64) -> Self {
        Self {
            watched: FxHashMap::default(),
            window_millis,
            began_unix: now_unix,
            hour: hour(now_unix),
            handed_over: now_unix as u64,
            waiting: Batch::new(),
            sink,
        }
    }

    /// CPU time of a cgroup: what it used since the last time is one window.
    pub(super) fn cpu(&mut self, key: Key, cpu: Cpu, now: Instant, now_unix: f64) {
        let window_ns = self.window_millis as f64 * 1e6;
        if let Some(watched) = self.watched.get_mut(&key) {
            watched.cpu(cpu, now, now_unix, window_ns);
        }
    }

    /// Once a second: the living, with what is not seen by windows; their CPU time, too, where it is sampled with all else, which is
    /// then said by its time.
    pub(super) fn observe(&mut self, store: &Store, cpu_at: Option<Instant>, now_unix: f64) {
        let hour = hour(now_unix);
        if hour != self.hour {
            self.collect(store, now_unix);
            self.hour = hour;
        }
        for (key, identity) in store.living() {
            self.observe_one(store, key, identity, cpu_at, now_unix);
        }
        if (now_unix as u64).abs_diff(self.handed_over) >= HAND_OVER {
            self.collect(store, now_unix);
            self.hand_over();
            self.handed_over = now_unix as u64;
        }
    }

    /// Containers that have ended and are not settled yet: their last values.
    pub(super) fn observe_leaving(&mut self, store: &Store, now: Instant, now_unix: f64) {
        for (key, identity) in store.leaving() {
            // It is seen several times, and used nothing in between.
            let usage = store.values(key).and_then(|values| values.cpu).map(|cpu| cpu.usage_ns);
            let seen = self.watched.get(&key).and_then(|watched| watched.cpu).map(|(usage_ns, _)| usage_ns);
            let cpu_at = (usage != seen).then_some(now);
            self.observe_one(store, key, identity, cpu_at, now_unix);
        }
    }

    /// Containers of which nothing more is to come.
    pub(super) fn end(&mut self, gone: &[Key], now_unix: f64) {
        for key in gone {
            if let Some(mut watched) = self.watched.remove(key) {
                if watched.is_nobodys(now_unix) {
                    continue;
                }
                if watched.minute_ns > 0 {
                    // Shorter lives than a minute count, too.
                    let start_up = watched.in_start_up(now_unix);
                    watched.end_minute(start_up);
                }
                self.keep(&mut watched, false, now_unix);
            }
        }
    }

    /// The OOM killer has chosen a victim in a container whose own limit could not be kept; bytes.
    pub(super) fn oom_killed(&mut self, store: &Store, key: Key, at_unix: f64, limit: u64) {
        if let (false, Some(identity)) = (self.watched.contains_key(&key), store.identity(key)) {
            self.observe_one(store, key, identity, None, at_unix);
        }
        if let Some(watched) = self.watched.get_mut(&key) {
            let kill = OomKill { at: at_unix as u64, limit, pod: pod(&watched.identity).to_owned() };
            watched.record.kills.push(kill);
        }
    }

    /// Its init process has ended.
    fn exited(&mut self, store: &Store, key: Key, code: u8, now_unix: f64) {
        if let (false, Some(identity)) = (self.watched.contains_key(&key), store.identity(key)) {
            self.observe_one(store, key, identity, None, now_unix);
        }
        if let Some(watched) = self.watched.get_mut(&key) {
            *watched.record.exits.entry(code).or_default() += 1;
        }
    }

    /// All that was gathered, for good.
    pub(super) fn finish(&mut self, store: &Store, now_unix: f64) {
        self.collect(store, now_unix);
        self.sink.take_last(std::mem::take(&mut self.waiting));
    }

    /// Distributions of CPU windows that have changed since this was last asked, with what quotas would have done, if that is wanted.
    fn new_windows(
        &mut self,
        ladders: bool,
    ) -> impl Iterator<Item = (Key, Distribution, Option<Ladder>)> + '_ {
        self.watched.iter_mut().filter_map(move |(key, watched)| {
            let is_new = std::mem::take(&mut watched.has_new_windows);
            let ladder = ladders.then(|| watched.ladder()).flatten();
            is_new.then(|| (*key, (*watched.windows).clone(), ladder))
        })
    }

    fn observe_one(
        &mut self,
        store: &Store,
        key: Key,
        identity: &Arc<Identity>,
        cpu_at: Option<Instant>,
        now_unix: f64,
    ) {
        if !is_sized(identity) {
            self.watched.remove(&key);
            return;
        }
        let (Some(values), Some(created_unix)) = (store.values(key), store.created(key)) else { return };
        let is_new = created_unix >= self.began_unix;
        let is_period = self.window_millis == CFS_PERIOD_MILLIS;
        let watched = self
            .watched
            .entry(key)
            .or_insert_with(|| Watched::new(identity.clone(), created_unix, is_new, is_period));
        if !Arc::ptr_eq(&watched.identity, identity) {
            watched.identity = identity.clone();
        }
        watched.observe(values, now_unix);
        if let (Some(at), Some(cpu)) = (cpu_at, values.cpu) {
            self.cpu(key, cpu, at, now_unix);
        }
    }

    /// How the history fares.
    pub(super) fn history(&self) -> HistoryRow {
        self.sink.row()
    }

    /// Takes what was gathered of each container to the evidence of its workload.
    fn collect(&mut self, store: &Store, now_unix: f64) {
        // What still waits says who lived when it was gathered.
        let of_hour = self.waiting.iter_mut().filter(|((hour, _), _)| *hour == self.hour);
        of_hour.for_each(|(_, evidence)| evidence.workload.replicas = 0);
        let mut watched = std::mem::take(&mut self.watched);
        for (key, one) in &mut watched {
            let lives = store.at(&one.identity.path) == Some(*key);
            self.keep(one, lives, now_unix);
        }
        self.watched = watched;
    }

    /// Takes what was gathered of one container; what has no name yet waits for it.
    fn keep(&mut self, watched: &mut Watched, lives: bool, now_unix: f64) {
        let Some(key) = WorkloadKey::of(&watched.identity) else { return };
        let evidence = watched.take(&key, self.hour, self.window_millis, lives, now_unix);
        if evidence.pods.is_empty() {
            return;
        }
        let room = self.waiting.len() < MOST_WAITING;
        match self.waiting.entry((self.hour, key)) {
            // Both are of the same container and windows.
            Entry::Occupied(mut waiting) => drop(waiting.get_mut().merge(&evidence)),
            Entry::Vacant(place) if room => drop(place.insert(evidence)),
            Entry::Vacant(_) => self.sink.give_up(1),
        }
    }

    fn hand_over(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if let Err(batch) = self.sink.take(std::mem::take(&mut self.waiting)) {
            self.waiting = batch;
        }
    }
}

/// The hour of a time.
fn hour(unix: f64) -> Hour {
    // `as` saturates.
    Hour::of(unix as u64)
}

/// Whether requests and limits could be set for it.
fn is_sized(identity: &Identity) -> bool {
    let kind = identity.names.as_ref().and_then(|names| names.kind);
    matches!(identity.of_path.level, Level::Container | Level::Unit) && kind != Some(ContainerKind::Sandbox)
}

/// The pod; else what there is one of.
fn pod(identity: &Identity) -> &str {
    identity.names.as_ref().map_or(&identity.of_path.id, |names| &names.pod)
}

const fn role_of(kind: ContainerKind) -> Role {
    match kind {
        ContainerKind::Init => Role::Init,
        ContainerKind::Sidecar => Role::Sidecar,
        _ => Role::App,
    }
}

#[cfg(test)]
mod tests;
