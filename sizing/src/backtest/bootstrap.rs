//! Intervals by bootstrap over blocks of families.
//!
//! Pod-days of alike workloads are not independent, and pod-days of one workload overlap. So whole blocks are drawn with
//! replacement, and figures are computed again from each draw (the cluster bootstrap). Compared policies are computed from the same
//! draws (paired). The draws are seeded: the same input gives the same interval.

use serde::Serialize;

use crate::random::Random;

/// Draws of an interval.
const DRAWS: usize = 2_000;
const SEED: u64 = 2_023;
/// Share of the draws below and above an interval.
const TAIL: f64 = 0.025;

/// A figure with the interval that holds 95 % of the draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Interval {
    /// The figure of all blocks.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Numerator and denominator of a ratio, by block.
pub type Parts = [(f64, f64)];

fn ratio(parts: (f64, f64)) -> f64 {
    super::score::part(parts.0, parts.1)
}

fn interval(blocks: usize, figure: impl Fn(&mut dyn Iterator<Item = usize>) -> f64) -> Interval {
    let mut random = Random::new(SEED);
    let mut drawn: Vec<f64> = (0..DRAWS)
        .map(|_| figure(&mut (0..blocks).map(|_| random.below(blocks)).collect::<Vec<_>>().into_iter()))
        .collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| drawn.get((share * (DRAWS - 1) as f64).round() as usize).copied().unwrap_or(0.0);
    Interval { value: figure(&mut (0..blocks)), low: at(TAIL), high: at(1.0 - TAIL) }
}

fn sum(parts: &Parts, blocks: impl Iterator<Item = usize>) -> (f64, f64) {
    let chosen = blocks.filter_map(|block| parts.get(block));
    chosen.fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
}

/// The ratio of the sums, with its interval.
pub fn of_ratio(parts: &Parts) -> Interval {
    interval(parts.len(), |blocks| ratio(sum(parts, blocks)))
}

/// The difference of the ratios of two policies on the same blocks: `a` minus `b`.
pub fn of_difference(a: &Parts, b: &Parts) -> Interval {
    interval(a.len().min(b.len()), |blocks| {
        let blocks: Vec<usize> = blocks.collect();
        ratio(sum(a, blocks.iter().copied())) - ratio(sum(b, blocks.iter().copied()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_blocks_have_no_spread() {
        let parts = [(1.0, 4.0); 7];
        assert_eq!(of_ratio(&parts), Interval { value: 0.25, low: 0.25, high: 0.25 });
        assert_eq!(of_difference(&parts, &parts), Interval::default());
        assert_eq!(of_ratio(&[]), Interval::default());
    }

    #[test]
    fn the_interval_of_a_share_is_that_of_the_binomial_distribution() {
        let parts: Vec<(f64, f64)> = (0..400).map(|at| (f64::from(u8::from(at % 10 == 0)), 1.0)).collect();
        let Interval { value, low, high } = of_ratio(&parts);
        // 0.1 ± 1.96 · √(0.1 · 0.9 ÷ 400) = 0.1 ± 0.0294.
        assert!(
            (value - 0.1).abs() < 1e-12 && (low - 0.0706).abs() < 0.004 && (high - 0.1294).abs() < 0.004,
            "{low} {high}"
        );
    }

    #[test]
    fn a_difference_is_narrower_where_blocks_go_together() {
        let a: Vec<(f64, f64)> = (0..50).map(|at| (f64::from(at), 50.0)).collect();
        let b: Vec<(f64, f64)> = a.iter().map(|(part, whole)| (part + 1.0, *whole)).collect();
        let Interval { value, low, high } = of_difference(&a, &b);
        assert!((value + 0.02).abs() < 1e-12 && high - low < 1e-9, "{low} {high}");
    }
}
