//! How long tasks waited for a CPU, as the kernel half counts it: one record per cgroup and CPU.

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuArray, PerCpuHashMap},
};
use snug_ebpf::abi::runqueue::{RunqueueCost, RunqueueRecord, TIMED};

/// The programs that count.
pub(super) const PROGRAMS: [&str; 3] = ["runqueue_wakeup", "runqueue_wakeup_new", "runqueue_switch"];

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Record(RunqueueRecord);
// SAFETY: integers without padding.
unsafe impl Pod for Record {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Cost(RunqueueCost);
// SAFETY: integers without padding.
unsafe impl Pod for Cost {}

/// The maps of the `runqueue` programs.
pub struct RunqueueCounters {
    map: PerCpuHashMap<MapData, u64, Record>,
    cost: PerCpuArray<MapData, Cost>,
    entries: u64,
}

impl RunqueueCounters {
    pub(super) fn new(map: Map, cost: Map) -> Result<Self, MapError> {
        Ok(Self { map: PerCpuHashMap::try_from(map)?, cost: PerCpuArray::try_from(cost)?, entries: 0 })
    }

    /// Ids of all cgroups v2 whose tasks waited, ended ones included until [`Self::remove`].
    pub fn ids(&mut self) -> Vec<u64> {
        // A key that vanishes under the walk ends it early at worst; the next time has the rest.
        let ids: Vec<u64> = self.map.keys().map_while(Result::ok).collect();
        self.entries = ids.len() as u64;
        ids
    }

    /// What the tasks in this very cgroup waited, all CPUs together; `None` if nothing was counted. Counts wrap.
    pub fn of(&self, id: u64) -> Option<RunqueueRecord> {
        let mut sum = RunqueueRecord::NONE;
        for Record(record) in self.map.get(&id, 0).ok()?.iter() {
            for (count, more) in sum.counts.iter_mut().zip(&record.counts) {
                *count = count.wrapping_add(*more);
            }
            sum.zero = sum.zero.wrapping_add(record.zero);
            sum.waited_ns = sum.waited_ns.wrapping_add(record.waited_ns);
        }
        Some(sum)
    }

    /// Forgets a cgroup.
    pub fn remove(&mut self, id: u64) {
        // Nothing may have been counted.
        let _ = self.map.remove(&id);
    }

    /// Nanoseconds that the programs took so far, all CPUs together, the way into them not included: by the runs that
    /// were timed.
    pub fn cost_ns(&self) -> u64 {
        let Ok(costs) = self.cost.get(&0, 0) else { return 0 };
        costs.iter().map(|Cost(cost)| cost.timed_ns.saturating_mul(TIMED)).sum()
    }

    /// Cgroups in the map when it was last listed.
    pub(super) const fn entries(&self) -> u64 {
        self.entries
    }
}
