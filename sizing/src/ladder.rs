//! What CPU quotas would have done: the what-if ladder.
//!
//! A distribution of windows has no order, and throttling depends on order: what one period could not finish, the next has to. So
//! the agent feeds a token bucket per quota with every window and counts; the counts add up over time, replicas and nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one quota would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Periods in which the container wanted CPU time.
    pub periods: u64,
    /// Of these, periods in which the quota would have held it up.
    pub throttled: u64,
    /// CPU time put off, milliseconds.
    pub delayed_millis: u64,
}

impl Rung {
    /// Share of periods held up, 0..=1; 0 without periods.
    pub fn share(self) -> f64 {
        if self.periods == 0 { 0.0 } else { (self.throttled as f64 / self.periods as f64).min(1.0) }
    }
}

/// Quotas in millicores, each with what it would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ladder(pub BTreeMap<u64, Rung>);

impl Ladder {
    /// Adds what another ladder has counted. A quota that only one of them knows stays as it is.
    pub fn merge(&mut self, other: &Self) {
        for (quota, rung) in &other.0 {
            let mine = self.0.entry(*quota).or_default();
            mine.periods = mine.periods.saturating_add(rung.periods);
            mine.throttled = mine.throttled.saturating_add(rung.throttled);
            mine.delayed_millis = mine.delayed_millis.saturating_add(rung.delayed_millis);
        }
    }

    /// The smallest quota (millicores, at least `from`) that holds up no more than a share of the periods, with its rung. Of
    /// quotas that were not watched all the time, as where ladders of different agents differ, none is taken.
    pub fn smallest(&self, share: f64, from: u64) -> Option<(u64, Rung)> {
        let watched = self.0.values().map(|rung| rung.periods).max().unwrap_or(0);
        self.0.iter().map(|(quota, rung)| (*quota, *rung)).find(|(quota, rung)| {
            *quota >= from && rung.periods == watched && watched > 0 && rung.share() <= share
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ladder(rungs: &[(u64, u64)]) -> Ladder {
        let rung = |throttled| Rung { periods: 1000, throttled, delayed_millis: throttled * 7 };
        Ladder(rungs.iter().map(|(quota, throttled)| (*quota, rung(*throttled))).collect())
    }

    #[test]
    fn the_smallest_quota_that_keeps_the_risk() {
        let ladder = ladder(&[(100, 400), (200, 50), (400, 10), (800, 0)]);
        assert_eq!(ladder.smallest(0.05, 0).map(|(quota, _)| quota), Some(200));
        assert_eq!(ladder.smallest(0.05, 300).map(|(quota, _)| quota), Some(400));
        assert_eq!(ladder.smallest(0.001, 0).map(|(quota, _)| quota), Some(800));
        assert_eq!(ladder.smallest(0.001, 900), None);
        assert_eq!(Ladder::default().smallest(1.0, 0), None);
    }

    #[test]
    fn a_quota_that_was_watched_in_part_is_not_taken() {
        let mut whole = ladder(&[(100, 400), (200, 0)]);
        whole.merge(&ladder(&[(200, 0), (150, 0)]));
        assert_eq!(whole.smallest(0.01, 0).map(|(quota, _)| quota), Some(200));
    }

    proptest! {
        #[test]
        fn less_risk_is_never_a_smaller_quota(rungs in prop::collection::btree_map(1..64_u64, 0..1000_u64, 0..16), risk in 0.0..1.0_f64, less in 0.0..1.0_f64) {
            let ladder = ladder(&rungs.into_iter().collect::<Vec<_>>());
            let quota = |share| ladder.smallest(share, 0).map_or(u64::MAX, |(quota, _)| quota);
            prop_assert!(quota(risk * less) >= quota(risk));
        }
    }
}
