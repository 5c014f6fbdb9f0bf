//! Histograms of durations in per-CPU maps: one record per cgroup and CPU.

use aya::Pod;
use snug_ebpf::abi::histogram::HistogramRecord;

use super::counters::CgroupCounters;

/// [`HistogramRecord`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct HistogramValue(HistogramRecord);
// SAFETY: integers without padding.
unsafe impl Pod for HistogramValue {}

/// A map of histograms by cgroup.
pub type HistogramCounters = CgroupCounters<HistogramValue>;

impl HistogramCounters {
    /// The histogram of a cgroup, summed over CPUs; `None` if the map has no such cgroup. Counts wrap.
    pub fn get(&self, id: u64) -> Option<HistogramRecord> {
        let mut sum = HistogramRecord::EMPTY;
        for HistogramValue(record) in self.per_cpu(id)?.iter() {
            for (count, more) in sum.counts.iter_mut().zip(&record.counts) {
                *count = count.wrapping_add(*more);
            }
            sum.zero = sum.zero.wrapping_add(record.zero);
            sum.sum_ns = sum.sum_ns.wrapping_add(record.sum_ns);
        }
        Some(sum)
    }
}
