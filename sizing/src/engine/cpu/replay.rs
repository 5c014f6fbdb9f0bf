//! What CPU requests would have delivered on past days, and the level that follows from it.
//!
//! For each whole day of the history (in UTC) and each of a few levels, a request is made from the days before and judged on
//! that day: the loss is the share of the container's CPU time above it. A day counts only when it is over, and nothing of
//! it is in the request that it judges (prequential). The mean loss rises with the level. The level in use is the highest
//! whose mean loss is within the accepted one, as in
//! [conformal risk control](https://arxiv.org/abs/2208.02814) (Angelopoulos and others), with a prior in place of its
//! worst case: `C` days on which a level `l` had the loss `l` times [`Rule::excess`]. `C` is ten days with all CPU time
//! above the request, over the accepted share: 1,000 days at 1 %. So with few days the prior decides, and with twenty
//! losses' worth of days mostly what was seen. The loss is a mean over days of workloads, each as important as any other.

use super::{WindowsOfRequest, forecast::Forecast, pod_days};
use crate::{
    engine::rule::Rule,
    evidence::{Evidence, Hour},
    histogram::Histogram,
};

/// The levels that are replayed: shares of the time, each half of the one before.
const LEVELS: usize = 13;
const HIGHEST: f64 = 0.5;
/// Strength of the prior: days with all CPU time above the request.
const STRENGTH: f64 = 10.0;
/// The level is at most so many times the prior's, and at least such a part of it. Above past usage the fifth root of the level
/// counts, so a twentieth of the level raises a request by four fifths.
const MAX_CORRECTION: f64 = 4.0;
const MIN_CORRECTION: f64 = 0.05;
/// Losses are counted in millionths as whole numbers, so that their sum does not depend on the order of addition.
const MILLIONTH: f64 = 1e6;
/// Hours in a day, and seconds in an hour.
const DAY: u32 = 24;
const HOUR_SECONDS: u32 = 3600;
/// Pod-days without which a day is not judged and no request is made: an hour of one pod, nearly.
const MIN_DAYS: f64 = 0.99 / 24.0;

/// Losses of replayed days, summed over any number of workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestReplay {
    /// Days of workloads.
    days: u64,
    /// Sum of the losses by level, millionths.
    lost: [u64; LEVELS],
}

/// The share of CPU time above the requests of past days.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Delivered {
    /// Mean share over these days, 0..=1.
    pub work_above: f64,
    /// Days, each of one container of one workload.
    pub days: u64,
}

fn level_of(place: usize) -> f64 {
    HIGHEST / f64::from(1_u32 << place.min(LEVELS))
}

impl RequestReplay {
    /// Replays the history of one container.
    pub fn new(evidence: &Evidence) -> Self {
        let mut replayed = Self::default();
        let of_request = WindowsOfRequest::new(evidence);
        let usage = || Usage { windows: Histogram::default(), window_millis: of_request.millis, observed: 0 };
        let (mut past, mut day) = (usage(), usage());
        let mut number = None;
        let end = evidence.hours.last_key_value().map_or(0, |(last, _)| last.0.saturating_add(1));
        for (Hour(hour), record) in &evidence.hours {
            let this = hour / DAY;
            if number != Some(this) {
                replayed.judge(&past, &day);
                past.add(&std::mem::replace(&mut day, usage()));
                number = Some(this);
            }
            of_request.picks.iter().for_each(|pick| day.windows.merge(pick(record)));
            day.observed = day.observed.saturating_add(record.observed);
        }
        // The last day counts when it is over.
        if end.is_multiple_of(DAY) {
            replayed.judge(&past, &day);
        }
        replayed
    }

    /// Judges requests made from the past on one day.
    fn judge(&mut self, past: &Usage, day: &Usage) {
        if past.pod_days().min(day.pod_days()) < MIN_DAYS {
            return;
        }
        let Some(forecast) = past.forecast() else { return };
        self.days += 1;
        for (place, lost) in self.lost.iter_mut().enumerate() {
            let request = forecast.request(forecast.accepted(level_of(place)));
            // `as` saturates.
            *lost = lost.saturating_add((day.windows.work_above(request) * MILLIONTH).round() as u64);
        }
    }

    /// Adds the days of other workloads.
    pub fn merge(&mut self, other: Self) {
        self.days = self.days.saturating_add(other.days);
        for (mine, theirs) in self.lost.iter_mut().zip(other.lost) {
            *mine = mine.saturating_add(theirs);
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

    /// What requests for an accepted share would have delivered, without any calibration. `None` without replayed days.
    pub fn delivered(&self, accepted: f64, rule: Rule) -> Option<Delivered> {
        let lost = self.lost((accepted / rule.excess).min(HIGHEST));
        (self.days > 0).then(|| Delivered { work_above: lost / self.days as f64, days: self.days })
    }
}

/// Usage of one or more hours, in the windows that requests are made from.
struct Usage {
    windows: Histogram,
    window_millis: u64,
    /// Container-seconds.
    observed: u64,
}

impl Usage {
    fn add(&mut self, other: &Self) {
        self.windows.merge(&other.windows);
        self.observed = self.observed.saturating_add(other.observed);
    }

    fn pod_days(&self) -> f64 {
        pod_days(&self.windows, self.window_millis, self.observed as f64 / f64::from(DAY * HOUR_SECONDS))
    }

    fn forecast(&self) -> Option<Forecast> {
        Forecast::new(&self.windows, self.pod_days())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::workload::tests::{container, workload};

    const RULE: Rule = Rule::FITTED;

    /// Usage by the hour, cores; sixty minutes each.
    fn evidence(hours: &[f64]) -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 60_000);
        for (hour, cores) in (0..).zip(hours) {
            evidence.hour(Hour(24_000 + hour)).cpu.record(*cores, 60);
        }
        evidence
    }

    fn days(each: &[f64]) -> Vec<f64> {
        each.iter().flat_map(|cores| [*cores; 24]).collect()
    }

    #[test]
    fn each_day_is_judged_by_the_days_before_it() {
        let steady = RequestReplay::new(&evidence(&days(&[1.0; 5])));
        assert_eq!(steady.days, 4);
        assert_eq!(steady.delivered(0.01, RULE), Some(Delivered { work_above: 0.0, days: 4 }));
        // On the last day usage is ten times as high; the request was half as high again as usage at most.
        let risen = RequestReplay::new(&evidence(&days(&[1.0, 1.0, 1.0, 1.0, 10.0])));
        let lost = risen.delivered(0.01, RULE).unwrap().work_above * 4.0;
        assert!((0.8..0.9).contains(&lost), "{lost}");
        // A day that is not over is not judged, and the first one has no request.
        assert_eq!(RequestReplay::new(&evidence(&days(&[1.0, 1.0])[..47])).days, 0);
        assert_eq!(RequestReplay::new(&evidence(&[])), RequestReplay::default());
        assert_eq!(RequestReplay::default().delivered(0.01, RULE), None);
    }

    #[test]
    fn without_days_the_prior_decides_and_with_many_what_was_seen() {
        let prior = RequestReplay::default().level(0.01, RULE);
        assert!((prior - 0.025).abs() < 1e-12);
        // Each level loses twice what it should.
        let lost = |factor: f64, days: u64| {
            let mut replayed = RequestReplay { days, ..RequestReplay::default() };
            for (place, lost) in replayed.lost.iter_mut().enumerate() {
                *lost = (factor * RULE.excess * level_of(place) * days as f64 * MILLIONTH) as u64;
            }
            replayed
        };
        let level = |factor, days| lost(factor, days).level(0.01, RULE) / prior;
        assert!((level(1.0, 500) - 1.0).abs() < 1e-3);
        // As many days as the prior: the mean of both.
        assert!((level(2.0, 1000) - 1.0 / 1.5).abs() < 1e-3);
        assert!((level(2.0, 1_000_000) - 0.5).abs() < 1e-2 && (level(0.5, 1_000_000) - 2.0).abs() < 1e-2);
        // Never further than this.
        assert!(
            (level(1e3, 1_000_000) - MIN_CORRECTION).abs() < 1e-9
                && (level(0.0, 1_000_000) - MAX_CORRECTION).abs() < 1e-9
        );
    }

    /// With the level that the replay chooses, days of the same kind lose what was accepted.
    #[test]
    fn what_is_delivered_later_is_what_was_asked() {
        // Each day is by chance up to so many times the usage, which a short history cannot show.
        let mut state = 1_u64;
        let mut chance = move || {
            // Knuth's constants.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f64 + 1.0) / f64::from(1_u32 << 31)
        };
        let mut of = |workloads: usize, count: usize| -> Vec<Evidence> {
            let mut one = || days(&(0..count).map(|_| chance().powf(-0.15)).collect::<Vec<_>>());
            (0..workloads).map(|_| evidence(&one())).collect()
        };
        let mut replayed = RequestReplay::default();
        of(400, 12).iter().for_each(|one| replayed.merge(RequestReplay::new(one)));
        for asked in [0.05, 0.02] {
            let level = replayed.level(asked, RULE);
            let (mut lost, mut judged) = (0.0, 0.0);
            for one in of(200, 12) {
                let later = RequestReplay::new(&one);
                lost += later.lost(level);
                judged += later.days as f64;
            }
            let delivered = lost / judged / asked;
            assert!((0.7..1.3).contains(&delivered), "asked {asked}, delivered {delivered} times that");
        }
    }

    proptest! {
        #[test]
        fn a_higher_risk_has_no_lower_level(days in 0..100_000_u64, lost in prop::array::uniform13(0.0..1.0_f64), risk in 0.0005..0.5_f64, factor in 1.0..10.0_f64) {
            let mut replayed = RequestReplay { days, ..RequestReplay::default() };
            let mut sum = 0.0;
            for (mine, share) in replayed.lost.iter_mut().rev().zip(lost) {
                sum += share * (1.0 - sum);
                *mine = (sum * days as f64 * MILLIONTH) as u64;
            }
            let level = |risk: f64| replayed.level(risk, RULE);
            let more = (risk * factor).min(0.5);
            prop_assert!(level(more) >= level(risk) * (1.0 - 1e-6), "{} {}", level(risk), level(more));
            prop_assert!(level(risk) > 0.0 && level(risk) <= HIGHEST);
        }

        #[test]
        fn the_future_changes_nothing(hours in prop::collection::vec(0.001..8.0_f64, 24..200), later in prop::collection::vec(0.001..8.0_f64, 0..100)) {
            let whole: Vec<f64> = hours.iter().chain(&later).copied().collect();
            let mut cut = evidence(&whole);
            cut.hours.split_off(&Hour(24_000 + hours.len() as u32));
            prop_assert_eq!(RequestReplay::new(&cut), RequestReplay::new(&evidence(&hours)));
        }

        #[test]
        fn a_sum_does_not_depend_on_the_order(one in prop::collection::vec(0.001..8.0_f64, 24..100), other in prop::collection::vec(0.001..8.0_f64, 24..100)) {
            let [one, other] = [one, other].map(|hours| RequestReplay::new(&evidence(&hours)));
            let sum = |mut first: RequestReplay, second| { first.merge(second); first };
            prop_assert_eq!(sum(one, other), sum(other, one));
        }
    }
}
