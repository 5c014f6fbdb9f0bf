//! Evidence for sizing: what the containers of each workload used, gathered by the hour and handed to the history.

mod looks;
mod memory;
mod peaks;
mod watched;

use std::{collections::btree_map::Entry, sync::Arc, time::Instant};

use rustc_hash::FxHashMap;
use snug_sizing::{
    evidence::{Hour, OomKill},
    minutes::Minute,
    workload::Role,
};

use self::{looks::Looks, peaks::PeakFiles, watched::Watched};
use super::Sampler;
use crate::{
    clock::unix_now,
    history::{Batch, Sink},
    identity::{ContainerKind, Identity, Level},
    model::{HistoryRow, WorkloadKey},
    store::{Key, Stamp, Store},
    values::{Cpu, Measurement, Source, Values},
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
        let wanted =
            Wanted { ladders: self.config.cpu_ladder, memory_histograms: self.config.memory_histograms };
        let mut gatherer = Gatherer::new(sink, window, wanted, unix_now());
        let memory = self.followed.iter().find(|followed| followed.hierarchy.has_memory_of_v2());
        gatherer.peaks = memory.and_then(|followed| PeakFiles::open(&followed.hierarchy.mount));
        self.evidence = Some(gatherer);
        self
    }

    pub(super) fn gather_evidence(&mut self, now: Instant, second: bool) {
        let Some(evidence) = &mut self.evidence else { return };
        let now_unix = unix_now();
        evidence.observe_leaving(&self.store, now, now_unix);
        if second {
            let by_files = !self.origins.with(Source::Kernel).contains(Measurement::Cpu);
            evidence.observe(&self.store, by_files.then_some(now), now_unix);
            for (key, values, seen) in evidence.new_values() {
                self.store.update(key, values);
                *seen = self.store.stamp(key).unwrap_or_default();
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

/// What is shown beside what always is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    ladders: bool,
    memory_histograms: bool,
}

/// Gathers evidence. Only containers and units are watched: what slices use is theirs already.
#[derive(Debug)]
pub(super) struct Gatherer {
    watched: FxHashMap<Key, Watched>,
    wanted: Wanted,
    /// Where the kernel says the highest memory usage since it was last asked.
    peaks: Option<PeakFiles>,
    window_millis: u64,
    looks: Looks,
    /// Those that asked at this look for each window, and at the look before.
    restless: (Vec<Key>, Vec<Key>),
    began_unix: f64,
    hour: Hour,
    handed_over: u64,
    /// Evidence that nobody has taken yet, by subject.
    waiting: Batch,
    sink: Sink,
}

impl Gatherer {
    fn new(sink: Sink, window_millis: u64, wanted: Wanted, now_unix: f64) -> Self {
        Self {
            watched: FxHashMap::default(),
            wanted,
            peaks: None,
            window_millis,
            looks: Looks::new(window_millis),
            restless: (Vec::new(), Vec::new()),
            began_unix: now_unix,
            hour: hour(now_unix),
            handed_over: now_unix as u64,
            waiting: Batch::new(),
            sink,
        }
    }

    /// All cgroups are looked at now: [`Self::cpu`] follows for those that have used CPU time since the last look, and for those of
    /// which it asked for each window.
    pub(super) fn look(&mut self, now: Instant) {
        self.looks.look(now);
        let (asking, asked) = &mut self.restless;
        asked.clear();
        std::mem::swap(asking, asked);
    }

    /// CPU time of a cgroup at this look: what it used since the last one is one window. Returns whether it may be passed over as
    /// long as it uses nothing.
    pub(super) fn cpu(&mut self, key: Key, cpu: Cpu, now_unix: f64) -> bool {
        let Some(watched) = self.watched.get_mut(&key) else { return true };
        watched.cpu(cpu, self.looks, now_unix);
        let may_rest = watched.may_rest();
        if !may_rest {
            self.restless.0.push(key);
        }
        may_rest
    }

    /// Those of which nothing was said at this look have used no CPU time: that is told to those that asked for each window.
    pub(super) fn cpu_of_restless(&mut self, now_unix: f64) {
        let asked = std::mem::take(&mut self.restless.1);
        for key in &asked {
            let watched = self.watched.get(key);
            let seen = watched.and_then(|watched| watched.cpu);
            if let (Some((usage_ns, look)), Some(now)) = (seen, self.looks.now)
                && look.at != now.at
            {
                self.cpu(*key, Cpu { usage_ns }, now_unix);
            }
        }
        // Its room serves the next look.
        self.restless.1 = asked;
    }

    /// Whether memory usage is worth a look between two seconds, too: where the kernel does not say the highest.
    pub(super) fn samples_memory(&self) -> bool {
        self.peaks.is_none()
    }

    /// Memory usage between two seconds, bytes.
    pub(super) fn memory(&mut self, key: Key, usage_bytes: u64) {
        if let Some(watched) = self.watched.get_mut(&key) {
            watched.memory.sample(usage_bytes);
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
        if let Some(now) = cpu_at {
            self.look(now);
        }
        let looks = cpu_at.map(|_| self.looks);
        let minute = Minute::of(now_unix as u64);
        for (key, identity) in store.living() {
            let stamp = store.stamp(key).unwrap_or_default();
            if !self.watched.get_mut(&key).is_some_and(|watched| watched.rests(stamp, minute)) {
                self.observe_one(store, key, identity, looks, now_unix);
            }
        }
        if self.peaks.as_ref().is_some_and(PeakFiles::is_refused) {
            self.peaks = None;
        }
        if (now_unix as u64).abs_diff(self.handed_over) >= HAND_OVER {
            self.collect(store, now_unix);
            self.hand_over();
            self.handed_over = now_unix as u64;
        }
    }

    /// Containers that have ended and are not settled yet: their last values.
    pub(super) fn observe_leaving(&mut self, store: &Store, now: Instant, now_unix: f64) {
        let mut last = self.looks;
        last.look(now);
        for (key, identity) in store.leaving() {
            // It is seen several times, and used nothing in between.
            let usage = store.values(key).and_then(|values| values.cpu).map(|cpu| cpu.usage_ns);
            let seen = self.watched.get(&key).and_then(|watched| watched.cpu).map(|(usage_ns, _)| usage_ns);
            self.observe_one(store, key, identity, (usage != seen).then_some(last), now_unix);
        }
    }

    /// Containers of which nothing more is to come.
    pub(super) fn end(&mut self, gone: &[Key], now_unix: f64) {
        for key in gone {
            if let Some(peaks) = &mut self.peaks {
                peaks.forget(*key);
            }
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
        if let Some(now) = self.looks.now {
            self.watched.values_mut().for_each(|watched| watched.rest_until(now));
        }
        self.collect(store, now_unix);
        self.sink.take_last(std::mem::take(&mut self.waiting));
    }

    /// What is shown of those that were seen since this was last asked, and the place of the stamp that says when.
    fn new_values(&mut self) -> impl Iterator<Item = (Key, Values, &mut Stamp)> {
        let ladders = self.wanted.ladders;
        self.watched.iter_mut().filter_map(move |(key, watched)| {
            if !std::mem::take(&mut watched.is_seen) {
                return None;
            }
            let mut values = Values::default();
            if std::mem::take(&mut watched.has_new_windows) {
                values.cpu_windows = Some(Arc::new((*watched.windows).clone()));
                values.cpu_ladder = ladders.then(|| watched.ladder()).flatten().map(Arc::new);
            }
            watched.memory.show(&mut values);
            Some((*key, values, &mut watched.seen))
        })
    }

    fn observe_one(
        &mut self,
        store: &Store,
        key: Key,
        identity: &Arc<Identity>,
        looks: Option<Looks>,
        now_unix: f64,
    ) {
        if !is_sized(identity) {
            self.watched.remove(&key);
            return;
        }
        let peak = self.peaks.as_mut().and_then(|peaks| peaks.take(key, &identity.path));
        let (Some(values), Some(created_unix)) = (store.values(key), store.created(key)) else { return };
        let is_new = created_unix >= self.began_unix;
        let is_period = self.window_millis == CFS_PERIOD_MILLIS;
        let histograms = self.wanted.memory_histograms;
        // What is at rest is not told until it is no more: the first time counts from now.
        let looks = looks.or_else(|| (!self.watched.contains_key(&key)).then_some(self.looks));
        let watched = self
            .watched
            .entry(key)
            .or_insert_with(|| Watched::new(identity.clone(), created_unix, is_new, is_period, histograms));
        if !Arc::ptr_eq(&watched.identity, identity) {
            watched.identity = identity.clone();
        }
        watched.observe(values, peak, now_unix);
        if let (Some(looks), Some(cpu)) = (looks, values.cpu) {
            watched.cpu(cpu, looks, now_unix);
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
