//! How much memory: the highest use that still counts, and a margin that is spent where it is cheap.
//!
//! # The margin
//!
//! Let `S` be the highest use seen and `n` the pod-days that it was the highest of. That the next pod-day exceeds it has a
//! probability that falls like `1/(n + 1)` (of exchangeable days each is as likely to be the highest), and by how much it exceeds it has a heavy
//! tail: on real containers the share of pod-days above a margin `m` falls about like `1/m` (`docs/backtest.md` has the curve). So the risk of a margin is
//! `p(m) ≈ c ÷ (m·(n + 1))`, and its price is `S·m`. The cheapest margins that together keep a given number of failures have the same
//! price of one failure less everywhere: `S = −λ·p′(m)`, hence
//!
//! ```text
//! m ∝ 1 ÷ √(S·(n + 1))
//! ```
//!
//! Small containers get a large margin, which costs little, and large ones a small one; a day's history needs more than a month's,
//! and one replica more than many. No floor is needed. To it comes a share of `S` for what grows with it, and all of it is
//! scaled by risk: half the failures for twice the margin, since `p ∝ 1/m`.

use serde::Serialize;

use super::{calibration::Tally, risk::Risk, rule::Rule};
use crate::evidence::{Evidence, Hour, Peak};

/// OOM kills per pod-day for which the margin is what the constants say: what replays have shown of them.
const REFERENCE_RISK: f64 = 0.0025;
/// A margin is at most this many times the highest use.
const MAX_MARGIN: f64 = 2.0;
/// What a peak loses of its weight with each day that has passed since.
const FADE_PER_DAY: f64 = 0.15;
/// What it keeps at least, as long as it is in the window: the peak of last week may come again.
const FADE_TO: f64 = 0.6;
/// Failures that the rule is trusted for against a workload's own past, and against the pool's.
const OWN_STRENGTH: f64 = 2.0;
const POOL_STRENGTH: f64 = 20.0;
/// Hours of history before a replay asks what would have been said, and hours between its questions.
const REPLAY_FROM: usize = 24;
const REPLAY_STEP: usize = 6;
const DAY: usize = 24;

/// The use that a limit is built on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Basis {
    /// Bytes: the peak, less what time has taken of its weight.
    pub bytes: f64,
    /// The peak that decided.
    pub peak: Peak,
    /// Whether it happened in start-up. Such a peak does not fade: the next start needs it again.
    pub start_up: bool,
}

/// Peaks by hour, oldest first.
#[derive(Clone, Debug)]
pub struct PeakHistory<'e> {
    hours: Vec<HourPeaks<'e>>,
}

#[derive(Clone, Copy, Debug)]
struct HourPeaks<'e> {
    hour: Hour,
    /// Hours of watched containers.
    pods: f64,
    steady: Option<&'e Peak>,
    start: Option<&'e Peak>,
}

impl HourPeaks<'_> {
    fn highest(&self) -> f64 {
        self.steady.max(self.start).map_or(0.0, |peak| peak.bytes as f64)
    }
}

impl<'e> PeakHistory<'e> {
    /// The peaks that evidence has.
    pub fn new(evidence: &'e Evidence) -> Self {
        let hours = evidence
            .hours
            .iter()
            .filter(|(_, record)| record.observed > 0)
            .map(|(hour, record)| HourPeaks {
                hour: *hour,
                pods: record.observed as f64 / crate::evidence::HOUR as f64,
                steady: record.peak.as_ref(),
                start: record.start_peak.as_ref(),
            })
            .collect();
        Self { hours }
    }

    /// What a limit from the hours before `end` (an index) would be built on, as seen from the last of them.
    fn basis_at(&self, end: usize) -> Option<Basis> {
        let now = self.hours.get(end.checked_sub(1)?)?.hour;
        let faded = |it: &HourPeaks<'e>| {
            let days = f64::from(now.0 - it.hour.0) / DAY as f64;
            let weight = (1.0 - FADE_PER_DAY * days).max(FADE_TO);
            let steady = it.steady.map(|peak| (peak.bytes as f64 * weight, peak, false));
            let start = it.start.map(|peak| (peak.bytes as f64, peak, true));
            steady.into_iter().chain(start)
        };
        // Of equal ones the earlier, so that an explanation does not change from hour to hour.
        let best = self
            .hours
            .iter()
            .take(end)
            .flat_map(faded)
            .reduce(|best, it| if it.0 > best.0 { it } else { best })?;
        let (bytes, peak, start_up) = best;
        Some(Basis { bytes, peak: peak.clone(), start_up })
    }

    /// What a limit is built on. `None` without any peak.
    pub fn basis(&self) -> Option<Basis> {
        self.basis_at(self.hours.len())
    }

    /// Pod-days before an index, less by the part of the week that was not seen.
    fn trusted_days(&self, end: usize) -> f64 {
        let hours = self.hours.iter().take(end);
        let weekdays = hours.clone().fold(0_u32, |days, it| days | 1 << it.hour.weekday()).count_ones();
        hours.map(|it| it.pods).sum::<f64>() / DAY as f64 * f64::from(weekdays) / 7.0
    }

    /// Asks every six hours of the past what the rule would have said then, and looks at the day after: failures seen, and those to be
    /// expected. At one risk, whatever is asked for: else a lower risk, having failed less often in the past, might ask for less.
    pub fn tally(&self, rule: Rule) -> Tally {
        let risk = REFERENCE_RISK;
        let mut tally = Tally::default();
        let mut end = REPLAY_FROM;
        while end + 1 < self.hours.len() {
            let next: Vec<_> = self.hours.iter().skip(end).take(DAY).collect();
            if let Some(basis) = self.basis_at(end) {
                // Days overlap: each question is worth a quarter, and less where the day after is not over.
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

/// The margin at the reference risk, as a part of the use: `bytes` the use, `days` the pod-days of history.
fn shape(rule: Rule, bytes: f64, days: f64) -> f64 {
    rule.relative + (rule.absolute / (bytes * (1.0 + days))).sqrt()
}

/// The margin as a part of the use, 0..=2: `bytes` the use, `days` the pod-days of history, `risk` in OOM kills per pod-day, `factor` how much more often than
/// expected the rule has failed.
pub fn margin(rule: Rule, bytes: f64, days: f64, risk: f64, factor: f64) -> f64 {
    if bytes <= 0.0 {
        return 0.0;
    }
    (REFERENCE_RISK / risk * factor * shape(rule, bytes, days)).min(MAX_MARGIN)
}

/// A limit with all that went into it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemorySize {
    /// Bytes, not rounded.
    pub bytes: f64,
    /// The constants.
    pub rule: Rule,
    /// What it is built on.
    pub basis: Basis,
    /// The margin, as a part of the basis.
    pub margin: f64,
    /// Pod-days of history.
    pub days: f64,
    /// By how much replays have scaled the margin: the workload's own, and the pool's.
    pub own_factor: f64,
    /// See `own_factor`.
    pub pool_factor: f64,
}

/// Failures that the rule would have had in the past of this workload, and those to be expected: what a pool is made of.
pub fn tally(evidence: &Evidence, rule: Rule) -> Tally {
    PeakHistory::new(evidence).tally(rule)
}

/// The limit for a risk. `None` without any peak.
pub fn size(evidence: &Evidence, rule: Rule, risk: Risk, pool: Tally) -> Option<MemorySize> {
    let history = PeakHistory::new(evidence);
    let basis = history.basis()?;
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

/// OOM kills per pod-day to expect of a limit, by the same rule read backwards; at most 1.
pub fn risk_of(limit: f64, sized: &MemorySize) -> f64 {
    let spare = limit / sized.basis.bytes - 1.0;
    if spare.is_nan() || spare <= 0.0 {
        return 1.0;
    }
    let shape = shape(sized.rule, sized.basis.bytes, sized.days);
    (REFERENCE_RISK * sized.own_factor * sized.pool_factor * shape / spare).min(1.0)
}
