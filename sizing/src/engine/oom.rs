//! The lowest limit after OOM kills. A kill shows that the limit was too low, but not by how much.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::evidence::{Evidence, HOUR, OomKill};

/// A limit that was hit is raised by 20 %, as VPA does (`oom-bump-up-ratio`), and by 20 % more for each lower limit that was
/// hit in the day before. So a limit that was far too low is high enough after a few steps.
const STEP: f64 = 1.2;
/// Upper bound of one raise: twice the limit that was hit.
const MAX_STEP: f64 = 2.0;
/// Seconds for which a kill counts towards the next raise.
const DAY: u64 = 24 * HOUR;
/// Bound of all doublings together, relative to the first limit that was hit: five. A container that needs more than that leaks
/// memory or has no bound of its own, and gets one step of 20 % for each further kill.
const MAX_RAISE: f64 = 32.0;
/// Limits from here on are none: what the kernel reports without a limit, less the rounding of pages.
const UNLIMITED: u64 = 1 << 62;

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
    /// What stands for the limit of the deciding kill; `None` if the kernel reported it.
    pub assumed: Option<AssumedLimit>,
}

/// What stands for the limit that an OOM kill hit, where the limit is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AssumedLimit {
    /// The container's current limit.
    CurrentLimit,
    /// The current limit of its pod.
    PodLimit,
    /// The highest usage: there is no limit.
    HighestUsage,
}

/// The lowest limit after the OOM kills in the history; `None` without any.
///
/// A kill whose limit is not known was at the current limit if it happened in the last day of the history. An older one keeps the
/// current limit from being lowered: since then, the limit may have been raised enough.
pub fn minimum_limit(evidence: &Evidence) -> Option<MinimumLimit> {
    let substitute = substitute(evidence);
    let all = kills(evidence, substitute.map(|(limit, _)| limit));
    let end = evidence.span().map(|(_, last)| (u64::from(last.0) + 1) * HOUR);
    let until = all.iter().map(|(kill, _)| kill.at).chain(end).max()?;
    let is_recent = |kill: &OomKill, at: u64| kill.at.saturating_add(DAY) >= at && kill.at <= at;
    let (raising, holding): (Vec<_>, Vec<_>) =
        all.iter().partition(|(kill, is_known)| *is_known || is_recent(kill, until));
    let highest = |kills: &[&(OomKill, bool)]| {
        let all = kills.iter().map(|(kill, is_known)| (kill, *is_known));
        let (kill, is_known) = all.max_by_key(|(kill, is_known)| (kill.limit, *is_known, kill.at))?;
        Some((kill.clone(), substitute.filter(|_| !is_known).map(|(_, assumed)| assumed)))
    };
    let Some((kill, assumed)) = highest(&raising) else {
        let (kill, assumed) = highest(&holding)?;
        return Some(MinimumLimit {
            bytes: kill.limit as f64,
            kill,
            kills: all.len(),
            bounded: false,
            assumed,
        });
    };
    let first = raising.iter().map(|(kill, _)| kill).min_by_key(|kill| (kill.at, kill.limit))?;
    let recent = raising.iter().filter(|(other, _)| is_recent(other, kill.at)).map(|(other, _)| other.limit);
    let steps = recent.collect::<BTreeSet<u64>>().len();
    let limit = kill.limit as f64;
    let raised = limit * STEP.powi(steps.min(i32::MAX as usize) as i32).min(MAX_STEP);
    // Beyond the bound of all raises, each kill still raises the limit that was hit by one step.
    let max = (first.limit as f64 * MAX_RAISE).max(limit * STEP);
    let held = highest(&holding).map_or(0.0, |(kill, _)| kill.limit as f64);
    Some(MinimumLimit {
        bytes: raised.min(max).max(held),
        kill,
        kills: all.len(),
        bounded: raised > max || limit * STEP > first.limit as f64 * MAX_RAISE,
        assumed,
    })
}

/// The limit of kills whose limit the kernel did not report, bytes.
fn substitute(evidence: &Evidence) -> Option<(u64, AssumedLimit)> {
    let container = &evidence.container;
    let of_container = container.current.memory_limit.map(|limit| (limit, AssumedLimit::CurrentLimit));
    let of_pod = || Some((container.pod_resources?.memory_limit?, AssumedLimit::PodLimit));
    let highest = || evidence.hours.values().filter_map(|hour| hour.highest()).map(|peak| peak.bytes).max();
    let found = of_container.or_else(of_pod).or_else(|| Some((highest()?, AssumedLimit::HighestUsage)))?;
    (found.0 > 0).then_some(found)
}

/// All OOM kills with the limit that was hit, and whether the kernel reported that limit. Where it did not, the limit is
/// `substitute`.
fn kills(evidence: &Evidence, substitute: Option<u64>) -> Vec<(OomKill, bool)> {
    evidence
        .kills()
        .filter_map(|kill| {
            let is_known = is_known(kill);
            let limit = if is_known { kill.limit } else { substitute? };
            Some((OomKill { limit, ..kill.clone() }, is_known))
        })
        .collect()
}

/// Whether the limit that a kill hit is known.
pub fn is_known(kill: &OomKill) -> bool {
    (1..UNLIMITED).contains(&kill.limit)
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
    fn a_kill_at_an_unknown_limit_was_at_the_current_one() {
        let mut evidence = killed_at(&[0]);
        assert_eq!(minimum_limit(&evidence), None, "nothing is known");
        evidence.container.current.memory_limit = Some(1000);
        assert_eq!(minimum_limit(&evidence).unwrap().bytes, 1200.0);
        // Two days later the limit may have been raised since.
        evidence.hour(Hour(48)).observed = 1;
        assert_eq!(minimum_limit(&evidence).unwrap().bytes, 1000.0);
        evidence.hour(Hour(48)).kills.push(OomKill { at: 48 * HOUR, limit: 900, pod: String::new() });
        assert_eq!(minimum_limit(&evidence).unwrap().bytes, 1080.0);
        let unlimited = OomKill { at: 48 * HOUR, limit: u64::MAX - 4095, pod: String::new() };
        evidence.hour(Hour(48)).kills = vec![unlimited];
        assert_eq!(minimum_limit(&evidence).unwrap().bytes, 1200.0);
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
        assert_eq!(limits, [1000, 1200, 1728, 2985, 5970, 11940, 23880, 32000, 38400]);
        assert!(minimum_limit(&killed_at(&limits)).unwrap().bounded);
        assert_eq!(minimum_limit(&killed_at(&[])), None);
    }
}
