//! What OOM kills say: the limit that failed was too low, by how much nobody knows.

use serde::Serialize;

use crate::evidence::{Evidence, OomKill};

/// A limit that failed is raised by a fifth, as VPA does (`oom-bump-up-ratio`), and by a fifth more for each lower one that failed in
/// the day before: who was far too low gets there in a few steps.
const STEP: f64 = 1.2;
/// But at most by doubling.
const MAX_STEP: f64 = 2.0;
/// Seconds that a step counts for the next.
const DAY: u64 = 24 * crate::evidence::HOUR;
/// Beyond this multiple of the first limit that failed, five doublings, no kill raises it: what eats that much more has a leak, or no
/// bound of its own.
const MAX_RAISE: f64 = 32.0;

/// What kills minimum_limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MinimumLimit {
    /// The least limit, bytes.
    pub bytes: f64,
    /// The kill that decided: the highest limit that failed, the latest of equal ones.
    pub kill: OomKill,
    /// Kills in the window.
    pub kills: usize,
    /// Whether the bound keeps it from being more.
    pub bounded: bool,
}

/// The least limit after the kills in the window; `None` without any.
pub fn minimum_limit(evidence: &Evidence) -> Option<MinimumLimit> {
    let kills = || evidence.kills().filter(|kill| kill.limit > 0);
    let kill = kills().max_by_key(|kill| (kill.limit, kill.at))?;
    let first = kills().min_by_key(|kill| (kill.at, kill.limit))?;
    let recent = kills()
        .filter(|other| other.at.saturating_add(DAY) >= kill.at && other.at <= kill.at)
        .map(|other| other.limit);
    let steps = recent.collect::<std::collections::BTreeSet<u64>>().len();
    let wanted = kill.limit as f64 * STEP.powi(steps.min(i32::MAX as usize) as i32).min(MAX_STEP);
    let most = (first.limit as f64 * MAX_RAISE).max(kill.limit as f64);
    Some(MinimumLimit {
        bytes: wanted.min(most),
        kill: kill.clone(),
        kills: kills().count(),
        bounded: wanted > most,
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
            let kill =
                OomKill { at: at as u64 * 3600, limit: *limit, pod: "web-1".to_owned(), of_pod: false };
            evidence.hour(Hour(at as u32)).kills.push(kill);
        }
        evidence
    }

    #[test]
    fn above_the_limit_that_failed() {
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
    fn faster_and_faster_but_not_without_end() {
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
