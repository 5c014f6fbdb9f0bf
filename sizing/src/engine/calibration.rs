//! Calibration: corrects the rule by how often it would have failed in the past, on one workload and on all similar ones.
//!
//! The rule predicts a number of failures. A replay of the past counts the failures that would have happened. Their ratio
//! corrects the rule by the mean of the Gamma–Poisson model: with a prior of mean one and a strength of `c` failures, the
//! true rate is `(seen + c) / (expected + c)` times the expected rate
//! ([conjugate prior](https://en.wikipedia.org/wiki/Gamma_distribution#Bayesian_inference)). With few failures the rule
//! hardly changes; with many they outweigh the prior.

use serde::{Deserialize, Serialize};

use super::cpu::Replayed;

/// Tallies count millionths as whole numbers, so that their sum does not depend on the order of addition.
const MILLIONTH: f64 = 1e6;

/// Expected failures and observed failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Observed, in millionths of a failure.
    seen: u64,
    /// Expected, in millionths of a failure.
    expected: u64,
}

impl Tally {
    /// Counts one trial. Negative values and NaN count as zero.
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

    /// Observed failures.
    pub fn seen(self) -> f64 {
        self.seen as f64 / MILLIONTH
    }

    /// Expected failures.
    pub fn expected(self) -> f64 {
        self.expected as f64 / MILLIONTH
    }

    /// Estimated true failure rate ÷ expected rate, with a prior worth `strength` failures.
    pub fn factor(self, strength: f64) -> f64 {
        (self.seen() + strength) / (self.expected() + strength)
    }
}

/// Tallies of all similar workloads together. The caller decides which are similar, such as all workloads of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Pod-days with an OOM kill.
    pub memory: Tally,
    /// CPU time above the requests of past days.
    pub cpu: Replayed,
}

impl Pool {
    /// Adds another pool.
    pub fn merge(&mut self, other: Self) {
        self.memory.merge(other.memory);
        self.cpu.merge(other.cpu);
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
