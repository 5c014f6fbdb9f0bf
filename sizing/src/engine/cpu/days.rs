//! The past days of one container, each judged with requests made from the days before it.

use super::{
    WindowsOfRequest,
    forecast::Forecast,
    lent::{Bins, Lent},
    pod_days, share_of_periods,
};
use crate::{
    evidence::{Evidence, HOUR, Hour, HourRecord},
    histogram::Histogram,
};

/// The levels that are replayed: shares of the time, each half of the one before.
pub(super) const LEVELS: usize = 13;
pub(super) const HIGHEST: f64 = 0.5;
/// The level at which forecasts are compared: near that of an accepted share of 1 %.
const REFERENCE_LEVEL: f64 = 0.025;
/// Hours in a day.
const DAY: u32 = 24;
/// Pod-days without which a day is not judged and no request is made: an hour of one pod, nearly.
const MIN_DAYS: f64 = 0.99 / 24.0;
/// A day on which the CPU limit throttled more than this share of the CFS periods is not judged: usage would have been higher, and
/// nobody knows by how much.
const CUT_OFF: f64 = 0.01;
/// Losses are counted in millionths as whole numbers, so that their sum does not depend on the order of addition.
pub(super) const MILLIONTH: f64 = 1e6;

/// The share of the time at a place among the levels.
pub(super) fn level_of(place: usize) -> f64 {
    HIGHEST / f64::from(1_u32 << place.min(LEVELS))
}

/// Losses by level: CPU time above the request, as a part of the mean CPU time in as many hours until then, at most 1; millionths.
pub(super) type Losses = [u64; LEVELS];

/// One day with requests made from the days before it.
#[derive(Clone, Debug)]
pub(super) struct JudgedDay {
    /// The hour after it: only then the losses are known.
    pub(super) end: Hour,
    /// Container-seconds observed.
    pub(super) observed: u64,
    /// With requests from the container's own usage.
    pub(super) lost: Losses,
    /// The pinball loss of such a request at the reference level.
    pub(super) pinball: u64,
    /// CPU time in relation to the mean CPU time in as many hours.
    part: f64,
    past: Histogram,
    past_days: f64,
    windows: Histogram,
}

/// The judged days of one container in order of time, and all of its usage.
#[derive(Clone, Debug, Default)]
pub struct JudgedDays {
    pub(super) days: Vec<JudgedDay>,
    pub(super) all: Bins,
    /// Length of a window, milliseconds.
    pub(super) window_millis: u64,
}

/// Usage of one or more hours, in the windows that requests are made from.
struct Usage {
    windows: Histogram,
    window_millis: u64,
    /// Container-seconds.
    observed: u64,
    /// Hours with usage.
    hours: u32,
    /// CFS periods, and those that the CPU limit throttled.
    periods: (u64, u64),
}

impl JudgedDay {
    /// Usage before the day.
    pub(super) fn past(&self) -> Bins {
        Bins::new(&self.past)
    }

    /// The forecast of this day with what likes lend. `None` without any usage before it.
    pub(super) fn forecast(&self, lent: &Lent) -> Option<Forecast> {
        Forecast::with_likes(&self.past, self.past_days, lent)
    }

    /// The losses of requests from a forecast.
    pub(super) fn lost_by(&self, forecast: &Forecast) -> Losses {
        let work = self.windows.sum();
        std::array::from_fn(|place| {
            let request = forecast.request(forecast.accepted(level_of(place)));
            // `as` saturates.
            ((self.windows.work_above_of(work, request) * self.part).min(1.0) * MILLIONTH).round() as u64
        })
    }

    /// The pinball loss of the request from a forecast at the reference level: CPU time above it, and with the weight of
    /// the level what it reserves and usage leaves; millionths of cores times windows. The smaller over a time, the better the forecast.
    pub(super) fn pinball_by(&self, forecast: &Forecast) -> u64 {
        let request = forecast.request(forecast.accepted(REFERENCE_LEVEL));
        let (count, work) = (self.windows.count() as f64, self.windows.sum());
        let above = self.windows.work_above_of(work, request) * work;
        let left = (request * count - work + above).max(0.0);
        // `as` saturates.
        (((1.0 - REFERENCE_LEVEL) * above + REFERENCE_LEVEL * left) * MILLIONTH).round() as u64
    }
}

impl JudgedDays {
    /// Judges the whole days (in UTC) of a history. A day counts when it is over.
    pub fn new(evidence: &Evidence) -> Self {
        let of_request = WindowsOfRequest::new(evidence);
        let usage = || Usage {
            windows: Histogram::default(),
            window_millis: of_request.millis,
            observed: 0,
            hours: 0,
            periods: (0, 0),
        };
        let (mut past, mut day) = (usage(), usage());
        let (mut judged, mut number) = (Vec::new(), None);
        let end = evidence.hours.last_key_value().map_or(Hour(0), |(last, _)| last.later(1));
        for (hour, record) in &evidence.hours {
            let this = hour.0 / DAY;
            if let Some(before) = number.filter(|before| *before != this) {
                judged.extend(judge(&past, &day, Hour(before * DAY).later(DAY)));
                past.add(&std::mem::replace(&mut day, usage()));
            }
            number = Some(this);
            day.record(&of_request, record);
        }
        // The last day counts when it is over.
        if end.0.is_multiple_of(DAY) {
            judged.extend(judge(&past, &day, end));
        }
        past.add(&day);
        Self { days: judged, all: Bins::new(&past.windows), window_millis: of_request.millis }
    }
}

/// Judges requests made from the past on a day.
fn judge(past: &Usage, day: &Usage, end: Hour) -> Option<JudgedDay> {
    let is_cut_off = share_of_periods(day.periods).is_some_and(|share| share > CUT_OFF);
    if past.pod_days().min(day.pod_days()) < MIN_DAYS || is_cut_off {
        return None;
    }
    // A busy day counts more than an idle one, as in the sum of CPU time above requests over all days.
    let usual = (past.work() + day.work()) / f64::from(past.hours + day.hours).max(1.0);
    let part = if usual > 0.0 { day.work() / f64::from(day.hours).max(1.0) / usual } else { 0.0 };
    let judged = JudgedDay {
        end,
        observed: day.observed,
        lost: [0; LEVELS],
        pinball: 0,
        part,
        past: past.windows.clone(),
        past_days: past.pod_days(),
        windows: day.windows.clone(),
    };
    let forecast = judged.forecast(&Lent::default())?;
    Some(JudgedDay { lost: judged.lost_by(&forecast), pinball: judged.pinball_by(&forecast), ..judged })
}

impl Usage {
    fn record(&mut self, of_request: &WindowsOfRequest, record: &HourRecord) {
        of_request.picks.iter().for_each(|pick| self.windows.merge(pick(record)));
        self.observed = self.observed.saturating_add(record.observed);
        self.hours += u32::from(record.observed > 0);
        self.periods.0 = self.periods.0.saturating_add(record.periods);
        self.periods.1 = self.periods.1.saturating_add(record.throttled);
    }

    fn add(&mut self, other: &Self) {
        self.windows.merge(&other.windows);
        self.observed = self.observed.saturating_add(other.observed);
        self.hours += other.hours;
    }

    /// CPU time, in cores times windows.
    fn work(&self) -> f64 {
        self.windows.sum()
    }

    fn pod_days(&self) -> f64 {
        pod_days(&self.windows, self.window_millis, self.observed as f64 / (u64::from(DAY) * HOUR) as f64)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::workload::tests::{container, workload};

    /// The hour at which the histories below begin: that of a day.
    const FIRST: u32 = 24_000;

    /// Usage by the hour, cores; sixty minutes each.
    pub(in super::super) fn evidence(hours: &[f64]) -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 60_000);
        for (hour, cores) in (FIRST..).zip(hours) {
            let record = evidence.hour(Hour(hour));
            record.observed = HOUR;
            record.cpu.record(*cores, 60);
        }
        evidence
    }

    /// Usage by the day, cores.
    pub(in super::super) fn days(each: &[f64]) -> Vec<f64> {
        each.iter().flat_map(|cores| [*cores; 24]).collect()
    }

    /// Days with their losses.
    fn judged(hours: &[f64]) -> Vec<JudgedDay> {
        JudgedDays::new(&evidence(hours)).days
    }

    #[test]
    fn each_day_is_judged_by_the_days_before_it() {
        let steady = judged(&days(&[1.0; 5]));
        assert_eq!(steady.iter().map(|day| day.end.0 - FIRST).collect::<Vec<_>>(), [48, 72, 96, 120]);
        // A request for 1.6 % of the time is above what is always the same.
        assert!(steady.iter().all(|day| day.lost[5] == 0 && day.observed == 24 * HOUR), "{steady:?}");
        // On the last day usage is ten times as high. The request is 1.31 cores, the third root of 0.034 ÷ 0.015, so 0.87 of that day's CPU
        // time is above; and the day has 10 ÷ 2.8 times the mean CPU time of a day. No loss is above 1.
        let risen = judged(&days(&[1.0, 1.0, 1.0, 1.0, 10.0]));
        assert_eq!(risen[3].lost[5] as f64, MILLIONTH);
        // With 1.5 cores it is 0.19 of 1.5, times 1.5 ÷ 1.1.
        let risen = judged(&days(&[1.0, 1.0, 1.0, 1.0, 1.5]));
        let lost = risen[3].lost[5] as f64 / MILLIONTH;
        assert!((lost / (0.19 / 1.1) - 1.0).abs() < 0.25, "{lost}");
        // A day that is not over is not judged, and the first one has no request.
        assert_eq!(judged(&days(&[1.0, 1.0])[..47]).len(), 0);
        assert_eq!(judged(&[]).len(), 0);
    }

    #[test]
    fn a_day_that_a_limit_cut_off_is_not_judged() {
        let mut throttled = evidence(&days(&[1.0; 4]));
        for (day, share) in [(1, 0), (2, 30), (3, 5)] {
            let record = throttled.hour(Hour(FIRST + 24 * day));
            (record.periods, record.throttled) = (1000, share);
        }
        let ends: Vec<u32> =
            JudgedDays::new(&throttled).days.iter().map(|day| (day.end.0 - FIRST) / 24).collect();
        assert_eq!(ends, [2, 4]);
    }

    proptest! {
        #[test]
        fn a_lower_level_loses_less(hours in prop::collection::vec(0.001..8.0_f64, 48..200)) {
            for day in judged(&hours) {
                prop_assert!(day.lost.windows(2).all(|pair| pair[0] >= pair[1]), "{day:?}");
            }
        }

        #[test]
        fn the_future_changes_nothing(hours in prop::collection::vec(0.001..8.0_f64, 24..200), later in prop::collection::vec(0.001..8.0_f64, 0..100)) {
            let whole: Vec<f64> = hours.iter().chain(&later).copied().collect();
            let (known, all) = (judged(&hours), judged(&whole));
            let facts = |day: &JudgedDay| (day.end, day.observed, day.lost, day.pinball);
            prop_assert!(known.iter().map(facts).eq(all.iter().take(known.len()).map(facts)));
        }
    }
}
