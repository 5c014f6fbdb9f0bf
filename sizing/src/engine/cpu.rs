//! CPU: a request chosen by how often usage exceeds it, and a limit chosen by how often it would throttle.
//!
//! # The request
//!
//! A request that is one core higher reserves one more core all the time, but helps only while usage is above the request.
//! The cheapest set of requests with a given total of CPU time above them is therefore exceeded for the same share `λ` of
//! the time in every container (the critical fractile of the
//! [newsvendor problem](https://en.wikipedia.org/wiki/Newsvendor_model)). So a request is a quantile of CPU usage over all
//! replicas, without a percentage added. A fixed percentage would be too much for steady containers and too little for
//! bursty ones.
//!
//! The CPU time above that quantile is `λ` times the mean excess. On real containers the mean excess is about half the mean
//! usage ([`Rule::excess`]), so `λ = 2ε` keeps the share of CPU time above the request at `ε`.

use serde::Serialize;

use super::{risk::Risk, rule::Rule};
use crate::{
    cpu_quota::QuotaOutcome,
    evidence::{Evidence, HourRecord},
    histogram::Histogram,
};

/// Pod-days of the prior: with half a day of history, the request is one that usage exceeded half as often.
const DOUBT: f64 = 0.5;
/// Milliseconds in a minute.
const MINUTE_MILLIS: u64 = 60_000;
/// Milliseconds in a day.
const DAY_MILLIS: f64 = 86_400_000.0;

/// Hours with CFS periods that count for the current limit.
const HOURS_OF_LIMIT: usize = 24;

/// A CPU request before rounding, with its inputs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuSize {
    /// The request, cores.
    pub cores: f64,
    /// Share of the time in which usage was above the request.
    pub exceeded: f64,
    /// Share of all CPU time that was above the request.
    pub work_above: f64,
    /// Length of a window, milliseconds.
    pub window_millis: u64,
    /// Pod-days of usage history.
    pub days: f64,
    /// Whether the history has start-up alone: no pod ran longer than an hour.
    pub start_up: bool,
}

/// All windows after start-up, or those of start-up where there are no others, as in short jobs.
pub fn windows(evidence: &Evidence) -> (Histogram, bool) {
    steady_or_start(evidence, |hour| &hour.cpu, |hour| &hour.cpu_start)
}

/// The CPU usage that a request is chosen from, the length of its windows in milliseconds, and whether it is start-up.
///
/// Minutes where they are known, because the rule was fitted on minutes. Shorter windows show higher bursts, but delays of
/// less than a minute are a matter of limits, not of requests.
pub fn request_windows(evidence: &Evidence) -> (Histogram, u64, bool) {
    let (minutes, start_up) = steady_or_start(evidence, |hour| &hour.minutes, |hour| &hour.minutes_start);
    if minutes.is_empty() {
        let (windows, start_up) = windows(evidence);
        return (windows, evidence.window_millis, start_up);
    }
    (minutes, MINUTE_MILLIS, start_up)
}

/// Whether any CPU time was used.
pub fn is_used(evidence: &Evidence) -> bool {
    let all = |hour: &HourRecord| {
        [&hour.cpu, &hour.cpu_start, &hour.minutes, &hour.minutes_start].map(|windows| windows.sum() > 0.0)
    };
    evidence.hours.values().any(|hour| all(hour).contains(&true))
}

type Pick = fn(&HourRecord) -> &Histogram;

fn steady_or_start(evidence: &Evidence, steady: Pick, start: Pick) -> (Histogram, bool) {
    let sum = |pick: Pick| {
        evidence.hours.values().fold(Histogram::default(), |mut sum, hour| {
            sum.merge(pick(hour));
            sum
        })
    };
    let steady = sum(steady);
    if steady.is_empty() { (sum(start), true) } else { (steady, false) }
}

/// The request for a risk. `None` without CPU usage.
pub fn size(evidence: &Evidence, rule: Rule, risk: Risk) -> Option<CpuSize> {
    let (windows, window_millis, start_up) = request_windows(evidence);
    let days = windows.count() as f64 * window_millis as f64 / DAY_MILLIS;
    // Whole pod-hours, so that the share does not change from minute to minute.
    let exceeded = exceeded(rule, risk, (days * 24.0).floor() / 24.0);
    let cores = windows.quantile(1.0 - exceeded)?;
    Some(CpuSize { cores, exceeded, work_above: windows.work_above(cores), window_millis, days, start_up })
}

/// The share of the time in which usage may exceed the request, for a risk and a number of pod-days of history.
fn exceeded(rule: Rule, risk: Risk, days: f64) -> f64 {
    (risk.cpu_work / rule.excess).min(1.0) * days / (days + DOUBT)
}

/// The smallest simulated quota, millicores and at least the request, whose throttling is within the risk.
pub fn limit(evidence: &Evidence, risk: Risk, request: u64) -> Option<(u64, QuotaOutcome)> {
    evidence.quota_what_if()?.smallest(risk.throttled, request)
}

/// The share of CFS periods that the current CPU limit throttled in the last day of the history, 0..=1; `None` without
/// periods. Earlier periods may be those of another limit.
pub fn throttled(evidence: &Evidence) -> Option<f64> {
    let with_periods = evidence.hours.values().rev().filter(|hour| hour.periods > 0);
    share(with_periods.take(HOURS_OF_LIMIT))
}

/// The share of CFS periods that CPU limits throttled in the whole history, 0..=1; `None` without periods.
pub fn throttled_ever(evidence: &Evidence) -> Option<f64> {
    share(evidence.hours.values())
}

fn share<'e>(hours: impl Iterator<Item = &'e HourRecord>) -> Option<f64> {
    let (periods, throttled) = hours.fold((0_u64, 0_u64), |sum, hour| {
        (sum.0.saturating_add(hour.periods), sum.1.saturating_add(hour.throttled))
    });
    (periods > 0).then(|| (throttled as f64 / periods as f64).min(1.0))
}

/// Hours with usage.
pub fn hours(evidence: &Evidence) -> usize {
    evidence.hours.values().filter(|hour| hour.observed > 0).count()
}
