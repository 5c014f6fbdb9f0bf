//! The lowest limit after OOM kills. A kill shows that the limit was too low, but not by how much.

use serde::Serialize;

use crate::evidence::{Evidence, OomKill};

/// A limit that was hit is raised by 20 %, as VPA does (`oom-bump-up-ratio`), and by 20 % more for each lower limit that was
/// hit in the day before. So a limit that was far too low is high enough after a few steps.
const STEP: f64 = 1.2;
/// Upper bound of one raise: twice the limit that was hit.
const MAX_STEP: f64 = 2.0;
/// Seconds for which a kill counts towards the next raise.
const DAY: u64 = 24 * crate::evidence::HOUR;
/// Upper bound of all raises together, relative to the first limit that was hit: five doublings. A container that needs more
/// than that leaks memory or has no bound of its own.
const MAX_RAISE: f64 = 32.0;

/// The lowest limit that past OOM kills allow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MinimumLimit {
    /// The limit, bytes.
    pub bytes: f64,
    /// The deciding kill: the one at the highest limit, the latest of equal ones.
    pub kill: OomKill,
    /// OOM kills in the history.
    pub kills: usize,
    /// Whether the upper bound of all raises was reached.
    pub bounded: bool,
}

/// The lowest limit after the OOM kills in the history; `None` without any.
pub fn minimum_limit(evidence: &Evidence) -> Option<MinimumLimit> {
    let kills = || evidence.kills().filter(|kill| kill.limit > 0);
    let kill = kills().max_by_key(|kill| (kill.limit, kill.at))?;
    let first = kills().min_by_key(|kill| (kill.at, kill.limit))?;
    let recent = kills()
        .filter(|other| other.at.saturating_add(DAY) >= kill.at && other.at <= kill.at)
        .map(|other| other.limit);
    let steps = recent.collect::<std::collections::BTreeSet<u64>>().len();
    let raised = kill.limit as f64 * STEP.powi(steps.min(i32::MAX as usize) as i32).min(MAX_STEP);
    let max = (first.limit as f64 * MAX_RAISE).max(kill.limit as f64);
    Some(MinimumLimit {
        bytes: raised.min(max),
        kill: kill.clone(),
        kills: kills().count(),
        bounded: raised > max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::Hour,
        workload::tests::{container, workload},
    };

    fn killed_at(limits: &[u64]) -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 100);
        for (at, limit) in limits.iter().enumerate() {
            let kill = OomKill { at: at as u64 * 3600, limit: *limit, pod: "web-1".to_owned() };
            evidence.hour(Hour(at as u32)).kills.push(kill);
        }
        evidence
    }

    #[test]
    fn the_limit_is_raised_above_the_one_that_was_hit() {
        let minimum_limit = minimum_limit(&killed_at(&[1000, 1200, 1000])).unwrap();
        assert_eq!(
            (minimum_limit.bytes as u64, minimum_limit.kill.at, minimum_limit.kills, minimum_limit.bounded),
            (1728, 3600, 3, false)
        );
    }

    #[test]
    fn a_time_may_be_any_number() {
        let mut evidence = killed_at(&[1000, 1200]);
        evidence
            .hours
            .values_mut()
            .for_each(|hour| hour.kills.iter_mut().for_each(|kill| kill.at = u64::MAX));
        assert_eq!(minimum_limit(&evidence).unwrap().bytes as u64, 1728);
    }

    #[test]
    fn kills_at_one_limit_do_not_add_up() {
        assert_eq!(minimum_limit(&killed_at(&[100; 50])).unwrap().bytes, 120.0);
    }

    #[test]
    fn repeated_kills_raise_faster_up_to_a_bound() {
        let mut limits = vec![1000];
        for _ in 0..8 {
            let next = minimum_limit(&killed_at(&limits)).unwrap().bytes as u64;
            limits.push(next);
        }
        assert_eq!(limits, [1000, 1200, 1728, 2985, 5970, 11940, 23880, 32000, 32000]);
        assert!(minimum_limit(&killed_at(&limits)).unwrap().bounded);
        assert_eq!(minimum_limit(&killed_at(&[])), None);
    }
}
