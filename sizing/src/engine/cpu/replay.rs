//! What CPU requests would have delivered on past days of all workloads, and the level that follows from it.
//!
//! For each whole day of the history (in UTC) and each of a few levels, a request is made from the days before and judged on
//! that day (`days.rs`). The loss is the CPU time above the request, as a part of the container's mean CPU time in a day. So its mean over the days of
//! a container is the share of its CPU time above requests, and the mean over all days is the mean of these shares. A day counts
//! only when it is over, and nothing of it is in the request that it judges (prequential).
//!
//! The mean loss rises with the level. The level in use is the highest whose mean loss is within the accepted one: that is
//! [conformal risk control](https://arxiv.org/abs/2208.02814) (Angelopoulos and others), whose mean loss on the next day is what was
//! asked if that day is like those before, whatever the distribution. For that, it counts one more day, on which all CPU time is above the
//! request: a day that is worse than all before may come.
//!
//! With few days a prior decides: so many days on which a level `l` had the loss `l` times [`Rule::excess`]. These are 4 days with all CPU
//! time above the request, over the accepted share: 400 days at 1 %. They hand over as the prior of memory does: of 10 to 20 ÷ share pod-days
//! the part `w = log₂(pod-days · share ÷ 10)` of the prior is taken away, and so much of the worse day is counted. A prior that stays
//! gives away what it did not lose: with 2,100 days at 0.25 %, 1,600 of the prior let delivered be 1.7 times asked where tails are heavy.
//!
//! No level is below the lowest that was replayed: what it would lose is not known.
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
/// Pod-days, times the accepted share, up to which the prior decides, and from which on what was seen decides.
const FEW: f64 = 10.0;
const ENOUGH: f64 = 20.0;
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
        let below = points().find(|(at, _)| *at < level);
        let Some(((high, lost), (low, least))) = above.zip(below) else {
            return above.or(below).map_or(0.0, |(_, lost)| lost);
        };
        least + (lost - least) * (level - low) / (high - low)
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
        let known = self.pod_days() * accepted;
        let part = ((known / FEW).ln() / (ENOUGH / FEW).ln()).clamp(0.0, 1.0);
        let weight = (1.0 - part) * STRENGTH / accepted;
        let days = self.days as f64 + weight + part;
        let within = |level: f64| self.lost(level) + weight * rule.excess * level + part <= accepted * days;
        let (mut low, mut high) = (level_of(LEVELS - 1).min(prior), (prior * MAX_CORRECTION).min(HIGHEST));
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
        (self.days > 0).then(|| (lost as f64 / MILLIONTH / self.days as f64, self.pod_days()))
    }

    /// Pod-days that were judged.
    fn pod_days(&self) -> f64 {
        self.observed as f64 / (24 * HOUR) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: Rule = Rule::FITTED;

    /// Days of a cluster of single pods on which each level loses `factor` times what it should.
    fn lost(factor: f64, days: u64) -> RequestReplay {
        let mut replayed = RequestReplay { days, observed: days * 24 * HOUR, ..RequestReplay::default() };
        for (place, lost) in replayed.lost.iter_mut().enumerate() {
            *lost = (factor * RULE.excess * level_of(place) * days as f64 * MILLIONTH) as u64;
        }
        replayed
    }

    #[test]
    fn without_days_the_prior_decides_and_with_many_what_was_seen() {
        let prior = RequestReplay::default().level(0.01, RULE);
        assert!((prior - 0.03).abs() < 1e-12);
        let level = |factor, days| lost(factor, days).level(0.01, RULE) / prior;
        assert!((level(1.0, 500) - 1.0).abs() < 1e-3);
        // As many days as the prior: the mean of both.
        assert!((level(2.0, 400) - 1.0 / 1.5).abs() < 1e-3);
        // With 1,400 pod-days the prior has lost log₂ 1.4 = 0.485 of its 400 days, and so much of a worse day counts. 1,606.3 days are to lose 16.06,
        // and at the prior's level lose 2.06 of the prior, 28 that were seen, and 0.485 at any level.
        assert!((level(2.0, 1400) - (16.063 - 0.485) / 30.06).abs() < 1e-3, "{}", level(2.0, 1400));
        // From 2,000 on it is what was seen: 2,001 days are to lose 20.01, and lose 40 at the prior's level, and 1.
        assert!((level(2.0, 2000) - 19.01 / 40.0).abs() < 1e-3);
        assert!((level(2.0, 1_000_000) - 0.5).abs() < 1e-2 && (level(0.8, 1_000_000) - 1.25).abs() < 1e-2);
        // Never further than this.
        assert!((level(1e3, 1_000_000) - level_of(LEVELS - 1) / prior).abs() < 1e-9);
        assert!((level(0.0, 1_000_000) - MAX_CORRECTION).abs() < 1e-9);
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
