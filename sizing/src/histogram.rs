//! Distributions of usage: base-2 exponential histograms of schema 3, like Prometheus native histograms and OTLP exponential
//! histograms.
//!
//! Bucket `i` holds values in `(2^(i/8), 2^((i+1)/8)]`. This is OTLP's numbering; Prometheus numbers the same bucket `i + 1`.
//! The geometric middle of a bucket differs from each of its values by at most 4.4 %. CompactCounts are whole numbers, so merging is
//! exact, associative and commutative.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::counts::CompactCounts;

/// Buckets per doubling: 2^schema with schema 3.
pub const PER_DOUBLING: i32 = 8;
/// Lowest bucket; smaller values count as zero. 2⁻³⁰ of a core is a nanosecond of CPU time per second.
const MIN_BUCKET: i32 = -30 * PER_DOUBLING;
/// Values up to this one count as zero.
pub const ZERO_THRESHOLD: f64 = 1.0 / (1_u32 << 30) as f64;
/// Highest bucket; larger values are counted in it. 2⁶² bytes are four exbibytes.
const MAX_BUCKET: i32 = 62 * PER_DOUBLING - 1;

/// A histogram of values such as cores or bytes; the owner defines the unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Histogram {
    zero: u64,
    /// Bucket of the first count.
    first: i32,
    /// Without empty buckets at both ends, so that equal contents compare equal.
    counts: CompactCounts,
}

/// A histogram as read, with buckets not checked yet.
#[derive(Deserialize)]
struct Unchecked {
    zero: u64,
    first: i32,
    counts: CompactCounts,
}

/// Buckets outside the valid range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a histogram has {count} buckets from {first} on; they must lie in {MIN_BUCKET}..={MAX_BUCKET}")]
pub struct BucketsError {
    first: i32,
    count: usize,
}

impl TryFrom<Unchecked> for Histogram {
    type Error = BucketsError;

    fn try_from(Unchecked { zero, first, counts }: Unchecked) -> Result<Self, BucketsError> {
        let fits = i32::try_from(counts.len()).ok().and_then(|count| first.checked_add(count));
        if counts.is_empty() || (first >= MIN_BUCKET && fits.is_some_and(|end| end <= MAX_BUCKET + 1)) {
            let empty = counts.iter().take_while(|count| *count == 0).count();
            let end = counts.iter().rposition(|count| count > 0).map_or(empty, |last| last + 1);
            let is_trimmed = end - empty == counts.len();
            let counts = if is_trimmed {
                counts
            } else {
                CompactCounts::new(&counts.iter().take(end).skip(empty).collect::<Vec<_>>())
            };
            let first = if counts.is_empty() { 0 } else { first + empty as i32 };
            return Ok(Self { zero, first, counts });
        }
        Err(BucketsError { first, count: counts.len() })
    }
}

/// The bucket of a positive, finite value.
fn bucket(value: f64) -> i32 {
    let exact = value.log2() * f64::from(PER_DOUBLING);
    // `as` saturates. A bound belongs to the bucket below it.
    let index = exact.ceil() as i32 - 1;
    index.min(MAX_BUCKET)
}

/// The lower bounds of all buckets, and the upper bound of the last one.
static BOUNDS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    (MIN_BUCKET..=MAX_BUCKET + 1).map(|bound| (f64::from(bound) / f64::from(PER_DOUBLING)).exp2()).collect()
});

/// The lower bound of a bucket, then the upper bounds of it and of those after it.
pub(crate) fn bounds(first: i32) -> &'static [f64] {
    usize::try_from(first - MIN_BUCKET).ok().and_then(|place| BOUNDS.get(place..)).unwrap_or_default()
}

impl Histogram {
    /// CompactCounts a value `times` times. Negative numbers, NaN and infinity are not counted: `false`.
    pub fn record(&mut self, value: f64, times: u64) -> bool {
        if !value.is_finite() || value < 0.0 {
            return false;
        }
        if times == 0 {
            return true;
        }
        let index = if value > 0.0 { bucket(value) } else { MIN_BUCKET - 1 };
        if index < MIN_BUCKET {
            self.zero = self.zero.saturating_add(times);
        } else {
            self.add(index, &std::iter::once(times));
        }
        true
    }

    /// Adds counts to the buckets from one on, created if missing.
    fn add(&mut self, first: i32, counts: &(impl ExactSizeIterator<Item = u64> + Clone)) {
        if self.counts.is_empty() {
            self.first = first;
        }
        let before = (self.first - first).max(0) as usize;
        self.first = self.first.min(first);
        let at = (first - self.first) as usize;
        let behind = (at + counts.len()).saturating_sub(before + self.counts.len());
        self.counts.pad(before, behind);
        self.counts.add(at, counts);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.zero = self.zero.saturating_add(other.zero);
        if self.counts.is_empty() {
            (self.first, self.counts) = (other.first, other.counts.clone());
        } else if !other.counts.is_empty() {
            self.add(other.first, &other.counts.iter());
        }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(self.zero, u64::saturating_add)
    }

    /// The zero count, the index of the first bucket in OTLP's numbering, and the counts from that bucket on.
    pub fn exponential(&self) -> (u64, i32, impl ExactSizeIterator<Item = u64> + '_) {
        (self.zero, self.first, self.counts.iter())
    }

    /// The inverse of [`Self::exponential`].
    ///
    /// # Errors
    /// When buckets are outside the valid range.
    pub fn from_exponential(zero: u64, first: i32, counts: &[u64]) -> Result<Self, BucketsError> {
        Self::try_from(Unchecked { zero, first, counts: CompactCounts::new(counts) })
    }

    /// The counts since `before`, an earlier state of this histogram; `None` if `before` is not an earlier state.
    pub fn since(&self, before: &Self) -> Option<Self> {
        let zero = self.zero.checked_sub(before.zero)?;
        if before.counts.is_empty() {
            return Some(Self { zero, ..self.clone() });
        }
        let offset = usize::try_from(before.first.checked_sub(self.first)?).ok()?;
        let mut counts: Vec<u64> = self.counts.iter().collect();
        for (at, earlier) in before.counts.iter().enumerate() {
            let count = counts.get_mut(offset + at)?;
            *count = count.checked_sub(earlier)?;
        }
        Self::from_exponential(zero, self.first, &counts).ok()
    }

    /// Whether the histogram has no values.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Count, lower and upper bound of each bucket that is not empty, ascending; zeros first.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, f64, f64)> + '_ {
        let zero = (self.zero > 0).then_some((self.zero, 0.0, 0.0));
        let bounds = bounds(self.first);
        let both = bounds.iter().zip(bounds.iter().skip(1));
        let rest = self.counts.iter().zip(both).filter(|(count, _)| *count > 0);
        zero.into_iter().chain(rest.map(|(count, (lower, upper))| (count, *lower, *upper)))
    }

    /// The `share` quantile (0..=1), interpolated linearly inside its bucket. `None` when empty.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = share.clamp(0.0, 1.0) * self.count() as f64;
        let mut below = 0.0;
        let mut highest = None;
        for (count, lower, upper) in self.buckets() {
            let count = count as f64;
            if below + count >= wanted {
                return Some(lower + (upper - lower) * ((wanted - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            highest = Some(upper);
        }
        // The sum of counts as floats may be less than the float of their sum.
        highest
    }

    /// Share of values above a bound, 0..=1, with values spread evenly in each bucket. 0 when empty.
    pub fn share_above(&self, bound: f64) -> f64 {
        let all = self.count() as f64;
        let above =
            self.buckets().map(|(count, lower, upper)| count as f64 * part_above(lower, upper, bound));
        if all > 0.0 { (above.sum::<f64>() / all).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Sum of all values, each taken as the middle of its bucket.
    pub fn sum(&self) -> f64 {
        self.buckets().map(|(count, lower, upper)| count as f64 * (lower + upper) / 2.0).sum()
    }

    /// Σ max(0, value − bound) ÷ Σ value, 0..=1: for CPU, the share of CPU time above a request. 0 when all values are 0.
    pub fn work_above(&self, bound: f64) -> f64 {
        self.work_above_of(self.sum(), bound)
    }

    /// As [`Self::work_above`], of a known sum of all values.
    pub(crate) fn work_above_of(&self, work: f64, bound: f64) -> f64 {
        let above: f64 = self
            .buckets()
            .map(|(count, lower, upper)| {
                let from = lower.max(bound);
                // Mean excess of the values above the bound, times their share of the bucket.
                count as f64 * part_above(lower, upper, bound) * ((from + upper) / 2.0 - bound).max(0.0)
            })
            .sum();
        if work > 0.0 { (above / work).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// The share of a bucket that lies above a bound.
fn part_above(lower: f64, upper: f64, bound: f64) -> f64 {
    if bound >= upper {
        0.0
    } else if bound <= lower {
        1.0
    } else {
        (upper - bound) / (upper - lower)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.record(*value, 1);
        }
        histogram
    }

    #[test]
    fn bounds_belong_to_the_bucket_below() {
        // OTLP, scale 3: 1 is the upper bound of bucket -1, 2 that of bucket 7.
        assert_eq!((bucket(1.0), bucket(1.0001), bucket(2.0), bucket(2.0001)), (-1, 0, 7, 8));
        assert_eq!(of(&[2.0]).buckets().next(), Some((1, bounds(7)[0], 2.0)));
    }

    proptest! {
        #[test]
        fn since_is_the_inverse_of_merge(
            before in prop::collection::vec(0.0_f64..300.0, 0..20),
            after in prop::collection::vec(0.0_f64..300.0, 0..20),
        ) {
            let (before, after) = (of(&before), of(&after));
            let mut now = before.clone();
            now.merge(&after);
            prop_assert_eq!(now.since(&before), Some(after.clone()));
            if !after.is_empty() {
                prop_assert_eq!(before.since(&now), None);
            }
            let (zero, _, counts) = now.exponential();
            prop_assert_eq!(zero + counts.sum::<u64>(), now.count());
        }
    }

    #[test]
    fn invalid_values_are_not_counted() {
        let mut histogram = Histogram::default();
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            assert!(!histogram.record(bad, 1));
        }
        assert!(histogram.is_empty());
        assert_eq!(histogram.quantile(0.5), None);
        assert_eq!(histogram.work_above(1.0), 0.0);
    }

    #[test]
    fn serialized_histograms_are_validated() {
        let read = |text: &str| serde_json::from_str::<Histogram>(text);
        let histogram = of(&[0.0, 0.5, 2.0, 2.0]);
        assert_eq!(read(&serde_json::to_string(&histogram).unwrap()).unwrap(), histogram);
        let padded = r#"{"zero": 0, "first": 6, "counts": [0, 3, 0]}"#;
        assert_eq!(read(padded).unwrap(), Histogram { zero: 0, first: 7, counts: CompactCounts::new(&[3]) });
        assert_eq!(read(r#"{"zero": 0, "first": 9, "counts": [0]}"#).unwrap(), Histogram::default());
        for first in [i32::MIN, -241, 495, i32::MAX] {
            let text = format!(r#"{{"zero": 0, "first": {first}, "counts": [1, 1]}}"#);
            assert!(read(&text).unwrap_err().to_string().contains("must lie in -240..=495"), "{first}");
        }
    }

    #[test]
    fn tiny_is_zero_and_huge_is_the_last_bucket() {
        let histogram = of(&[0.0, 1e-300, f64::MAX]);
        assert_eq!(histogram.buckets().map(|(count, ..)| count).collect::<Vec<_>>(), [2, 1]);
    }

    fn values() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(prop_oneof![Just(0.0), 1e-6..1e12_f64, any::<f64>()], 0..40)
    }

    proptest! {
        #[test]
        fn merging_is_associative_and_commutative(a in values(), b in values(), c in values()) {
            let (a, b, c) = (of(&a), of(&b), of(&c));
            let merged = |x: &Histogram, y: &Histogram| { let mut sum = x.clone(); sum.merge(y); sum };
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&a, &Histogram::default()), a);
        }

        #[test]
        fn a_quantile_is_near_the_exact_one_and_never_falls(mut exact in prop::collection::vec(1e-6..1e9_f64, 1..60), low in 0.0..1.0_f64, more in 0.0..1.0_f64) {
            let histogram = of(&exact);
            exact.sort_by(f64::total_cmp);
            let rank = ((low * exact.len() as f64).ceil() as usize).clamp(1, exact.len());
            let (found, wanted) = (histogram.quantile(low).unwrap(), exact[rank - 1]);
            // In the same bucket, whose bounds differ by 9.05 %.
            prop_assert!(found <= wanted * 1.0906 && found >= wanted / 1.0906, "{found} for {wanted}");
            prop_assert!(histogram.quantile((low + more).min(1.0)).unwrap() >= found);
        }

        #[test]
        fn shares_are_shares_and_fall_with_the_bound(values in values(), bound in 0.0..1e12_f64, more in 0.0..1e12_f64) {
            let histogram = of(&values);
            for share in [Histogram::share_above, Histogram::work_above] {
                let (low, high) = (share(&histogram, bound), share(&histogram, bound + more));
                prop_assert!((0.0..=1.0).contains(&low) && high <= low + 1e-12, "{low} {high}");
            }
        }
    }
}
