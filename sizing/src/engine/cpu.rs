//! How much CPU: a request by the share of time that it is exceeded, and a limit by what it would throttle.
//!
//! # The request
//!
//! A request that is a core higher costs a core all the time, and saves work from waiting only while use is above it. The cheapest
//! requests that together leave a given amount of work above them are therefore exceeded during the same share `λ` of the time
//! everywhere (the critical fractile of the [newsvendor problem](https://en.wikipedia.org/wiki/Newsvendor_model)): a quantile of the windows of all
//! replicas, no multiple of it. A margin in percent would be too much for steady containers and too little for bursty ones.
//!
//! How much work lies above that quantile is `λ` times the mean excess. On real containers the mean excess is about half the mean use
//! ([`Rule::excess`]), so a share of work `ε` is kept by `λ = 2ε`.

use serde::Serialize;

use super::{risk::Risk, rule::Rule};
use crate::{
    cpu_quota::QuotaOutcome,
    evidence::{Evidence, HourRecord},
    histogram::Histogram,
};

/// Pod-days that history is taken to lack: with half a day of history the request is one that was exceeded half as often.
const DOUBT: f64 = 0.5;
/// Milliseconds in a minute.
const MINUTE_MILLIS: u64 = 60_000;
/// Milliseconds in a day.
const DAY_MILLIS: f64 = 86_400_000.0;

/// A request with all that went into it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuSize {
    /// Cores, not rounded.
    pub cores: f64,
    /// Share of time in which use was above it.
    pub exceeded: f64,
    /// Share of the work that was above it.
    pub work_above: f64,
    /// Length of the windows, milliseconds.
    pub window_millis: u64,
    /// Pod-days of windows.
    pub days: f64,
    /// Whether nothing but start-up was seen.
    pub start_up: bool,
}

/// All windows of the evidence, after start-up; those of start-up where there is nothing else, as in short jobs.
pub fn windows(evidence: &Evidence) -> (Histogram, bool) {
    steady_or_start(evidence, |hour| &hour.cpu, |hour| &hour.cpu_start)
}

/// What a request is read off, and the length of its windows in milliseconds: minutes where they are known, because the rule was fitted on
/// them. In shorter windows bursts are higher, but work that waits for a moment is what limits are about.
pub fn request_windows(evidence: &Evidence) -> (Histogram, u64, bool) {
    let (minutes, start_up) = steady_or_start(evidence, |hour| &hour.minutes, |hour| &hour.minutes_start);
    if minutes.is_empty() {
        let (windows, start_up) = windows(evidence);
        return (windows, evidence.window_millis, start_up);
    }
    (minutes, MINUTE_MILLIS, start_up)
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

/// The request for a risk. `None` without any window.
pub fn size(evidence: &Evidence, rule: Rule, risk: Risk) -> Option<CpuSize> {
    let (windows, window_millis, start_up) = request_windows(evidence);
    let days = windows.count() as f64 * window_millis as f64 / DAY_MILLIS;
    let exceeded = exceeded(rule, risk, days);
    let cores = windows.quantile(1.0 - exceeded)?;
    Some(CpuSize { cores, exceeded, work_above: windows.work_above(cores), window_millis, days, start_up })
}

/// The share of time in which the request may be exceeded, for a risk and with so many pod-days of history.
fn exceeded(rule: Rule, risk: Risk, days: f64) -> f64 {
    (risk.cpu_work / rule.excess).min(1.0) * days / (days + DOUBT)
}

/// The smallest quota, in millicores and at least the request, that keeps the risk of being throttled.
pub fn limit(evidence: &Evidence, risk: Risk, request: u64) -> Option<(u64, QuotaOutcome)> {
    evidence.quota_what_if()?.smallest(risk.throttled, request)
}
