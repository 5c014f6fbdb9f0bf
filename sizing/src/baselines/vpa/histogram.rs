//! `pkg/recommender/util`: bucket schemes and the decaying histogram.

/// Half-lives after which weights are scaled back.
const MAX_HALF_LIVES: f64 = 100.0;

/// A scheme of buckets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Buckets {
    /// Buckets of equal width.
    Linear {
        /// Width.
        size: f64,
        /// Number of buckets.
        number: usize,
    },
    /// Each bucket is wider than the one before by a ratio.
    Exponential {
        /// Width of the first.
        first: f64,
        /// Ratio, above 1.
        ratio: f64,
        /// Number of buckets.
        number: usize,
    },
}

impl Buckets {
    /// `NewLinearHistogramOptions`.
    pub fn linear(max: f64, size: f64) -> Self {
        Self::Linear { size, number: (max / size).ceil() as usize + 1 }
    }

    /// `NewExponentialHistogramOptions`.
    pub fn exponential(max: f64, first: f64, ratio: f64) -> Self {
        let number = (max * (ratio - 1.0) / first + 1.0).log(ratio).ceil() as usize + 1;
        Self::Exponential { first, ratio, number }
    }

    /// Buckets of CPU, cores.
    pub fn cpu() -> Self {
        Self::exponential(1000.0, 0.01, 1.05)
    }

    /// Buckets of memory, bytes.
    pub fn memory() -> Self {
        Self::exponential(1e12, 1e7, 1.05)
    }

    /// Number of buckets.
    pub const fn number(self) -> usize {
        match self {
            Self::Linear { number, .. } | Self::Exponential { number, .. } => number,
        }
    }

    /// Lower bound of a bucket.
    pub fn start(self, bucket: usize) -> f64 {
        match self {
            Self::Linear { size, .. } => size * bucket as f64,
            Self::Exponential { first, ratio, .. } => {
                if bucket == 0 {
                    0.0
                } else {
                    first * (ratio.powf(bucket as f64) - 1.0) / (ratio - 1.0)
                }
            }
        }
    }

    /// The bucket of a value.
    pub fn find(self, value: f64) -> usize {
        let exact = match self {
            Self::Linear { size, .. } => value / size,
            Self::Exponential { first, .. } if value < first => 0.0,
            Self::Exponential { first, ratio, .. } => (value * (ratio - 1.0) / first + 1.0).log(ratio),
        };
        // `as` saturates at 0.
        (exact.floor() as usize).min(self.number() - 1)
    }
}

/// A histogram in which older values weigh less.
#[derive(Clone, Debug)]
pub struct Decaying {
    buckets: Buckets,
    weights: Vec<f64>,
    total: f64,
    lowest: usize,
    highest: usize,
    epsilon: f64,
    half_life: f64,
    reference: f64,
}

impl Decaying {
    /// An empty histogram; `half_life` in seconds. A bucket with a weight below `epsilon` is empty.
    pub fn new(buckets: Buckets, half_life: f64, epsilon: f64) -> Self {
        let number = buckets.number();
        let weights = vec![0.0; number];
        Self {
            buckets,
            weights,
            total: 0.0,
            lowest: number - 1,
            highest: 0,
            epsilon,
            half_life,
            reference: 0.0,
        }
    }

    fn factor(&mut self, at: f64) -> f64 {
        if at > self.reference + MAX_HALF_LIVES * self.half_life {
            let reference = (at / self.half_life).round() * self.half_life;
            let scale = ((self.reference - reference) / self.half_life).round().exp2();
            for weight in &mut self.weights {
                *weight *= scale;
            }
            self.total *= scale;
            self.drop_empty();
            self.reference = reference;
        }
        ((at - self.reference) / self.half_life).exp2()
    }

    fn drop_empty(&mut self) {
        let empty = |at: usize| self.weights.get(at).is_none_or(|weight| *weight < self.epsilon);
        while self.lowest + 1 < self.weights.len() && empty(self.lowest) {
            self.lowest += 1;
        }
        while self.highest > 0 && empty(self.highest) {
            self.highest -= 1;
        }
    }

    /// Adds a value at a time.
    pub fn add(&mut self, value: f64, weight: f64, at: f64) {
        let weight = weight * self.factor(at);
        let bucket = self.buckets.find(value);
        let Some(sum) = self.weights.get_mut(bucket) else { return };
        *sum += weight;
        self.total += weight;
        if *sum >= self.epsilon {
            self.lowest = self.lowest.min(bucket);
            self.highest = self.highest.max(bucket);
        }
    }

    /// Removes a value that was added with the same weight and time.
    pub fn subtract(&mut self, value: f64, weight: f64, at: f64) {
        let weight = weight * self.factor(at);
        let bucket = self.buckets.find(value);
        let Some(sum) = self.weights.get_mut(bucket) else { return };
        *sum = (*sum - weight).max(0.0);
        self.total = (self.total - weight).max(0.0);
        self.drop_empty();
    }

    /// The upper bound of the bucket in which `share` of the weight is reached; 0 when empty.
    pub fn percentile(&self, share: f64) -> f64 {
        if self.weights.get(self.lowest).is_none_or(|weight| *weight < self.epsilon) {
            return 0.0;
        }
        let threshold = share * self.total;
        let mut sum = 0.0;
        let mut bucket = self.lowest;
        for weight in self.weights.iter().take(self.highest).skip(self.lowest) {
            sum += weight;
            if sum >= threshold {
                break;
            }
            bucket += 1;
        }
        self.buckets.start((bucket + 1).min(self.buckets.number() - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: f64 = 3600.0;
    /// Any time will do; VPA's tests have one in 2016.
    const START: f64 = 1_458_000_000.0;

    #[test]
    fn exponential_buckets_as_in_histogram_options_test() {
        let buckets = Buckets::exponential(500.0, 40.0, 1.5);
        assert_eq!(buckets.number(), 6);
        for (bucket, start) in [0.0, 40.0, 100.0, 190.0, 325.0, 527.5].into_iter().enumerate() {
            assert!((buckets.start(bucket) - start).abs() < 1e-9);
        }
        for (value, bucket) in [(39.99, 0), (40.0, 1), (100.0, 2), (900.0, 5)] {
            assert_eq!(buckets.find(value), bucket, "{value}");
        }
        assert_eq!((Buckets::cpu().number(), Buckets::memory().number()), (176, 176));
    }

    #[test]
    fn linear_buckets_as_in_histogram_options_test() {
        let buckets = Buckets::linear(5.0, 0.3);
        assert_eq!((buckets.number(), buckets.find(1.3)), (18, 4));
        assert!((buckets.start(17) - 5.1).abs() < 1e-9);
    }

    fn check(histogram: &Decaying, wanted: &[(f64, f64)]) {
        for (share, value) in wanted {
            assert_eq!(histogram.percentile(*share), *value, "share {share}");
        }
    }

    #[test]
    fn percentiles_as_in_histogram_test() {
        // Without decay: all at one time.
        let mut histogram = Decaying::new(Buckets::linear(10.0, 1.0), HOUR, 0.001);
        for value in 1..=4 {
            histogram.add(f64::from(value), f64::from(value), 0.0);
        }
        check(
            &histogram,
            &[(0.0, 2.0), (0.1, 2.0), (0.2, 3.0), (0.3, 3.0), (0.4, 4.0), (0.6, 4.0), (0.7, 5.0), (1.0, 5.0)],
        );
    }

    #[test]
    fn decay_as_in_decaying_histogram_test() {
        let mut histogram = Decaying::new(Buckets::linear(10.0, 1.0), HOUR, 0.001);
        for value in 1..=4 {
            histogram.add(f64::from(value), f64::from(value), START + f64::from(value) * HOUR);
        }
        check(
            &histogram,
            &[
                (0.0, 2.0),
                (0.02, 2.0),
                (0.03, 3.0),
                (0.10, 3.0),
                (0.11, 4.0),
                (0.34, 4.0),
                (0.35, 5.0),
                (1.0, 5.0),
            ],
        );
    }

    #[test]
    fn long_decay_as_in_decaying_histogram_test() {
        let mut histogram = Decaying::new(Buckets::linear(10.0, 1.0), HOUR, 0.001);
        histogram.add(2.0, 1.0, START);
        histogram.add(1.0, 1.0, START + 101.0 * HOUR);
        check(&histogram, &[(1.0, 2.0)]);
        let mut histogram = Decaying::new(Buckets::linear(10.0, 1.0), HOUR, 0.001);
        histogram.add(2.0, 1000.0, START);
        histogram.add(1.0, 1.0, START + 20.0 * HOUR);
        check(&histogram, &[(0.999, 2.0), (1.0, 3.0)]);
    }

    #[test]
    fn subtracted_values_are_removed() {
        let mut histogram = Decaying::new(Buckets::memory(), HOUR, 0.001);
        histogram.add(5e9, 1.0, START);
        histogram.subtract(5e9, 1.0, START);
        check(&histogram, &[(0.5, 0.0), (1.0, 0.0)]);
    }
}
