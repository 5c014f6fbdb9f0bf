//! Memory growth that does not stop: a leak, which no limit fixes.

use serde::Serialize;

use crate::evidence::{Evidence, HourRecord};

/// Hours with a peak without which growth is not judged.
const MIN_HOURS: usize = 6;
/// Hours with a peak from which growth is more than the rising half of a day.
const SURE_HOURS: usize = 24;
/// Only the last three days count, so that memory which has stopped growing is not reported.
const WINDOW: usize = 72;
/// Kendall's τ: the share of pairs of hours whose later peak is higher, minus the share whose later peak is lower.
const MIN_TAU: f64 = 0.8;
/// Less growth than this share of the first peak is small.
const MIN_GROWTH: f64 = 0.1;
/// The later half must grow at least this share as fast as the earlier half. A cache that fills slows down earlier.
const MIN_LATER_SLOPE: f64 = 0.5;
/// The same for the last day and the one before. Less, because growth in steps has one step on a day and two on another.
const MIN_LATER_RISE: f64 = 0.3;
/// Growth speeds up if the later half grows this many times as fast as the earlier half.
const FASTER: f64 = 1.5;
/// Below this share of the usage, unreclaimable memory leaves room for page cache that grows.
const MOSTLY_UNRECLAIMABLE: f64 = 0.75;
/// Hours of the shorter windows for growth that began lately.
const LATELY: [usize; 2] = [12, 24];

/// Memory growth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Growth {
    /// Bytes per day: the median of all slopes between two hours (Theil–Sen), or the larger rise
    /// of the highest usage from one day to the next.
    pub bytes_per_day: f64,
    /// Days until the limit is reached, 0 once it is; `None` without a limit.
    pub days_to_limit: Option<f64>,
    /// The highest peak in the compared hours, bytes.
    pub highest: f64,
    /// How it grows.
    pub shape: Shape,
}

/// How memory grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Shape {
    /// Like a line: nearly all pairs of hours agree, for a day at least.
    Line,
    /// Like a line, but by less than a tenth in the compared hours.
    FlatLine,
    /// Nearly all pairs of hours agree, but they are less than a day, or growth speeds up.
    Unsure,
    /// Usage varies by the hour, but each of the last three days has more than the one before; or growth began lately.
    ByDay,
}

impl Growth {
    fn new(bytes_per_day: f64, limit: Option<u64>, peaks: &[(f64, f64)], shape: Shape) -> Self {
        let highest = peaks.iter().map(|(_, bytes)| *bytes).fold(0.0, f64::max);
        // A line reaches the limit from its newest hour, anything else from its highest one.
        let from = match shape {
            Shape::ByDay => highest,
            _ => peaks.first().map_or(highest, |(_, newest)| *newest),
        };
        let days_to_limit = limit.map(|limit| ((limit as f64 - from) / bytes_per_day).max(0.0));
        Self { bytes_per_day, days_to_limit, highest, shape }
    }

    /// Usage after a number of days of this growth, bytes.
    pub fn after(&self, days: f64) -> f64 {
        self.highest + self.bytes_per_day * days
    }
}

/// Growth in the last three days that does not slow down; `limit` in bytes. Growth of page cache alone is none.
pub fn find(evidence: &Evidence, limit: Option<u64>) -> Option<Growth> {
    let hours: Vec<(f64, &HourRecord)> = evidence
        .hours
        .iter()
        .rev()
        .filter(|(_, record)| record.peak.is_some())
        .map(|(hour, record)| (f64::from(hour.0), record))
        .collect();
    let peaks: Vec<(f64, f64)> =
        hours.iter().filter_map(|(hour, record)| Some((*hour, record.peak.as_ref()?.bytes as f64))).collect();
    let last = |hours: usize| peaks.get(..hours.min(peaks.len())).unwrap_or_default();
    let growth = line(last(WINDOW), limit)
        .or_else(|| by_day(&peaks, limit))
        .or_else(|| LATELY.iter().find_map(|hours| lately(last(*hours), &peaks, limit)))?;
    let is_small = growth.shape == Shape::FlatLine;
    let compared: Vec<&HourRecord> = hours.iter().take(WINDOW).map(|(_, record)| *record).collect();
    (!is_page_cache(&compared, is_small)).then_some(growth)
}

/// Growth like a line. The newest peak is first.
fn line(peaks: &[(f64, f64)], limit: Option<u64>) -> Option<Growth> {
    let (newest, oldest) = (peaks.first()?, peaks.last()?);
    if peaks.len() < MIN_HOURS || tau(peaks) < MIN_TAU {
        return None;
    }
    let is_small = newest.1 < oldest.1 * (1.0 + MIN_GROWTH);
    let middle = peaks.get(peaks.len() / 2)?;
    let is_slower = slope(middle, newest) < MIN_LATER_SLOPE * slope(oldest, middle);
    let is_short = peaks.len() < SURE_HOURS;
    if is_slower || is_small && is_short {
        return None;
    }
    let per_hour = median_slope(peaks)?;
    let (later, earlier) = peaks.split_at(peaks.len() / 2);
    let speeds_up = median_slope(later)? > FASTER * median_slope(earlier)?;
    let shape = match is_small {
        true => Shape::FlatLine,
        false if is_short || speeds_up => Shape::Unsure,
        false => Shape::Line,
    };
    (per_hour > 0.0).then(|| Growth::new(per_hour * 24.0, limit, peaks, shape))
}

/// Growth from day to day, whatever the hours of a day do: on each of the last three days, counted back from the newest hour,
/// both the highest and the median usage are above those of the day before, and it does not slow down. Of two days the last must be a
/// tenth above the other.
fn by_day(peaks: &[(f64, f64)], limit: Option<u64>) -> Option<Growth> {
    let (newest, _) = peaks.first()?;
    let day = |back: f64| -> Option<(f64, f64)> {
        let is_of_day = |(hour, _): &&(f64, f64)| ((newest - hour) / 24.0).floor() == back;
        let mut bytes: Vec<f64> = peaks.iter().filter(is_of_day).map(|(_, bytes)| *bytes).collect();
        bytes.sort_unstable_by(f64::total_cmp);
        // The oldest day may lack the hour that is not over yet.
        (bytes.len() > SURE_HOURS / 2).then_some((*bytes.last()?, *bytes.get(bytes.len() / 2)?))
    };
    let (last, before) = (day(0.0)?, day(1.0)?);
    let rises = |from: (f64, f64), to: (f64, f64), share: f64| {
        to.0 > from.0 * (1.0 + share) && to.1 > from.1 * (1.0 + share)
    };
    let bytes_per_day = match day(2.0) {
        Some(first) => {
            let is_slower = last.0 - before.0 < MIN_LATER_RISE * (before.0 - first.0);
            let rose = rises(first, before, 0.0) && rises(before, last, 0.0) && !is_slower;
            rose.then_some((last.0 - before.0).max(before.0 - first.0))
        }
        None => rises(before, last, MIN_GROWTH).then_some(last.0 - before.0),
    };
    Some(Growth::new(bytes_per_day?, limit, peaks.get(..WINDOW).unwrap_or(peaks), Shape::ByDay))
}

/// Growth that began lately: like a line, and a tenth above all usage from before.
fn lately(peaks: &[(f64, f64)], all: &[(f64, f64)], limit: Option<u64>) -> Option<Growth> {
    let before = all.get(peaks.len()..).filter(|before| !before.is_empty())?;
    let growth = line(peaks, limit)?;
    let highest = before.iter().map(|(_, bytes)| *bytes).fold(0.0, f64::max);
    (growth.highest > highest * (1.0 + MIN_GROWTH)).then_some(Growth { shape: Shape::ByDay, ..growth })
}

/// All pairs of an earlier and a later hour. The newest peak is first.
fn pairs(peaks: &[(f64, f64)]) -> impl Iterator<Item = ((f64, f64), (f64, f64))> {
    peaks
        .iter()
        .enumerate()
        .flat_map(|(at, later)| peaks.iter().skip(at + 1).map(move |earlier| (*earlier, *later)))
}

fn tau(peaks: &[(f64, f64)]) -> f64 {
    let signs: i64 = pairs(peaks).map(|(earlier, later)| later.1.total_cmp(&earlier.1) as i64).sum();
    signs as f64 / pairs(peaks).count().max(1) as f64
}

/// Bytes per hour.
fn slope(from: &(f64, f64), to: &(f64, f64)) -> f64 {
    (to.1 - from.1) / (to.0 - from.0)
}

fn median_slope(peaks: &[(f64, f64)]) -> Option<f64> {
    let mut slopes: Vec<f64> = pairs(peaks).map(|(earlier, later)| slope(&earlier, &later)).collect();
    let at = slopes.len() / 2;
    (at < slopes.len()).then(|| *slopes.select_nth_unstable_by(at, f64::total_cmp).1)
}

/// Whether it is page cache that grows: unreclaimable memory is known, and is no higher in the newer half of the hours than in the
/// older one. Its buckets are wider than small growth; then it is page cache only where unreclaimable memory leaves room for it.
fn is_page_cache(newest_first: &[&HourRecord], is_small: bool) -> bool {
    let known = |records: &[&HourRecord]| {
        records.iter().filter_map(|record| record.unreclaimable.quantile(1.0)).reduce(f64::max)
    };
    let (newer, older) = newest_first.split_at(newest_first.len() / 2);
    let Some((newest, oldest)) = known(newer).zip(known(older)) else { return false };
    let highest = newest_first.iter().filter_map(|record| record.peak.as_ref()).map(|peak| peak.bytes).max();
    let has_room = highest.is_some_and(|bytes| newest < bytes as f64 * MOSTLY_UNRECLAIMABLE);
    newest <= oldest && (has_room || !is_small)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::{Hour, Peak},
        workload::tests::{container, workload},
    };

    fn peaks(bytes: impl Fn(u32) -> u64, hours: u32) -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 100);
        for hour in 0..hours {
            let at = u64::from(hour) * 3600;
            evidence.hour(Hour(hour)).peak = Some(Peak { bytes: bytes(hour), at, pod: "web-1".to_owned() });
        }
        evidence
    }

    #[test]
    fn a_leak_has_a_rate_and_an_end() {
        let leak =
            find(&peaks(|hour| 1000 + u64::from(hour) * 10 + u64::from(hour % 3), 48), Some(1957)).unwrap();
        assert!((leak.bytes_per_day - 240.0).abs() < 5.0, "{leak:?}");
        // 1957 − (1000 + 470 + 2) = 485, at 240 a day.
        assert!((leak.days_to_limit.unwrap() - 2.02).abs() < 0.05, "{leak:?}");
    }

    #[test]
    fn growth_that_is_not_a_leak() {
        let wave = |hour: u32| if hour % 24 < 12 { 1000 } else { 2000 };
        let cache = |hour: u32| 2000 - (1000.0 * (-f64::from(hour) / 8.0).exp()) as u64;
        let step = |hour: u32| if hour < 40 { 1000 } else { 2000 };
        assert_eq!(find(&peaks(wave, 72), None), None);
        assert_eq!(find(&peaks(cache, 48), None), None);
        assert_eq!(find(&peaks(step, 48), None), None);
        assert_eq!(find(&peaks(|hour| 1000 + u64::from(hour) * 100, 5), None), None);
        assert_eq!(find(&peaks(|hour| 1000 + u64::from(hour) * 10, 12), None).unwrap().shape, Shape::Unsure);
        assert_eq!(find(&peaks(|_| 0, 48), Some(0)), None);
        assert_eq!(find(&peaks(|_| 0, 0), None), None);
    }
}
