//! How long tasks waited for a CPU, as the kernel half counts it: one record per cgroup and CPU.

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuArray},
};
use snug_ebpf::abi::runqueue::{RunqueueCost, RunqueueRecord, TIMED};

use super::counters::CgroupCounters;

/// The programs that count.
pub(super) const PROGRAMS: [&str; 3] = ["runqueue_wakeup", "runqueue_wakeup_new", "runqueue_switch"];

/// [`RunqueueRecord`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Record(RunqueueRecord);
// SAFETY: integers without padding.
unsafe impl Pod for Record {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Cost(RunqueueCost);
// SAFETY: integers without padding.
unsafe impl Pod for Cost {}

/// How long tasks waited, in the kernel.
pub(super) type RunqueueCounters = CgroupCounters<Record>;

impl RunqueueCounters {
    /// What the tasks in this very cgroup waited, all CPUs together; `None` if nothing was counted. Counts wrap.
    pub fn of(&self, id: u64) -> Option<RunqueueRecord> {
        let mut sum = RunqueueRecord::NONE;
        for Record(record) in self.of_cpus(id)?.iter() {
            for (count, more) in sum.counts.iter_mut().zip(&record.counts) {
                *count = count.wrapping_add(*more);
            }
            sum.zero = sum.zero.wrapping_add(record.zero);
            sum.waited_ns = sum.waited_ns.wrapping_add(record.waited_ns);
        }
        Some(sum)
    }
}

/// What the programs cost, by the runs that they time themselves.
pub(super) struct Costs(PerCpuArray<MapData, Cost>);

impl Costs {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        PerCpuArray::try_from(map).map(Self)
    }

    /// Nanoseconds so far, all CPUs together.
    pub(super) fn nanoseconds(&self) -> u64 {
        let Ok(costs) = self.0.get(&0, 0) else { return 0 };
        costs.iter().map(|Cost(cost)| cost.timed_ns.saturating_mul(TIMED)).sum()
    }
}
