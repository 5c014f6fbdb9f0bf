//! Simulates other requests and limits against recorded usage.

use serde::Serialize;

use crate::{
    cpu_quota::QuotaOutcome,
    engine::{
        cpu::{self, RequestUsage},
        memory::PeakHistory,
    },
    evidence::{Evidence, Peak},
};

/// The outcome of a CPU limit. Throttling at a limit between two simulated quotas lies between their outcomes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct CpuLimit {
    /// Millicores.
    pub limit: u64,
    /// Outcome of the nearest simulated quota at or below the limit: an upper bound of throttling.
    pub at_most: Option<Throttled>,
    /// Outcome of the nearest simulated quota at or above the limit: a lower bound of throttling.
    pub at_least: Option<Throttled>,
    /// What the current CPU limit did in the last day; `None` without a limit or its counters. CPU time that it delayed is
    /// unknown to the simulation, so limits near it and above look better than they are.
    pub current: Option<CurrentLimit>,
}

/// Throttling by the current CPU limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct CurrentLimit {
    /// Millicores.
    pub limit: u64,
    /// Share of CFS periods that were throttled, of those in which the container was runnable.
    pub periods: f64,
}

/// Throttling by the current CPU limit; `None` without a limit or its counters.
pub fn current_limit(evidence: &Evidence) -> Option<CurrentLimit> {
    let limit = evidence.container.current.cpu_limit?;
    Some(CurrentLimit { limit, periods: cpu::throttled(evidence)? })
}

/// The outcome of one simulated quota.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Throttled {
    /// Millicores.
    pub quota: u64,
    /// Share of CFS periods that would have been throttled, of those in which the container was runnable.
    pub periods: f64,
    /// Delayed CPU time, milliseconds.
    pub delayed_millis: u64,
}

impl Throttled {
    fn new((quota, outcome): (u64, QuotaOutcome)) -> Self {
        Self { quota, periods: outcome.share(), delayed_millis: outcome.delayed_millis }
    }
}

/// The outcome of a memory limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct MemoryLimit {
    /// Bytes.
    pub limit: u64,
    /// Hours in which some pod used more than the limit: at least one OOM kill each.
    pub hours_above: usize,
    /// Hours with memory usage.
    pub hours: usize,
    /// The first peak above the limit.
    pub first: Option<Peak>,
    pub highest: Option<Peak>,
    /// Recorded OOM kills at this limit or a higher one. They would have happened at this limit as well.
    pub kills_seen: usize,
}

/// How often usage would have exceeded a CPU request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct CpuRequest {
    /// Millicores.
    pub request: u64,
    /// Length of a window of usage, milliseconds.
    pub window_millis: u64,
    /// Share of windows with usage above the request.
    pub time_above: f64,
    /// Share of all CPU time that was above the request.
    pub work_above: f64,
}

/// Simulates a CPU limit in millicores; `None` without a quota simulation.
pub fn cpu_limit(evidence: &Evidence, limit: u64) -> Option<CpuLimit> {
    let simulated = evidence.quota_what_if()?;
    let outcomes = || simulated.iter();
    outcomes().find(|(_, outcome)| outcome.periods > 0)?;
    let at_most = outcomes().rfind(|(quota, _)| *quota <= limit).map(Throttled::new);
    let at_least = outcomes().find(|(quota, _)| *quota >= limit).map(Throttled::new);
    Some(CpuLimit { limit, at_most, at_least, current: current_limit(evidence) })
}

/// Simulates a memory limit in bytes; `None` without memory usage.
pub fn memory_limit(evidence: &Evidence, limit: u64) -> Option<MemoryLimit> {
    // Page cache that fills the current limit is no need: a lower limit means less of it.
    let history = PeakHistory::new(evidence);
    let above = || history.highest().filter(|peak| peak.bytes > limit);
    let highest = history.highest().max()?;
    Some(MemoryLimit {
        limit,
        hours_above: above().count(),
        hours: history.highest().count(),
        first: above().min_by_key(|peak| peak.at),
        highest: Some(highest),
        kills_seen: evidence.kills().filter(|kill| kill.limit >= limit).count(),
    })
}

/// Simulates a CPU request in millicores; `None` without CPU usage.
pub fn cpu_request(evidence: &Evidence, request: u64) -> Option<CpuRequest> {
    let RequestUsage { windows, window_millis, .. } = RequestUsage::new(evidence);
    let cores = request as f64 / 1000.0;
    (!windows.is_empty()).then(|| CpuRequest {
        request,
        window_millis,
        time_above: windows.share_above(cores),
        work_above: windows.work_above(cores),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpu_quota::TokenBuckets,
        evidence::{Hour, OomKill},
        workload::tests::{container, workload},
    };

    const MIB: u64 = 1 << 20;

    fn evidence() -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 100);
        for (hour, mib) in [(1, 100), (2, 300), (3, 200)] {
            let record = evidence.hour(Hour(hour));
            record.observed = 3600;
            let mut quota_what_if = TokenBuckets::default();
            for used in [0, 60, 0, 0] {
                quota_what_if.feed(used * 1_000_000, 100_000_000);
                record.minutes.record(used as f64 / 100.0, 1);
            }
            record.quota_what_if = quota_what_if.take();
            record.peak = Some(Peak { bytes: mib * MIB, at: u64::from(hour), pod: "web-0".to_owned() });
        }
        evidence.hour(Hour(3)).kills.push(OomKill { at: 3, limit: 250 * MIB, pod: "web-0".to_owned() });
        evidence
    }

    #[test]
    fn a_limit_lies_between_two_simulated_quotas() {
        let found = cpu_limit(&evidence(), 500).unwrap();
        let (most, least) = (found.at_most.unwrap(), found.at_least.unwrap());
        assert!(most.quota <= 500 && least.quota >= 500 && most.quota < least.quota);
        assert!(most.periods >= least.periods && most.delayed_millis >= least.delayed_millis, "{found:?}");
        let exact = cpu_limit(&evidence(), most.quota).unwrap();
        assert_eq!(exact.at_most, exact.at_least);
        assert_eq!(cpu_limit(&evidence(), 1).unwrap().at_most, None);
        assert_eq!(found.current, None);
        let mut limited = evidence();
        limited.container.current.cpu_limit = Some(500);
        (limited.hour(Hour(3)).periods, limited.hour(Hour(3)).throttled) = (100, 25);
        let current = Some(CurrentLimit { limit: 500, periods: 0.25 });
        assert_eq!(cpu_limit(&limited, 700).unwrap().current, current);
        assert_eq!(cpu_limit(&Evidence::new(workload("web"), container("app"), 100), 500), None);
    }

    #[test]
    fn a_limit_below_peaks_gives_oom_kills() {
        let found = memory_limit(&evidence(), 150 * MIB).unwrap();
        assert_eq!((found.hours_above, found.hours, found.kills_seen), (2, 3, 1));
        assert_eq!((found.first.unwrap().at, found.highest.unwrap().bytes), (2, 300 * MIB));
        let found = memory_limit(&evidence(), 300 * MIB).unwrap();
        assert_eq!((found.hours_above, found.kills_seen, found.first), (0, 0, None));
    }

    #[test]
    fn a_request_is_exceeded_by_time_and_by_cpu_time() {
        let found = cpu_request(&evidence(), 300).unwrap();
        assert!((found.time_above - 0.25).abs() < 0.01 && (found.work_above - 0.5).abs() < 0.05, "{found:?}");
        assert!(cpu_request(&evidence(), 700).unwrap().time_above.abs() < 1e-9);
    }
}
