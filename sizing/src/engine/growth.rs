//! Memory growth that does not stop: a leak, which no limit fixes.

use serde::Serialize;

use crate::evidence::Evidence;

/// Hours with a peak without which growth is not judged.
const MIN_HOURS: usize = 6;
/// Hours with a peak from which growth is more than the rising half of a day.
const SURE_HOURS: usize = 24;
/// Only the last three days count, so that memory which has stopped growing is not reported.
const WINDOW: usize = 72;
/// Kendall's τ: the share of pairs of hours whose later peak is higher, minus the share whose later peak is lower.
const MIN_TAU: f64 = 0.8;
/// Less growth than this share of the first peak is noise.
const MIN_GROWTH: f64 = 0.1;
/// The later half must grow at least this share as fast as the earlier half. A cache that fills slows down earlier.
const MIN_LATER_SLOPE: f64 = 0.5;

/// Memory growth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Growth {
    /// Bytes per day: the median of all slopes between two hours (Theil–Sen).
    pub bytes_per_day: f64,
    /// Days until the limit is reached, 0 once it is; `None` without a limit.
    pub days_to_limit: Option<f64>,
    /// Hours with a peak that were compared.
    pub hours: usize,
    /// The highest peak in these hours, bytes.
    pub highest: f64,
}

impl Growth {
    /// Usage after a number of days of this growth, bytes.
    pub fn after(&self, days: f64) -> f64 {
        self.highest + self.bytes_per_day * days
    }

    /// Whether there is enough history to tell growth from the rising half of a day.
    pub const fn is_sure(&self) -> bool {
        self.hours >= SURE_HOURS
    }
}

/// Growth in the last three days that is steady and does not slow down; `limit` in bytes. Growth of page cache alone is none.
pub fn steady(evidence: &Evidence, limit: Option<u64>) -> Option<Growth> {
    if is_page_cache(evidence) {
        return None;
    }
    let peaks: Vec<(f64, f64)> = evidence
        .hours
        .iter()
        .rev()
        .take(WINDOW)
        .filter_map(|(hour, record)| Some((f64::from(hour.0), record.peak.as_ref()?.bytes as f64)))
        .collect();
    // The newest is first.
    let (newest, oldest) = (peaks.first()?, peaks.last()?);
    if peaks.len() < MIN_HOURS || newest.1 < oldest.1 * (1.0 + MIN_GROWTH) {
        return None;
    }
    let pairs = || {
        peaks
            .iter()
            .enumerate()
            .flat_map(|(at, later)| peaks.iter().skip(at + 1).map(move |earlier| (*earlier, *later)))
    };
    let signs: i64 = pairs().map(|(earlier, later)| later.1.total_cmp(&earlier.1) as i64).sum();
    if (signs as f64) < MIN_TAU * pairs().count() as f64 {
        return None;
    }
    let middle = peaks.get(peaks.len() / 2)?;
    let slope = |from: &(f64, f64), to: &(f64, f64)| (to.1 - from.1) / (to.0 - from.0);
    if slope(middle, newest) < MIN_LATER_SLOPE * slope(oldest, middle) {
        return None;
    }
    let mut slopes: Vec<f64> = pairs().map(|(earlier, later)| slope(&earlier, &later)).collect();
    let at = slopes.len() / 2;
    let (_, per_hour, _) = slopes.select_nth_unstable_by(at, f64::total_cmp);
    let bytes_per_day = *per_hour * 24.0;
    let days_to_limit = limit.map(|limit| ((limit as f64 - newest.1) / bytes_per_day).max(0.0));
    let highest = peaks.iter().map(|(_, bytes)| *bytes).fold(0.0, f64::max);
    Some(Growth { bytes_per_day, days_to_limit, hours: peaks.len(), highest })
}

/// Whether unreclaimable memory, where it is known, did not grow over the same hours.
fn is_page_cache(evidence: &Evidence) -> bool {
    let mut known = evidence
        .hours
        .values()
        .rev()
        .take(WINDOW)
        .filter(|record| record.peak.is_some())
        .map(|record| record.unreclaimable.quantile(1.0));
    let newest = known.next().flatten();
    let oldest = known.next_back().flatten();
    newest.zip(oldest).is_some_and(|(newest, oldest)| newest <= oldest)
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
            steady(&peaks(|hour| 1000 + u64::from(hour) * 10 + u64::from(hour % 3), 48), Some(1957)).unwrap();
        assert!((leak.bytes_per_day - 240.0).abs() < 5.0, "{leak:?}");
        // 1957 − (1000 + 470 + 2) = 485, at 240 a day.
        assert!((leak.days_to_limit.unwrap() - 2.02).abs() < 0.05, "{leak:?}");
    }

    #[test]
    fn growth_that_is_not_a_leak() {
        let wave = |hour: u32| if hour % 24 < 12 { 1000 } else { 2000 };
        let cache = |hour: u32| 2000 - (1000.0 * (-f64::from(hour) / 8.0).exp()) as u64;
        let step = |hour: u32| if hour < 40 { 1000 } else { 2000 };
        assert_eq!(steady(&peaks(wave, 72), None), None);
        assert_eq!(steady(&peaks(cache, 48), None), None);
        assert_eq!(steady(&peaks(step, 48), None), None);
        assert_eq!(steady(&peaks(|hour| 1000 + u64::from(hour) * 100, 5), None), None);
        assert!(!steady(&peaks(|hour| 1000 + u64::from(hour) * 10, 12), None).unwrap().is_sure());
        assert_eq!(steady(&peaks(|_| 0, 48), Some(0)), None);
        assert_eq!(steady(&peaks(|_| 0, 0), None), None);
    }
}
