//! [Kruize](https://github.com/kruize/autotune): the models `performance` and `cost`, from `GenericRecommendationModel.java`.
//!
//! An approximation: Kruize gets the minimum, maximum and sum of each interval from Prometheus, here they are those of the
//! samples of all pods. Throttled CPU time and resident memory (RSS) are unknown, so they do not count.

use super::krr::percentile;

/// Minutes of an interval.
pub const INTERVAL: usize = 15;
/// Days of the term `medium_term`.
pub const WINDOW_DAYS: usize = 7;
/// CPU percentiles of the models, as shares.
pub const PERFORMANCE: f64 = 0.98;
/// See [`PERFORMANCE`].
pub const COST: f64 = 0.6;
/// Below one core, in millicores, the highest usage is the request.
const ONE_CORE: f64 = 1000.0;
/// `MEM_USAGE_BUFFER_DECIMAL` and `MEM_SPIKE_BUFFER_DECIMAL`.
const USAGE_BUFFER: f64 = 1.2;
const SPIKE_BUFFER: f64 = 1.05;

/// The CPU request of a model, millicores, from the highest usage of each interval. `None` without intervals.
pub fn cpu(mut highest: Vec<f64>, share: f64) -> Option<f64> {
    highest.sort_by(f64::total_cmp);
    let peak = *highest.last()?;
    if peak < ONE_CORE { Some(peak) } else { percentile(&highest, share) }
}

/// The memory request and limit, from the lowest and highest usage of each interval; both models use all of them. `None` without
/// intervals.
pub fn memory(intervals: &[(f64, f64)]) -> Option<f64> {
    let peak = intervals.iter().map(|(_, highest)| *highest).reduce(f64::max)?;
    let spike = intervals.iter().map(|(lowest, highest)| highest - lowest).fold(0.0, f64::max);
    Some((peak * USAGE_BUFFER).min(peak + spike * SPIKE_BUFFER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_spike_or_a_fifth_whichever_is_less() {
        assert_eq!(memory(&[(90.0, 100.0), (80.0, 81.0)]), Some(110.5));
        assert_eq!(memory(&[(10.0, 100.0)]), Some(120.0));
        assert_eq!(memory(&[]), None);
    }

    #[test]
    fn percentiles_count_from_one_core_on() {
        assert_eq!(cpu(vec![400.0, 999.0, 10.0], COST), Some(999.0));
        assert_eq!(cpu((0..=10).map(|at| f64::from(at) * 200.0).collect(), COST), Some(1200.0));
        assert_eq!(cpu(Vec::new(), PERFORMANCE), None);
    }
}
