//! How long the tasks of containers waited for a CPU, and what it costs to know.

use std::time::{Duration, Instant};

use super::{
    Sampler,
    hierarchy::Known,
    histograms::{Histograms, LOOK},
};
use crate::{kernel::KernelHalf, model::RunqueueRow, store::Key, values::Values};

/// How long tracing pauses when it costs too much: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What is remembered from one look to the next.
#[derive(Debug)]
pub(super) struct RunqueueSampler {
    /// CPU that tracing may take, as a share of one core.
    most: f64,
    waits: Histograms,
    next: Instant,
    /// Cost at the last look, nanoseconds, and when that was.
    cost: (u64, Instant),
    pause: Duration,
    /// When tracing goes on.
    paused_until: Option<Instant>,
    times_paused: u64,
}

impl RunqueueSampler {
    pub(super) fn new(most: f64, now: Instant) -> Self {
        Self {
            most,
            waits: Histograms::default(),
            // A share of less time than this would be noise.
            next: now + LOOK,
            cost: (0, now),
            pause: FIRST_PAUSE,
            paused_until: None,
            times_paused: 0,
        }
    }

    /// Forgets containers that have gone.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        self.waits.forget(gone);
    }

    /// How tracing fares.
    pub(super) fn row(&self, kernel: &KernelHalf) -> RunqueueRow {
        RunqueueRow {
            cost_ns: kernel.runqueue_cost_ns(),
            paused: self.paused_until.is_some(),
            times_paused: self.times_paused,
        }
    }

    /// Pauses tracing that costs too much, and has it go on some time later.
    fn control(&mut self, kernel: &mut KernelHalf, now: Instant) {
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        let cost = kernel.runqueue_cost_ns();
        let (before, at) = std::mem::replace(&mut self.cost, (cost, now));
        if self.paused_until.take().is_some() {
            kernel.trace_runqueue(true);
            tracing::info!("tracing of the run queue goes on");
            return;
        }
        let elapsed = now.saturating_duration_since(at).as_nanos() as f64;
        let share = cost.saturating_sub(before) as f64 / elapsed.max(1.0);
        if share > self.most {
            kernel.trace_runqueue(false);
            self.paused_until = Some(now + self.pause);
            self.times_paused += 1;
            tracing::warn!(
                millicores = (share * 1000.0).round(),
                most = (self.most * 1000.0).round(),
                "tracing of the run queue costs more than runqueue-millicores; it pauses for {}",
                humantime::format_duration(self.pause)
            );
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        } else if share < self.most / 2.0 {
            self.pause = FIRST_PAUSE;
        }
    }
}

impl Sampler {
    /// Takes over the counters of all cgroups, when it is time to.
    pub(super) fn sample_runqueue(&mut self, now: Instant) {
        let (Some(kernel), Some(runqueue)) = (&mut self.kernel, &mut self.runqueue) else { return };
        if now < runqueue.next {
            return;
        }
        runqueue.next = now + LOOK;
        runqueue.control(kernel, now);
        let Some(unified) = self.followed.iter().find(|one| one.id == 0) else { return };
        let given_up = runqueue.waits.take(&mut kernel.runqueue, unified);
        *self.skipped.entry("runqueue_of_unknown_cgroups").or_default() += given_up;
        for (key, waits) in runqueue.waits.all() {
            self.store.update(key, Values { runqueue: Some(waits), ..Values::default() });
        }
    }

    /// A cgroup has been removed: its counters are taken for the last time.
    pub(super) fn end_runqueue(&mut self, index: usize, id: u64, known: Known) {
        let (Some(kernel), Some(runqueue)) = (&mut self.kernel, &mut self.runqueue) else { return };
        if self.followed.get(index).is_none_or(|one| one.id != 0) {
            return;
        }
        runqueue.waits.end(&kernel.runqueue, id, known.owner());
        kernel.runqueue.remove(id);
        if let Known::Cgroup(key) = known {
            let runqueue = runqueue.waits.of(key);
            self.store.update(key, Values { runqueue, ..Values::default() });
        }
    }
}
