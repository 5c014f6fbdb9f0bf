//! Memory: the highest usage, with older peaks weighted less, plus headroom where headroom is cheap.
//!
//! # Headroom
//!
//! Let `S` be the highest usage and `n` the pod-days of history. The probability that the next day exceeds `S` falls
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
//! added for variation that grows with usage. The sum is the *shape* of the margin; the margin is the shape times a level:
//!
//! ```text
//! limit = S · (1 + u · shape),     shape = relative + √(absolute ÷ (S·(n + 1)))
//! ```
//!
//! The level `u` is the price of a failure, and the same for all workloads of a cluster, whichever are selected. It is the quantile of
//! past scores `(need ÷ S − 1) ÷ shape` of pods at the risk of the user: [`super::calibration`].
//!
//! # What else was tried
//!
//! Growth of the last hours and days, hours since the peak, the spread of usage, failures of its own past and the number of pods were
//! added to the shape, one by one and together, as regressions and as boosted trees, all fitted without the families that they were
//! judged on. They foretell failures, but hardly better than the shape does where a byte has the same price everywhere: with all of them
//! in a regression, the footprint at the same risk was up to 5 % smaller on one set, and up to 11 % larger on another; with trees it was larger on
//! average. So they are left out. Another day of a growth that was seen on each of the last two days, added to the basis, made it 1 % larger, and
//! changes half as frequent again: a rise of two days seldom goes on. So only growth that has all signs of it ([`super::growth`]) is part of the need,
//! then to the end of the horizon.
//!
//! The hour of the day is no input: a limit has to hold for a whole day and longer, which has every hour. How long start-up lasts is none either: a
//! limit has to hold in start-up, too, so a peak of the first hour after a start keeps its weight for as long as the history has it. Only CPU can be
//! given for start-up alone ([`crate::start_up`]).

mod hours;
mod outcome;

use serde::Serialize;

use self::hours::{FADE_TO, FADED, HourPeaks, Kill, Need, PodNumbers, Weighted};
pub use self::outcome::Outcome;
use super::{
    calibration::{Calibration, Delivered, Exceeded, Factors, REFERENCE_LEVEL},
    oom,
    risk::Risk,
    rule::Rule,
};
use crate::evidence::{Evidence, Hour, HourRecord, Peak};

/// Upper bound of a margin, as a share of the highest usage.
const MAX_MARGIN: f64 = 4.0;
/// Hours between trials.
pub const TRIAL_STEP: u32 = 6;
/// Hours after a trial on which it is judged.
pub const TRIAL_DAY: u32 = DAY as u32;
/// Days overlap, so each trial counts as a part of a day.
pub const TRIAL_WEIGHT: f64 = TRIAL_STEP as f64 / DAY as f64;
/// Container-hours of history without which there is no trial.
const TRIAL_FROM: f64 = 1.0;
const DAY: usize = 24;
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
    /// OOM kills of these hours, in their order.
    kills: Vec<Kill>,
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

impl<'e> PeakHistory<'e> {
    /// Takes the peaks of a usage history.
    pub fn new(evidence: &'e Evidence) -> Self {
        let is_killed = evidence.kills().next().is_some();
        let limit = evidence.container.current.memory_limit.filter(|_| !is_killed);
        let (mut pods, mut kills) = (PodNumbers::default(), Vec::new());
        let mut hours: Vec<HourPeaks<'e>> = Vec::with_capacity(evidence.hours.len());
        for (hour, record) in evidence.hours.iter().filter(|(_, record)| record.observed > 0) {
            let mut need = |peak: &'e Option<Peak>| {
                peak.as_ref().map(|peak| Need::new(peak, pods.number(&peak.pod), record, limit))
            };
            let observed = record.observed as f64 / crate::evidence::HOUR as f64;
            let mut it = HourPeaks {
                hour: *hour,
                highest_faded: hours.last().map_or(0, |before| before.highest_faded),
                pods: observed,
                pods_until: hours.last().map_or(0.0, |before| before.pods_until) + observed,
                steady: need(&record.peak),
                start: need(&record.start_peak),
                record,
            };
            let faded = |it: &HourPeaks<'_>| it.with_weight(FADE_TO).map(|it| it.bytes).reduce(f64::max);
            // The first one of all without any peak. None is below any number.
            if faded(&it) > hours.get(it.highest_faded as usize).and_then(faded) {
                it.highest_faded = hours.len() as u32;
            }
            hours.push(it);
            kills.extend(record.kills.iter().map(|kill| Kill {
                hour: *hour,
                limit: kill.limit,
                pod: pods.number(&kill.pod),
            }));
        }
        Self { hours, kills }
    }

    /// The highest usage of each hour, without page cache that filled the limit.
    pub fn highest(&self) -> impl Iterator<Item = Peak> {
        self.hours.iter().filter_map(|it| {
            let Weighted { need, peak, .. } = it.with_weight(1.0).max_by_key(|it| it.need.bytes)?;
            Some(Peak { bytes: need.bytes, ..peak.clone()? })
        })
    }

    /// The peak that decides with the first `end` hours, of which `last` is the last one, observed or not.
    fn highest_at(&self, end: usize, last: Hour) -> Option<Weighted<'e>> {
        let hours = self.hours.get(..end)?;
        let (faded, recent) = hours.split_at(self.before(last.earlier(FADED)).min(end));
        let faded = faded.last().and_then(|it| hours.get(it.highest_faded as usize));
        let faded = faded.into_iter().flat_map(|it| it.with_weight(FADE_TO));
        faded.chain(recent.iter().flat_map(|it| it.weighted(last))).reduce(Weighted::higher)
    }

    /// The basis of a limit. `None` without any peak.
    pub fn basis(&self) -> Option<Basis> {
        let without_cache = !self.hours.iter().all(HourPeaks::is_whole);
        let Weighted { bytes, need, peak, start_up } =
            self.highest_at(self.hours.len(), self.hours.last()?.hour)?;
        let peak = Peak { bytes: need.bytes, ..peak.clone()? };
        Some(Basis { bytes, peak, start_up, without_cache })
    }

    /// Pod-days of the first `end` hours.
    fn pod_days(&self, end: usize) -> f64 {
        let last = end.checked_sub(1).and_then(|last| self.hours.get(last));
        last.map_or(0.0, |it| it.pods_until) / DAY as f64
    }

    /// Mean number of pods in the last day of the first `end` hours, while any ran.
    fn pods(&self, end: usize) -> f64 {
        let newest = end.checked_sub(1).and_then(|last| self.hours.get(last)).map_or(0, |it| it.hour.0);
        let of_day = self.hours.iter().take(end).rev().take_while(|it| newest - it.hour.0 < DAY as u32);
        let (hours, pods) = of_day.fold((0.0, 0.0), |(hours, pods), it| (hours + 1.0, pods + it.pods));
        if hours > 0.0 { pods / hours } else { 0.0 }
    }

    /// The number of hours before one.
    fn before(&self, hour: Hour) -> usize {
        let Some(first) = self.hours.first() else { return 0 };
        // Most histories have every hour.
        let most = self.hours.len().min(hour.0.saturating_sub(first.hour.0) as usize);
        let hours = self.hours.get(..most).unwrap_or_default();
        let is_whole = hours.last().is_none_or(|it| it.hour < hour);
        if is_whole { most } else { hours.partition_point(|it| it.hour < hour) }
    }

    /// The last hour of the history.
    pub fn last(&self) -> Option<Hour> {
        Some(self.hours.last()?.hour)
    }

    /// The hours of trials after which anything was observed for a day, in order.
    pub fn trial_hours(&self) -> Vec<Hour> {
        let mut all: Vec<Hour> = Vec::new();
        for it in &self.hours {
            let from = it.hour.earlier(TRIAL_DAY - 1).0.next_multiple_of(TRIAL_STEP);
            let new = (from..=it.hour.0).step_by(TRIAL_STEP as usize).map(Hour);
            let last = all.last().copied();
            all.extend(new.filter(|at| last.is_none_or(|last| *at > last)));
        }
        all
    }

    /// The decision of the rule at the beginning of an hour, from the hours before it. `None` with too little history.
    pub fn trial(&self, at: Hour, rule: Rule) -> Option<Trial> {
        let end = self.before(at);
        let days = self.pod_days(end);
        let last = Hour(at.0.checked_sub(1)?);
        let Weighted { bytes, .. } =
            self.highest_at(end, last).filter(|_| days * DAY as f64 >= TRIAL_FROM)?;
        let shape = (bytes > 0.0).then(|| shape(rule, bytes, days))?;
        Some(Trial { bytes, shape, pods: self.pods(end) })
    }

    /// What followed in the day after the beginning of an hour. `None` if nothing was observed.
    pub fn outcome(&self, at: Hour) -> Option<Outcome<'e>> {
        let end = at.later(TRIAL_DAY);
        let day = self.hours.get(self.before(at)..self.before(end)).filter(|day| !day.is_empty())?;
        let kills_before = |hour: Hour| self.kills.partition_point(|kill| kill.hour < hour);
        let kills = self.kills.get(kills_before(at)..kills_before(end)).unwrap_or_default();
        Some(Outcome::new(day, kills))
    }

    /// How often past decisions at the reference level were not enough, for all trials whose day is over at the end of the history.
    pub fn exceeded(&self, rule: Rule) -> Exceeded {
        let mut exceeded = Exceeded::default();
        let Some(last) = self.hours.last() else { return exceeded };
        let is_over = |at: &Hour| at.later(TRIAL_DAY) <= last.hour.later(1);
        for at in self.trial_hours().into_iter().take_while(is_over) {
            if let Some((trial, outcome)) = self.trial(at, rule).zip(self.outcome(at)) {
                exceeded.add(trial.exceeds_reference(&outcome), TRIAL_WEIGHT);
            }
        }
        exceeded
    }
}

/// A past decision, made again with what was known then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// The usage that a limit is based on, bytes.
    pub bytes: f64,
    /// The margin at level one, without factors.
    pub shape: f64,
    /// Mean number of pods in the day before.
    pub pods: f64,
}

impl Trial {
    /// The level that would have been enough for a need in bytes.
    fn level(&self, need: f64) -> f64 {
        ((need / self.bytes - 1.0) / self.shape).max(0.0)
    }

    /// The limit at a level with a factor of the margin, bytes.
    pub fn limit(&self, level: f64, factor: f64) -> f64 {
        self.bytes * (1.0 + margin(level, factor, self.shape))
    }

    /// Whether the reference level was not enough, or may not have been.
    pub fn exceeds_reference(&self, outcome: &Outcome<'_>) -> bool {
        outcome.killed > 0.0 || self.level(outcome.need()) > REFERENCE_LEVEL
    }

    /// Pods for which the limit at a level was not enough. `None` where that is not known: a kill at a lower limit does not say whether
    /// a higher one would have been enough.
    pub fn failed(&self, outcome: &Outcome<'_>, level: f64, factor: f64) -> Option<f64> {
        let failed = outcome.pods_above(self.limit(level, factor));
        (failed > 0.0 || outcome.killed <= 0.0).then_some(failed)
    }
}

/// The margin at level one, as a share of the usage `bytes`; `days` are the pod-days of history.
fn shape(rule: Rule, bytes: f64, days: f64) -> f64 {
    // Whole quarters of a day, so that the margin does not change from minute to minute.
    let whole = (days * 4.0).floor() / 4.0;
    rule.relative + (rule.absolute / (bytes * (1.0 + whole))).sqrt()
}

/// The margin as a share of the usage, at a level and with the factors of the calibration.
fn margin(level: f64, factor: f64, shape: f64) -> f64 {
    (level * factor * shape).min(MAX_MARGIN)
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
    /// The level: the price of a failure in the cluster.
    pub level: f64,
    /// The margin at level one, without factors.
    pub shape: f64,
    /// Factors of the margin by the workload's own past and by its likes.
    pub factors: Factors,
    /// What the cluster delivered so far.
    pub record: Option<ClusterRecord>,
    /// Workload-days of likes.
    pub likes_days: f64,
    #[serde(skip)]
    calibration: Calibration,
}

/// What past decisions for a cluster would have delivered, at the risk next to the asked one for which they were made again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClusterRecord {
    /// That risk, OOM kills per pod-day.
    pub risk: f64,
    /// Pod-days that may fail at that risk, and that failed.
    pub delivered: Delivered,
    /// Pod-days judged.
    pub pod_days: f64,
}

/// The basis without any usage: an OOM kill shows that usage reached the limit.
fn killed_basis(evidence: &Evidence) -> Option<Basis> {
    let kill = oom::minimum_limit(evidence)?.kill;
    let peak = Peak { bytes: kill.limit, at: kill.at, pod: kill.pod };
    Some(Basis { bytes: kill.limit as f64, peak, start_up: true, without_cache: false })
}

/// The limit for a risk. `None` without any peak.
pub fn size(evidence: &Evidence, rule: Rule, risk: Risk, calibration: Calibration) -> Option<MemorySize> {
    let history = PeakHistory::new(evidence);
    let basis = history.basis().filter(|basis| basis.bytes > 0.0);
    let basis = basis.or_else(|| killed_basis(evidence)).or_else(|| history.basis())?;
    let all = history.hours.len();
    let days = history.pod_days(all);
    let shape = if basis.bytes > 0.0 { shape(rule, basis.bytes, days) } else { 0.0 };
    let factors = calibration.factors(history.exceeded(rule));
    let level = calibration.level(risk.oom_kills);
    let margin = margin(level, factors.product(), shape);
    let record = calibration.delivered(risk.oom_kills).map(|(risk, delivered)| ClusterRecord {
        risk,
        delivered,
        pod_days: calibration.pod_days(),
    });
    Some(MemorySize {
        bytes: basis.bytes * (1.0 + margin),
        rule,
        basis,
        margin,
        days,
        level,
        shape,
        factors,
        record,
        likes_days: calibration.likes_days(),
        calibration,
    })
}

/// OOM kills per pod-day expected at a limit in bytes, at most 1.
pub fn risk_of(limit: f64, sized: &MemorySize) -> f64 {
    let spare = limit / sized.basis.bytes - 1.0;
    if spare.is_nan() || spare <= 0.0 {
        return 1.0;
    }
    let level = spare / (sized.shape * sized.factors.product());
    if level.is_nan() { 1.0 } else { sized.calibration.risk(level) }
}

#[cfg(test)]
pub(super) mod tests;
