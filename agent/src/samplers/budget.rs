//! Pauses a part of the eBPF programs that takes more CPU time than it may, and resumes it later.

use std::time::{Duration, Instant};

use crate::model::BudgetRow;

/// The first pause. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// Over a shorter time the share of CPU would be noise.
const MIN_TIME: Duration = Duration::from_secs(5);

/// The CPU time that a part may take.
#[derive(Debug)]
pub(super) struct CpuBudget {
    /// The part, in messages.
    part: &'static str,
    /// The option that sets `max_share`.
    option: &'static str,
    /// CPU that the part may use, in cores.
    max_share: f64,
    /// CPU time of the part at the last check, nanoseconds, and the time of the check.
    cost: (u64, Instant),
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
            cost: (0, now),
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
    pub(super) fn check(&mut self, cost_ns: u64, now: Instant) -> Option<bool> {
        let (before, at) = self.cost;
        let elapsed = now.saturating_duration_since(at);
        if self.paused_until.is_some_and(|until| now < until) || elapsed < MIN_TIME {
            return None;
        }
        self.cost = (cost_ns, now);
        let part = self.part;
        if self.paused_until.take().is_some() {
            tracing::info!("{part} resumes");
            return Some(true);
        }
        let share = cost_ns.saturating_sub(before) as f64 / elapsed.as_nanos() as f64;
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
    fn run(budget: &mut CpuBudget, now: &mut Instant, cost: &mut u64, share: f64, time: Duration) -> f64 {
        let (start, cost_at_start) = (*now, *cost);
        let mut runs = budget.paused_until.is_none();
        while now.saturating_duration_since(start) < time {
            *now += MIN_TIME;
            if runs {
                *cost += (share * MIN_TIME.as_nanos() as f64) as u64;
            }
            runs = budget.check(*cost, *now).unwrap_or(runs);
            assert_eq!(runs, !budget.row(*cost).paused);
        }
        (*cost - cost_at_start) as f64 / time.as_nanos() as f64
    }

    proptest! {
        #[test]
        fn a_part_pauses_only_above_its_budget_and_comes_back(share in 0.0..4.0) {
            let mut now = Instant::now();
            let (mut budget, mut cost) = (CpuBudget::new("it", "it-millicores", 500, now), 0);
            let took = run(&mut budget, &mut now, &mut cost, share, Duration::from_secs(24 * 3600));
            if share <= 0.499 {
                prop_assert_eq!(budget.times_paused, 0);
                prop_assert!((took - share).abs() < 1e-3);
            } else if share >= 0.501 {
                // Pauses of an hour in the end: five seconds of each hour remain.
                prop_assert!(budget.times_paused > 20 && took < 0.01 * share, "{} {took}", budget.times_paused);
            }
            run(&mut budget, &mut now, &mut cost, 0.1, 2 * MAX_PAUSE);
            prop_assert!(!budget.row(cost).paused && budget.pause == FIRST_PAUSE);
        }
    }
}
