//! The moving-window recommender of [Autopilot](https://dl.acm.org/doi/10.1145/3342195.3387524) (Rzadca et al., EuroSys 2020).
//!
//! One histogram of all replicas per five minutes; CPU in cores, memory in bytes. The paper does not specify
//! [`PEAK_SAMPLES`] and [`MARGIN`]; the values here are choices.

/// Number of five-minute samples of the memory maximum ("the last N samples"): two days, the half-life of memory.
pub const PEAK_SAMPLES: usize = 2 * 24 * 12;
/// Safety margin: the middle of "10–15 %".
pub const MARGIN: f64 = 0.125;
/// Half-life of CPU, in samples of five minutes: 12 hours.
const HALF_LIFE: f64 = 12.0 * 12.0;
/// Quantile for serving jobs.
const SERVING: f64 = 0.95;
/// Number of recommendations in the last hour, of which the highest is used.
const LAST_HOUR: usize = 12;
/// "About 400" buckets; the paper does not say how they are spaced. Geometric ones from a tenth of a millicore, 4 % wide, reach 650 cores.
const BUCKETS: usize = 400;
const FIRST: f64 = 0.0001;
const RATIO: f64 = 1.04;

fn bucket(cores: f64) -> usize {
    // `as` saturates: smaller values are in the first bucket.
    (((cores / FIRST).ln() / RATIO.ln()).floor() + 1.0).clamp(0.0, BUCKETS as f64 - 1.0) as usize
}

fn upper(bucket: usize) -> f64 {
    FIRST * RATIO.powf(bucket as f64)
}

/// The recommender of one job.
#[derive(Clone, Debug)]
pub struct Window {
    /// Decayed counts by bucket.
    cpu: Vec<f64>,
    peaks: std::collections::VecDeque<f64>,
    recommended: std::collections::VecDeque<(f64, f64)>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            cpu: vec![0.0; BUCKETS],
            peaks: std::collections::VecDeque::new(),
            recommended: std::collections::VecDeque::new(),
        }
    }
}

impl Window {
    /// Adds five minutes: the CPU samples of all replicas, and the highest memory usage.
    pub fn add(&mut self, cpu: impl Iterator<Item = f64>, peak: Option<f64>) {
        let decay = (-1.0 / HALF_LIFE).exp2();
        for count in &mut self.cpu {
            *count *= decay;
        }
        for cores in cpu.filter(|cores| cores.is_finite()) {
            if let Some(count) = self.cpu.get_mut(bucket(cores)) {
                *count += 1.0;
            }
        }
        self.peaks.push_back(peak.filter(|peak| peak.is_finite()).unwrap_or(0.0));
        if self.peaks.len() > PEAK_SAMPLES {
            self.peaks.pop_front();
        }
        self.recommended
            .push_back((self.load_adjusted(SERVING), self.peaks.iter().copied().fold(0.0, f64::max)));
        if self.recommended.len() > LAST_HOUR {
            self.recommended.pop_front();
        }
    }

    /// `S_pj`: the quantile of load instead of time: each bucket is weighted by its load.
    fn load_adjusted(&self, share: f64) -> f64 {
        let load =
            || self.cpu.iter().enumerate().map(|(bucket, count)| (upper(bucket), upper(bucket) * count));
        let wanted = load().map(|(_, load)| load).sum::<f64>() * share;
        let mut sum = 0.0;
        let reached = load().find(|(_, load)| {
            sum += load;
            sum >= wanted && sum > 0.0
        });
        reached.map_or(0.0, |(upper, _)| upper)
    }

    /// CPU (`S_p95`, cores) and memory (`S_max`, bytes) with the margin, as the highest of the last hour. `None` before the
    /// first sample.
    pub fn recommend(&self) -> Option<(f64, f64)> {
        let highest = self.recommended.iter().copied().reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))?;
        Some((highest.0 * (1.0 + MARGIN), highest.1 * (1.0 + MARGIN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_is_weighted_by_load() {
        let mut window = Window::default();
        // 90 windows of 0.1 cores and ten of one: half of the work is in a tenth of the time.
        window.add(std::iter::repeat_n(0.1, 90).chain(std::iter::repeat_n(1.0, 10)), Some(100.0));
        let (cpu, memory) = window.recommend().unwrap();
        assert!((1.0..1.05).contains(&(cpu / (1.0 + MARGIN))), "{cpu}");
        assert_eq!(memory, 112.5);
    }

    #[test]
    fn peaks_expire_after_the_window_and_an_hour() {
        let mut window = Window::default();
        window.add(std::iter::empty(), Some(1000.0));
        for _ in 0..PEAK_SAMPLES + LAST_HOUR - 2 {
            window.add(std::iter::empty(), Some(10.0));
        }
        assert_eq!(window.recommend().unwrap().1, 1125.0);
        window.add(std::iter::empty(), Some(10.0));
        assert_eq!(window.recommend().unwrap().1, 11.25);
    }

    #[test]
    fn old_usage_decays() {
        let mut window = Window::default();
        window.add(std::iter::repeat_n(4.0, 5), None);
        for _ in 0..12 * 24 * 4 {
            window.add(std::iter::repeat_n(0.5, 5), None);
        }
        assert!(window.recommend().unwrap().0 < 0.6);
        assert_eq!(Window::default().recommend(), None);
        window.add([f64::NAN, f64::INFINITY].into_iter(), Some(f64::NAN));
    }
}
