//! Evidence from results of queries.

use std::collections::BTreeMap;

use snug_sizing::{
    backtest::trace::owner as owner_by_name,
    evidence::{Evidence, Hour, HourRecord, OomKill, Peak, PodTotals},
    minutes::MINUTE,
    workload::{Container, Role, Workload, WorkloadKind},
};

use super::{
    kube_state::KubeState,
    oom::{Restarts, States},
    query::{ContainerKey, Points},
    reader::Period,
    short_runs::{ShortRun, ShortRuns},
    windows::Windows,
};
use crate::{advice::CommandRule, evidence::Snapshot};

/// Containers that are first seen this soon after the first of all may be older than the metrics.
const BEGINNING: u64 = 900;
/// Length of Snug's windows, milliseconds.
const WINDOW_MILLIS: u64 = 100;
/// Upper bound of OOM kills of one container in an hour.
const MAX_KILLS: u64 = 20;

/// Evidence of one container of one pod.
#[derive(Debug)]
struct ObservedContainer {
    evidence: Evidence,
    /// Times of the first and of the last window, seconds.
    first: u64,
    last: u64,
}

/// Builds evidence from usage first, then from the rest.
#[derive(Debug)]
pub(super) struct EvidenceBuilder {
    by_container: BTreeMap<ContainerKey, ObservedContainer>,
    period: Period,
    /// Whether Snug's windows are available as native histograms.
    has_windows: bool,
    /// Runs whose usage is not that of rates.
    short_runs: ShortRuns,
}

impl EvidenceBuilder {
    pub(super) fn new(period: Period, has_windows: bool, short_runs: ShortRuns) -> Self {
        let mut builder = Self { by_container: BTreeMap::new(), period, has_windows, short_runs };
        builder.add_short_runs();
        builder
    }

    /// Adds short runs, each with its mean usage.
    fn add_short_runs(&mut self) {
        let window_millis = self.window_millis();
        let (window, has_windows) = (self.period.window, self.has_windows);
        for (key, runs) in &self.short_runs {
            let first = runs.iter().map(|run| run.from as u64).min().unwrap_or(0);
            let seen = self.by_container.entry(key.clone()).or_insert_with(|| ObservedContainer {
                evidence: Evidence::new(Workload::default(), Container::default(), window_millis),
                first,
                last: 0,
            });
            for ShortRun { from, to, cpu } in runs {
                let seconds = (to - from).max(1.0);
                let (cores, observed) = (cpu / seconds, seconds.round() as u64);
                seen.last = seen.last.max(*to as u64);
                let totals = seen.evidence.pods.entry(key.1.clone()).or_default();
                add(&mut totals.observed, observed);
                add(&mut totals.cpu_millis, (cpu * 1000.0) as u64);
                let record = seen.evidence.hours.entry(hour_before(*to as u64)).or_default();
                add(&mut record.observed, observed);
                // At least one, as if it had lasted so long.
                let count = |length: u64| ((seconds / length as f64).round() as u64).max(1);
                if has_windows {
                    record.minutes.record(cores, count(MINUTE));
                } else {
                    record.cpu.record(cores, count(window));
                }
            }
        }
    }

    /// Whether a short run of a container is in the window that ends at a time.
    fn has_short_run(&self, key: &ContainerKey, at: u64) -> bool {
        let (from, to) = (at.saturating_sub(self.period.window) as f64, at as f64);
        let runs = self.short_runs.get(key);
        runs.is_some_and(|runs| runs.iter().any(|run| run.from < to && run.to > from))
    }

    /// Whether Snug's windows are read, too.
    pub(super) const fn has_windows(&self) -> bool {
        self.has_windows
    }

    /// Whether there is no CPU usage.
    pub(super) fn is_empty(&self) -> bool {
        self.by_container.is_empty()
    }

    /// When the first container was seen.
    pub(super) fn begin(&self) -> u64 {
        self.by_container.values().map(|seen| seen.first).min().unwrap_or(self.period.from)
    }

    /// Adds CPU usage in cores, at the ends of windows.
    pub(super) fn cpu(&mut self, key: ContainerKey, values: &Points) {
        let (pod, window) = (key.1.clone(), self.period.window);
        let values: Points =
            values.iter().filter(|(at, _)| !self.has_short_run(&key, *at)).copied().collect();
        let Some((first, _)) = values.first() else { return };
        let window_millis = self.window_millis();
        let seen = self.by_container.entry(key).or_insert_with(|| ObservedContainer {
            evidence: Evidence::new(Workload::default(), Container::default(), window_millis),
            first: *first,
            last: 0,
        });
        for (at, cores) in values.iter().filter(|(_, cores)| *cores >= 0.0) {
            seen.last = seen.last.max(*at);
            let totals = seen.evidence.pods.entry(pod.clone()).or_default();
            add(&mut totals.observed, window);
            add(&mut totals.cpu_millis, (cores * window as f64 * 1000.0) as u64);
            let record = seen.evidence.hours.entry(hour_before(*at)).or_default();
            add(&mut record.observed, window);
            if self.has_windows {
                record.minutes.record(*cores, (window + MINUTE / 2) / MINUTE);
            } else {
                record.cpu.record(*cores, 1);
            }
        }
    }

    /// Adds Snug's windows and quota simulation until a time, for containers with CPU usage.
    pub(super) fn windows(&mut self, counted: Windows, until: u64) {
        let Windows { windows, quota_what_ifs } = counted;
        for (key, histogram) in windows {
            if let Some(seen) = self.by_container.get_mut(&key) {
                seen.evidence.hours.entry(hour_before(until)).or_default().cpu.merge(&histogram);
            }
        }
        for (key, outcomes) in quota_what_ifs {
            if let Some(seen) = self.by_container.get_mut(&key) {
                seen.evidence.hours.entry(hour_before(until)).or_default().quota_what_if =
                    Some(outcomes.into_iter().collect());
            }
        }
    }

    /// Adds the highest memory usage, bytes, in the hours that end at these times, or that contain them.
    pub(super) fn memory(&mut self, key: &ContainerKey, values: &Points) {
        self.hours(key, values, |record, pod, at, bytes| {
            let bytes = bytes as u64;
            record.0.peak = record.0.peak.take().max(Some(Peak { bytes, at, pod: pod.to_owned() }));
            record.1.peak = record.1.peak.max(bytes);
        });
    }

    /// Adds CFS periods by hour.
    pub(super) fn periods(&mut self, key: &ContainerKey, values: &Points) {
        self.hours(key, values, |record, _, _, count| add(&mut record.0.periods, count.round() as u64));
    }

    /// Adds throttled CFS periods by hour.
    pub(super) fn throttled(&mut self, key: &ContainerKey, values: &Points) {
        self.hours(key, values, |record, _, _, count| {
            record.0.throttled =
                record.0.throttled.saturating_add(count.round() as u64).min(record.0.periods);
        });
    }

    fn hours(
        &mut self,
        key: &ContainerKey,
        values: &Points,
        mut add: impl FnMut((&mut HourRecord, &mut PodTotals), &str, u64, f64),
    ) {
        let Some(seen) = self.by_container.get_mut(key) else { return };
        for (at, value) in values.iter().filter(|(_, value)| *value >= 0.0) {
            let Evidence { hours, pods, .. } = &mut seen.evidence;
            let (record, totals) =
                (hours.entry(hour_before(*at)).or_default(), pods.entry(key.1.clone()).or_default());
            add((record, totals), &key.1, *at, *value);
        }
    }

    /// Adds containers that were OOM-killed before two scrapes saw them: a crash loop may have no usage at all.
    fn add_unseen(&mut self, states: &BTreeMap<ContainerKey, States>) {
        let window_millis = self.window_millis();
        for (key, states) in states {
            let killed = states.restarts(0).into_iter().filter(|it| it.kills > 0).map(|it| it.at);
            if let (Some(last), true) = (killed.max(), CommandRule::KillsFromState.is_on()) {
                let first = states.restarts.first().map_or(last, |(at, _)| *at);
                self.by_container.entry(key.clone()).or_insert_with(|| ObservedContainer {
                    evidence: Evidence::new(Workload::default(), Container::default(), window_millis),
                    first,
                    last,
                });
            }
        }
    }

    fn window_millis(&self) -> u64 {
        if self.has_windows { WINDOW_MILLIS } else { self.period.window * 1000 }
    }

    /// Adds restarts and OOM kills: those of kube-state-metrics, and those of the counter of OOM events by hour, whichever are
    /// more. A kill has the memory limit of its pod, 0 if unknown.
    pub(super) fn kills(
        &mut self,
        states: &BTreeMap<ContainerKey, States>,
        events: &BTreeMap<ContainerKey, Points>,
        state: &KubeState,
    ) {
        let begin = self.begin();
        self.add_unseen(states);
        for (key, seen) in &mut self.by_container {
            let limit = state.resources.get(key).and_then(|it| it.memory_limit).unwrap_or(0);
            let mut kills = BTreeMap::<Hour, (u64, u64)>::new();
            // Where metrics begin, earlier restarts are not known to be of this time.
            let known_since = if seen.first <= begin + BEGINNING { seen.first } else { 0 };
            let restarts = states.get(key).map(|it| it.restarts(known_since)).unwrap_or_default();
            for Restarts { at, restarts, kills: killed } in restarts {
                let hour = hour_before(at);
                if restarts > 0 {
                    add(&mut seen.evidence.hours.entry(hour).or_default().starts, restarts);
                }
                if killed > 0 {
                    let known = kills.entry(hour).or_insert((0, at));
                    *known = (known.0.saturating_add(killed), at);
                }
            }
            for (at, count) in events.get(key).into_iter().flatten().filter(|(_, count)| *count > 0.5) {
                let known = kills.entry(hour_before(*at)).or_insert((0, *at));
                known.0 = known.0.max(count.round() as u64);
            }
            for (hour, (count, at)) in kills {
                let kill = OomKill { at, limit, pod: key.1.clone() };
                let times = count.min(MAX_KILLS) as usize;
                let record = seen.evidence.hours.entry(hour).or_default();
                record.kills.extend(std::iter::repeat_n(kill, times));
            }
        }
    }

    /// The evidence of all workloads.
    pub(super) fn snapshot(self, state: &KubeState) -> Snapshot {
        let Self { by_container, period, .. } = self;
        // The workload of a pod of which nothing else is known is in its name; its kind and roles are those of pods with owners.
        let kinds = state.workloads();
        let mut roles = BTreeMap::<(String, String, String), Role>::new();
        let mut all = Vec::new();
        for (key, ObservedContainer { mut evidence, first, last }) in by_container {
            let (namespace, pod, container) = &key;
            let (owner, name) = state.workload(namespace, pod, (first, last)).unwrap_or_else(|| {
                let name = owner_by_name(pod);
                let kind = kinds.get(&(namespace.clone(), name.clone())).cloned().unwrap_or_default();
                (kind, name)
            });
            let role = state.role(&key);
            if role != Role::App {
                roles.insert((namespace.clone(), name.clone(), container.clone()), role);
            }
            let kind = WorkloadKind::from_owner(&owner);
            let replicas = u64::from(last + 2 * period.window >= period.end);
            let current = state.resources.get(&key).copied().unwrap_or_default();
            evidence.workload = Workload { namespace: namespace.clone(), name, owner, kind, replicas };
            evidence.container =
                Container { name: container.clone(), seen: last, current, ..Container::default() };
            all.push(evidence);
        }
        let mut snapshot = Snapshot::default();
        for mut evidence in all {
            let Workload { namespace, name, .. } = &evidence.workload;
            let key = (namespace.clone(), name.clone(), evidence.container.name.clone());
            evidence.container.role = roles.get(&key).copied().unwrap_or_default();
            snapshot.insert(evidence);
        }
        snapshot.at = period.end;
        snapshot
    }
}

/// Adds to a sum. What a server says of one moment can be anything up to the largest number.
fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

/// The hour that ends at a time, or that contains it.
fn hour_before(at: u64) -> Hour {
    Hour::from_seconds(at.saturating_sub(1))
}
