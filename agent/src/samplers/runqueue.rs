//! Run queue latency of containers: how long runnable tasks waited for a CPU. If `runqueue` is on.
//!
//! Programs: `runqueue_wakeup` (tracepoint `sched_wakeup`), `runqueue_wakeup_new` (`sched_wakeup_new`), `runqueue_switch`
//! (`sched_switch`). Metrics: `snug_container_runqueue_wait_seconds`, `snug_agent_runqueue_seconds_total`,
//! `snug_agent_runqueue_paused`, `snug_agent_runqueue_pauses_total`.
//!
//! Tracing pauses when the programs take more CPU time than `runqueue-millicores`.

use std::time::Instant;

use super::{
    Component, Round,
    budget::{Cost, CpuBudget},
    hierarchy::ResolvedCgroup,
    histograms::{CgroupHistograms, READ_INTERVAL},
    skipped::Cause,
};
use crate::{
    kernel::{EbpfPrograms, KernelEvent, KernelEventKind, RUNQUEUE_PROGRAMS},
    store::Key,
    values::Values,
};

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

    /// Reads the counters of all cgroups, once per [`READ_INTERVAL`].
    fn read(&mut self, round: &mut Round) {
        let Round { kernel: Some(kernel), hierarchies, store, now, .. } = round else { return };
        if *now < self.next {
            return;
        }
        self.next = *now + READ_INTERVAL;
        let cost = Cost::new(kernel.runqueue_cost_ns(), &round.agent.programs, &RUNQUEUE_PROGRAMS);
        if let Some(on) = self.budget.check(cost, *now) {
            kernel.trace_runqueue(on);
        }
        let Some(unified) = hierarchies.iter().find(|tracked| tracked.id == 0) else { return };
        round.skipped[Cause::Runqueue] += self.waits.update(&mut kernel.runqueue, unified);
        for (key, waits) in self.waits.iter() {
            store.update(key, Values { runqueue: Some(waits), ..Values::default() });
        }
    }
}

impl Component for RunqueueSampler {
    fn round(&mut self, round: &mut Round) {
        if round.is_full {
            self.read(round);
            let cost = round.kernel.as_ref().map(EbpfPrograms::runqueue_cost_ns);
            round.agent.runqueue = cost.map(|cost| self.budget.row(cost));
        }
    }

    /// Reads the counters of a removed cgroup for the last time.
    fn event(&mut self, round: &mut Round, index: usize, event: &KernelEvent) {
        let (KernelEventKind::Removed { .. }, 0, id) = (&event.kind, event.hierarchy, event.id) else {
            return;
        };
        let Some(known) = round.resolve(index, id) else { return };
        let Some(kernel) = &mut round.kernel else { return };
        self.waits.finish(&kernel.runqueue, id, known.owner());
        kernel.runqueue.remove(id);
        if let ResolvedCgroup::Cgroup(key) = known {
            let runqueue = self.waits.get(key);
            round.store.update(key, Values { runqueue, ..Values::default() });
        }
    }

    fn forget(&mut self, _: &mut Round, settled: &[Key]) {
        self.waits.forget(settled);
    }
}
