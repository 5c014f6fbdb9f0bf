//! Pauses a part of the eBPF programs that takes more CPU time than it may, and resumes it later.

use std::time::{Duration, Instant};

use crate::model::{BudgetRow, ProgramRow};

/// The first pause. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// Over a shorter time the share of CPU would be noise.
const MIN_TIME: Duration = Duration::from_secs(5);

/// CPU time of a part so far, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// As its programs time themselves: one run in 64.
    pub(super) own: u64,
    /// As the kernel's statistics have it, if those are on (`ebpf-stats`).
    pub(super) by_kernel: u64,
}

impl Cost {
    /// The cost of these programs.
    pub(super) fn new(own: u64, rows: &[ProgramRow], programs: &[&str]) -> Self {
        let rows = rows.iter().filter(|row| programs.contains(&row.name));
        Self { own, by_kernel: rows.map(|row| row.run_time_ns).sum() }
    }

    /// CPU time since then: the higher one, as statistics may be off.
    fn since(self, before: Self) -> u64 {
        self.own.saturating_sub(before.own).max(self.by_kernel.saturating_sub(before.by_kernel))
    }
}

/// The CPU time that a part may take.
#[derive(Debug)]
pub(super) struct CpuBudget {
    /// The part, in messages.
    part: &'static str,
    /// The option that sets `max_share`.
    option: &'static str,
    /// CPU that the part may use, in cores.
    max_share: f64,
    /// CPU time of the part at the last check, and the time of the check.
    cost: (Cost, Instant),
    pause: Duration,
    /// When the part resumes, if it is paused.
    paused_until: Option<Instant>,
    times_paused: u64,
}

impl CpuBudget {
    pub(super) const fn new(
        part: &'static str,
        option: &'static str,
        max_millicores: u32,
        now: Instant,
    ) -> Self {
        Self {
            part,
            option,
            max_share: max_millicores as f64 / 1000.0,
            cost: (Cost { own: 0, by_kernel: 0 }, now),
            pause: FIRST_PAUSE,
            paused_until: None,
            times_paused: 0,
        }
    }

    /// The state for the agent's metrics.
    pub(super) const fn row(&self, cost_ns: u64) -> BudgetRow {
        BudgetRow { cost_ns, paused: self.paused_until.is_some(), times_paused: self.times_paused }
    }

    /// Compares the CPU time of the part so far with its budget. Returns whether the part has to run from now on, if that changes.
    pub(super) fn check(&mut self, cost: Cost, now: Instant) -> Option<bool> {
        let (before, at) = self.cost;
        let elapsed = now.saturating_duration_since(at);
        if self.paused_until.is_some_and(|until| now < until) || elapsed < MIN_TIME {
            return None;
        }
        self.cost = (cost, now);
        let part = self.part;
        if self.paused_until.take().is_some() {
            tracing::info!("{part} resumes");
            return Some(true);
        }
        let share = cost.since(before) as f64 / elapsed.as_nanos() as f64;
        if share > self.max_share {
            self.paused_until = Some(now + self.pause);
            self.times_paused += 1;
            tracing::warn!(
                millicores = (share * 1000.0).round(),
                max = (self.max_share * 1000.0).round(),
                "{part} takes more CPU time than {}; paused for {}",
                self.option,
                humantime::format_duration(self.pause)
            );
            self.pause = (self.pause * 2).min(MAX_PAUSE);
            return Some(false);
        }
        if share < self.max_share / 2.0 {
            self.pause = FIRST_PAUSE;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a part that takes this share of a CPU while it runs. Returns the share that it took.
    fn run(
        budget: &mut CpuBudget,
        now: &mut Instant,
        cost: &mut u64,
        share: f64,
        time: Duration,
        as_cost: fn(u64) -> Cost,
    ) -> f64 {
        let (start, cost_at_start) = (*now, *cost);
        let mut runs = budget.paused_until.is_none();
        while now.saturating_duration_since(start) < time {
            *now += MIN_TIME;
            if runs {
                *cost += (share * MIN_TIME.as_nanos() as f64) as u64;
            }
            runs = budget.check(as_cost(*cost), *now).unwrap_or(runs);
            assert_eq!(runs, !budget.row(*cost).paused);
        }
        (*cost - cost_at_start) as f64 / time.as_nanos() as f64
    }

    proptest! {
        #[test]
        fn a_part_pauses_only_above_its_budget_and_comes_back(share in 0.0..4.0, clock in 0..3_usize) {
            // Whichever clock sees it.
            let clocks: [fn(u64) -> Cost; 3] = [
                |cost| Cost { own: cost, by_kernel: 0 },
                |cost| Cost { own: 0, by_kernel: cost },
                |cost| Cost { own: cost, by_kernel: cost / 2 },
            ];
            let clock = clocks[clock];
            let mut now = Instant::now();
            let (mut budget, mut cost) = (CpuBudget::new("it", "it-millicores", 500, now), 0);
            let took = run(&mut budget, &mut now, &mut cost, share, Duration::from_secs(24 * 3600), clock);
            if share <= 0.499 {
                prop_assert_eq!(budget.times_paused, 0);
                prop_assert!((took - share).abs() < 1e-3);
            } else if share >= 0.501 {
                // Pauses of an hour in the end: five seconds of each hour remain.
                prop_assert!(budget.times_paused > 20 && took < 0.01 * share, "{} {took}", budget.times_paused);
            }
            run(&mut budget, &mut now, &mut cost, 0.1, 2 * MAX_PAUSE, clock);
            prop_assert!(!budget.row(cost).paused && budget.pause == FIRST_PAUSE);
        }
    }
}
