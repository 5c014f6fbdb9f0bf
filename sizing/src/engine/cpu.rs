//! CPU: a request chosen by how often usage will exceed it, and a limit chosen by how often it would throttle.
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
//! It is a quantile of the usage to come, not of the past: [`forecast`] adds the chance that the next day's usage is higher
//! than any before, which is large while little is known. And since the accepted risk is a share of each workload's CPU
//! time, small containers have a lower `λ` ([`Forecast::accepted`]): that costs next to nothing.
//!
//! The CPU time above the quantile is `λ` times the mean excess. On real containers the mean excess is a third of the
//! mean usage ([`Rule::excess`]), so `λ = 3ε` keeps the share of CPU time above the request at `ε`. Where the past days of
//! the cluster show something else, [`replay`] corrects `λ`: by conformal risk control on the mean loss itself, on all days that were ever judged.
//! And where a container's own past says little, its likes lend a little of theirs, as much as has helped on past days (`cluster.rs`).
//!
//! # What is promised, and what is not
//!
//! The mean over workloads of the share of CPU time above requests is what was asked, if days to come are like those that were judged and 20 ÷ risk of them are
//! known. It is not promised for each workload, nor for the sum of all CPU time: a large workload with rare busy days can have most of it.
//! The level is at most 1.6 times the prior's, so where most workloads are steady the mean stays below what was asked.
//!
//! # What did not help
//!
//! Replays of the published traces, at equal CPU time above requests: usage of likes with as much weight as a container's own made the sum of requests up to
//! a fifth larger where likes differ in size, and with a small weight it still does so on the jobs, so the weight is learned; a level corrected by each container's own failures, or
//! by those of its likes, up to a quarter larger, because CPU time above requests is cheapest to avoid at a common level; a level at which no container's own forecast is above the asked share, up to a
//! third larger; losses of more than the CPU time of a usual day, which a heavy tail has, up to 1.6 times as large, since containers that were idle so far
//! lose as much and no request would have been enough; a tail of rises learned by workload up to a quarter larger; a chance of rises by days instead of pod-days, no different. The last day with twice to four times
//! the weight changed less than 1 %.

mod cluster;
mod days;
pub mod forecast;
mod lent;
pub mod replay;

use serde::Serialize;

pub use self::{
    cluster::{ClusterCpu, CpuMember, CpuPast},
    days::JudgedDays,
    forecast::Forecast,
    lent::Lent,
    replay::RequestReplay,
};
use super::{risk::Risk, rule::Rule};
use crate::{
    cpu_quota::QuotaOutcome,
    evidence::{Evidence, HourRecord},
    histogram::Histogram,
};

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
    /// Share of the time in which usage of the next day is expected above the request.
    pub accepted: f64,
    /// Share of the next day's CPU time that is expected above the request.
    pub expected: f64,
    /// Chance that the next day's usage is above all before, 0..=1.
    pub rise: f64,
    /// The level of this cluster divided by the level without any history of it.
    pub calibration: f64,
    /// Length of a window, milliseconds.
    pub window_millis: u64,
    /// Pod-days of usage history.
    pub days: f64,
    /// Pod-days that the usage of likes counts as; 0 where they lend nothing.
    pub likes_days: f64,
    /// Whether the history has start-up alone: no pod ran longer than an hour.
    pub start_up: bool,
}

/// All windows after start-up, or those of start-up where there are no others, as in short jobs.
pub fn windows(evidence: &Evidence) -> (Histogram, bool) {
    let steady = sum(evidence, |hour| &hour.cpu);
    if steady.is_empty() { (sum(evidence, |hour| &hour.cpu_start), true) } else { (steady, false) }
}

/// The CPU usage that a request is chosen from.
///
/// Minutes where they are known, because the rule was fitted on minutes. Shorter windows show higher bursts, but delays of
/// less than a minute are a matter of limits, not of requests. Start-up counts with the share of the time that it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestUsage {
    /// Cores by window.
    pub windows: Histogram,
    /// Length of a window, milliseconds.
    pub window_millis: u64,
    /// Whether it is start-up alone.
    pub start_up: bool,
    /// Pod-days of history.
    days: f64,
}

impl RequestUsage {
    /// Of the whole history.
    pub fn new(evidence: &Evidence) -> Self {
        let WindowsOfRequest { picks, millis } = WindowsOfRequest::new(evidence);
        let [steady, start] = picks.map(|pick| sum(evidence, pick));
        let start_up = steady.is_empty();
        let mut windows = steady;
        windows.merge(&start);
        let days = pod_days(&windows, millis, evidence.pod_days());
        Self { windows, window_millis: millis, start_up, days }
    }

    /// The share of CPU time that is expected above requests in cores on the next day; 0 without usage.
    pub fn expected_above<const N: usize>(&self, requests: [f64; N], lent: &Lent) -> [f64; N] {
        let forecast = Forecast::with_likes(&self.windows, self.days, lent);
        requests.map(|cores| forecast.as_ref().map_or(0.0, |forecast| forecast.work_above(cores)))
    }
}

/// The windows that requests are chosen from.
struct WindowsOfRequest {
    /// After start-up, and in it.
    picks: [Pick; 2],
    /// Their length, milliseconds.
    millis: u64,
}

impl WindowsOfRequest {
    fn new(evidence: &Evidence) -> Self {
        let has_minutes = |hour: &HourRecord| !hour.minutes.is_empty() || !hour.minutes_start.is_empty();
        if evidence.hours.values().any(has_minutes) {
            Self { picks: [|hour| &hour.minutes, |hour| &hour.minutes_start], millis: MINUTE_MILLIS }
        } else {
            Self { picks: [|hour| &hour.cpu, |hour| &hour.cpu_start], millis: evidence.window_millis }
        }
    }
}

/// Whether any CPU time was used.
pub fn is_used(evidence: &Evidence) -> bool {
    let all = |hour: &HourRecord| {
        [&hour.cpu, &hour.cpu_start, &hour.minutes, &hour.minutes_start].map(|windows| windows.sum() > 0.0)
    };
    evidence.hours.values().any(|hour| all(hour).contains(&true))
}

type Pick = fn(&HourRecord) -> &Histogram;

fn sum(evidence: &Evidence, pick: Pick) -> Histogram {
    evidence.hours.values().fold(Histogram::default(), |mut sum, hour| {
        sum.merge(pick(hour));
        sum
    })
}

/// The request for a risk, with what the past days of all workloads show. `None` without CPU usage.
pub fn size(usage: &RequestUsage, rule: Rule, risk: Risk, cluster: &CpuPast) -> Option<CpuSize> {
    let CpuPast { replay, lent } = cluster;
    let RequestUsage { windows, window_millis, start_up, days } = usage;
    // Whole pod-hours, so that the request does not change from minute to minute.
    let forecast = Forecast::with_likes(windows, (days * 24.0).floor() / 24.0, lent)?;
    let level = replay.level(risk.cpu_work, rule);
    let accepted = forecast.accepted(level);
    let cores = forecast.request(accepted);
    Some(CpuSize {
        cores,
        exceeded: windows.share_above(cores),
        work_above: windows.work_above(cores),
        accepted,
        expected: forecast.work_above(cores),
        rise: forecast.rise(),
        calibration: level / RequestReplay::default().level(risk.cpu_work, rule),
        window_millis: *window_millis,
        days: *days,
        likes_days: lent.pod_days(),
        start_up: *start_up,
    })
}

/// Pod-days of history: those of the windows, or more where windows are samples of longer intervals.
fn pod_days(windows: &Histogram, window_millis: u64, observed: f64) -> f64 {
    (windows.count() as f64 * window_millis as f64 / DAY_MILLIS).max(observed)
}

/// The length of the windows that requests are chosen from, milliseconds.
pub fn window_millis(evidence: &Evidence) -> u64 {
    WindowsOfRequest::new(evidence).millis
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
    share_of_periods(hours.fold((0_u64, 0_u64), |sum, hour| {
        (sum.0.saturating_add(hour.periods), sum.1.saturating_add(hour.throttled))
    }))
}

/// The share of periods that were throttled, of all and throttled ones; `None` without periods.
fn share_of_periods((periods, throttled): (u64, u64)) -> Option<f64> {
    (periods > 0).then(|| (throttled as f64 / periods as f64).min(1.0))
}

/// Hours with usage.
pub fn hours(evidence: &Evidence) -> usize {
    evidence.hours.values().filter(|hour| hour.observed > 0).count()
}
