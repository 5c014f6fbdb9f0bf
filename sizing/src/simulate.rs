//! What would have come of other values: the past, replayed under them.

use serde::Serialize;

use crate::{
    cpu_quota::{QuotaOutcome, QuotaWhatIf},
    engine::cpu,
    evidence::{Evidence, Peak},
};

/// What a CPU limit would have done. Of quotas between two that were watched, the truth lies between what is told of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct CpuLimit {
    /// Millicores.
    pub limit: u64,
    /// At the next lower quota that was watched, or this one: not less than what would have come.
    pub at_most: Option<Throttled>,
    /// At the next higher quota that was watched, or this one: not more than what would have come.
    pub at_least: Option<Throttled>,
}

/// What one quota would have done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Throttled {
    /// Millicores.
    pub quota: u64,
    /// Share of the CFS periods with something to do that would have been throttled.
    pub periods: f64,
    /// CPU time put off, milliseconds.
    pub delayed_millis: u64,
}

impl Throttled {
    fn new((quota, outcome): (&u64, &QuotaOutcome)) -> Self {
        Self { quota: *quota, periods: outcome.share(), delayed_millis: outcome.delayed_millis }
    }
}

/// What a memory limit would have done.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct MemoryLimit {
    /// Bytes.
    pub limit: u64,
    /// Hours in which some pod used more: at least one OOM kill each.
    pub hours_above: usize,
    /// Hours in which memory use was seen.
    pub hours: usize,
    /// The first time.
    pub first: Option<Peak>,
    /// The highest use of all.
    pub highest: Option<Peak>,
    /// OOM kills that were seen at a limit that was not lower: they would have come, too.
    pub kills_seen: usize,
}

/// How often a CPU request would have been exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct CpuRequest {
    /// Millicores.
    pub request: u64,
    /// Length of a window that use is looked at by, milliseconds.
    pub window_millis: u64,
    /// Share of the windows with more use.
    pub time_above: f64,
    /// Share of the work that was above it.
    pub work_above: f64,
}

/// The past under a CPU limit in millicores; `None` where nobody watched what quotas would have done.
pub fn cpu_limit(evidence: &Evidence, limit: u64) -> Option<CpuLimit> {
    let QuotaWhatIf(outcomes) = evidence
        .quota_what_if()
        .filter(|QuotaWhatIf(outcomes)| outcomes.values().any(|outcome| outcome.periods > 0))?;
    let at_most = outcomes.range(..=limit).next_back().map(Throttled::new);
    let at_least = outcomes.range(limit..).next().map(Throttled::new);
    Some(CpuLimit { limit, at_most, at_least })
}

/// The past under a memory limit in bytes; `None` where no use was seen.
pub fn memory_limit(evidence: &Evidence, limit: u64) -> Option<MemoryLimit> {
    let peaks = || evidence.hours.values().filter_map(|hour| hour.highest());
    let above = || peaks().filter(|peak| peak.bytes > limit);
    let highest = peaks().max()?.clone();
    Some(MemoryLimit {
        limit,
        hours_above: above().count(),
        hours: peaks().count(),
        first: above().min_by_key(|peak| peak.at).cloned(),
        highest: Some(highest),
        kills_seen: evidence.kills().filter(|kill| kill.limit >= limit).count(),
    })
}

/// The past under a CPU request in millicores; `None` where no use was seen.
pub fn cpu_request(evidence: &Evidence, request: u64) -> Option<CpuRequest> {
    let (windows, window_millis, _) = cpu::request_windows(evidence);
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
            let mut quota_what_if = TokenBuckets::default();
            for used in [0, 60, 0, 0] {
                quota_what_if.feed(used * 1_000_000, 100_000_000);
                record.minutes.record(used as f64 / 100.0, 1);
            }
            record.quota_what_if = quota_what_if.take();
            record.peak = Some(Peak { bytes: mib * MIB, at: u64::from(hour), pod: "web-0".to_owned() });
        }
        evidence.hour(Hour(3)).kills.push(OomKill {
            at: 3,
            limit: 250 * MIB,
            pod: "web-0".to_owned(),
            of_pod: false,
        });
        evidence
    }

    #[test]
    fn a_quota_lies_between_two_that_were_watched() {
        let found = cpu_limit(&evidence(), 500).unwrap();
        let (most, least) = (found.at_most.unwrap(), found.at_least.unwrap());
        assert!(most.quota <= 500 && least.quota >= 500 && most.quota < least.quota);
        assert!(most.periods >= least.periods && most.delayed_millis >= least.delayed_millis, "{found:?}");
        let exact = cpu_limit(&evidence(), most.quota).unwrap();
        assert_eq!(exact.at_most, exact.at_least);
        assert_eq!(cpu_limit(&evidence(), 1).unwrap().at_most, None);
        assert_eq!(cpu_limit(&Evidence::new(workload("web"), container("app"), 100), 500), None);
    }

    #[test]
    fn a_limit_below_peaks_would_have_killed() {
        let found = memory_limit(&evidence(), 150 * MIB).unwrap();
        assert_eq!((found.hours_above, found.hours, found.kills_seen), (2, 3, 1));
        assert_eq!((found.first.unwrap().at, found.highest.unwrap().bytes), (2, 300 * MIB));
        let found = memory_limit(&evidence(), 300 * MIB).unwrap();
        assert_eq!((found.hours_above, found.kills_seen, found.first), (0, 0, None));
    }

    #[test]
    fn a_request_is_exceeded_by_time_and_by_work() {
        let found = cpu_request(&evidence(), 300).unwrap();
        assert!((found.time_above - 0.25).abs() < 0.01 && (found.work_above - 0.5).abs() < 0.05, "{found:?}");
        assert!(cpu_request(&evidence(), 700).unwrap().time_above.abs() < 1e-9);
    }
}
