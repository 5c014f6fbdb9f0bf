//! A random generator for synthetic usage and for bootstraps: SplitMix64.
//!
//! It is written here because published figures depend on each number that it gives: they must not change with the version of a
//! library. Algorithm and constants: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators",
//! OOPSLA 2014. It is not for secrets.

/// A generator with a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// A generator that gives the same numbers for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in 0..1, with 53 random bits; never 1.
    pub fn unit(&mut self) -> f64 {
        const PARTS: f64 = 9_007_199_254_740_992.0;
        (self.bits() >> 11) as f64 / PARTS
    }

    /// A number from `low` up to `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number below `end`, and 0 if `end` is 0. The bias is below `end` ÷ 2⁵³.
    pub fn below(&mut self, end: usize) -> usize {
        ((self.unit() * end as f64) as usize).min(end.saturating_sub(1))
    }

    /// An exponentially distributed number with a mean of 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// One of the elements; `None` of none.
    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> Option<&'t T> {
        of.get(self.below(of.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sequence() {
        // The first outputs for the seed 1234567 in the test vectors of the reference implementation (splitmix64.c, S. Vigna).
        let mut random = Random::new(1_234_567);
        let found: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut random = Random::new(1);
        let count = 100_000;
        let mean = (0..count).map(|_| random.unit()).sum::<f64>() / f64::from(count);
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        let mean = (0..count).map(|_| random.exponential()).sum::<f64>() / f64::from(count);
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        let mut counts = [0; 3];
        (0..count).for_each(|_| counts[random.below(3)] += 1);
        assert!(counts.iter().all(|found| (33_000..34_000).contains(found)), "{counts:?}");
        assert_eq!((random.below(0), random.pick::<u8>(&[])), (0, None));
    }
}
