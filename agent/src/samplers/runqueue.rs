//! Run queue latency of containers: how long runnable tasks waited for a CPU. If `runqueue` is on.
//!
//! Programs: `runqueue_wakeup` (tracepoint `sched_wakeup`), `runqueue_wakeup_new` (`sched_wakeup_new`), `runqueue_switch`
//! (`sched_switch`). Metrics: `snug_container_runqueue_wait_seconds`, `snug_agent_runqueue_seconds_total`,
//! `snug_agent_runqueue_paused`, `snug_agent_runqueue_pauses_total`.
//!
//! Tracing pauses when the programs take more CPU time than `runqueue-millicores`.

use std::time::{Duration, Instant};

use super::{
    Sampler,
    hierarchy::ResolvedCgroup,
    histograms::{CgroupHistograms, READ_INTERVAL},
};
use crate::{kernel::EbpfPrograms, model::RunqueueRow, store::Key, values::Values};

/// How long tracing pauses when it takes too much CPU time: the first pause. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// State between readings.
#[derive(Debug)]
pub(super) struct RunqueueSampler {
    /// CPU that tracing may use, in cores.
    max_share: f64,
    waits: CgroupHistograms,
    next: Instant,
    /// Run time of the programs at the last reading, nanoseconds, and the time of the reading.
    cost: (u64, Instant),
    pause: Duration,
    /// When tracing resumes, if it is paused.
    paused_until: Option<Instant>,
    times_paused: u64,
}

impl RunqueueSampler {
    pub(super) fn new(max_share: f64, now: Instant) -> Self {
        Self {
            max_share,
            waits: CgroupHistograms::default(),
            // Over a shorter time the share of CPU would be noise.
            next: now + READ_INTERVAL,
            cost: (0, now),
            pause: FIRST_PAUSE,
            paused_until: None,
            times_paused: 0,
        }
    }

    /// Drops the histograms of settled containers.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        self.waits.forget(gone);
    }

    /// State of tracing, for the agent's metrics.
    pub(super) fn row(&self, kernel: &EbpfPrograms) -> RunqueueRow {
        RunqueueRow {
            cost_ns: kernel.runqueue_cost_ns(),
            paused: self.paused_until.is_some(),
            times_paused: self.times_paused,
        }
    }

    /// Pauses tracing that takes too much CPU time, and resumes it later.
    fn control(&mut self, kernel: &mut EbpfPrograms, now: Instant) {
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        let cost = kernel.runqueue_cost_ns();
        let (before, at) = std::mem::replace(&mut self.cost, (cost, now));
        if self.paused_until.take().is_some() {
            kernel.trace_runqueue(true);
            tracing::info!("tracing of the run queue resumes");
            return;
        }
        let elapsed = now.saturating_duration_since(at).as_nanos() as f64;
        let share = cost.saturating_sub(before) as f64 / elapsed.max(1.0);
        if share > self.max_share {
            kernel.trace_runqueue(false);
            self.paused_until = Some(now + self.pause);
            self.times_paused += 1;
            tracing::warn!(
                millicores = (share * 1000.0).round(),
                max = (self.max_share * 1000.0).round(),
                "tracing the run queue takes more CPU time than runqueue-millicores; paused for {}",
                humantime::format_duration(self.pause)
            );
            self.pause = (self.pause * 2).min(MAX_PAUSE);
        } else if share < self.max_share / 2.0 {
            self.pause = FIRST_PAUSE;
        }
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
        runqueue.control(kernel, now);
        let Some(unified) = self.hierarchies.iter().find(|tracked| tracked.id == 0) else { return };
        let expired = runqueue.waits.update(&mut kernel.runqueue, unified);
        *self.skipped.entry("runqueue_of_unknown_cgroups").or_default() += expired;
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
