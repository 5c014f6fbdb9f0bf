//! Evidence for sizing: what the containers of each workload used, gathered by the hour and handed to the history.

use std::{collections::btree_map::Entry, sync::Arc, time::Instant};

use rustc_hash::FxHashMap;
use snug_sizing::{
    evidence::{Evidence, Hour, HourRecord, OomKill, Peak, PodTotals, START_UP},
    histogram::ZERO_THRESHOLD,
    ladder::Buckets,
    workload::{Container, Kind, Resources, Role, Workload},
};

use super::Sampler;
use crate::{
    clock::unix_now,
    history::{Batch, Sink},
    identity::{ContainerKind, Identity, Level},
    store::{Key, Store, WorkloadKey, published::HistoryRow},
    values::{Cpu, Distribution, Measurement, Source, Throttling, Values},
};

/// Seconds between two hand-overs: what is lost when the agent is killed.
const HAND_OVER: u64 = 30;
/// Subjects that may wait to be handed over: who makes containers without end costs no more than this.
const MOST_WAITING: usize = 4096;
/// A container without a workload that lived shorter than this, in seconds, is nobody's to size.
const LEAST_LIFE: f64 = 60.0;
/// A window that took so many times its length was a stall of the machine; beyond this it is counted as so many and no more.
const MOST_WINDOWS: f64 = 600.0;
/// The period of CFS bandwidth that every container runtime sets unless told otherwise.
const CFS_PERIOD_MILLIS: u64 = 100;
const MINUTE_NS: u64 = 60_000_000_000;

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
            for (key, windows) in evidence.new_windows() {
                self.store.update(key, Values { cpu_windows: Some(Arc::new(windows)), ..Values::default() });
            }
        }
    }
}

/// What is gathered of one container since the last hand-over.
#[derive(Debug)]
struct Watched {
    identity: Arc<Identity>,
    created_unix: f64,
    /// CPU time when last seen, and when that was.
    cpu: Option<(u64, Instant)>,
    /// The kernel's watermark when last seen, bytes.
    watermark: Option<u64>,
    throttling: Option<Throttling>,
    /// Whether it appeared while the agent ran.
    is_new: bool,
    limits: Resources,
    /// Nanoseconds of the minute that has begun, and CPU time used in them.
    minute_ns: u64,
    minute_used_ns: u64,
    /// Nanoseconds watched, and CPU time used in them.
    observed_ns: u64,
    used_ns: u64,
    /// Idle windows that are not counted yet: ten times a second for each container, the less is touched the better. For the same
    /// reason what is large lies elsewhere.
    idle_windows: u64,
    record: Box<HourRecord>,
    /// CPU windows since it was first seen, and whether there are new ones.
    windows: Box<Distribution>,
    has_new_windows: bool,
    /// Of what quotas would have done; `None` where windows are not as long as a CFS period.
    ladder: Option<Box<Buckets>>,
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

    /// All that was gathered, for good.
    pub(super) fn finish(&mut self, store: &Store, now_unix: f64) {
        self.collect(store, now_unix);
        self.sink.take_last(std::mem::take(&mut self.waiting));
    }

    /// Distributions of CPU windows that have changed since this was last asked.
    fn new_windows(&mut self) -> impl Iterator<Item = (Key, Distribution)> + '_ {
        self.watched.iter_mut().filter_map(|(key, watched)| {
            let is_new = std::mem::take(&mut watched.has_new_windows);
            is_new.then(|| (*key, (*watched.windows).clone()))
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

impl Watched {
    /// `is_period`: windows are as long as a CFS period.
    fn new(identity: Arc<Identity>, created_unix: f64, is_new: bool, is_period: bool) -> Self {
        Self {
            identity,
            created_unix,
            cpu: None,
            watermark: is_new.then_some(0),
            throttling: None,
            is_new,
            limits: Resources::default(),
            minute_ns: 0,
            minute_used_ns: 0,
            observed_ns: 0,
            used_ns: 0,
            idle_windows: 0,
            windows: Box::new(Distribution::new(ZERO_THRESHOLD)),
            has_new_windows: false,
            record: Box::new(HourRecord { starts: is_new.into(), ..HourRecord::default() }),
            ladder: is_period.then(Box::default),
        }
    }

    fn is_nobodys(&self, now_unix: f64) -> bool {
        let unnamed = self.identity.names.is_none() && self.identity.of_path.level == Level::Container;
        unnamed && now_unix - self.created_unix < LEAST_LIFE
    }

    fn in_start_up(&self, now_unix: f64) -> bool {
        now_unix - self.created_unix < START_UP as f64
    }

    fn cpu(&mut self, cpu: Cpu, now: Instant, now_unix: f64, window_ns: f64) {
        // Of a container that appeared while the agent ran, all is its own: what it did before it was seen is spread over that time.
        let before = self.cpu.replace((cpu.usage_ns, now));
        let (used_ns, elapsed_ns) = match before {
            Some((usage_ns, at)) => {
                (cpu.usage_ns.saturating_sub(usage_ns), now.saturating_duration_since(at).as_nanos() as f64)
            }
            None if self.is_new => (cpu.usage_ns, (now_unix - self.created_unix).max(0.0) * 1e9),
            None => return,
        };
        if elapsed_ns <= 0.0 {
            return;
        }
        let windows = (elapsed_ns / window_ns).round().clamp(1.0, MOST_WINDOWS);
        let cores = used_ns as f64 / elapsed_ns.max(window_ns);
        if let Some(ladder) = &mut self.ladder {
            let (used, elapsed) = (used_ns as f64 / windows, elapsed_ns / windows);
            for _ in 0..windows as u64 {
                ladder.feed(used as u64, elapsed as u64);
            }
        }
        if used_ns == 0 {
            self.idle_windows += windows as u64;
        } else {
            self.count_windows(cores, windows as u64, now_unix);
        }
        self.observed_ns = self.observed_ns.saturating_add(elapsed_ns as u64);
        self.used_ns = self.used_ns.saturating_add(used_ns);
        self.minute_ns = self.minute_ns.saturating_add(elapsed_ns as u64);
        self.minute_used_ns = self.minute_used_ns.saturating_add(used_ns);
        if self.minute_ns >= MINUTE_NS {
            self.end_minute(self.in_start_up(now_unix));
        }
    }

    fn count_windows(&mut self, cores: f64, windows: u64, now_unix: f64) {
        let start_up = self.in_start_up(now_unix);
        let record = &mut self.record;
        let histogram = if start_up { &mut record.cpu_start } else { &mut record.cpu };
        histogram.record(cores, windows);
        self.windows.record(cores, windows);
        self.has_new_windows = true;
    }

    /// What is counted once a second, and before anything is taken away.
    fn count_idle_windows(&mut self, now_unix: f64) {
        let idle = std::mem::take(&mut self.idle_windows);
        if idle > 0 {
            self.count_windows(0.0, idle, now_unix);
        }
    }

    /// What was used since the last minute ended is one more; after a stall it is as many as it was long.
    fn end_minute(&mut self, start_up: bool) {
        let (elapsed, used) = (std::mem::take(&mut self.minute_ns), std::mem::take(&mut self.minute_used_ns));
        let times = (elapsed + MINUTE_NS / 2) / MINUTE_NS;
        let record = &mut self.record;
        let minutes = if start_up { &mut record.minutes_start } else { &mut record.minutes };
        minutes.record(used as f64 / elapsed as f64, times.clamp(1, MOST_WINDOWS as u64));
    }

    fn observe(&mut self, values: &Values, now_unix: f64) {
        self.count_idle_windows(now_unix);
        if let Some(memory) = values.memory {
            self.limits.memory_limit = memory.limit_bytes;
        }
        if let Some(throttling) = values.throttling {
            self.limits.cpu_limit = throttling
                .quota_ns
                .filter(|_| throttling.period_ns > 0)
                .map(|quota| (quota as f64 * 1000.0 / throttling.period_ns as f64).round() as u64);
            if let Some(before) = self.throttling.replace(throttling) {
                self.record.periods += throttling.periods.saturating_sub(before.periods);
                self.record.throttled +=
                    throttling.throttled_periods.saturating_sub(before.throttled_periods);
            }
        }
        self.observe_memory(values, now_unix);
    }

    /// The highest use is the working set of each second; and where the kernel's watermark has risen between two of them, that, less the
    /// file cache that can be given back.
    fn observe_memory(&mut self, values: &Values, now_unix: f64) {
        let Some(working_set) = values.working_set else { return };
        let watermark = values.memory.and_then(|memory| memory.peak_bytes);
        let risen = watermark.filter(|peak| self.watermark.is_some_and(|before| *peak > before));
        self.watermark = watermark.or(self.watermark);
        let peak = risen.map_or(0, |peak| peak.saturating_sub(working_set.inactive_file_bytes));
        let bytes = working_set.bytes.max(peak);
        self.record.working_set.record(working_set.bytes as f64, 1);
        let start_up = self.in_start_up(now_unix);
        let highest = if start_up { &mut self.record.start_peak } else { &mut self.record.peak };
        if highest.as_ref().is_none_or(|peak| peak.bytes < bytes) {
            *highest = Some(Peak { bytes, at: now_unix as u64, pod: pod(&self.identity).to_owned() });
        }
    }

    /// What was gathered, as evidence of its workload; nothing of it is left.
    fn take(
        &mut self,
        key: &WorkloadKey,
        hour: Hour,
        window_millis: u64,
        lives: bool,
        now_unix: f64,
    ) -> Evidence {
        self.count_idle_windows(now_unix);
        let names = self.identity.names.as_deref();
        let (namespace, owner, name, container) = key.parts();
        let workload = Workload {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            owner: owner.to_owned(),
            kind: Kind::of_owner(owner),
            replicas: lives.into(),
        };
        let container = Container {
            name: container.to_owned(),
            role: names.and_then(|names| names.kind).map_or(Role::App, role_of),
            seen: now_unix as u64,
            in_force: self.in_force(),
        };
        let mut evidence = Evidence::new(workload, container, window_millis);
        // What is less than a second stays for the next time.
        let observed = self.observed_ns / 1_000_000_000;
        if observed == 0 && *self.record == HourRecord::default() {
            return evidence;
        }
        self.observed_ns -= observed * 1_000_000_000;
        let cpu_millis = self.used_ns / 1_000_000;
        self.used_ns -= cpu_millis * 1_000_000;
        let mut record = std::mem::take(&mut *self.record);
        record.observed = observed;
        record.ladder = self.ladder.as_mut().and_then(|ladder| ladder.take());
        record.kills.sort();
        let peak = record.highest().map_or(0, |peak| peak.bytes);
        let totals = PodTotals { observed, cpu_millis, peak, node_class: String::new() };
        evidence.pods.insert(pod(&self.identity).to_owned(), totals);
        evidence.hours.insert(hour, record);
        evidence
    }

    /// Requests are what the pod says; limits are what the kernel enforces.
    fn in_force(&self) -> Resources {
        let of_pod = self.identity.names.as_ref().map(|names| names.resources).unwrap_or_default();
        Resources { cpu_limit: self.limits.cpu_limit, memory_limit: self.limits.memory_limit, ..of_pod }
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
