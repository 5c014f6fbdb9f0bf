//! What CPU requests would have delivered on past days of all workloads, and the level that follows from it.
//!
//! For each whole day of the history (in UTC) and each of a few levels, a request is made from the days before and judged on
//! that day (`days.rs`). The loss is the CPU time above the request, as a part of the container's mean CPU time in a day. So its mean over the days of
//! a container is the share of its CPU time above requests, and the mean over all days is the mean of these shares. A day counts
//! only when it is over, and nothing of it is in the request that it judges (prequential).
//!
//! The mean loss rises with the level. The level in use is the highest whose mean loss is within the accepted one: that is
//! [conformal risk control](https://arxiv.org/abs/2208.02814) (Angelopoulos and others), whose mean loss on the next day is what was
//! asked if that day is like those before, whatever the distribution. It has a prior in place of its worst case: so many days on which a level `l` had
//! the loss `l` times [`Rule::excess`]. These are 4 days with all CPU time above the request, over the accepted share:
//! 400 days at 1 %. So with few days the prior decides, and with 20 losses' worth of days what was seen.
//!
//! All days that were ever judged count, also those whose usage is no longer kept.

use super::days::{HIGHEST, LEVELS, Losses, MILLIONTH, level_of};
use crate::{
    engine::rule::Rule,
    evidence::{HOUR, Hour},
};

/// Strength of the prior: days with all CPU time above the request.
const STRENGTH: f64 = 4.0;
/// The level is at most so many times the prior's. Where workloads differ much, a mean may be kept by a few with large losses while most
/// have none, and a higher level would only add to the workloads that are not within what was asked.
const MAX_CORRECTION: f64 = 1.6;
/// The level is at least such a part of the prior's: where no request would have been enough, a higher one is of no use.
const MIN_CORRECTION: f64 = 0.25;
/// Accepted shares for which past decisions are made again, descending.
const RISKS: [f64; 6] = [0.05, 0.04, 0.02, 0.01, 0.005, 0.0025];

/// Losses of replayed days, summed over any number of workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestReplay {
    /// Days of containers.
    days: u64,
    /// Container-seconds of these days.
    observed: u64,
    /// Sum of the losses by level, millionths.
    lost: Losses,
    /// By accepted share of [`RISKS`]: sum of the losses of the levels that were chosen before each day, millionths.
    delivered: [u64; RISKS.len()],
    /// The end of the last day.
    until: Hour,
}

impl RequestReplay {
    /// The end of the last day that counts.
    pub(super) const fn until(&self) -> Hour {
        self.until
    }

    /// Counts days that ended at the same time: container-seconds observed, and losses. Days must be added in order of time.
    pub(super) fn add(&mut self, end: Hour, rule: Rule, days: impl Iterator<Item = (u64, Losses)>) {
        self.until = end;
        let levels = RISKS.map(|risk| self.level(risk, rule));
        for (observed, lost) in days {
            self.days += 1;
            self.observed = self.observed.saturating_add(observed);
            let of_day = Self { lost, ..Self::default() };
            for (sum, lost) in self.lost.iter_mut().zip(lost) {
                *sum = sum.saturating_add(lost);
            }
            for (sum, level) in self.delivered.iter_mut().zip(levels) {
                // `as` saturates.
                *sum = sum.saturating_add((of_day.lost(level) * MILLIONTH).round() as u64);
            }
        }
    }

    /// Sum of the losses at a level, with straight lines between the levels that were replayed.
    fn lost(&self, level: f64) -> f64 {
        let points =
            || (0..LEVELS).zip(self.lost).map(|(place, lost)| (level_of(place), lost as f64 / MILLIONTH));
        let above = points().take_while(|(at, _)| *at >= level).last();
        let below = points().find(|(at, _)| *at < level).unwrap_or((0.0, 0.0));
        let (high, lost) = above.unwrap_or(below);
        if high <= below.0 { lost } else { below.1 + (lost - below.1) * (level - below.0) / (high - below.0) }
    }

    /// The mean loss at a level, on the days that count.
    #[cfg(test)]
    pub(super) fn mean_lost(&self, level: f64) -> f64 {
        self.lost(level) / self.days as f64
    }

    /// The level for an accepted share of CPU time above requests: the share of the time in which usage of a large container
    /// may exceed its request.
    pub fn level(&self, accepted: f64, rule: Rule) -> f64 {
        let prior = (accepted / rule.excess).min(HIGHEST);
        let weight = STRENGTH / accepted;
        let within = |level: f64| {
            self.lost(level) + weight * rule.excess * level <= accepted * (self.days as f64 + weight)
        };
        let (mut low, mut high) = (prior * MIN_CORRECTION, (prior * MAX_CORRECTION).min(HIGHEST));
        if self.days == 0 || within(high) {
            return if self.days == 0 { prior } else { high };
        }
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if within(middle) { low = middle } else { high = middle }
        }
        low
    }

    /// What past decisions for an accepted share delivered, or for the nearest of those that are made again: the mean share of CPU time
    /// above requests, and the pod-days that were judged. `None` without any.
    pub fn delivered(&self, accepted: f64) -> Option<(f64, f64)> {
        let distance = |risk: f64| (risk / accepted).ln().abs();
        let pairs = RISKS.into_iter().zip(self.delivered);
        let (_, lost) = pairs.min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)))?;
        let pod_days = self.observed as f64 / (24 * HOUR) as f64;
        (self.days > 0).then(|| (lost as f64 / MILLIONTH / self.days as f64, pod_days))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: Rule = Rule::FITTED;

    /// Days of a cluster on which each level loses `factor` times what it should.
    fn lost(factor: f64, days: u64) -> RequestReplay {
        let mut replayed = RequestReplay { days, ..RequestReplay::default() };
        for (place, lost) in replayed.lost.iter_mut().enumerate() {
            *lost = (factor * RULE.excess * level_of(place) * days as f64 * MILLIONTH) as u64;
        }
        replayed
    }

    #[test]
    fn without_days_the_prior_decides_and_with_many_what_was_seen() {
        let prior = RequestReplay::default().level(0.01, RULE);
        assert!((prior - 0.025).abs() < 1e-12);
        let level = |factor, days| lost(factor, days).level(0.01, RULE) / prior;
        assert!((level(1.0, 500) - 1.0).abs() < 1e-3);
        // As many days as the prior: the mean of both.
        assert!((level(2.0, 400) - 1.0 / 1.5).abs() < 1e-3);
        // With 20 losses' worth of days, most of the way: 2400 days are to lose 24, and lose 4 of the prior and 40 at the prior's level.
        assert!((level(2.0, 2000) - 24.0 / 44.0).abs() < 1e-3);
        assert!((level(2.0, 1_000_000) - 0.5).abs() < 1e-2 && (level(0.8, 1_000_000) - 1.25).abs() < 1e-2);
        // Never further than this.
        assert!(
            (level(1e3, 1_000_000) - MIN_CORRECTION).abs() < 1e-9
                && (level(0.0, 1_000_000) - MAX_CORRECTION).abs() < 1e-9
        );
    }

    proptest! {
        #[test]
        fn a_higher_risk_has_no_lower_level(days in prop::collection::vec(prop::array::uniform13(0..1_000_000_u64), 0..60), risk in 0.0005..0.5_f64, factor in 1.0..10.0_f64) {
            let mut replayed = RequestReplay::default();
            for (end, mut lost) in (1..).zip(days) {
                lost.sort_by(|a, b| b.cmp(a));
                replayed.add(Hour(24 * end), RULE, std::iter::once((86_400, lost)));
            }
            let level = |risk: f64| replayed.level(risk, RULE);
            let more = (risk * factor).min(0.5);
            prop_assert!(level(more) >= level(risk) * (1.0 - 1e-6), "{} {}", level(risk), level(more));
            prop_assert!(level(risk) > 0.0 && level(risk) <= HIGHEST);
        }
    }
}
