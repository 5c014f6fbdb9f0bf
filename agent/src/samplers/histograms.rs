//! CgroupHistograms of durations that the kernel half keeps by cgroup, added up by container.

use std::{collections::HashMap, sync::Arc, time::Duration};

use snug_ebpf::abi::histogram::{FIRST_BUCKET, HistogramRecord};
use snug_sizing::histogram::{Histogram, PER_DOUBLING};

use super::{hierarchy::TrackedHierarchy, unknown_cgroups::UnknownCgroups};
use crate::{kernel::HistogramCounters, store::Key, values::Distribution};

/// Time between two looks: far shorter than counts of 32 bits take to come round, and long enough to cost nothing.
pub(super) const READ_INTERVAL: Duration = Duration::from_secs(5);
/// Looks for which counters of a cgroup that nobody knows are kept.
const UNKNOWN_ROUNDS: u8 = 12;
/// Longest duration, in seconds, that is counted as none.
const ZERO_THRESHOLD: f64 = 1.0 / (1_u32 << (-FIRST_BUCKET / PER_DOUBLING)) as f64;

/// CgroupHistograms of one kind, since the agent started.
#[derive(Debug, Default)]
pub(super) struct CgroupHistograms {
    /// Counts of each cgroup when last previous.
    previous: HashMap<u64, Box<HistogramRecord>>,
    sums: HashMap<Key, Arc<Distribution>>,
    unknown: UnknownCgroups,
}

impl CgroupHistograms {
    /// Takes over what was counted of all cgroups. Returns how many were given up because nobody knows them.
    pub(super) fn update(&mut self, counters: &mut HistogramCounters, unified: &TrackedHierarchy) -> u64 {
        let sorted = self.unknown.sort(counters.ids(), unified, UNKNOWN_ROUNDS);
        let mut previous = HashMap::with_capacity(sorted.known.len());
        for (id, key) in sorted.known {
            if let Some(counted) = counters.get(id) {
                self.add(id, key, &counted);
                previous.insert(id, Box::new(counted));
            }
        }
        self.previous = previous;
        sorted.expired.iter().for_each(|id| counters.remove(*id));
        sorted.expired.len() as u64
    }

    /// Takes over what was counted of a cgroup that has been removed, for the last time. `key` is whose it was.
    pub(super) fn finish(&mut self, counters: &HistogramCounters, id: u64, key: Option<Key>) {
        if let (Some(key), Some(counted)) = (key, counters.get(id)) {
            self.add(id, key, &counted);
        }
        self.previous.remove(&id);
    }

    /// What there is of each container.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Arc<Distribution>)> {
        self.sums.iter().map(|(key, sum)| (*key, Arc::clone(sum)))
    }

    /// What there is of one container.
    pub(super) fn get(&self, key: Key) -> Option<Arc<Distribution>> {
        self.sums.get(&key).cloned()
    }

    /// Forgets containers that have gone.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        for key in gone {
            self.sums.remove(key);
        }
    }

    /// Adds what was counted since the cgroup was last previous.
    fn add(&mut self, id: u64, key: Key, counted: &HistogramRecord) {
        let before = self.previous.get(&id).map_or(HistogramRecord::EMPTY, |before| **before);
        let sum = self.sums.entry(key).or_insert_with(|| Arc::new(Distribution::new(ZERO_THRESHOLD)));
        if before == *counted {
            return;
        }
        let new =
            counted.counts.iter().zip(&before.counts).map(|(now, before)| now.wrapping_sub(*before).into());
        let zero = counted.zero.wrapping_sub(before.zero).into();
        // The buckets are as many as the kernel half has, all of which a histogram can hold.
        if let Ok(new) = Histogram::from_exponential(zero, FIRST_BUCKET, new.collect()) {
            let sum = Arc::make_mut(sum);
            sum.histogram.merge(&new);
            sum.sum += counted.sum_ns.wrapping_sub(before.sum_ns) as f64 / 1e9;
        }
    }
}
