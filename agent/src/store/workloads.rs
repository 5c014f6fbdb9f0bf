//! Counters of workloads: what their containers did, the ended ones included.

use std::{collections::HashMap, sync::Arc};

use crate::{
    model::{OomScope, TerminationCounts, TerminationReason, WorkloadKey, WorkloadRow},
    values::{MemoryEvents, Network, Tcp, Values},
};

/// Counters that a cgroup has from its creation.
const FROM_CREATION: usize = 9;
/// Those, and the ones that begin with the agent: network and TCP.
const COUNTERS: usize = FROM_CREATION + 8 + 7;

/// The counters that a cgroup contributes.
#[derive(Clone, Copy, Debug)]
struct Counters([u64; COUNTERS]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; COUNTERS])
    }
}

impl Counters {
    fn of(values: &Values) -> [Option<u64>; COUNTERS] {
        let throttling = values.throttling;
        let events = values.memory_events;
        let from_creation: [Option<u64>; FROM_CREATION] = [
            values.cpu.map(|cpu| cpu.usage_ns),
            throttling.map(|throttling| throttling.periods),
            throttling.map(|throttling| throttling.throttled_periods),
            throttling.map(|throttling| throttling.throttled_ns),
            events.map(|events| events.low),
            events.map(|events| events.high),
            events.map(|events| events.max),
            events.map(|events| events.oom),
            events.map(|events| events.oom_kill),
        ];
        let (mut network, mut tcp) = (values.network.unwrap_or_default(), values.tcp.unwrap_or_default());
        let network = network.counters_mut().map(|count| values.network.map(|_| *count));
        let tcp = tcp.counters_mut().map(|count| values.tcp.map(|_| *count));
        let mut all = [None; COUNTERS];
        for (place, count) in all.iter_mut().zip(from_creation.into_iter().chain(network).chain(tcp)) {
            *place = count;
        }
        all
    }
}

/// What of a cgroup has already been counted in its workload.
#[derive(Clone, Debug)]
pub(super) struct Contribution {
    counted: [Option<u64>; COUNTERS],
    peak_at_start: Option<u64>,
    present_at_start: bool,
    started_counted: bool,
    /// Whether it is another run of one that ended.
    pub(super) restarted: bool,
    /// Ends of its init process that are still to be counted: reason and exit code.
    pub(super) terminations: Vec<(TerminationReason, u8)>,
    /// OOM kills that are still to be counted.
    pub(super) oom_kills: Vec<OomScope>,
}

impl Contribution {
    /// Of a cgroup that appeared while the agent ran: everything counts. Of one that was there before: what it did
    /// until its first sample does not.
    pub(super) fn new(present_at_start: bool) -> Self {
        let mut counted = [Some(0); COUNTERS];
        if present_at_start {
            counted.iter_mut().take(FROM_CREATION).for_each(|counted| *counted = None);
        }
        Self {
            counted,
            peak_at_start: None,
            present_at_start,
            started_counted: present_at_start,
            restarted: false,
            terminations: Vec::new(),
            oom_kills: Vec::new(),
        }
    }

    /// Whether it was there before the agent.
    pub(super) const fn was_there(&self) -> bool {
        self.present_at_start
    }

    /// Remembers the first values of a cgroup that was there before the agent.
    pub(super) fn baseline(&mut self, values: &Values) {
        let known = self.peak_at_start.is_some() && self.counted.iter().all(Option::is_some);
        if !self.present_at_start || known {
            return;
        }
        for (counted, now) in self.counted.iter_mut().zip(Counters::of(values)) {
            *counted = counted.or(now);
        }
        let peak = values.memory.and_then(|memory| memory.peak_bytes);
        self.peak_at_start = self.peak_at_start.or(peak);
    }
}

#[derive(Clone, Debug, Default)]
struct Totals {
    counters: Counters,
    memory_peak_bytes: u64,
    started: u64,
    ended: u64,
    restarts: u64,
    terminations: TerminationCounts,
    oom_kills: [u64; OomScope::ALL.len()],
    has_network: bool,
}

/// All workloads.
#[derive(Debug)]
pub(super) struct Workloads {
    totals: HashMap<WorkloadKey, Totals>,
    most: usize,
    pub(super) folded: u64,
    /// Whether OOM kills are told by events.
    pub(super) oom_kills_reported: bool,
}

impl Workloads {
    /// Keeps at most `most` rows; what comes later is counted in one more.
    pub(super) fn new(most: usize) -> Self {
        Self { totals: HashMap::new(), most, folded: 0, oom_kills_reported: false }
    }

    /// Adds what a cgroup did since it was last counted.
    pub(super) fn count(&mut self, key: &WorkloadKey, contribution: &mut Contribution, values: &Values) {
        let totals = self.totals_of(key);
        for ((total, counted), now) in
            totals.counters.0.iter_mut().zip(&mut contribution.counted).zip(Counters::of(values))
        {
            if let (Some(counted), Some(now)) = (counted, now) {
                *total += now.saturating_sub(*counted);
                *counted = now.max(*counted);
            }
        }
        totals.has_network |= values.network.is_some();
        if let Some(memory) = values.memory {
            let peak = match (memory.peak_bytes, contribution.peak_at_start) {
                // A watermark from before the agent may be from long ago: it counts once it has risen.
                (Some(peak), Some(at_start)) if peak == at_start => memory.usage_bytes,
                (Some(peak), _) => peak,
                (None, _) => memory.usage_bytes,
            };
            totals.memory_peak_bytes = totals.memory_peak_bytes.max(peak);
        }
        if !contribution.started_counted {
            contribution.started_counted = true;
            totals.started += 1;
            totals.restarts += u64::from(contribution.restarted);
        }
        for (reason, code) in contribution.terminations.drain(..) {
            totals.terminations.count(reason, code);
        }
        for scope in contribution.oom_kills.drain(..) {
            for (count, of_scope) in totals.oom_kills.iter_mut().zip(OomScope::ALL) {
                *count += u64::from(of_scope == scope);
            }
        }
    }

    /// Counts an end that only a status tells of, and the start after it.
    pub(super) fn reported(
        &mut self,
        key: &WorkloadKey,
        reason: TerminationReason,
        code: u8,
        restarted: bool,
    ) {
        let totals = self.totals_of(key);
        totals.terminations.count(reason, code);
        totals.restarts += u64::from(restarted);
    }

    /// Counts an end.
    pub(super) fn ended(&mut self, key: &WorkloadKey) {
        self.totals_of(key).ended += 1;
    }

    /// The rows, sorted.
    pub(super) fn rows(&self) -> Arc<[WorkloadRow]> {
        let mut keys: Vec<_> = self.totals.iter().collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys.into_iter().map(|(key, totals)| row(key, totals, self.oom_kills_reported)).collect()
    }

    /// The row that `key` is counted in: its own, or the one for what is too many.
    pub(super) fn admit(&mut self, key: WorkloadKey) -> WorkloadKey {
        if self.totals.len() < self.most || self.totals.contains_key(&key) {
            self.totals.entry(key.clone()).or_default();
            return key;
        }
        self.folded += 1;
        WorkloadKey::folded()
    }

    fn totals_of(&mut self, key: &WorkloadKey) -> &mut Totals {
        self.totals.entry(key.clone()).or_default()
    }
}

fn row(key: &WorkloadKey, totals: &Totals, oom_kills_reported: bool) -> WorkloadRow {
    let mut counters = totals.counters.0.into_iter();
    let mut next = || counters.next().unwrap_or(0);
    let [cpu_ns, periods, throttled_periods, throttled_ns] = std::array::from_fn(|_| next());
    let [low, high, max, oom, oom_kill] = std::array::from_fn(|_| next());
    let (mut network, mut tcp) = (Network::default(), Tcp::default());
    network.counters_mut().into_iter().for_each(|count| *count = next());
    tcp.counters_mut().into_iter().for_each(|count| *count = next());
    WorkloadRow {
        namespace: key.namespace.clone(),
        workload_kind: key.kind.clone(),
        workload: key.name.clone(),
        container: key.container.clone(),
        cpu_ns,
        periods,
        throttled_periods,
        throttled_ns,
        memory_events: MemoryEvents { low, high, max, oom, oom_kill },
        memory_peak_bytes: totals.memory_peak_bytes,
        containers_started: totals.started,
        containers_ended: totals.ended,
        restarts: totals.restarts,
        terminations: totals.terminations.clone(),
        oom_kills: oom_kills_reported.then_some(totals.oom_kills),
        network: totals.has_network.then_some(network),
        tcp: totals.has_network.then_some(tcp),
    }
}
