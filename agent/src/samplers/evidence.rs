//! Usage history of workloads ([`Evidence`](snug_sizing::evidence::Evidence)): usage of their containers, collected per hour
//! and handed to the history, from which `snug recommend` computes requests and limits.
//!
//! Input: the values of the store and, per container, `memory.peak` (see [`peaks`]). Metrics:
//! `snug_container_cpu_window_cores`, `snug_container_memory_window_peak_bytes`, `snug_container_memory_growth_bytes_per_second`;
//! if enabled, the quota simulation and the histograms of memory.

mod container;
mod memory;
mod peaks;
mod sample_clock;

use std::{collections::btree_map::Entry, sync::Arc, time::Instant};

use rustc_hash::{FxHashMap, FxHashSet};
use snug_sizing::{
    evidence::{Hour, OomKill},
    minutes::Minute,
    workload::Role,
};

use self::{container::ContainerUsage, peaks::PeakFiles, sample_clock::SampleClock};
use super::{Component, Round, Sampler};
use crate::{
    clock::unix_now,
    history::{Batch, Sink},
    identity::{ContainerKind, Identity, Level},
    model::{AgentRule, HistoryRow, WorkloadKey},
    store::{Key, Stamp, Store},
    values::{Cpu, Measurement, SourceKind, Values},
};

/// Seconds after which collected usage is handed to the history. If the agent is killed, at most this much is lost.
const FLUSH_SECONDS: u64 = 30;
/// The same in the first [`FIRST_SECONDS`]: the first recommendations should not wait for the history.
const FIRST_FLUSH_SECONDS: u64 = 5;
/// Longer than the minute of usage that a recommendation needs.
const FIRST_SECONDS: f64 = 120.0;
/// Maximum number of subjects (hour and workload) pending for the history. Bounds memory if containers are created without
/// end.
const MAX_PENDING_SUBJECTS: usize = 4096;
/// A container without a name is ignored until it has lived this many seconds.
const MIN_LIFETIME_SECONDS: f64 = 60.0;
/// The CFS period that container runtimes set by default.
const CFS_PERIOD_MILLIS: u64 = 100;

impl Sampler {
    /// Collects usage for a history, too.
    #[must_use]
    pub fn with_history(mut self, sink: Sink) -> Self {
        let window = u64::try_from(self.interval().as_millis()).unwrap_or(u64::MAX);
        let config = &self.round.config;
        let options =
            EvidenceOptions { quota_what_if: config.cpu_ladder, memory_histograms: config.memory_histograms };
        let mut collector = UsageCollector::new(sink, window, options, unix_now());
        let memory = self.round.hierarchies.iter().find(|tracked| tracked.hierarchy.has_v2_memory());
        collector.peaks = memory.and_then(|tracked| PeakFiles::open(&tracked.hierarchy.mount));
        self.round.evidence = Some(collector);
        self
    }
}

pub(super) struct UsageHistory;

impl Component for UsageHistory {
    /// Collects usage, and what containers have of it that ended. Those get no further values: they are settled here.
    fn round(&mut self, round: &mut Round) {
        let Round { store, now, .. } = round;
        let now_unix = unix_now();
        if let Some(evidence) = &mut round.evidence {
            evidence.observe_leaving(store, *now, now_unix);
            if round.is_full {
                let by_files = !round.sources.with_source(SourceKind::Kernel).contains(Measurement::Cpu);
                evidence.observe(store, by_files.then_some(*now), now_unix);
                for (key, values, seen) in evidence.new_values() {
                    store.update(key, values);
                    *seen = store.stamp(key).unwrap_or_default();
                }
            }
        }
        round.settled = store.settle(*now);
        // Taken even if nothing records them, so that they do not accumulate.
        let (exits, finished) = (store.take_exits(), store.take_finished());
        let Some(evidence) = &mut round.evidence else { return };
        for (key, code) in exits {
            evidence.exited(store, key, code, now_unix);
        }
        evidence.end(&round.settled, now_unix);
        for (key, identity) in finished {
            evidence.finish_one(key, &identity, now_unix);
        }
    }

    fn finish(&mut self, round: &mut Round) {
        if let Some(evidence) = &mut round.evidence {
            evidence.finish(&round.store, unix_now());
        }
    }
}

/// Optional values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EvidenceOptions {
    quota_what_if: bool,
    memory_histograms: bool,
}

/// Collects usage of containers and systemd units. Pods and slices are left out: their usage is that of their containers.
#[derive(Debug)]
pub(super) struct UsageCollector {
    containers: FxHashMap<Key, ContainerUsage>,
    options: EvidenceOptions,
    /// Resettable `memory.peak` files, if the kernel has them.
    peaks: Option<PeakFiles>,
    window_millis: u64,
    clock: SampleClock,
    /// Containers that need every window, also idle ones: as of this sample, and as of the previous one.
    every_window: (Vec<Key>, Vec<Key>),
    began_unix: f64,
    hour: Hour,
    flushed_at: u64,
    /// Usage not handed to the history yet, by hour and workload.
    pending: Batch,
    sink: Sink,
}

impl UsageCollector {
    fn new(sink: Sink, window_millis: u64, options: EvidenceOptions, now_unix: f64) -> Self {
        Self {
            containers: FxHashMap::default(),
            options,
            peaks: None,
            window_millis,
            clock: SampleClock::new(window_millis),
            every_window: (Vec::new(), Vec::new()),
            began_unix: now_unix,
            hour: hour(now_unix),
            flushed_at: now_unix as u64,
            pending: Batch::new(),
            sink,
        }
    }

    /// Begins a sample of CPU time. Calls of [`Self::cpu`] follow for the cgroups that used CPU time since the last sample, then
    /// one of [`Self::record_idle_cpu`].
    pub(super) fn tick(&mut self, now: Instant) {
        self.clock.tick(now);
        let (current, previous) = &mut self.every_window;
        previous.clear();
        std::mem::swap(current, previous);
    }

    /// CPU time of a cgroup in this sample; the usage since the previous one is a window. Returns whether further samples may
    /// leave the cgroup out while it is idle.
    pub(super) fn cpu(&mut self, key: Key, cpu: Cpu, now_unix: f64) -> bool {
        let Some(container) = self.containers.get_mut(&key) else { return true };
        container.cpu(cpu, self.clock, now_unix);
        let needs_every_window = container.needs_every_window();
        if needs_every_window {
            self.every_window.0.push(key);
        }
        !needs_every_window
    }

    /// Records an idle window for the containers that need every window and are not in this sample.
    pub(super) fn record_idle_cpu(&mut self, now_unix: f64) {
        let previous = std::mem::take(&mut self.every_window.1);
        for key in &previous {
            let container = self.containers.get(key);
            let seen = container.and_then(|container| container.cpu);
            if let (Some((usage_ns, then)), Some(now)) = (seen, self.clock.now)
                && then.at != now.at
            {
                self.cpu(*key, Cpu { usage_ns }, now_unix);
            }
        }
        // Keeps the allocation for the next sample.
        self.every_window.1 = previous;
    }

    /// Whether memory usage should be sampled in every round: if the kernel does not report the peak since the last reading.
    pub(super) fn samples_memory(&self) -> bool {
        self.peaks.is_none()
    }

    /// Memory usage of a cgroup in a sample between two full rounds, bytes.
    pub(super) fn memory(&mut self, key: Key, usage_bytes: u64) {
        if let Some(container) = self.containers.get_mut(&key) {
            container.memory.sample(usage_bytes);
        }
    }

    /// Observes all present containers; called in each full round. `cpu_at`: when CPU time was sampled, if it was sampled from
    /// files in this round.
    pub(super) fn observe(&mut self, store: &Store, cpu_at: Option<Instant>, now_unix: f64) {
        let hour = hour(now_unix);
        if hour != self.hour {
            self.collect(store, false, now_unix);
            // Two hours of usage would take twice the memory.
            self.flush();
            self.hour = hour;
        }
        if let Some(now) = cpu_at {
            self.tick(now);
        }
        let clock = cpu_at.map(|_| self.clock);
        let minute = Minute::from_seconds(now_unix as u64);
        for (key, identity) in store.living() {
            let stamp = store.stamp(key).unwrap_or_default();
            if !self.containers.get_mut(&key).is_some_and(|container| container.is_idle(stamp, minute)) {
                self.observe_one(store, key, identity, clock, now_unix);
            }
        }
        if self.peaks.as_ref().is_some_and(PeakFiles::is_disabled) {
            self.peaks = None;
        }
        let is_first = now_unix - self.began_unix < FIRST_SECONDS;
        let after = if is_first { FIRST_FLUSH_SECONDS } else { FLUSH_SECONDS };
        if (now_unix as u64).abs_diff(self.flushed_at) >= after {
            self.collect(store, false, now_unix);
            self.flush();
            self.flushed_at = now_unix as u64;
        }
    }

    /// Observes the last values of removed containers that are not settled yet.
    pub(super) fn observe_leaving(&mut self, store: &Store, now: Instant, now_unix: f64) {
        let mut last = self.clock;
        last.tick(now);
        for (key, identity) in store.leaving() {
            // Called several times per container: CPU time counts only when it has changed.
            let usage = store.values(key).and_then(|values| values.cpu).map(|cpu| cpu.usage_ns);
            let seen =
                self.containers.get(&key).and_then(|container| container.cpu).map(|(usage_ns, _)| usage_ns);
            self.observe_one(store, key, identity, (usage != seen).then_some(last), now_unix);
        }
    }

    /// Settled containers get no further values.
    pub(super) fn end(&mut self, settled: &[Key], now_unix: f64) {
        for key in settled {
            if let Some(peaks) = &mut self.peaks {
                peaks.forget(*key);
            }
            if let Some(container) = self.containers.get_mut(key) {
                container.end(now_unix);
            }
        }
    }

    /// The name of an ended container is known, or will not be.
    pub(super) fn finish_one(&mut self, key: Key, identity: &Arc<Identity>, now_unix: f64) {
        let Some(mut container) = self.containers.remove(&key) else { return };
        container.identity = identity.clone();
        if is_sized(identity) && !container.is_unowned(now_unix) {
            self.move_to_pending(&mut container, false, now_unix);
        }
    }

    /// Records an OOM kill caused by the container's own memory `limit`, bytes.
    pub(super) fn oom_killed(&mut self, store: &Store, key: Key, at_unix: f64, limit: u64) {
        if let (false, Some(identity)) = (self.containers.contains_key(&key), store.identity(key)) {
            self.observe_one(store, key, identity, None, at_unix);
        }
        if let Some(container) = self.containers.get_mut(&key) {
            let kill = OomKill { at: at_unix as u64, limit, pod: pod(&container.identity).to_owned() };
            container.record.kills.push(kill);
        }
    }

    /// Records an OOM kill that only a pod status reports. The run that was killed may never have been seen, and ended long ago: the
    /// kill belongs to this hour, with its own time, because nothing else is known of that one.
    pub(super) fn reported_kill(&mut self, identity: Arc<Identity>, at_unix: f64, limit: u64) {
        if is_sized(&identity) {
            let mut container = ContainerUsage::killed(identity, at_unix, limit);
            self.move_to_pending(&mut container, false, at_unix);
        }
    }

    /// Records the exit code of a container's init process.
    fn exited(&mut self, store: &Store, key: Key, code: u8, now_unix: f64) {
        if let (false, Some(identity)) = (self.containers.contains_key(&key), store.identity(key)) {
            self.observe_one(store, key, identity, None, now_unix);
        }
        if let Some(container) = self.containers.get_mut(&key) {
            *container.record.exits.entry(code).or_default() += 1;
        }
    }

    /// Hands all collected usage to the history, for the last time.
    pub(super) fn finish(&mut self, store: &Store, now_unix: f64) {
        if let Some(now) = self.clock.now {
            self.containers.values_mut().for_each(|container| container.count_idle_until(now));
        }
        self.collect(store, true, now_unix);
        self.sink.take_last(std::mem::take(&mut self.pending));
    }

    /// New values of the containers observed since the last call, and for each the field to set to the store's stamp.
    fn new_values(&mut self) -> impl Iterator<Item = (Key, Values, &mut Stamp)> {
        let quota_what_if = self.options.quota_what_if;
        self.containers.iter_mut().filter_map(move |(key, container)| {
            if !std::mem::take(&mut container.is_seen) {
                return None;
            }
            let mut values = Values::default();
            if std::mem::take(&mut container.has_new_windows) {
                values.cpu_windows = Some(Arc::new((*container.windows).clone()));
                values.quota_what_if =
                    quota_what_if.then(|| container.quota_what_if()).flatten().map(Arc::new);
            }
            container.memory.fill_values(&mut values);
            Some((*key, values, &mut container.seen))
        })
    }

    fn observe_one(
        &mut self,
        store: &Store,
        key: Key,
        identity: &Arc<Identity>,
        clock: Option<SampleClock>,
        now_unix: f64,
    ) {
        if !is_sized(identity) {
            self.containers.remove(&key);
            return;
        }
        let peak = self.peaks.as_mut().and_then(|peaks| peaks.take(key, &identity.path));
        let (Some(values), Some(created_unix)) = (store.values(key), store.created(key)) else { return };
        let is_new = created_unix >= self.began_unix;
        let is_period = self.window_millis == CFS_PERIOD_MILLIS;
        let histograms = self.options.memory_histograms;
        // Samples leave idle cgroups out. Without this the first window of a new, idle container would have no start.
        let clock = clock.or_else(|| (!self.containers.contains_key(&key)).then_some(self.clock));
        let container = self.containers.entry(key).or_insert_with(|| {
            ContainerUsage::new(identity.clone(), created_unix, is_new, is_period, histograms)
        });
        if !Arc::ptr_eq(&container.identity, identity) {
            container.identity = identity.clone();
        }
        container.observe(values, peak, now_unix);
        if let (Some(clock), Some(cpu)) = (clock, values.cpu) {
            container.cpu(cpu, clock, now_unix);
        }
    }

    /// State of the history, for the agent's metrics.
    pub(super) fn history(&self) -> HistoryRow {
        self.sink.row()
    }

    /// Moves the collected usage of all containers to the pending usage of their workloads. `is_last`: the agent ends.
    fn collect(&mut self, store: &Store, is_last: bool, now_unix: f64) {
        // Replicas are counted again: the pending number is that of the last collection.
        let of_hour = self.pending.iter_mut().filter(|((hour, _), _)| *hour == self.hour);
        of_hour.for_each(|(_, evidence)| evidence.workload.replicas = 0);
        let mut containers = std::mem::take(&mut self.containers);
        let mut counted = FxHashSet::default();
        for (key, container) in &mut containers {
            if !is_last && container.is_unowned(now_unix) {
                continue;
            }
            // A runtime may keep the cgroup of an earlier instance: without tasks, or beside the one that runs now.
            let lives = store.get_by_path(&container.identity.path) == Some(*key)
                && store.values(*key).and_then(|values| values.pids).is_none_or(|pids| pids.current > 0)
                && WorkloadKey::from_identity(&container.identity).is_some_and(|workload| {
                    counted.insert((workload, pod(&container.identity).to_owned()))
                        || !AgentRule::OneReplicaPerPod.is_on()
                });
            self.move_to_pending(container, lives, now_unix);
        }
        self.containers = containers;
    }

    /// Moves the collected usage of a container to the pending usage of its workload. A container without a name keeps it.
    fn move_to_pending(&mut self, container: &mut ContainerUsage, lives: bool, now_unix: f64) {
        let Some(key) = WorkloadKey::from_identity(&container.identity) else { return };
        let evidence = container.take(&key, self.hour, self.window_millis, lives, now_unix);
        if evidence.pods.is_empty() {
            return;
        }
        let room = self.pending.len() < MAX_PENDING_SUBJECTS;
        match self.pending.entry((self.hour, key)) {
            // `merge` fails only for another container or window length, which the key and the configuration exclude.
            Entry::Occupied(mut pending) => drop(pending.get_mut().merge(&evidence)),
            Entry::Vacant(place) if room => drop(place.insert(evidence)),
            Entry::Vacant(_) => self.sink.give_up(1),
        }
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if let Err(batch) = self.sink.take(std::mem::take(&mut self.pending)) {
            self.pending = batch;
        }
    }
}

/// The hour of a time.
fn hour(unix: f64) -> Hour {
    // `as` saturates.
    Hour::from_seconds(unix as u64)
}

/// Whether requests and limits can be set for the cgroup. Ephemeral containers have none.
fn is_sized(identity: &Identity) -> bool {
    let kind = identity.names.as_ref().and_then(|names| names.kind);
    let is_left_out = match kind {
        Some(ContainerKind::Sandbox) => true,
        Some(ContainerKind::Ephemeral) => AgentRule::Ephemeral.is_on(),
        _ => false,
    };
    matches!(identity.of_path.level, Level::Container | Level::Unit) && !is_left_out
}

/// Name of the pod; without names, the container's or unit's own id.
fn pod(identity: &Identity) -> &str {
    identity.names.as_ref().map_or(&identity.of_path.id, |names| &names.pod)
}

fn role_of(kind: ContainerKind) -> Role {
    match kind {
        ContainerKind::Init if AgentRule::Roles.is_on() => Role::Init,
        ContainerKind::Sidecar if AgentRule::Roles.is_on() => Role::Sidecar,
        _ => Role::App,
    }
}

#[cfg(test)]
mod tests;
