//! [Attune](https://github.com/attune-io/attune) (before: `kube-rightsize`): percentile, overhead, burst, confidence and lower
//! bound, from `internal/recommendation` (`percentile.go`, `margin.go`, `confidence.go`, `bounds.go`).
//!
//! Usage is that of the hottest pod in steps of five minutes (`podAggregation: Max`). The change filter
//! (`change_filter.go`), which keeps values that differ little, is left out; hence the name `nofilter` in back-tests.

use super::krr::percentile;

/// Minutes between the samples that it asks Prometheus for.
pub const STEP: usize = 5;
const DAY: f64 = 1440.0;
const HOURS: usize = 24;
/// The peak has to be this many times the 95th percentile to count as a burst.
const BURST_FROM: f64 = 3.0;
/// Growth of the burst factor with each doubling of the peak over the 95th percentile.
const BURST_GROWTH: f64 = 0.1;
/// Days of history for full confidence.
const CONFIDENT_DAYS: f64 = 7.0;

/// Its settings for one resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Percentile of usage, as a share.
    pub share: f64,
    /// What is added to the percentile, as a share.
    pub overhead: f64,
    /// Lower bound.
    pub floor: f64,
}

/// CPU, in millicores.
pub const CPU: Settings = Settings { share: 0.95, overhead: 0.2, floor: 1.0 };
/// Memory, in KiB: the lower bound is 4 MiB.
pub const MEMORY: Settings = Settings { share: 0.99, overhead: 0.3, floor: 4096.0 };

/// Usage of the hottest pod, step by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Number of the step and usage, in order of time.
    samples: Vec<(usize, f64)>,
}

impl Profile {
    /// Adds the usage of a step, counted in [`STEP`]s.
    pub fn add(&mut self, step: usize, usage: f64) {
        self.samples.push((step, usage));
    }

    /// How far the history is trusted, 0..=1: by its days, and by the root of its samples.
    fn confidence(&self) -> f64 {
        let [(first, _), .., (last, _)] = self.samples.as_slice() else { return 0.0 };
        let days = ((last - first) * STEP) as f64 / DAY;
        let days_of_samples = (self.samples.len() as f64 / HOURS as f64).sqrt();
        (days.min(days_of_samples) / CONFIDENT_DAYS).min(1.0)
    }

    /// The recommendation; `first_hour` is the hour of the day at step 0. With `confident`, as if the history were long enough.
    /// `None` without usage.
    pub fn recommend(&self, settings: Settings, first_hour: usize, confident: bool) -> Option<f64> {
        let mut all: Vec<f64> = self.samples.iter().map(|(_, usage)| *usage).collect();
        let mut by_hour = vec![Vec::new(); HOURS];
        for (step, usage) in &self.samples {
            by_hour[(step * STEP / 60 + first_hour) % HOURS].push(*usage);
        }
        let share_of = |samples: &mut Vec<f64>| {
            samples.sort_by(f64::total_cmp);
            percentile(samples, settings.share)
        };
        let overall = share_of(&mut all)?;
        let base = by_hour.iter_mut().filter_map(share_of).fold(overall, f64::max);
        let (high, peak) = (percentile(&all, 0.95)?, all.last()?);
        let is_burst = high > 0.0 && peak / high > BURST_FROM;
        let burst = if is_burst { 1.0 + BURST_GROWTH * (peak / high).log2() } else { 1.0 };
        let doubt = if confident { 1.0 } else { 1.0 + (1.0 - self.confidence()).powi(2) };
        Some((base * (1.0 + settings.overhead) * burst * doubt).max(settings.floor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(usage: impl IntoIterator<Item = f64>) -> Profile {
        let mut profile = Profile::default();
        usage.into_iter().enumerate().for_each(|(step, usage)| profile.add(step, usage));
        profile
    }

    #[test]
    fn steady_usage_by_hand() {
        let day = profile([100.0; 289]);
        assert_eq!(day.recommend(CPU, 0, true), Some(120.0));
        // A day of seven: confidence is a seventh, doubt 1 + (6/7)².
        let wanted = 120.0 * (1.0 + (6.0_f64 / 7.0).powi(2));
        assert!((day.recommend(CPU, 0, false).unwrap() - wanted).abs() < 1e-9);
        assert_eq!(Profile::default().recommend(CPU, 0, true), None);
        assert_eq!(profile([1.0; 20]).recommend(MEMORY, 0, true), Some(4096.0));
    }

    #[test]
    fn the_busiest_hour_of_the_day_counts() {
        let hour = |step: usize| step * STEP / 60 % 24;
        let usage = |step: usize| if hour(step) == 3 { 250.0 } else { 100.0 };
        // One hour of 24 is below the 95th percentile of all, but it is a whole bucket of its own.
        let found = profile((0..288 * 3).map(usage)).recommend(CPU, 0, true).unwrap();
        assert!((found - 300.0).abs() < 1e-9, "{found}");
        // With the clock shifted by an hour, the buckets are the same.
        assert_eq!(profile((0..288 * 3).map(usage)).recommend(CPU, 1, true), Some(found));
    }

    #[test]
    fn bursts_add_a_tenth_for_each_doubling() {
        let mut usage = vec![100.0; 1000];
        usage[500] = 800.0;
        let found = profile(usage).recommend(Settings { share: 0.5, ..CPU }, 0, true).unwrap();
        assert!((found - 120.0 * 1.3).abs() < 1e-9, "{found}");
    }
}
