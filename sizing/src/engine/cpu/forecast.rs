//! The forecast of the next day's CPU usage, from the usage so far.
//!
//! Usage of the next day is usage of the past times a rise. With the chance `p` the next day brings a rise `g ≥ 1` that lasts
//! all day and exceeds a factor `y` with the chance `y⁻³` (a Pareto distribution); otherwise it is as before. So the share
//! of the time above a request `r` is
//!
//! > `F(r) + p · E[(X/r)³ for X ≤ r]`
//!
//! with the usage `X` of the past and the share `F(r)` of it above `r`. By the
//! [rule of succession](https://en.wikipedia.org/wiki/Rule_of_succession) the chance that the next of `n + 1` like days
//! exceeds all others is `1/(n + 1)`; not every such day is a rise, so `p = 0.15/(n + 0.35)` with the pod-days `n` known:
//! 0.43 without any, 0.11 after a day, 0.03 after four, 0.01 after two weeks. So a container with little history gets more
//! above its usage, and as history grows, the request approaches a plain quantile of it.
//!
//! # Above the highest usage
//!
//! Of the past, nothing is above the highest usage `m`, but something of tomorrow may be. Of `k` windows, one is up to `m`, so the share
//! above `m` is taken for `1/k`, and how far above it is what the container's own highest windows show: the share falls like a power,
//!
//! > at least `1/k` up to `m`, and `(m/r)^a / k` above it
//!
//! with [Hill's estimator](https://doi.org/10.1214/aos/1176343247) of the exponent `a`: the number of windows in the highest tenth, divided
//! by the sum of the logarithms of their usage in relation to the lowest of them. Windows of one hour are much alike, so a prior with the
//! exponent 5 counts as 30 hours of them. This changes nothing where the accepted share is more than one window. Below that, requests
//! stayed near the highest usage however small the share was, and usage with an exponent below 2 lost up to 3.8 times what was
//! asked (`docs/backtest.md`). To add `1/k` to all shares, as the rule of succession has it, was tried: requests fell for days as history grew,
//! so that half as many again changed.
//!
//! The share of CPU time above `r` follows from the same distribution: the mean excess of the rises above `r` is `r/2` times the
//! share of the time, and a rise makes the mean `1 + p/2` times as large. Above `m` the mean excess is `r/(a − 1)`.
//!
//! # The constants
//!
//! Card: `PER_DAY`, `BEFORE`, `RISE` and `SMALL` were chosen on the three published sets of traces (193 and 279
//! workloads of one OpenShift cluster, 126 jobs of Google's cluster of 2011), by the lowest sum of requests at equal CPU
//! time above them; where that is at least 3 %, 0.15 to 0.3, 0.25 to 0.5 and 3 to 7 differ by less than 2 %. Below 2 % the exponent matters: with 5,
//! and 0.2 for the chance, requests of the OpenShift cluster are 13 to 24 % larger, because a busy day of one notebook then lowers the level of all
//! workloads; those of the jobs are up to 4 % smaller. A tail or a chance learned by workload or by group of like workloads was worse on one of the
//! sets. To refit, change a constant and run `snug backtest`.

use super::lent::Lent;
use crate::histogram::Histogram;

/// Chance of a rise after a long history, times its pod-days.
const PER_DAY: f64 = 0.15;
/// Pod-days by which a history counts as longer.
const BEFORE: f64 = 0.35;
/// Exponent of the distribution of rises: one in eight is above twice the usage.
const RISE: i32 = 3;
/// Part of the windows that the exponent above the highest usage is estimated from, and the hours of windows that its prior counts as.
const HIGHEST: f64 = 0.1;
const TAIL_STRENGTH: f64 = 30.0;
/// The exponent above the highest usage before any is known.
const TAIL: f64 = 5.0;
/// Shorter windows than a minute count as minutes.
const MAX_PER_HOUR: f64 = 60.0;
/// The lowest exponent above the highest usage: with one of 1 the mean is infinite.
const MIN_TAIL: f64 = 1.25;
/// Windows that are taken to be above the highest usage.
const UNSEEN: f64 = 1.0;
/// Mean of a rise minus one: `1/(RISE - 1)`.
const MEAN_RISE: f64 = 0.5;
/// Cores of mean usage at which the accepted share of the time is halved.
const SMALL: f64 = 0.03;
/// Steps of the bisection inside a bucket, to less than a thousandth of its width.
const BISECTIONS: u32 = 12;

/// A bucket of past usage.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    count: f64,
    lower: f64,
    upper: f64,
    /// Windows above this bucket.
    above: f64,
    /// Sum of the third powers of the windows below this bucket.
    power: f64,
}

impl Bucket {
    /// Share of the bucket below a bound inside it.
    fn below(&self, bound: f64) -> f64 {
        if self.upper > self.lower { (bound - self.lower) / (self.upper - self.lower) } else { 1.0 }
    }

    /// Sum of the third powers of its windows below a bound inside it.
    fn power_below(&self, bound: f64) -> f64 {
        self.count * self.below(bound) * f64::midpoint(self.lower, bound).powi(RISE)
    }
}

/// Two lists of buckets (count, lower and upper bound), both ascending, as one. Buckets are equal or do not overlap.
fn merged(
    one: impl Iterator<Item = (f64, f64, f64)>,
    other: impl Iterator<Item = (f64, f64, f64)>,
) -> Vec<(f64, f64, f64)> {
    let mut other = other.peekable();
    let mut all = Vec::with_capacity(256);
    for (count, lower, upper) in one {
        while let Some(before) = other.next_if(|it| (it.1, it.2) < (lower, upper)) {
            all.push(before);
        }
        let same = other.next_if(|it| (it.1, it.2) == (lower, upper)).map_or(0.0, |it| it.0);
        all.push((count + same, lower, upper));
    }
    all.extend(other);
    all
}

/// The distribution of the next day's usage, in cores per window.
#[derive(Clone, Debug)]
pub struct Forecast {
    buckets: Vec<Bucket>,
    /// Windows of the past.
    count: f64,
    /// Mean usage of the past, cores.
    mean: f64,
    /// Sum of the third powers of all windows.
    power: f64,
    /// Chance of a rise.
    rise: f64,
    /// The highest usage of the past, cores.
    top: f64,
    /// Exponent of the tail above it.
    tail: f64,
}

/// The exponent of the tail above the highest usage, where an hour has so many windows.
fn tail(buckets: &[Bucket], count: f64, per_hour: f64) -> f64 {
    let strength = TAIL_STRENGTH * per_hour;
    let highest = || buckets.iter().rev().take_while(|it| it.above < count * HIGHEST && it.lower > 0.0);
    let lowest = highest().last().map_or(0.0, |it| it.lower);
    let (windows, logarithms) = highest().fold((0.0, 0.0), |(windows, sum), it| {
        (windows + it.count, sum + it.count * ((it.lower * it.upper).sqrt() / lowest).ln())
    });
    ((windows + strength) / (logarithms + strength / TAIL)).max(MIN_TAIL)
}

impl Forecast {
    /// A forecast from past usage in cores and its pod-days. `None` without any.
    pub fn new(windows: &Histogram, days: f64) -> Option<Self> {
        Self::with_likes(windows, days, &Lent::default())
    }

    /// A forecast from past usage and what likes lend. `None` without any past usage.
    pub fn with_likes(windows: &Histogram, days: f64, lent: &Lent) -> Option<Self> {
        let own = windows.count() as f64;
        let of_own = windows.buckets().map(|(count, lower, upper)| (count as f64, lower, upper));
        let all: Vec<(f64, f64, f64)> = if lent.pod_days() > 0.0 && days > 0.0 {
            merged(of_own, lent.buckets(own / days))
        } else {
            of_own.collect()
        };
        let count: f64 = all.iter().map(|(count, ..)| count).sum();
        let work: f64 = all.iter().map(|(count, lower, upper)| count * f64::midpoint(*lower, *upper)).sum();
        let mut buckets = Vec::with_capacity(all.len());
        let (mut above, mut power) = (count, 0.0);
        for (count, lower, upper) in all {
            above -= count;
            let bucket = Bucket { count, lower, upper, above, power };
            power += bucket.power_below(upper);
            buckets.push(bucket);
        }
        let rise = PER_DAY / (days.max(0.0) + BEFORE);
        let per_hour = (own / (24.0 * days)).clamp(1.0, MAX_PER_HOUR);
        let (top, tail) = (buckets.last().map_or(0.0, |it| it.upper), tail(&buckets, count, per_hour));
        (own > 0.0).then(|| Self { buckets, count, mean: work / count, power, rise, top, tail })
    }

    /// Windows above a request of those that are taken to be above the highest usage; all of them up to it.
    fn unseen(&self, request: f64) -> f64 {
        UNSEEN * if request > self.top { (self.top / request).powf(self.tail) } else { 1.0 }
    }

    /// The chance that the next day brings a rise, 0..=1.
    pub const fn rise(&self) -> f64 {
        self.rise
    }

    /// The share of the time that usage may exceed the request of this container, where `level` is that of a large one.
    ///
    /// Of a small container a small request protects as large a share of its work as a large request of a large one. So its
    /// level is lower: `level · u/(u + 30m)` for the mean usage `u`.
    pub fn accepted(&self, level: f64) -> f64 {
        level * self.mean / (self.mean + SMALL)
    }

    /// The share of the time in which usage is above a request in cores, 0..=1.
    pub fn share_above(&self, request: f64) -> f64 {
        let place = self.buckets.partition_point(|bucket| bucket.upper <= request);
        let (above, power) = match self.buckets.get(place) {
            None => (0.0, self.power),
            Some(it) if request <= it.lower => (it.above + it.count, it.power),
            Some(it) => return self.share_above_within(it, request),
        };
        self.share(above, power, request)
    }

    /// The share of the time above a request, of the windows of the past above it and the sum of the third powers of those below it.
    fn share(&self, above: f64, power: f64, request: f64) -> f64 {
        let risen = if power > 0.0 { self.rise * power / request.powi(RISE) } else { 0.0 };
        ((above.max(self.unseen(request)) + risen) / self.count).clamp(0.0, 1.0)
    }

    /// The share of the time above a request inside a bucket.
    fn share_above_within(&self, bucket: &Bucket, request: f64) -> f64 {
        let above = bucket.above + bucket.count * (1.0 - bucket.below(request));
        self.share(above, bucket.power + bucket.power_below(request), request)
    }

    /// Number of buckets whose upper bound is exceeded for more than a share of the time. They are the first ones.
    fn exceeded(&self, share: f64) -> usize {
        let (mut low, mut high) = (0, self.buckets.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let Some(bucket) = self.buckets.get(middle) else { break };
            let next = self.buckets.get(middle + 1);
            let (above, power) = next.map_or((0.0, self.power), |it| (it.above + it.count, it.power));
            if self.share(above, power, bucket.upper) > share { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The share of CPU time above a request in cores, 0..=1; 0 without usage.
    pub fn work_above(&self, request: f64) -> f64 {
        let mean_rise = 1.0 + self.rise * MEAN_RISE;
        let (mut above, mut power) = (0.0, 0.0);
        for bucket in &self.buckets {
            let below = bucket.below(request).clamp(0.0, 1.0);
            let (from, to) = (bucket.lower.max(request), bucket.upper.min(request));
            above += bucket.count
                * (1.0 - below)
                * (f64::midpoint(from, bucket.upper) * mean_rise - request).max(0.0);
            power += bucket.count * below * f64::midpoint(bucket.lower, to).powi(RISE);
        }
        if power > 0.0 {
            above += self.rise * power / request.powi(RISE) * request * MEAN_RISE;
        }
        above += self.unseen(request)
            * ((self.top - request).max(0.0) + self.top.max(request) / (self.tail - 1.0));
        let work = self.mean * self.count * mean_rise
            + self.unseen(0.0) * self.top * (1.0 + 1.0 / (self.tail - 1.0));
        if work > 0.0 { (above / work).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The lowest request, cores, that usage exceeds for at most `share` of the time.
    pub fn request(&self, share: f64) -> f64 {
        let place = self.exceeded(share);
        let within = self.buckets.get(place).filter(|bucket| self.share_above(bucket.lower) > share);
        let Some(bucket) = within else {
            let Some(next) = self.buckets.get(place) else { return self.request_above_all(share) };
            // No past usage is near: only a rise of what is below exceeds it.
            let others = (next.above + next.count).max(self.unseen(0.0));
            let risen = (self.count * share - others).max(f64::MIN_POSITIVE);
            return (self.rise * next.power / risen).powf(1.0 / f64::from(RISE));
        };
        let is_enough = |request: f64| self.share_above_within(bucket, request) <= share;
        bisect((bucket.lower, bucket.upper), BISECTIONS, is_enough)
    }

    /// The request for a share of the time, where it is above all past usage.
    fn request_above_all(&self, share: f64) -> f64 {
        let windows = (self.count * share).max(f64::MIN_POSITIVE);
        let risen = self.rise * self.power;
        let is_enough = |request: f64| risen / request.powi(RISE) + self.unseen(request) <= windows;
        // Where each of both leaves a half of the share, they leave no more than it together.
        let highest_unseen = self.top * (2.0 * UNSEEN / windows).powf(1.0 / self.tail);
        let highest_risen = (2.0 * risen / windows).powf(1.0 / f64::from(RISE));
        let high = self.top.max(highest_unseen).max(highest_risen);
        bisect((self.top, high), 2 * BISECTIONS, is_enough)
    }
}

/// The lowest value that is enough, to within a part of the width between one that is not and one that is.
fn bisect((mut low, mut high): (f64, f64), steps: u32, is_enough: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..steps {
        let middle = f64::midpoint(low, high);
        if is_enough(middle) { high = middle } else { low = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn windows(values: &[f64]) -> Histogram {
        let mut windows = Histogram::default();
        values.iter().for_each(|value| assert!(windows.record(*value, 100)));
        windows
    }

    fn usage() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(prop_oneof![1 => Just(0.0), 9 => 0.001..64.0_f64], 1..40)
    }

    #[test]
    fn a_steady_container_by_hand() {
        // One core, all the time; after 2.65 days the chance of a rise is 0.05.
        let forecast = Forecast::new(&windows(&[1.0]), 2.65).unwrap();
        assert!((forecast.rise() - 0.05).abs() < 1e-12);
        // One rise in eight is above two cores.
        assert!((forecast.share_above(2.0) * 8.0 / 0.05 - 0.96_f64.powi(3)).abs() < 0.1);
        // At 2 % of the time, the request is the third root of 0.05/0.02 times usage: 36 % above it.
        let request = forecast.request(0.02);
        assert!((request / 1.36 - 0.96).abs() < 0.05, "{request}");
        // Half as much again of the past is certain to be enough.
        assert_eq!(forecast.share_above(0.0), 1.0);
        assert_eq!(forecast.work_above(0.0), 1.0);
    }

    #[test]
    fn a_small_container_accepts_less() {
        let accepted = |cores| Forecast::new(&windows(&[cores]), 1.0).unwrap().accepted(0.03);
        assert!((accepted(0.03) - 0.015).abs() < 0.001 && accepted(10.0) > 0.029 && accepted(0.001) < 0.0011);
        assert!(Forecast::new(&Histogram::default(), 1.0).is_none());
        let idle = Forecast::new(&windows(&[0.0]), 1.0).unwrap();
        assert_eq!((idle.request(0.01), idle.share_above(0.1), idle.work_above(0.1)), (0.0, 0.0, 0.0));
    }

    #[test]
    fn above_the_highest_usage_by_hand() {
        // A thousand windows, of which the share above u cores is u to the power of −1.6.
        let mut heavy = Histogram::default();
        (0..1000).for_each(|at| assert!(heavy.record(((f64::from(at) + 0.5) / 1000.0).powf(-1.0 / 1.6), 1)));
        let forecast = Forecast::new(&heavy, 1e9).unwrap();
        // Of the highest hundred, the mean logarithm is 1 ÷ 1.6, and there is less than a window an hour: 130 ÷ (100 ÷ 1.6 + 30 ÷ 5) = 1.9.
        assert!((forecast.tail - 1.9).abs() < 0.05, "{}", forecast.tail);
        // One of 1,000 is above all; half of those are above 1.4 times as much.
        let twice = forecast.request(0.0005) / forecast.request(0.001);
        assert!((twice - 2.0_f64.powf(1.0 / forecast.tail)).abs() < 0.01, "{twice}");
        // Steady usage has a light one: all windows are in the middle of a bucket, a sixteenth of a doubling above its lower bound.
        let steady = Forecast::new(&windows(&[1.0]), 1e9).unwrap();
        assert!((steady.tail - 130.0 / (100.0 * 2.0_f64.ln() / 16.0 + 6.0)).abs() < 1e-9, "{}", steady.tail);
    }

    proptest! {
        #[test]
        fn a_higher_request_leaves_less_above(values in usage(), days in 0.0..30.0_f64, low in 0.0..80.0_f64, more in 0.0..80.0_f64) {
            let forecast = Forecast::new(&windows(&values), days).unwrap();
            for share in [Forecast::share_above, Forecast::work_above] {
                prop_assert!(share(&forecast, low + more) <= share(&forecast, low) + 1e-9);
            }
        }

        #[test]
        fn a_request_is_exceeded_as_long_as_accepted(values in usage(), days in 0.0..30.0_f64, share in 0.0005..0.5_f64, more in 0.0..0.4_f64) {
            let forecast = Forecast::new(&windows(&values), days).unwrap();
            let request = forecast.request(share);
            prop_assert!(forecast.share_above(request) <= share + 1e-9);
            prop_assert!(request == 0.0 || forecast.share_above(request * 0.98) >= share * 0.999, "{request}");
            prop_assert!(forecast.request(share + more) <= request + 1e-12);
        }

        #[test]
        fn usage_twice_as_high_needs_twice_the_request(values in usage(), days in 0.0..30.0_f64, share in 0.001..0.5_f64) {
            let twice: Vec<f64> = values.iter().map(|value| value * 2.0).collect();
            let request = |values: &[f64]| Forecast::new(&windows(values), days).unwrap().request(share);
            let (once, twice) = (request(&values), request(&twice));
            prop_assert!((twice - 2.0 * once).abs() <= 1e-9 * twice.max(1e-9), "{once} {twice}");
        }

        #[test]
        fn a_longer_history_brings_the_request_nearer_to_its_quantile(values in usage(), days in 0.0..30.0_f64, more in 0.1..300.0_f64, share in 0.01..0.5_f64) {
            let windows = windows(&values);
            let quantile = windows.quantile(1.0 - share).unwrap();
            let request = |days| Forecast::new(&windows, days).unwrap().request(share);
            let (short, long, longest) = (request(days), request(days + more), request(1e9));
            prop_assert!(short >= long && long >= longest);
            prop_assert!((longest - quantile).abs() <= 0.002 * quantile + 1e-12, "{longest} {quantile}");
        }

        #[test]
        fn work_above_is_at_most_the_mean_excess_of_the_time_above(values in usage(), days in 0.0..30.0_f64, request in 0.001..80.0_f64) {
            let forecast = Forecast::new(&windows(&values), days).unwrap();
            let (time, work) = (forecast.share_above(request), forecast.work_above(request));
            prop_assert!((0.0..=1.0).contains(&time) && (0.0..=1.0).contains(&work));
            prop_assert!(time > 0.0 || work == 0.0);
        }
    }
}
