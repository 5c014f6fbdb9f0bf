//! What sockets did, by container: the kernel half counts by the cgroup in which a socket was made, which may be one
//! inside of the container.

use std::{collections::HashMap, time::Instant};

use rustc_hash::FxHashMap;

use super::{
    Sampler,
    hierarchy::ResolvedCgroup,
    histograms::{CgroupHistograms, READ_INTERVAL},
    unknown_cgroups::UnknownCgroups,
};
use crate::{
    store::Key,
    values::{Network, Tcp, Values},
};

/// Seconds for which counters of a cgroup that nobody knows are kept.
const UNKNOWN_ROUNDS: u8 = 60;

/// What is remembered from one second to the next.
#[derive(Debug, Default)]
pub(super) struct NetworkSampler {
    /// What cgroups inside of a container did that have gone, by container.
    ended: HashMap<Key, (Network, Tcp)>,
    unknown: UnknownCgroups,
    round_trips: CgroupHistograms,
    /// When round trips are looked at next.
    next: Option<Instant>,
}

impl NetworkSampler {
    /// Forgets cgroups that have gone.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        for key in gone {
            self.ended.remove(key);
        }
        self.round_trips.forget(gone);
    }
}

impl Sampler {
    /// Takes over the round-trip times of all cgroups, when it is time to.
    pub(super) fn sample_round_trips(&mut self, now: Instant) {
        let Some(kernel) = &mut self.kernel else { return };
        if self.network.next.is_some_and(|next| now < next) || !kernel.is_running("tcp_round_trip") {
            return;
        }
        self.network.next = Some(now + READ_INTERVAL);
        let Some(unified) = self.hierarchies.iter().find(|tracked| tracked.id == 0) else { return };
        let expired = self.network.round_trips.update(&mut kernel.round_trips, unified);
        *self.skipped.entry("network_of_unknown_cgroups").or_default() += expired;
        for (key, round_trips) in self.network.round_trips.iter() {
            self.store.update(key, Values { round_trips: Some(round_trips), ..Values::default() });
        }
    }

    /// Takes over the counters of all cgroups.
    pub(super) fn sample_network(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        if !kernel.is_running("network_receive") && !kernel.is_running("tcp_connection") {
            return;
        }
        let Some(unified) = self.hierarchies.iter().find(|tracked| tracked.id == 0) else { return };
        let mut sums: FxHashMap<Key, (Network, Tcp)> = FxHashMap::default();
        let sorted = self.network.unknown.sort(kernel.network.ids(), unified, UNKNOWN_ROUNDS);
        for (id, key) in sorted.known {
            if let Some(counted) = kernel.network.get(id) {
                add(sums.entry(key).or_default(), &counted);
            }
        }
        for id in sorted.expired {
            kernel.network.remove(id);
            *self.skipped.entry("network_of_unknown_cgroups").or_default() += 1;
        }
        // Nothing counted is a measurement, too.
        for (key, _) in self.store.living() {
            sums.entry(key).or_default();
        }
        for (key, mut sum) in sums {
            if let Some(ended) = self.network.ended.get(&key) {
                add(&mut sum, ended);
            }
            let (network, tcp) = (Some(sum.0), Some(sum.1));
            // Most sockets are silent most of the time.
            if self.store.values(key).is_some_and(|values| values.network != network || values.tcp != tcp) {
                self.store.update(key, Values { network, tcp, ..Values::default() });
            }
        }
    }

    /// A cgroup has been removed: its counters are taken for the last time.
    pub(super) fn end_network(&mut self, index: usize, id: u64, known: ResolvedCgroup) {
        if self.hierarchies.get(index).is_none_or(|tracked| tracked.id != 0) {
            return;
        }
        let Some(kernel) = &mut self.kernel else { return };
        let Some(key) = known.owner() else { return };
        let counted = kernel.network.get(id);
        if let Some(counted) = &counted {
            kernel.network.remove(id);
            add(self.network.ended.entry(key).or_default(), counted);
        }
        self.network.round_trips.finish(&kernel.round_trips, id, Some(key));
        kernel.round_trips.remove(id);
        // What was inside of it went before it, so that this is all.
        if known == ResolvedCgroup::Cgroup(key) {
            let (network, tcp) = self.network.ended.get(&key).copied().unwrap_or_default();
            let round_trips = self.network.round_trips.get(key);
            let values = Values { network: Some(network), tcp: Some(tcp), round_trips, ..Values::default() };
            self.store.update(key, values);
        }
    }
}

fn add(sum: &mut (Network, Tcp), more: &(Network, Tcp)) {
    sum.0.add(&more.0);
    sum.1.add(&more.1);
}
