//! Calibration: chooses the level by how often it was not enough in the past, on one workload, on its likes and on all of the
//! cluster.
//!
//! # From the risk to a level
//!
//! A rule gives a value for each *level* `u`, the same for all workloads ([`super::memory`]). The trials of all workloads give the curve
//! `F(u)`, the share of pod-days on which the level was not enough ([`super::curve`]). For a risk `r` the level is `F⁻¹(r)`.
//!
//! Pods of one workload often fail together: after a rollout, on a busy day. A share of workloads would say nothing of that, so each pod
//! that is known to have been above the level counts ([`super::memory::Outcome::pods_above`]). The prior is a share of workload-days, and of
//! pods that fail one by one: divided by the mean number of pods, it is a share of pod-days.
//!
//! # Older trials count less
//!
//! Trials are alike only so far: with a longer history there are fewer surprises, and a cluster changes. So a trial counts by its place in
//! the history of the cluster: made after `a` of `A` days, `(a ÷ A)²`. A trial in the middle counts a quarter, and all of them together as
//! much as a third of their number. Weights that fall with the distance bound what is lost where trials are not exchangeable
//! ([Barber et al. 2023](https://arxiv.org/abs/2202.13415)); a power of the age forgets at the pace at which the history grows, so that a young cluster
//! forgets its first days soon, and an old one keeps enough trials for a small risk.
//!
//! What decisions at a few risks delivered is kept as well ([`Delivered`]), to be shown. It does not enter: each trial tells at which level it
//! would have been enough, so the curve has it all. A correction by it, as in adaptive conformal inference
//! ([Gibbs and Candès 2021](https://arxiv.org/abs/2106.00170)), would also pay back what the prior cost or spared in the first days.
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

/// The curve before any trial, a share of workload-days.
pub const PRIOR: Prior = Prior { first: 0.6, knee: 0.3, power: 1.7 };
/// Mean number of pods per workload where nothing of a cluster is known.
const PODS: f64 = 3.0;
/// The power of a trial's place in the history that it counts with.
const RECENCY: f64 = 2.0;
/// Risks for which past decisions are made again, in OOM kills per pod-day, descending.
pub const RISKS: [f64; STEPS] = [0.1, 0.05, 0.02, 0.01, 0.005, 0.0025, 0.001, 0.0005];
/// Number of these risks.
pub const STEPS: usize = 8;
/// The level at which likes and a workload's own past are compared.
pub const REFERENCE_LEVEL: f64 = 0.8;
/// Strength of the priors of likes and of the own past, in days above the reference level: where few are expected, few that were
/// seen say little.
const COMPARISON: f64 = 1.0;
/// The share of workload-days above the reference level before any trial, and the workload-days that it is worth.
const REFERENCE_SHARE: f64 = 0.07;
const REFERENCE_DAYS: f64 = 10.0;
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
    /// Trials, weighted by their age in days to the power of [`RECENCY`].
    scores: Scores,
    /// The same weight of a trial that was judged now.
    newest: f64,
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
    /// Counts a trial that was judged so many days after the first one was made, with a weight. `pods` of it ran, `above` says how many were
    /// above a level, and so many of the last were cut off there.
    pub fn add(&mut self, days: f64, (pods, cut_off): (f64, f64), weight: f64, above: impl Fn(f64) -> f64) {
        self.newest = self.newest.max(days.powf(RECENCY));
        self.scores.add(pods, cut_off, weight * days.powf(RECENCY), above);
        self.pod_days += weight * pods;
    }

    /// All trials of one time were counted, if there were any.
    pub fn end_time(&mut self) {
        self.scores.end_time();
    }

    /// The calibration of a workload, whose likes exceeded the reference level so often; they do not include itself.
    pub fn calibration(&self, likes: Exceeded) -> Calibration {
        let newest = if self.newest > 0.0 { self.newest } else { 1.0 };
        let pods = if self.pods_today > 0.0 { self.pods_today } else { PODS };
        let prior = Prior { first: (PRIOR.first / pods).min(1.0), ..PRIOR };
        Calibration {
            curve: self.scores.times(1.0 / newest, self.pod_days).curve(prior),
            reference: self.exceeded.share(REFERENCE_SHARE, REFERENCE_DAYS),
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
        self.curve.level_for(risk)
    }

    /// The risk per pod-day at a level.
    pub fn risk(&self, level: f64) -> f64 {
        self.curve.share_above(level)
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
}

/// What the past of a cluster says about one workload.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pool {
    pub memory: Calibration,
    pub cpu: CpuPast,
}
