//! What it costs to know how long tasks waited for a CPU.

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuArray},
};
use snug_ebpf::abi::runqueue::{RunqueueCost, TIMED};

/// The programs that count.
pub(super) const PROGRAMS: [&str; 3] = ["runqueue_wakeup", "runqueue_wakeup_new", "runqueue_switch"];

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Cost(RunqueueCost);
// SAFETY: integers without padding.
unsafe impl Pod for Cost {}

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
