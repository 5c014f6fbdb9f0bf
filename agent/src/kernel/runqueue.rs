//! Run time of the programs that time themselves.

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuArray},
};
use snug_ebpf::abi::cost::{ProgramCost, TIMING_INTERVAL};

/// The programs that trace the run queue.
pub const PROGRAMS: [&str; 3] = ["runqueue_wakeup", "runqueue_wakeup_new", "runqueue_switch"];

#[derive(Clone, Copy)]
#[repr(transparent)]
struct CostValue(ProgramCost);
// SAFETY: integers without padding.
unsafe impl Pod for CostValue {}

/// Run time of the programs, estimated from the runs that they time themselves.
pub(super) struct ProgramCosts(PerCpuArray<MapData, CostValue>);

impl ProgramCosts {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        PerCpuArray::try_from(map).map(Self)
    }

    /// Run time so far, summed over CPUs, nanoseconds.
    pub(super) fn nanoseconds(&self) -> u64 {
        let Ok(costs) = self.0.get(&0, 0) else { return 0 };
        costs.iter().map(|CostValue(cost)| cost.timed_ns.saturating_mul(TIMING_INTERVAL)).sum()
    }
}
