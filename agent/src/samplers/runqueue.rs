//! How long the tasks of containers waited for a CPU, and what it costs to know.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use snug_ebpf::abi::runqueue::{FIRST_BUCKET, RunqueueRecord};
use snug_sizing::histogram::{Histogram, PER_DOUBLING};

use super::{Sampler, hierarchy::Known, strangers::Strangers};
use crate::{
    kernel::KernelHalf,
    store::{Key, published::RunqueueRow},
    values::{Distribution, Values},
};

/// Time between two looks: far shorter than counts of 32 bits take to come round, and long enough to cost nothing.
const LOOK: Duration = Duration::from_secs(5);
/// How long tracing pauses when it costs too much: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Looks for which counters of a cgroup that nobody knows are kept.
const STRANGERS_FOR: u8 = 12;
/// Longest wait, in seconds, that is counted as none.
const ZERO_THRESHOLD: f64 = 1.0 / (1_u32 << (-FIRST_BUCKET / PER_DOUBLING)) as f64;

/// What is remembered from one look to the next.
#[derive(Debug)]
pub(super) struct RunqueueSampler {
    /// CPU that tracing may take, as a share of one core.
    most: f64,
    /// Counts of each cgroup when last seen.
    seen: HashMap<u64, Box<RunqueueRecord>>,
    /// What the tasks of each container waited since the agent started.
    waits: HashMap<Key, Distribution>,
    strangers: Strangers,
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
            seen: HashMap::new(),
            waits: HashMap::new(),
            strangers: Strangers::default(),
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
        for key in gone {
            self.waits.remove(key);
        }
    }

    /// How tracing fares.
    pub(super) fn row(&self, kernel: &KernelHalf) -> RunqueueRow {
        RunqueueRow {
            cost_ns: kernel.runqueue_cost_ns(),
            paused: self.paused_until.is_some(),
            times_paused: self.times_paused,
        }
    }

    /// Adds what was counted since the cgroup was last seen.
    fn add(&mut self, id: u64, key: Key, counted: &RunqueueRecord) {
        let before = self.seen.get(&id).map_or(RunqueueRecord::NONE, |before| **before);
        let waits = self.waits.entry(key).or_insert_with(|| Distribution::new(ZERO_THRESHOLD));
        let new =
            counted.counts.iter().zip(&before.counts).map(|(now, before)| now.wrapping_sub(*before).into());
        let zero = counted.zero.wrapping_sub(before.zero).into();
        // The buckets are as many as the kernel half has, all of which a histogram can hold.
        if let Ok(new) = Histogram::from_exponential(zero, FIRST_BUCKET, new.collect()) {
            waits.histogram.merge(&new);
            waits.sum += counted.waited_ns.wrapping_sub(before.waited_ns) as f64 / 1e9;
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
        let sorted = runqueue.strangers.sort(kernel.runqueue.ids(), unified, STRANGERS_FOR);
        let mut seen = HashMap::with_capacity(sorted.known.len());
        for (id, key) in sorted.known {
            if let Some(counted) = kernel.runqueue.of(id) {
                runqueue.add(id, key, &counted);
                seen.insert(id, Box::new(counted));
            }
        }
        runqueue.seen = seen;
        for id in sorted.given_up {
            kernel.runqueue.remove(id);
            *self.skipped.entry("runqueue_of_unknown_cgroups").or_default() += 1;
        }
        for (key, waits) in &runqueue.waits {
            let runqueue = Some(Arc::new(waits.clone()));
            self.store.update(*key, Values { runqueue, ..Values::default() });
        }
    }

    /// A cgroup has been removed: its counters are taken for the last time.
    pub(super) fn end_runqueue(&mut self, index: usize, id: u64, known: Known) {
        let (Some(kernel), Some(runqueue)) = (&mut self.kernel, &mut self.runqueue) else { return };
        if self.followed.get(index).is_none_or(|one| one.id != 0) {
            return;
        }
        if let (Some(key), Some(counted)) = (known.owner(), kernel.runqueue.of(id)) {
            runqueue.add(id, key, &counted);
        }
        kernel.runqueue.remove(id);
        runqueue.seen.remove(&id);
        if let Known::Cgroup(key) = known
            && let Some(waits) = runqueue.waits.get(&key)
        {
            let runqueue = Some(Arc::new(waits.clone()));
            self.store.update(key, Values { runqueue, ..Values::default() });
        }
    }
}
