//! Histograms of durations that the kernel half keeps: one record per cgroup and CPU.

use aya::Pod;
use snug_ebpf::abi::histogram::HistogramRecord;

use super::counters::CgroupCounters;

/// [`HistogramRecord`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Record(HistogramRecord);
// SAFETY: integers without padding.
unsafe impl Pod for Record {}

/// Durations by cgroup, in the kernel.
pub type HistogramCounters = CgroupCounters<Record>;

impl HistogramCounters {
    /// What was counted of this very cgroup, all CPUs together; `None` if nothing was. Counts wrap.
    pub fn of(&self, id: u64) -> Option<HistogramRecord> {
        let mut sum = HistogramRecord::NONE;
        for Record(record) in self.of_cpus(id)?.iter() {
            for (count, more) in sum.counts.iter_mut().zip(&record.counts) {
                *count = count.wrapping_add(*more);
            }
            sum.zero = sum.zero.wrapping_add(record.zero);
            sum.sum_ns = sum.sum_ns.wrapping_add(record.sum_ns);
        }
        Some(sum)
    }
}
