//! `pkg/recommender/logic`: percentile, margin, confidence, minimum, in this order.

use super::{Aggregate, DAY, amount};

/// Millicores and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Millicores.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

/// VPA's recommendation for a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimates {
    /// `target`, which pods get.
    pub target: Amounts,
    /// `lowerBound`.
    pub lower: Amounts,
    /// `upperBound`.
    pub upper: Amounts,
}

const TARGET_SHARE: f64 = 0.9;
const LOWER_SHARE: f64 = 0.5;
const UPPER_SHARE: f64 = 0.95;
/// `recommendation-margin-fraction`.
const MARGIN: f64 = 0.15;
/// `pod-recommendation-min-cpu-millicores` and `-min-memory-mb`: of a pod, shared by its containers.
const MINIMUM_CPU: f64 = 25.0;
const MINIMUM_MEMORY: f64 = 250.0 * 1024.0 * 1024.0;

/// Days of history: by time or by samples at one per minute, whichever is less.
pub fn confidence(first: f64, last: f64, samples: u64) -> f64 {
    ((last - first) / DAY).min(samples as f64 / (24.0 * 60.0))
}

/// An amount times `(1 + multiplier/confidence)^exponent`; with a confidence of 0 the result is 0 or the maximum.
pub(super) fn confident(value: i64, confidence: f64, multiplier: f64, exponent: f64) -> i64 {
    amount(value as f64 * (1.0 + multiplier / confidence).powf(exponent))
}

/// Adds a margin, given as a share.
pub(super) fn with_margin(value: i64, margin: f64) -> i64 {
    value + amount(value as f64 * margin)
}

/// Minimum of each container in a pod with `containers` containers.
pub fn podwide_minimum(containers: usize) -> Amounts {
    let part = 1.0 / containers.max(1) as f64;
    Amounts { cpu: amount(MINIMUM_CPU * part), memory: amount(MINIMUM_MEMORY * part) }
}

/// Target and bounds; `minimum` is [`podwide_minimum`], or zero for VPA without its floors.
pub fn estimate(aggregate: &Aggregate, minimum: Amounts) -> Estimates {
    let confidence = aggregate.confidence();
    let each = |share: f64, multiplier: f64, exponent: f64| {
        let finish = |value: i64, minimum: i64| {
            confident(with_margin(value, MARGIN), confidence, multiplier, exponent).max(minimum)
        };
        let cpu = amount(aggregate.cpu.percentile(share) * 1000.0);
        let memory = amount(aggregate.memory.percentile(share));
        Amounts { cpu: finish(cpu, minimum.cpu), memory: finish(memory, minimum.memory) }
    };
    // An exponent of zero leaves the target as it is.
    Estimates {
        target: each(TARGET_SHARE, 0.0, 0.0),
        lower: each(LOWER_SHARE, 0.001, -2.0),
        upper: each(UPPER_SHARE, 1.0, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_as_in_estimator_test() {
        // Nine samples, two minutes apart.
        assert_eq!(confidence(0.0, 8.0 * 120.0, 9), 0.00625);
        assert_eq!(confident(3140, 0.00625, 0.1, 2.0), 907_460);
        assert_eq!(confident(3140, 0.5, 0.1, 2.0), 4521);
        assert_eq!(confident(3_140_000_000, 0.5, 0.1, 2.0), 4_521_600_000);
        assert_eq!(confident(3140, 0.0, 0.1, 2.0), 100_000_000_000_000);
        assert_eq!(confident(3140, 0.0, 0.001, -2.0), 0);
    }

    #[test]
    fn confidence_as_in_the_comments_of_recommender_go() {
        for (days, upper) in [(0.5, 3.0), (1.0, 2.0), (7.0, 1.142)] {
            assert_eq!(confident(1000, days, 1.0, 1.0), (upper * 1000.0) as i64);
        }
        for (minutes, lower) in [(5.0, 0.6), (30.0, 0.9), (60.0, 0.95)] {
            let found = confident(1000, minutes / 1440.0, 0.001, -2.0) as f64 / 1000.0;
            assert!((found - lower).abs() < 0.03, "{minutes}: {found}");
        }
    }

    #[test]
    fn margin_as_in_estimator_test() {
        assert_eq!(with_margin(3140, 0.1), 3454);
        // An idle container: 10 millicores, of which 15 % are cut off to one.
        assert_eq!(with_margin(10, MARGIN), 11);
    }

    #[test]
    fn minimum_as_in_recommender_test() {
        assert_eq!(podwide_minimum(1), Amounts { cpu: 25, memory: 262_144_000 });
        assert_eq!(podwide_minimum(2), Amounts { cpu: 12, memory: 131_072_000 });
    }
}
