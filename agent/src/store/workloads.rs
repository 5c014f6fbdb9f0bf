//! Counters of workloads: the sums over their containers, including terminated ones.

use std::{collections::HashMap, sync::Arc};

use crate::{
    model::{OomScope, TerminationCounts, TerminationReason, WorkloadKey, WorkloadRow},
    values::{MemoryEvents, Network, Tcp, Values},
};

/// The number of counters that start at a cgroup's creation.
const FROM_CREATION: usize = 9;
/// All counters: network and TCP counters start with the agent.
const COUNTERS: usize = FROM_CREATION + 8 + 7;

/// The counters of one workload.
#[derive(Clone, Copy, Debug)]
struct Counters([u64; COUNTERS]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; COUNTERS])
    }
}

/// The counters of a cgroup; `None` where a counter was not measured.
fn current_counters(values: &Values) -> [Option<u64>; COUNTERS] {
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

/// The part of a cgroup's usage that its workload has counted already.
#[derive(Clone, Debug)]
pub(super) struct Contribution {
    counted: [Option<u64>; COUNTERS],
    peak_at_start: Option<u64>,
    present_at_start: bool,
    started_counted: bool,
    /// Whether the cgroup is a restart of a removed container.
    pub(super) restarted: bool,
    /// Terminations that are not counted yet: reason and exit code.
    pub(super) terminations: Vec<(TerminationReason, u8)>,
    /// OOM kills that are not counted yet.
    pub(super) oom_kills: Vec<OomScope>,
}

impl Contribution {
    /// For a cgroup that appeared while the agent ran, all usage counts. For one that existed before, usage before its first
    /// sample does not count.
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

    /// Whether the cgroup existed before the agent started.
    pub(super) const fn is_present_at_start(&self) -> bool {
        self.present_at_start
    }

    /// Keeps the first values of a cgroup that existed before the agent started.
    pub(super) fn baseline(&mut self, values: &Values) {
        let known = self.peak_at_start.is_some() && self.counted.iter().all(Option::is_some);
        if !self.present_at_start || known {
            return;
        }
        for (counted, now) in self.counted.iter_mut().zip(current_counters(values)) {
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

#[derive(Debug)]
pub(super) struct Workloads {
    totals: HashMap<WorkloadKey, Totals>,
    max_rows: usize,
    pub(super) folded: u64,
    /// Whether an eBPF program reports OOM kills.
    pub(super) oom_kills_reported: bool,
}

impl Workloads {
    /// Keeps at most `max_rows` rows. Further workloads are folded into one more row.
    pub(super) fn new(max_rows: usize) -> Self {
        Self { totals: HashMap::new(), max_rows, folded: 0, oom_kills_reported: false }
    }

    /// Adds the usage of a cgroup since it was last counted.
    pub(super) fn count(&mut self, key: &WorkloadKey, contribution: &mut Contribution, values: &Values) {
        let totals = self.totals_of(key);
        for ((total, counted), now) in
            totals.counters.0.iter_mut().zip(&mut contribution.counted).zip(current_counters(values))
        {
            if let (Some(counted), Some(now)) = (counted, now) {
                *total += now.saturating_sub(*counted);
                *counted = now.max(*counted);
            }
        }
        totals.has_network |= values.network.is_some();
        if let Some(memory) = values.memory {
            let peak = match (memory.peak_bytes, contribution.peak_at_start) {
                // A watermark from before the agent's start may be old. It counts once it has risen.
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

    /// Counts a termination that only a status reports, and the restart after it.
    pub(super) fn count_termination(
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

    /// Counts a container that was removed.
    pub(super) fn count_ended(&mut self, key: &WorkloadKey) {
        self.totals_of(key).ended += 1;
    }

    /// The rows, sorted.
    pub(super) fn rows(&self) -> Arc<[WorkloadRow]> {
        let mut keys: Vec<_> = self.totals.iter().collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys.into_iter().map(|(key, totals)| row(key, totals, self.oom_kills_reported)).collect()
    }

    /// The key of the row that counts `key`: its own, or the folded one if there are too many.
    pub(super) fn admit(&mut self, key: WorkloadKey) -> WorkloadKey {
        if self.totals.len() < self.max_rows || self.totals.contains_key(&key) {
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
