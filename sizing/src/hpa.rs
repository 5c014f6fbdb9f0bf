//! A request under a HorizontalPodAutoscaler on the same resource.
//!
//! The autoscaler adds replicas when use is above `target` percent of the request. Lowering the request alone moves that point: replicas
//! are added, use per replica falls, and the next recommendation is lower still. So request and target are changed together,
//! with their product, the use at which replicas are added, as it was.

/// A target above this leaves no time to start replicas before the request is used up, percent.
const MAX_TARGET: f64 = 90.0;
/// A recommendation is taken for the use that the autoscaler itself brings about if it is not further below it than this part.
const NEAR: f64 = 0.25;

/// A request and a target that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestAndTarget {
    /// Millicores or bytes.
    pub request: u64,
    /// `averageUtilization`, percent.
    pub target: u32,
    /// Whether lowering the request alone would have gone on from one recommendation to the next: what was recommended lies where the
    /// autoscaler itself keeps use, below the request.
    pub loops: bool,
}

/// Request and target to set: `now` is the request in force, `target` the autoscaler's, `wanted` what was recommended without it. A
/// request is not lowered so far that the target would be above 90 %. `None` where one of them is zero.
pub fn adjust(now: u64, target: u32, wanted: u64) -> Option<RequestAndTarget> {
    if now == 0 || target == 0 || wanted == 0 {
        return None;
    }
    let adds_at = now as f64 * f64::from(target) / 100.0;
    // What is already set above the highest target is left there.
    let highest = MAX_TARGET.max(f64::from(target));
    let request = (wanted as f64).max(adds_at * 100.0 / highest).ceil();
    // `as` saturates; at least 1, as the API server demands.
    let target_now = ((adds_at * 100.0 / request).round() as u32).max(1);
    let loops = wanted < now && wanted as f64 >= adds_at * (1.0 - NEAR);
    Some(RequestAndTarget { request: request as u64, target: target_now, loops })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_point_at_which_replicas_are_added_stays() {
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
        fn applying_it_again_changes_little(now in 1..1_000_000_u64, target in 1..90_u32, wanted in 1..1_000_000_u64) {
            let once = adjust(now, target, wanted).unwrap();
            prop_assert!(once.request >= wanted && once.target <= 90);
            let twice = adjust(once.request, once.target, wanted).unwrap();
            // Targets are whole percents.
            prop_assert!(twice.request <= once.request + once.request / u64::from(once.target) + 1, "{once:?} {twice:?}");
        }
    }
}
