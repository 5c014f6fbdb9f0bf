//! Requests of workloads with a HorizontalPodAutoscaler on the same resource.
//!
//! The autoscaler adds replicas when usage is above `target` percent of the request. If only the request were lowered, the
//! autoscaler would add replicas, usage per replica would fall, and the next recommendation would be lower again. So request
//! and target change together. Their product, the usage at which replicas are added, stays the same.

/// Highest target, percent. A higher target leaves no time to start replicas before usage reaches the request.
const MAX_TARGET: f64 = 90.0;
/// A recommendation that is at most this share below the autoscaler's own set point is an effect of the autoscaler.
const NEAR: f64 = 0.25;

/// A request and the target that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestAndTarget {
    /// Millicores or bytes.
    pub request: u64,
    /// `averageUtilization`, percent.
    pub target: u32,
    /// Whether lowering the request alone would repeat with every recommendation, because the recommendation is the usage at
    /// which the autoscaler itself keeps the replicas.
    pub loops: bool,
}

/// Adjusts a recommended request to an autoscaler: `now` is the current request, `target` the current target, `recommended` the
/// recommended request. The request is not lowered so far that the target would be above 90 %. `None` if any input is zero.
pub fn adjust(now: u64, target: u32, recommended: u64) -> Option<RequestAndTarget> {
    if now == 0 || target == 0 || recommended == 0 {
        return None;
    }
    let adds_at = now as f64 * f64::from(target) / 100.0;
    // A current target above the highest target is kept.
    let highest = MAX_TARGET.max(f64::from(target));
    let request = (recommended as f64).max(adds_at * 100.0 / highest).ceil();
    // `as` saturates.
    let request = request as u64;
    let loops = recommended < now && recommended as f64 >= adds_at * (1.0 - NEAR);
    Some(RequestAndTarget { request, target: self::target(now, target, request)?, loops })
}

/// The target at which replicas are added at the same usage as today, when a request of `now` becomes `request`. `None` if any
/// input is zero.
pub fn target(now: u64, target: u32, request: u64) -> Option<u32> {
    if now == 0 || target == 0 || request == 0 {
        return None;
    }
    if now == request {
        return Some(target);
    }
    // `as` saturates; at least 1, as the API server demands.
    Some(((now as f64 * f64::from(target) / request as f64).round() as u32).max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usage_at_which_replicas_are_added_stays() {
        // 80 % of 1000 are 800: the recommendation of 820 would shrink again and again.
        assert_eq!(adjust(1000, 80, 820), Some(RequestAndTarget { request: 889, target: 90, loops: true }));
        // More than before: the target falls.
        assert_eq!(
            adjust(1000, 80, 1600),
            Some(RequestAndTarget { request: 1600, target: 50, loops: false })
        );
        assert_eq!(adjust(0, 80, 100), None);
    }

    proptest! {
        #[test]
        fn repeated_adjustment_converges(now in 1..1_000_000_u64, target in 1..90_u32, recommended in 1..1_000_000_u64) {
            let once = adjust(now, target, recommended).unwrap();
            prop_assert!(once.request >= recommended && once.target <= 90);
            let twice = adjust(once.request, once.target, recommended).unwrap();
            // Targets are whole percents.
            prop_assert!(twice.request <= once.request + once.request / u64::from(once.target) + 1, "{once:?} {twice:?}");
        }
    }
}
