//! Histograms of durations: the eBPF programs count by cgroup, here they are summed by container.

use std::{collections::HashMap, sync::Arc, time::Duration};

use snug_ebpf::abi::histogram::{FIRST_BUCKET, HistogramRecord};
use snug_sizing::histogram::{Histogram, PER_DOUBLING};

use super::{hierarchy::TrackedHierarchy, unknown_cgroups::UnknownCgroups};
use crate::{kernel::HistogramCounters, store::Key, values::Distribution};

/// Time between two readings: short enough that 32-bit counts cannot wrap, long enough to cost little.
pub(super) const READ_INTERVAL: Duration = Duration::from_secs(5);
/// Counters of an unknown cgroup are deleted after this many readings.
const UNKNOWN_ROUNDS: u8 = 12;
/// Durations up to this, in seconds, are counted in the zero bucket.
const ZERO_THRESHOLD: f64 = 1.0 / (1_u32 << (-FIRST_BUCKET / PER_DOUBLING)) as f64;

/// Histograms of one kind, by container, since the agent started.
#[derive(Debug, Default)]
pub(super) struct CgroupHistograms {
    /// The counts of each cgroup in the previous reading, by kernfs id.
    previous: HashMap<u64, Box<HistogramRecord>>,
    sums: HashMap<Key, Arc<Distribution>>,
    unknown: UnknownCgroups,
}

impl CgroupHistograms {
    /// Reads the counts of all cgroups. Returns the number of unknown cgroups whose counts were deleted.
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

    /// Reads the counts of a removed cgroup for the last time. `key`: the container.
    pub(super) fn finish(&mut self, counters: &HistogramCounters, id: u64, key: Option<Key>) {
        if let (Some(key), Some(counted)) = (key, counters.get(id)) {
            self.add(id, key, &counted);
        }
        self.previous.remove(&id);
    }

    /// The histograms of all containers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Arc<Distribution>)> {
        self.sums.iter().map(|(key, sum)| (*key, Arc::clone(sum)))
    }

    /// The histogram of a container.
    pub(super) fn get(&self, key: Key) -> Option<Arc<Distribution>> {
        self.sums.get(&key).cloned()
    }

    /// Drops the histograms of settled containers.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        for key in gone {
            self.sums.remove(key);
        }
    }

    /// Adds the counts since the previous reading of the cgroup to the container's histogram.
    fn add(&mut self, id: u64, key: Key, counted: &HistogramRecord) {
        let before = self.previous.get(&id).map_or(HistogramRecord::EMPTY, |before| **before);
        let sum = self.sums.entry(key).or_insert_with(|| Arc::new(Distribution::new(ZERO_THRESHOLD)));
        if before == *counted {
            return;
        }
        let pairs = counted.counts.iter().zip(&before.counts);
        let new: Vec<u64> = pairs.map(|(now, before)| now.wrapping_sub(*before).into()).collect();
        let zero = counted.zero.wrapping_sub(before.zero).into();
        // Cannot fail: a `Histogram` covers all buckets of a record.
        if let Ok(new) = Histogram::from_exponential(zero, FIRST_BUCKET, &new) {
            let sum = Arc::make_mut(sum);
            sum.histogram.merge(&new);
            sum.sum += counted.sum_ns.wrapping_sub(before.sum_ns) as f64 / 1e9;
        }
    }
}
