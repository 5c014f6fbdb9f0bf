//! Calibration: corrects the rule by how often it was not enough in the past, on one workload, on its likes and on all of the
//! cluster.
//!
//! # From the risk to a level
//!
//! A rule gives a value for each *level* `u`, the same for all workloads ([`super::memory`]). The trials of all workloads give the curve
//! `F(u)`, the share of workload-days on which the level was not enough ([`super::curve`]). A workload with `n` pods has `n` pod-days a day, so
//! the share of all pod-days is `F(u) ÷ n̄`, where `n̄` is the mean number of pods. For a risk `r` the level is `F⁻¹(r·n̄)`.
//!
//! # Feedback
//!
//! Trials are alike only so far: on some days many workloads grow. So what was delivered is fed back. Each past decision is made again with
//! what was known then, for a few risks, and judged when its day is over; the risk that enters is
//!
//! ```text
//! r · (asked + c) ÷ (seen + c)
//! ```
//!
//! with the pod-days asked for and seen so far; `c` is the strength of the prior. This is the mean of the Gamma–Poisson model. Like adaptive
//! conformal inference ([Gibbs and Candès 2021](https://arxiv.org/abs/2106.00170)) it answers failures that were not asked for with a lower
//! risk, but it does not sum them up without end, so it corrects in part: where the curve alone would deliver four times what was asked,
//! twice as much remains. Results between those few risks are interpolated, and a lower risk never gets a lower level.
//!
//! # Where it lags
//!
//! All past days count alike, however old. Where all workloads use nearly the same amount every day, their scores rise with their history,
//! because shapes fall with it: in simulations up to twice as much was delivered as was asked at 10 and 5 %. Counting a day half after a week
//! would halve the excess, and changes nothing on recorded usage of four and ten days.
//!
//! # Likes and own past
//!
//! Of two workloads, the one that exceeded a reference level more often than all did will do so again, but less so: the ratio of both shares
//! shrinks to one, with the strength of one day above the level, first for the likes to the cluster, then for the workload to its likes. A margin
//! of a workload with `k` times the risk is cheapest if `√k` times as large, for the reason given in [`super::memory`]. The trials above are
//! judged with this factor, so that the curve knows it.
//!
//! # Constants
//!
//! Chosen by hand in November 2026 on three sets: two of an OpenShift cluster (472 workloads) and one of Google's (126 jobs), with
//! the deciding families left out, halves of either cluster as clusters of their own, and hourly peaks as input. The prior is between the
//! clusters: heavier than OpenShift's, lighter than that of the jobs. Within factors of two they make little difference.
//! `docs/backtest.md` shows what they deliver; whoever changes them runs `cargo xtask backtest`.

use serde::Serialize;

use super::{
    cpu::CpuPast,
    curve::{Curve, Prior, Scores},
};

/// The curve before any trial.
pub const PRIOR: Prior = Prior { first: 0.6, knee: 0.3, power: 1.7, trials: 10.0, steps: 10.0 };
/// Risks for which past decisions are made again, in OOM kills per pod-day, descending.
pub const RISKS: [f64; STEPS] = [0.1, 0.05, 0.02, 0.01, 0.005, 0.0025, 0.001, 0.0005];
/// Number of these risks.
pub const STEPS: usize = 8;
/// Strength of the prior of the feedback, in failures.
const FEEDBACK: f64 = 5.0;
/// Mean number of pods per workload where nothing of a cluster is known.
const PODS: f64 = 3.0;
/// Workload-days that the mean number of pods of today is worth beside that of the past.
const PODS_TODAY: f64 = 30.0;
/// The level at which likes and a workload's own past are compared.
pub const REFERENCE_LEVEL: f64 = 0.8;
/// Strength of the priors of likes and of the own past, in days above the reference level: where few are expected, few that were
/// seen say little.
const COMPARISON: f64 = 1.0;
/// Bounds of the factor of a margin.
const FACTORS: (f64, f64) = (0.5, 4.0);

/// How often the reference level was exceeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Exceeded {
    /// Workload-days above it.
    pub above: f64,
    /// All workload-days.
    pub days: f64,
}

impl Exceeded {
    /// Counts a trial with a weight.
    pub fn add(&mut self, is_above: bool, weight: f64) {
        self.above += if is_above { weight } else { 0.0 };
        self.days += weight;
    }

    /// Without what is part of it.
    #[must_use]
    pub fn without(self, part: Self) -> Self {
        Self { above: (self.above - part.above).max(0.0), days: (self.days - part.days).max(0.0) }
    }

    /// The share relative to an expected one, with a prior of [`COMPARISON`] days above.
    fn relative_to(self, expected: f64) -> f64 {
        (self.above + COMPARISON) / (self.days * expected + COMPARISON)
    }

    /// The share, with a prior of a strength in workload-days.
    fn share(self, prior: f64, strength: f64) -> f64 {
        (self.above + prior * strength) / (self.days + strength)
    }
}

/// What was asked and what was delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Delivered {
    /// Pod-days that may fail.
    pub asked: f64,
    /// Pod-days that failed.
    pub seen: f64,
}

/// What the past of a cluster says about its workloads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterPast {
    /// Scores of all trials.
    pub scores: Scores,
    /// Pod-days of all trials.
    pub pod_days: f64,
    /// Mean number of pods per workload today; 0 without any.
    pub pods_today: f64,
    /// How often the reference level was exceeded.
    pub exceeded: Exceeded,
    /// By risk of [`RISKS`].
    pub delivered: [Delivered; STEPS],
}

impl ClusterPast {
    /// The calibration of a workload, whose likes exceeded the reference level so often; they do not include itself.
    pub fn calibration(&self, likes: Exceeded) -> Calibration {
        let days = self.scores.trials();
        let today = if self.pods_today > 0.0 { self.pods_today } else { PODS };
        let pods = ((self.pod_days + PODS_TODAY * today) / (days + PODS_TODAY)).max(f64::MIN_POSITIVE);
        let prior = Scores::default().curve(PRIOR).share_above(REFERENCE_LEVEL);
        Calibration {
            curve: self.scores.curve(PRIOR),
            pods,
            reference: self.exceeded.share(prior, PRIOR.trials),
            likes,
            delivered: self.delivered,
            pod_days: self.pod_days,
        }
    }
}

/// What the past of others says about one workload. The default is the prior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    curve: Curve,
    pods: f64,
    reference: f64,
    likes: Exceeded,
    delivered: [Delivered; STEPS],
    pod_days: f64,
}

impl Default for Calibration {
    fn default() -> Self {
        ClusterPast::default().calibration(Exceeded::default())
    }
}

/// Factors of a margin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Factors {
    /// By the workload's own past.
    pub own: f64,
    /// By its likes.
    pub likes: f64,
}

impl Factors {
    /// Both.
    pub fn product(self) -> f64 {
        self.own * self.likes
    }
}

impl Calibration {
    /// For a workload with other likes.
    #[must_use]
    pub fn with_likes(self, likes: Exceeded) -> Self {
        Self { likes, ..self }
    }

    /// The level for a risk per pod-day.
    pub fn level(&self, risk: f64) -> f64 {
        self.curve.level_for((self.corrected(risk) * self.pods).min(1.0))
    }

    /// The risk per pod-day at a level, of a workload with so many pods; at most 1.
    pub fn risk(&self, level: f64, pods: f64) -> f64 {
        let share = self.uncorrected(self.curve.share_above(level) / self.pods) * self.pods;
        (share / pods.max(f64::MIN_POSITIVE)).min(1.0)
    }

    /// Factors of the margin for a workload with such a past.
    pub fn factors(&self, own: Exceeded) -> Factors {
        let of_likes = self.likes.relative_to(self.reference);
        let of_own = of_likes * own.relative_to(self.reference * of_likes);
        let factor = |times: f64| times.sqrt().clamp(FACTORS.0, FACTORS.1);
        Factors { own: factor(of_own) / factor(of_likes), likes: factor(of_likes) }
    }

    /// What was delivered at the risk of [`RISKS`] next to this one: that risk, and the share of pod-days that failed.
    /// `None` before any decision was judged.
    pub fn delivered(&self, risk: f64) -> Option<(f64, Delivered)> {
        let distance = |step: f64| (step / risk).ln().abs();
        let pairs = RISKS.into_iter().zip(self.delivered);
        let nearest = pairs.min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)));
        nearest.filter(|(_, delivered)| delivered.asked > 0.0)
    }

    /// Pod-days of the cluster that were judged.
    pub fn pod_days(&self) -> f64 {
        self.pod_days
    }

    /// Workload-days of likes.
    pub fn likes_days(&self) -> f64 {
        self.likes.days
    }

    /// The corrected risks of [`RISKS`]. A lower risk is never corrected to a higher one.
    fn corrected_risks(&self) -> [f64; STEPS] {
        let mut lowest = f64::INFINITY;
        let mut corrected = RISKS;
        for (risk, Delivered { asked, seen }) in corrected.iter_mut().zip(self.delivered) {
            lowest = lowest.min(*risk * (asked + FEEDBACK) / (seen + FEEDBACK));
            *risk = lowest;
        }
        corrected
    }

    /// The risk that enters for a risk that is asked.
    fn corrected(&self, risk: f64) -> f64 {
        interpolate(risk, RISKS, self.corrected_risks())
    }

    fn uncorrected(&self, risk: f64) -> f64 {
        interpolate(risk, self.corrected_risks(), RISKS)
    }
}

/// Interpolates between pairs of descending values, in logarithms; beyond them in proportion.
fn interpolate(value: f64, from: [f64; STEPS], to: [f64; STEPS]) -> f64 {
    let pairs = || from.into_iter().zip(to);
    let above = pairs().take_while(|(from, _)| *from >= value).last();
    let below = pairs().find(|(from, _)| *from < value);
    match (above, below) {
        (Some((upper, of_upper)), Some((lower, of_lower))) => {
            let part = (upper / value).ln() / (upper / lower).ln();
            of_upper.powf(1.0 - part) * of_lower.powf(part)
        }
        (Some((nearest, of_nearest)), None) | (None, Some((nearest, of_nearest))) => {
            value * of_nearest / nearest
        }
        (None, None) => value,
    }
}

/// What the past of a cluster says about one workload.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pool {
    /// Memory.
    pub memory: Calibration,
    /// CPU.
    pub cpu: CpuPast,
}
