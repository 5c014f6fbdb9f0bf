//! How often the rule was wrong where it could be checked: replays on the past, of one workload and of all similar ones.
//!
//! The rule says how many failures to expect. A replay counts how many there were. Both together correct the rule, by the mean of
//! the Gamma–Poisson model: with a prior of mean one and strength `c` failures, the true rate is `(seen + c) / (expected + c)` times
//! the expected one ([conjugate prior](https://en.wikipedia.org/wiki/Gamma_distribution#Bayesian_inference)). Little evidence leaves
//! the rule as it is; much evidence overrules it.

use serde::{Deserialize, Serialize};

/// Parts of one: tallies are whole numbers, so that their sum does not depend on the order.
const MILLIONTH: f64 = 1e6;

/// Failures that were expected, and seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Millionths of a failure.
    seen: u64,
    /// Millionths of a failure.
    expected: u64,
}

impl Tally {
    /// Counts one trial. What is negative or no number counts as nothing.
    pub fn add(&mut self, seen: f64, expected: f64) {
        // `as` saturates and takes NaN for 0.
        self.seen = self.seen.saturating_add((seen * MILLIONTH) as u64);
        self.expected = self.expected.saturating_add((expected * MILLIONTH) as u64);
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: Self) {
        self.seen = self.seen.saturating_add(other.seen);
        self.expected = self.expected.saturating_add(other.expected);
    }

    /// Failures seen.
    pub fn seen(self) -> f64 {
        self.seen as f64 / MILLIONTH
    }

    /// Failures expected.
    pub fn expected(self) -> f64 {
        self.expected as f64 / MILLIONTH
    }

    /// By how much the true rate is above the expected one, with a prior worth `strength` failures.
    pub fn factor(self, strength: f64) -> f64 {
        (self.seen() + strength) / (self.expected() + strength)
    }
}

/// What replays on all similar workloads have shown. Which are similar is up to the caller, such as all of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// OOM kills, in pod-days with one.
    pub memory: Tally,
}

impl Pool {
    /// Adds another pool.
    pub fn merge(&mut self, other: Self) {
        self.memory.merge(other.memory);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mean_of_the_posterior() {
        let mut tally = Tally::default();
        assert_eq!(tally.factor(2.0), 1.0);
        tally.add(1.0, 0.5);
        assert_eq!(tally.factor(2.0), 1.2);
        tally.add(f64::NAN, -1.0);
        assert_eq!((tally.seen(), tally.expected()), (1.0, 0.5));
    }

    proptest! {
        #[test]
        fn more_failures_are_more_risk(seen in 0.0..1e6_f64, more in 0.0..1e6_f64, expected in 0.0..1e6_f64, strength in 0.1..100.0_f64) {
            let tally = |seen| { let mut tally = Tally::default(); tally.add(seen, expected); tally };
            prop_assert!(tally(seen + more).factor(strength) >= tally(seen).factor(strength));
            prop_assert!(tally(seen).factor(strength).is_finite());
        }
    }
}
