//! Usage that likes lend each other.

use crate::histogram::Histogram;

/// Bins of a doubling, and the fine buckets of a [`Histogram`] in each.
const PER_DOUBLING: i32 = 2;
const FINE: i32 = crate::histogram::PER_DOUBLING / PER_DOUBLING;
/// The lowest bin begins at 2⁻¹² cores, a quarter of a millicore, and the highest ends at 2¹² cores. Smaller usage counts as zero, and
/// larger in the highest bin.
const BINS: usize = 48;
const LOWEST: i32 = -12 * PER_DOUBLING;

/// A distribution of usage in coarse bins: of fixed size, and one can be taken from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bins {
    zero: f64,
    counts: [f64; BINS],
}

impl Default for Bins {
    fn default() -> Self {
        Self { zero: 0.0, counts: [0.0; BINS] }
    }
}

impl Bins {
    pub(super) fn new(windows: &Histogram) -> Self {
        let (zero, first, counts) = windows.exponential();
        let mut bins = Self { zero: zero as f64, ..Self::default() };
        for (bucket, count) in (first..).zip(counts) {
            let place = bucket.div_euclid(FINE) - LOWEST;
            let bin = usize::try_from(place).ok().and_then(|place| bins.counts.get_mut(place.min(BINS - 1)));
            *bin.unwrap_or(&mut bins.zero) += count as f64;
        }
        bins
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.zero += other.zero;
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }

    #[must_use]
    pub(super) fn without(mut self, part: &Self) -> Self {
        self.zero = (self.zero - part.zero).max(0.0);
        self.counts.iter_mut().zip(part.counts).for_each(|(mine, theirs)| *mine = (*mine - theirs).max(0.0));
        self
    }

    /// Number of windows.
    fn count(&self) -> f64 {
        self.zero + self.counts.iter().sum::<f64>()
    }
}

/// The usage of the likes of a container, and how much of it counts beside its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lent {
    bins: Bins,
    pod_days: f64,
}

impl Lent {
    /// Usage that counts as so many pod-days.
    pub(super) const fn new(bins: Bins, pod_days: f64) -> Self {
        Self { bins, pod_days }
    }

    /// Pod-days that the usage of likes counts as; 0 where they lend nothing.
    pub fn pod_days(&self) -> f64 {
        if self.bins.count() > 0.0 { self.pod_days } else { 0.0 }
    }

    /// Count, lower and upper bound of the fine buckets, where a pod-day has so many windows.
    pub(super) fn buckets(&self, windows_per_day: f64) -> impl Iterator<Item = (f64, f64, f64)> + '_ {
        let all = self.bins.count();
        let scale = if all > 0.0 { self.pod_days * windows_per_day / all } else { 0.0 };
        let zero = std::iter::once((self.bins.zero * scale, 0.0, 0.0));
        let fine = (LOWEST..).zip(self.bins.counts).flat_map(move |(bin, count)| {
            let bounds = crate::histogram::bounds(bin * FINE);
            let both = bounds.iter().zip(bounds.iter().skip(1)).take(FINE as usize);
            both.map(move |(lower, upper)| (count * scale / f64::from(FINE), *lower, *upper))
        });
        zero.chain(fine).filter(|(count, ..)| *count > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn windows(values: &[f64]) -> Histogram {
        let mut windows = Histogram::default();
        values.iter().for_each(|value| assert!(windows.record(*value, 10)));
        windows
    }

    proptest! {
        #[test]
        fn bins_have_all_windows_at_nearly_their_usage(values in prop::collection::vec(0.001..4000.0_f64, 1..40), other in prop::collection::vec(0.0..64.0_f64, 0..40), pod_days in 0.01..2.0_f64) {
            let mut sum = Bins::new(&windows(&values));
            sum.add(&Bins::new(&windows(&other)));
            let alone = sum.without(&Bins::new(&windows(&other)));
            prop_assert_eq!(alone, Bins::new(&windows(&values)));
            let lent = Lent::new(alone, pod_days);
            let count: f64 = lent.buckets(1440.0).map(|(count, ..)| count).sum();
            prop_assert!((count - pod_days * 1440.0).abs() < 1e-6 * count);
            let highest = values.iter().copied().fold(0.0, f64::max);
            let upper = lent.buckets(1440.0).map(|(_, _, upper)| upper).fold(0.0, f64::max);
            prop_assert!((highest * 0.999..=highest * 1.42).contains(&upper), "{highest} {upper}");
        }
    }

    #[test]
    fn nothing_is_lent_without_usage() {
        assert_eq!(Lent::default().buckets(1440.0).count(), 0);
        assert_eq!(Lent::new(Bins::default(), 1.0).pod_days(), 0.0);
        // Tiny usage is zero, and huge usage in the highest bin.
        let bins = Bins::new(&windows(&[0.0, 1e-6, 1e6]));
        assert_eq!((bins.zero, bins.counts[BINS - 1]), (20.0, 10.0));
    }
}
