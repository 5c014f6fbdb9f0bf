//! Traffic, TCP connections and round-trip times by container.
//!
//! Programs: `network_receive`, `network_transmit` (`cgroup_skb`), `tcp_connection` (tracepoint `inet_sock_set_state`),
//! `tcp_retransmit` (`tcp_retransmit_skb`), `tcp_retransmit_synack`, `tcp_round_trip` (`sock_ops`). Metrics:
//! `snug_container_network_*`, `snug_container_tcp_*`, `snug_workload_network_*`, `snug_workload_tcp_*`.
//!
//! Counting packets pauses when it takes more CPU time than `network-millicores`: `snug_agent_network_paused`.
//!
//! The programs count by the cgroup in which a socket was created. It may be a cgroup inside a container, so counters are
//! summed by container.

use std::{collections::HashMap, time::Instant};

use rustc_hash::FxHashMap;

use super::{
    Component, Round,
    budget::{Cost, CpuBudget},
    hierarchy::ResolvedCgroup,
    histograms::{CgroupHistograms, READ_INTERVAL},
    skipped::Cause,
    unknown_cgroups::UnknownCgroups,
};
use crate::{
    kernel::{EbpfPrograms, KernelEvent, KernelEventKind, PACKET_PROGRAMS},
    store::Key,
    values::{Network, Tcp, Values},
};

/// Counters of an unknown cgroup are deleted after this many full rounds.
const UNKNOWN_ROUNDS: u8 = 60;
/// As [`UNKNOWN_ROUNDS`], if the map is half full.
const CROWDED_ROUNDS: u8 = 3;

/// What is counted on this host.
#[derive(Clone, Copy)]
struct NetworkKinds {
    packets: bool,
    connections: bool,
}

impl NetworkKinds {
    fn running(kernel: &EbpfPrograms) -> Self {
        Self {
            packets: kernel.is_running("network_receive"),
            connections: kernel.is_running("tcp_connection"),
        }
    }

    /// The counters of what is counted: absent, not 0, without the program.
    fn of(self, (network, tcp): (Network, Tcp)) -> (Option<Network>, Option<Tcp>) {
        (self.packets.then_some(network), self.connections.then_some(tcp))
    }
}

pub(super) struct NetworkSampler {
    budget: CpuBudget,
    /// Counters of removed cgroups inside each container.
    ended: HashMap<Key, (Network, Tcp)>,
    unknown: UnknownCgroups,
    round_trips: CgroupHistograms,
    /// When round-trip times are read next.
    next: Option<Instant>,
}

impl NetworkSampler {
    pub(super) fn new(max_millicores: u32, now: Instant) -> Self {
        Self {
            budget: CpuBudget::new("counting of packets", "network-millicores", max_millicores, now),
            ended: HashMap::new(),
            unknown: UnknownCgroups::default(),
            round_trips: CgroupHistograms::default(),
            next: None,
        }
    }
}

impl Component for NetworkSampler {
    fn round(&mut self, round: &mut Round) {
        if !round.is_full {
            return;
        }
        self.count(round);
        self.sample_round_trips(round);
        let kernel = round.kernel.as_ref().filter(|_| round.config.packets);
        round.agent.network = kernel.map(|kernel| self.budget.row(kernel.packets.cost_ns()));
    }

    /// Reads the counters of a removed cgroup for the last time.
    fn event(&mut self, round: &mut Round, index: usize, event: &KernelEvent) {
        let (KernelEventKind::Removed { .. }, 0, id) = (&event.kind, event.hierarchy, event.id) else {
            return;
        };
        let Some(known) = round.resolve(index, id) else { return };
        let (Some(kernel), Some(key)) = (&mut round.kernel, known.owner()) else { return };
        if let Some(counted) = kernel.network.get(id) {
            kernel.network.remove(id);
            add(self.ended.entry(key).or_default(), &counted);
        }
        self.round_trips.finish(&kernel.round_trips, id, Some(key));
        kernel.round_trips.remove(id);
        // Cgroups inside the container were removed before it, so the sum is final.
        if known == ResolvedCgroup::Cgroup(key) {
            let sum = self.ended.get(&key).copied().unwrap_or_default();
            let (network, tcp) = NetworkKinds::running(kernel).of(sum);
            let round_trips = self.round_trips.get(key);
            round.store.update(key, Values { network, tcp, round_trips, ..Values::default() });
        }
    }

    fn forget(&mut self, _: &mut Round, settled: &[Key]) {
        for key in settled {
            self.ended.remove(key);
        }
        self.round_trips.forget(settled);
    }
}

impl NetworkSampler {
    /// Reads the round-trip times of all cgroups, once per [`READ_INTERVAL`].
    fn sample_round_trips(&mut self, round: &mut Round) {
        let Round { kernel: Some(kernel), hierarchies, store, now, .. } = round else { return };
        if self.next.is_some_and(|next| *now < next) || !kernel.is_running("tcp_round_trip") {
            return;
        }
        self.next = Some(*now + READ_INTERVAL);
        let Some(unified) = hierarchies.iter().find(|tracked| tracked.id == 0) else { return };
        round.skipped[Cause::Network] += self.round_trips.update(&mut kernel.round_trips, unified);
        for (key, round_trips) in self.round_trips.iter() {
            store.update(key, Values { round_trips: Some(round_trips), ..Values::default() });
        }
    }

    /// Reads the counters of all cgroups.
    fn count(&mut self, round: &mut Round) {
        let Round { kernel: Some(kernel), hierarchies, store, .. } = round else { return };
        let kinds = NetworkKinds::running(kernel);
        if !kinds.packets && !kinds.connections {
            return;
        }
        let cost = Cost::new(kernel.packets.cost_ns(), &round.agent.programs, &PACKET_PROGRAMS);
        if let Some(on) = self.budget.check(cost, round.now) {
            kernel.packets.count(on);
        }
        let Some(index) = hierarchies.iter().position(|tracked| tracked.id == 0) else { return };
        let Some(unified) = hierarchies.get(index) else { return };
        let mut sums: FxHashMap<Key, (Network, Tcp)> = FxHashMap::default();
        let ids = kernel.network.ids();
        // Whoever makes cgroups below a container, each with a socket, must not take the room of others.
        let is_crowded = ids.len() > round.config.max_cgroups as usize / 2;
        let rounds = if is_crowded { CROWDED_ROUNDS } else { UNKNOWN_ROUNDS };
        let sorted = self.unknown.sort(ids, unified, rounds);
        for (id, key) in sorted.known {
            let Some(counted) = kernel.network.get(id) else { continue };
            if is_crowded && unified.resolve(id) != Some(ResolvedCgroup::Cgroup(key)) {
                kernel.network.remove(id);
                add(self.ended.entry(key).or_default(), &counted);
            } else {
                add(sums.entry(key).or_default(), &counted);
            }
        }
        for id in sorted.expired {
            kernel.network.remove(id);
            round.skipped[Cause::Network] += 1;
        }
        // A cgroup without counters has sent and received nothing: 0, not absent.
        for (key, _) in store.living() {
            sums.entry(key).or_default();
        }
        for (key, mut sum) in sums {
            if let Some(ended) = self.ended.get(&key) {
                add(&mut sum, ended);
            }
            let (network, tcp) = kinds.of(sum);
            // Most counters do not change from one round to the next.
            if store.values(key).is_some_and(|values| values.network != network || values.tcp != tcp) {
                store.update(key, Values { network, tcp, ..Values::default() });
            }
        }
        if sorted.some_unknown {
            round.list_directories(index);
        }
    }
}

fn add(sum: &mut (Network, Tcp), more: &(Network, Tcp)) {
    sum.0.add(&more.0);
    sum.1.add(&more.1);
}
