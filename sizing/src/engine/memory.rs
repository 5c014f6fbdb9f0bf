//! Memory: the highest usage, with older peaks weighted less, plus headroom where headroom is cheap.
//!
//! # Headroom
//!
//! Let `S` be the highest usage and `n` the pod-days of history. The probability that the next pod-day exceeds `S` falls
//! like `1/(n + 1)`, because each of a number of exchangeable days is equally likely to be the highest. The amount by which
//! it exceeds `S` has a heavy tail: on real containers, the share of pod-days above a headroom of `m·S` falls about like
//! `1/m` (`docs/backtest.md` has the curve). So the risk is `p(m) ≈ c ÷ (m·(n + 1))`, and the cost is `S·m`. The cheapest
//! headrooms for a given total of failures are those where avoiding one more failure costs the same in every container:
//! `S = −λ·p′(m)`, hence
//!
//! ```text
//! m ∝ 1 ÷ √(S·(n + 1))
//! ```
//!
//! Small containers get a large share of headroom, which costs little; large containers get a small share. A day of history
//! needs more headroom than a month, and one replica more than many. No minimum value is needed. A fixed share of `S` is
//! added for variation that grows with usage. The sum is scaled by the risk: half the failures cost twice the headroom,
//! since `p ∝ 1/m`. In the code the share `m` is called the margin.

use serde::Serialize;

use super::{advice::AdviceRule, calibration::Tally, oom, risk::Risk, rule::Rule};
use crate::evidence::{Evidence, Hour, HourRecord, Peak};

/// OOM kills per pod-day at which the constants give the margin without scaling, as measured by back-tests.
const REFERENCE_RISK: f64 = 0.0025;
/// Upper bound of a margin, as a share of the highest usage.
const MAX_MARGIN: f64 = 2.0;
/// Weight that a peak loses with each day of its age.
const FADE_PER_DAY: f64 = 0.15;
/// Weight that a peak keeps while it is in the history: the peak of last week may come again.
const FADE_TO: f64 = 0.6;
/// Strength of the prior in failures, for the workload's own history and for the pool ([`Tally::factor`]).
const OWN_STRENGTH: f64 = 2.0;
const POOL_STRENGTH: f64 = 20.0;
/// Hours of history before the first replayed decision, and hours between replayed decisions.
const REPLAY_FROM: usize = 24;
const REPLAY_STEP: usize = 6;
const DAY: usize = 24;
/// A peak above this share of the memory limit was bounded by the limit.
const AT_LIMIT: f64 = 0.95;
/// Above this share of the time stalled on memory, page cache is needed: without it, the container waits for its files.
const MAX_STALLED: f64 = 0.01;
/// Less memory than any task has, bytes: its kernel stack alone is larger.
const NO_TASK: u64 = 16 << 10;

/// The usage that a limit is based on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Basis {
    /// The peak times the weight of its age, bytes.
    pub bytes: f64,
    /// The peak with the highest weighted value. Where page cache filled the limit, without it.
    pub peak: Peak,
    /// Whether the peak was in start-up. Such a peak keeps its weight: the next start needs the memory again.
    pub start_up: bool,
    /// Whether page cache that filled the limit was left out of a peak.
    pub without_cache: bool,
}

/// Peaks by hour, oldest first.
#[derive(Clone, Debug)]
pub struct PeakHistory<'e> {
    hours: Vec<HourPeaks<'e>>,
}

#[derive(Clone, Copy, Debug)]
struct HourPeaks<'e> {
    hour: Hour,
    /// Container-hours observed.
    pods: f64,
    steady: Option<Need<'e>>,
    start: Option<Need<'e>>,
}

/// A peak with the part of it that is a need.
#[derive(Clone, Copy, Debug)]
struct Need<'e> {
    /// Bytes.
    bytes: u64,
    peak: &'e Peak,
}

impl<'e> Need<'e> {
    /// The need behind a peak. Page cache grows until it meets the limit. So of a peak at the limit, only unreclaimable memory is a
    /// need, unless the container waited for memory. `cache_limit` is the limit; `None` if a limit was hit by an OOM kill.
    fn new(peak: &'e Peak, record: &HourRecord, cache_limit: Option<u64>) -> Self {
        let stalled = record.stalled.memory_millis as f64 / 1000.0;
        let is_at_limit = cache_limit.is_some_and(|limit| peak.bytes as f64 >= limit as f64 * AT_LIMIT);
        let is_cache = is_at_limit && stalled <= MAX_STALLED * record.observed as f64;
        let unreclaimable = unreclaimable_peak(record).filter(|_| is_cache && AdviceRule::PageCache.is_on());
        Self { bytes: unreclaimable.map_or(peak.bytes, |bytes| bytes.min(peak.bytes)), peak }
    }
}

/// The highest unreclaimable memory of an hour, bytes; at most the highest usage, which is exact, while this is a bound of a bucket.
/// `None` if it is not known.
pub fn unreclaimable_peak(record: &HourRecord) -> Option<u64> {
    let bytes = record.unreclaimable.quantile(1.0)? as u64;
    Some(record.highest().map_or(bytes, |peak| bytes.min(peak.bytes)))
}

/// Whether memory was observed, but no more than a cgroup without tasks has: a sandboxed runtime keeps it elsewhere.
pub fn is_unused(evidence: &Evidence) -> bool {
    let mut peaks = evidence.hours.values().filter_map(HourRecord::highest).peekable();
    peaks.peek().is_some() && peaks.all(|peak| peak.bytes < NO_TASK)
}

impl HourPeaks<'_> {
    fn highest(&self) -> f64 {
        let bytes = |need: Option<Need<'_>>| need.map_or(0, |need| need.bytes);
        bytes(self.steady).max(bytes(self.start)) as f64
    }
}

impl<'e> PeakHistory<'e> {
    /// Takes the peaks of a usage history.
    pub fn new(evidence: &'e Evidence) -> Self {
        let is_killed = evidence.kills().next().is_some();
        let limit = evidence.container.current.memory_limit.filter(|_| !is_killed);
        let hours = evidence
            .hours
            .iter()
            .filter(|(_, record)| record.observed > 0)
            .map(|(hour, record)| {
                let need = |peak: &'e Option<Peak>| peak.as_ref().map(|peak| Need::new(peak, record, limit));
                HourPeaks {
                    hour: *hour,
                    pods: record.observed as f64 / crate::evidence::HOUR as f64,
                    steady: need(&record.peak),
                    start: need(&record.start_peak),
                }
            })
            .collect();
        Self { hours }
    }

    /// The highest usage of each hour, without page cache that filled the limit.
    pub fn highest(&self) -> impl Iterator<Item = Peak> {
        self.hours.iter().filter_map(|it| {
            let highest = it.steady.into_iter().chain(it.start).max_by_key(|need| need.bytes)?;
            Some(Peak { bytes: highest.bytes, ..highest.peak.clone() })
        })
    }

    /// The basis of a limit decided at the index `end`, from the hours before it.
    fn basis_at(&self, end: usize) -> Option<Basis> {
        let now = self.hours.get(end.checked_sub(1)?)?.hour;
        let faded = |it: &HourPeaks<'e>| {
            let days = f64::from(now.0 - it.hour.0) / DAY as f64;
            let weight = (1.0 - FADE_PER_DAY * days).max(FADE_TO);
            let steady = it.steady.map(|need| (need.bytes as f64 * weight, need, false));
            let start = it.start.map(|need| (need.bytes as f64, need, true));
            steady.into_iter().chain(start)
        };
        // The earlier of equal peaks, so that an explanation does not change from hour to hour.
        let best = self
            .hours
            .iter()
            .take(end)
            .flat_map(faded)
            .reduce(|best, it| if it.0 > best.0 { it } else { best })?;
        let (bytes, need, start_up) = best;
        let peak = Peak { bytes: need.bytes, ..need.peak.clone() };
        Some(Basis { bytes, peak, start_up, without_cache: false })
    }

    /// The basis of a limit. `None` without any peak.
    pub fn basis(&self) -> Option<Basis> {
        let mut needs = self.hours.iter().flat_map(|it| it.steady.into_iter().chain(it.start));
        let without_cache = needs.any(|need| need.bytes < need.peak.bytes);
        Some(Basis { without_cache, ..self.basis_at(self.hours.len())? })
    }

    /// Pod-days before the index `end`, times the share of the weekdays that were observed.
    fn trusted_days(&self, end: usize) -> f64 {
        let hours = self.hours.iter().take(end);
        let weekdays = hours.clone().fold(0_u32, |days, it| days | 1 << it.hour.weekday()).count_ones();
        hours.map(|it| it.pods).sum::<f64>() / DAY as f64 * f64::from(weekdays) / 7.0
    }

    /// Replays the rule every six hours of the history and checks each limit against the day that followed.
    ///
    /// Always at the reference risk. At the risk of the user, a lower risk would fail less often in the replay, and the
    /// calibration could then give it less headroom than a higher risk.
    pub fn tally(&self, rule: Rule) -> Tally {
        let risk = REFERENCE_RISK;
        let mut tally = Tally::default();
        let mut end = REPLAY_FROM;
        while end + 1 < self.hours.len() {
            let next: Vec<_> = self.hours.iter().skip(end).take(DAY).collect();
            if let Some(basis) = self.basis_at(end) {
                // The checked days overlap: each decision counts a quarter, and less where the day has not ended.
                let weight = REPLAY_STEP as f64 / DAY as f64 * next.len() as f64 / DAY as f64;
                let limit =
                    basis.bytes * (1.0 + margin(rule, basis.bytes, self.trusted_days(end), risk, 1.0));
                let failed = next.iter().any(|it| it.highest() > limit);
                let pod_days = next.iter().map(|it| it.pods).sum::<f64>() / DAY as f64;
                let seen = if failed { weight } else { 0.0 };
                tally.add(seen, pod_days * REPLAY_STEP as f64 / DAY as f64 * risk);
            }
            end += REPLAY_STEP;
        }
        tally
    }
}

/// The margin at the reference risk, as a share of the usage `bytes`; `days` are the pod-days of history.
fn shape(rule: Rule, bytes: f64, days: f64) -> f64 {
    rule.relative + (rule.absolute / (bytes * (1.0 + days))).sqrt()
}

/// The margin as a share of the usage `bytes`, 0..=2; `days` are the pod-days of history, `risk` is in OOM kills per pod-day,
/// and `factor` is the calibration ([`Tally::factor`]).
pub fn margin(rule: Rule, bytes: f64, days: f64, risk: f64, factor: f64) -> f64 {
    if bytes <= 0.0 {
        return 0.0;
    }
    (REFERENCE_RISK / risk * factor * shape(rule, bytes, days)).min(MAX_MARGIN)
}

/// A memory limit before rounding, with its inputs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemorySize {
    /// The limit, bytes.
    pub bytes: f64,
    /// The fitted constants.
    pub rule: Rule,
    /// The usage that the limit is based on.
    pub basis: Basis,
    /// Headroom as a share of the basis.
    pub margin: f64,
    /// Pod-days of history.
    pub days: f64,
    /// Calibration of the margin by the workload's own history.
    pub own_factor: f64,
    /// Calibration of the margin by the pool.
    pub pool_factor: f64,
}

/// Failures of the rule in a replay of this workload's history: one part of a [`super::Pool`].
pub fn tally(evidence: &Evidence, rule: Rule) -> Tally {
    PeakHistory::new(evidence).tally(rule)
}

/// The basis without any usage: an OOM kill shows that usage reached the limit.
fn killed_basis(evidence: &Evidence) -> Option<Basis> {
    let kill = oom::minimum_limit(evidence)?.kill;
    let peak = Peak { bytes: kill.limit, at: kill.at, pod: kill.pod };
    Some(Basis { bytes: kill.limit as f64, peak, start_up: true, without_cache: false })
}

/// The limit for a risk. `None` without any peak.
pub fn size(evidence: &Evidence, rule: Rule, risk: Risk, pool: Tally) -> Option<MemorySize> {
    let history = PeakHistory::new(evidence);
    let basis = history.basis().filter(|basis| basis.bytes > 0.0);
    let basis = basis.or_else(|| killed_basis(evidence)).or_else(|| history.basis())?;
    let days = history.trusted_days(history.hours.len());
    let own_factor = history.tally(rule).factor(OWN_STRENGTH);
    let pool_factor = pool.factor(POOL_STRENGTH);
    let margin = margin(rule, basis.bytes, days, risk.oom_kills, own_factor * pool_factor);
    Some(MemorySize {
        bytes: basis.bytes * (1.0 + margin),
        rule,
        basis,
        margin,
        days,
        own_factor,
        pool_factor,
    })
}

/// OOM kills per pod-day expected at a limit in bytes, at most 1: the inverse of [`margin`].
pub fn risk_of(limit: f64, sized: &MemorySize) -> f64 {
    let spare = limit / sized.basis.bytes - 1.0;
    if spare.is_nan() || spare <= 0.0 {
        return 1.0;
    }
    let shape = shape(sized.rule, sized.basis.bytes, sized.days);
    (REFERENCE_RISK * sized.own_factor * sized.pool_factor * shape / spare).min(1.0)
}
