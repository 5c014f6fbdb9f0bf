//! Run queue latency of containers: how long runnable tasks waited for a CPU. If `runqueue` is on.
//!
//! Programs: `runqueue_wakeup` (tracepoint `sched_wakeup`), `runqueue_wakeup_new` (`sched_wakeup_new`), `runqueue_switch`
//! (`sched_switch`). Metrics: `snug_container_runqueue_wait_seconds`, `snug_agent_runqueue_seconds_total`,
//! `snug_agent_runqueue_paused`, `snug_agent_runqueue_pauses_total`.
//!
//! Tracing pauses when the programs take more CPU time than `runqueue-millicores`.

use std::time::Instant;

use super::{
    Sampler,
    budget::{Cost, CpuBudget},
    hierarchy::ResolvedCgroup,
    histograms::{CgroupHistograms, READ_INTERVAL},
    skipped::Cause,
};
use crate::{
    kernel::{EbpfPrograms, RUNQUEUE_PROGRAMS},
    model::BudgetRow,
    store::Key,
    values::Values,
};

/// State between readings.
#[derive(Debug)]
pub(super) struct RunqueueSampler {
    budget: CpuBudget,
    waits: CgroupHistograms,
    next: Instant,
}

impl RunqueueSampler {
    pub(super) fn new(max_millicores: u32, now: Instant) -> Self {
        Self {
            budget: CpuBudget::new("tracing of the run queue", "runqueue-millicores", max_millicores, now),
            waits: CgroupHistograms::default(),
            next: now + READ_INTERVAL,
        }
    }

    /// Drops the histograms of settled containers.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        self.waits.forget(gone);
    }

    /// State of tracing, for the agent's metrics.
    pub(super) fn row(&self, kernel: &EbpfPrograms) -> BudgetRow {
        self.budget.row(kernel.runqueue_cost_ns())
    }
}

impl Sampler {
    /// Reads the counters of all cgroups, once per [`READ_INTERVAL`].
    pub(super) fn sample_runqueue(&mut self, now: Instant) {
        let (Some(kernel), Some(runqueue)) = (&mut self.kernel, &mut self.runqueue) else { return };
        if now < runqueue.next {
            return;
        }
        runqueue.next = now + READ_INTERVAL;
        let cost = Cost::new(kernel.runqueue_cost_ns(), &self.agent.programs, &RUNQUEUE_PROGRAMS);
        if let Some(on) = runqueue.budget.check(cost, now) {
            kernel.trace_runqueue(on);
        }
        let Some(unified) = self.hierarchies.iter().find(|tracked| tracked.id == 0) else { return };
        let expired = runqueue.waits.update(&mut kernel.runqueue, unified);
        self.skipped[Cause::Runqueue] += expired;
        for (key, waits) in runqueue.waits.iter() {
            self.store.update(key, Values { runqueue: Some(waits), ..Values::default() });
        }
    }

    /// Reads the counters of a removed cgroup for the last time.
    pub(super) fn end_runqueue(&mut self, index: usize, id: u64, known: ResolvedCgroup) {
        let (Some(kernel), Some(runqueue)) = (&mut self.kernel, &mut self.runqueue) else { return };
        if self.hierarchies.get(index).is_none_or(|tracked| tracked.id != 0) {
            return;
        }
        runqueue.waits.finish(&kernel.runqueue, id, known.owner());
        kernel.runqueue.remove(id);
        if let ResolvedCgroup::Cgroup(key) = known {
            let runqueue = runqueue.waits.get(key);
            self.store.update(key, Values { runqueue, ..Values::default() });
        }
    }
}
