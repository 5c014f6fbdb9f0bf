//! How often usage exceeds a value by how much, learned from a few trials.
//!
//! A *trial* compares a past decision with what followed: so many pods ran, and for each level `u` ([`super::memory`] says what a level
//! is), so many of them used more than the limit at that level. The curve is `F(u)`, the share of pod-days above the level `u`. The level at
//! a risk is its quantile: that is split conformal prediction with a normalised score
//! ([Lei et al. 2018](https://arxiv.org/abs/1604.04173); [Angelopoulos and Bates 2021](https://arxiv.org/abs/2107.07511)), whose
//! share of failures is what was asked, whatever the distribution, if old and new trials are exchangeable.
//!
//! # Few trials
//!
//! With few trials the quantile of a small risk is above all of them. There, a prior curve `P` decides. Which of both is a matter of how many
//! failures are known at a level, or would be by the prior: with up to ten of them it is the prior, from twenty on it is what was counted, and in between
//! `F = P^(1−w) · S^w` with `w = log₂(failures ÷ 10)`. So a risk `r` is that of the cluster from 20 ÷ r pod-days on. A need that was cut off
//! (the container was killed at a limit, so it needed more, and nobody knows how much) counts up to where it was cut off, and is not at risk
//! above it: `S` is the estimator of Kaplan and Meier.
//!
//! # Blocks
//!
//! In conformal prediction the next observation counts as one that fails, hence `n + 1`. A level between two scores is in the middle of a
//! step, so a half is added to what was counted (the plotting position of Hazen). But pods that fail together are one observation, not many: of eight replicas that
//! a rollout takes above the limit, one tells as much as all. Where observations come in groups, the group is what counts
//! ([Lee, Barber and Willett 2023](https://arxiv.org/abs/2306.06342)). The size of such a block is measured: the variance of the number of pods that
//! were above the level at one time, divided by its mean, over all times, as the dispersion of a quasi-Poisson model. It is 1 where pods fail
//! independently, and `m` where `m` of them always fail together, of whatever workloads. At most eight count: where more fail together, there are
//! too few such days to learn from.

/// Number of levels.
const LEVELS: usize = 64;
/// The lowest level, and the factor from one level to the next: the fourth root of two.
const LOWEST: f64 = 0.0125;
const RATIO: f64 = 1.189_207_115_002_721;

/// Times of trials with pods above a level without which it is not known how many fail together there.
const MIN_TIMES: f64 = 3.0;
/// The part of a block that is added to what was counted.
const ADDED: f64 = 0.5;
/// The largest block.
const MAX_BLOCK: f64 = 8.0;
/// Failures at a level up to which the prior decides, and from which on what was counted decides.
const FEW: f64 = 10.0;
const ENOUGH: f64 = 20.0;
/// Pod-days for which the prior counts where a share was not counted, because all needs were cut off before.
const UNKNOWN: f64 = 0.001;

/// The curve before any trial, a share of pod-days: `first · ((1 + u/knee) ÷ (1 + lowest/knee))^−power`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prior {
    /// The share of trials above the lowest level.
    pub first: f64,
    /// The level from which the curve falls like a power.
    pub knee: f64,
    pub power: f64,
}

/// Pod-days of trials by level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// All of them.
    trials: f64,
    /// All of them, whatever they count.
    known: f64,
    /// By level: those above it.
    over: [f64; LEVELS],
    /// By level: those above the level before whose comparison with this one is known.
    at_risk: [f64; LEVELS],
    /// By level: how pods above it come together.
    together: [Together; LEVELS],
    /// By level: pods above it at the time that is being counted.
    now: [f64; LEVELS],
    /// Times of trials: at others nothing is known about how many fail together.
    times: f64,
    /// Whether any trial was added at the time that is being counted.
    has_trials: bool,
}

impl Default for Scores {
    fn default() -> Self {
        let none = [0.0; LEVELS];
        Self {
            trials: 0.0,
            known: 0.0,
            over: none,
            at_risk: none,
            together: [Together::default(); LEVELS],
            now: none,
            times: 0.0,
            has_trials: false,
        }
    }
}

/// Numbers of pods above a level, by the times of trials.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Together {
    times: f64,
    sum: f64,
    squares: f64,
}

impl Together {
    /// Variance ÷ mean of the numbers, at least 1: 1 where pods fail independently, and `m` where `m` of them always fail together.
    fn dispersion(&self, times: f64) -> f64 {
        if self.sum > 0.0 { (self.squares / self.sum - self.sum / times).max(1.0) } else { 1.0 }
    }
}

fn level(number: usize) -> f64 {
    LOWEST * RATIO.powi(number.min(LEVELS) as i32)
}

impl Scores {
    /// Counts a trial with a weight: so many pods ran, and `above` says how many of them were above a level. Of the last of these, so
    /// many were cut off there.
    pub fn add(&mut self, pods: f64, cut_off: f64, weight: f64, above: impl Fn(f64) -> f64) {
        self.has_trials = true;
        self.trials += weight * pods;
        self.known += weight * pods;
        let mut before = pods;
        let counts = self.over.iter_mut().zip(&mut self.at_risk).zip(&mut self.now);
        for (number, ((over, at_risk), together)) in counts.enumerate() {
            let now = above(level(number)).min(before);
            *together += now;
            let unknown = if now > 0.0 { 0.0 } else { cut_off.min(before) };
            *at_risk += weight * (before - unknown);
            *over += weight * now;
            before = now;
            if before <= 0.0 {
                return;
            }
        }
    }

    /// All trials of one time were counted, if there were any.
    pub fn end_time(&mut self) {
        if !std::mem::take(&mut self.has_trials) {
            return;
        }
        self.times += 1.0;
        for (together, now) in self.together.iter_mut().zip(&mut self.now) {
            together.times += if *now > 0.0 { 1.0 } else { 0.0 };
            together.sum += *now;
            together.squares += *now * *now;
            *now = 0.0;
        }
    }

    /// With all pod-days times a factor. So many are known, whatever their weights.
    #[must_use]
    pub fn times(self, factor: f64, known: f64) -> Self {
        let times = |counts: [f64; LEVELS]| counts.map(|count| count * factor);
        Self {
            trials: self.trials * factor,
            known,
            over: times(self.over),
            at_risk: times(self.at_risk),
            ..self
        }
    }

    /// By level: how many pods fail together there, as a mean weighted by their number.
    fn block_sizes(&self) -> [f64; LEVELS] {
        let mut last = 1.0;
        self.together.map(|together| {
            // Of few times nothing can be said: then it is as at the level before.
            if together.times >= MIN_TIMES {
                last = together.dispersion(self.times);
            }
            last
        })
    }

    pub fn curve(&self, prior: Prior) -> Curve {
        let of_prior = |number: usize| {
            let knee = |level: f64| 1.0 + level / prior.knee;
            prior.first * (knee(level(number)) / knee(LOWEST)).powf(-prior.power)
        };
        let mut shares = [0.0; LEVELS];
        let (mut counted, mut before, mut lowest) = (1.0, 1.0, 1.0_f64);
        for (number, (share, block)) in shares.iter_mut().zip(self.block_sizes()).enumerate() {
            let expected = of_prior(number);
            let (over, at_risk) = (at(&self.over, number), at(&self.at_risk, number));
            counted *= ((over + UNKNOWN * expected / before) / (at_risk + UNKNOWN)).min(1.0);
            before = expected;
            let added = ADDED * block.min(MAX_BLOCK) / self.trials.max(UNKNOWN);
            let failures = self.known * expected.max(counted);
            let part = ((failures / FEW).ln() / (ENOUGH / FEW).ln()).clamp(0.0, 1.0);
            lowest = lowest.min(expected.powf(1.0 - part) * (counted + added).min(1.0).powf(part));
            *share = lowest;
        }
        Curve { shares }
    }
}

fn at(values: &[f64; LEVELS], number: usize) -> f64 {
    values.get(number).copied().unwrap_or_default()
}

/// The share of pod-days above each level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    shares: [f64; LEVELS],
}

impl Curve {
    /// The share of pod-days above a level, 0..=1.
    pub fn share_above(&self, wanted: f64) -> f64 {
        let first = at(&self.shares, 0);
        if wanted <= LOWEST {
            return (first * (1.0 - wanted.max(0.0) / LOWEST).exp()).min(1.0);
        }
        let place = (wanted / LOWEST).ln() / RATIO.ln();
        let last = at(&self.shares, LEVELS - 1);
        if place >= (LEVELS - 1) as f64 {
            // As a power of one, which is never too optimistic: nothing was seen up there.
            return last * level(LEVELS - 1) / wanted;
        }
        let (below, part) = (place.floor() as usize, place.fract());
        at(&self.shares, below).powf(1.0 - part) * at(&self.shares, below + 1).powf(part)
    }

    /// The lowest level with at most this share of pod-days above it, 0..=1.
    pub fn level_for(&self, share: f64) -> f64 {
        let first = at(&self.shares, 0);
        let share = share.max(f64::MIN_POSITIVE);
        if share >= first {
            return LOWEST * (1.0 - (share / first).ln()).max(0.0);
        }
        let Some(above) = self.shares.iter().position(|it| *it <= share) else {
            return level(LEVELS - 1) * at(&self.shares, LEVELS - 1) / share;
        };
        let (upper, lower) = (at(&self.shares, above - 1), at(&self.shares, above));
        let part = if upper > lower { (upper / share).ln() / (upper / lower).ln() } else { 1.0 };
        level(above - 1) * RATIO.powf(part)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRIOR: Prior = Prior { first: 0.5, knee: 0.1, power: 1.35 };

    /// Counts a pod with a need at a level.
    fn add(scores: &mut Scores, at: f64, is_cut_off: bool, weight: f64) {
        let above = |level: f64| if at > level { 1.0 } else { 0.0 };
        scores.add(1.0, if is_cut_off { 1.0 } else { 0.0 }, weight, above);
    }

    #[test]
    fn without_trials_it_is_the_prior() {
        let curve = Scores::default().curve(PRIOR);
        assert!((curve.share_above(0.0125) - 0.5).abs() < 1e-12);
        // (1 + 1.6/0.1) ÷ (1 + 0.0125/0.1) = 15.1; 15.1^−1.35 = 0.0256.
        assert!((curve.share_above(1.6) - 0.5 * (17.0_f64 / 1.125).powf(-1.35)).abs() < 1e-9);
    }

    #[test]
    fn with_many_trials_it_is_what_was_counted() {
        let mut scores = Scores::default();
        for number in 0..100_000 {
            add(&mut scores, f64::from(number % 1000) / 100.0, false, 1.0);
        }
        let curve = scores.curve(PRIOR);
        for share in [0.5, 0.1, 0.02] {
            let level = curve.level_for(share);
            assert!((level - 10.0 * (1.0 - share)).abs() < 0.7, "{share}: {level}");
        }
    }

    #[test]
    fn cut_off_scores_do_not_say_that_no_more_was_needed() {
        let (mut all, mut cut_off) = (Scores::default(), Scores::default());
        for _ in 0..5000 {
            add(&mut all, 1.0, false, 1.0);
            add(&mut cut_off, 1.0, true, 1.0);
        }
        // None is above the next level; or all are as far above it as the prior says.
        assert!(all.curve(PRIOR).share_above(4.0) < 0.001);
        let prior = |level: f64| Scores::default().curve(PRIOR).share_above(level);
        let last = (0..LEVELS).map(level).rfind(|level| *level < 1.0).unwrap();
        let times = cut_off.curve(PRIOR).share_above(4.0) / (prior(4.0) / prior(last));
        assert!((times - 1.0).abs() < 0.01, "{times}");
        assert_eq!(cut_off.curve(PRIOR).share_above(0.5), all.curve(PRIOR).share_above(0.5));
    }

    #[test]
    fn pods_that_go_together_count_each() {
        let (mut together, mut alone) = (Scores::default(), Scores::default());
        for trial in 0..1000 {
            // On one day of 100 all four pods are above the level, or one of them.
            let is_above = |level: f64| trial % 100 == 0 && level < 2.0;
            together.add(4.0, 0.0, 1.0, |level| if is_above(level) { 4.0 } else { 0.0 });
            alone.add(4.0, 0.0, 1.0, |level| if is_above(level) { 1.0 } else { 0.0 });
            together.end_time();
            alone.end_time();
        }
        let share = |scores: Scores| scores.curve(PRIOR).share_above(1.0);
        // 40 or 10 of 4,000 pod-days, and a half of a block: of four less the mean of 0.04, and of one.
        assert!((share(together) - 41.98 / 4000.0).abs() < 1e-5, "{}", share(together));
        // Ten failures by what was counted, but 88 by the prior: what was counted decides.
        assert!((share(alone) - 10.5 / 4000.0).abs() < 1e-5, "{}", share(alone));
    }

    #[test]
    fn times_without_trials_say_nothing() {
        let (mut known, mut with_gaps) = (Scores::default(), Scores::default());
        for trial in 0..100 {
            for scores in [&mut known, &mut with_gaps] {
                scores.add(4.0, 0.0, 1.0, |level| if trial % 4 == 0 && level < 2.0 { 4.0 } else { 0.0 });
                scores.end_time();
            }
            (0..trial % 7).for_each(|_| with_gaps.end_time());
        }
        assert_eq!(known, with_gaps);
        // 100 of 400 pod-days, and a half of a block: of four less the mean of one.
        assert!((with_gaps.curve(PRIOR).share_above(1.0) - 101.5 / 400.0).abs() < 1e-5);
    }

    #[test]
    fn the_prior_hands_over_between_ten_and_twenty_failures() {
        // A tenth of the pod-days are above all levels up to 2. The prior has 0.0235 of them above 1.
        let share = |pod_days: u32| {
            let mut scores = Scores::default();
            (0..pod_days).for_each(|day| add(&mut scores, if day % 10 == 0 { 2.0 } else { 0.0 }, false, 1.0));
            scores.curve(PRIOR).share_above(1.0)
        };
        let prior = share(0);
        assert!((share(100) / prior - 1.0).abs() < 1e-3, "ten failures");
        assert!((share(200) - 20.5 / 200.0).abs() < 1e-3, "twenty failures");
        // Fourteen failures are half the way from ten to twenty, in logarithms: 14/10 = 2^0.485.
        let expected = prior.powf(1.0 - 0.4854) * (14.5_f64 / 140.0).powf(0.4854);
        assert!((share(140) / expected - 1.0).abs() < 1e-3, "{} {expected}", share(140));
    }

    fn scores(are_cut_off: bool) -> impl Strategy<Value = Scores> {
        prop::collection::vec((0.0..400.0_f64, any::<bool>(), 0.01..30.0_f64), 0..40).prop_map(move |all| {
            let mut scores = Scores::default();
            all.into_iter().for_each(|(level, is_cut_off, weight)| {
                add(&mut scores, level, is_cut_off && are_cut_off, weight);
            });
            scores
        })
    }

    proptest! {
        #[test]
        fn levels_and_shares_are_inverse_and_fall(scores in scores(true), share in 1e-7..1.0_f64, less in 0.01..1.0_f64, level in 0.0..2000.0_f64, more in 0.0..100.0_f64) {
            let curve = scores.curve(PRIOR);
            prop_assert!(curve.share_above(level + more) <= curve.share_above(level) * (1.0 + 1e-9));
            let chosen = curve.level_for(share);
            prop_assert!(chosen.is_finite() && chosen <= curve.level_for(share * less) * (1.0 + 1e-9));
            prop_assert!(curve.share_above(chosen) <= share * (1.0 + 1e-6), "{} of {share}", curve.share_above(chosen));
        }

        #[test]
        fn higher_scores_raise_the_curve(scores in scores(false), low in 0.0..100.0_f64, more in 0.0..100.0_f64, wanted in 0.0..200.0_f64) {
            let (mut lower, mut higher) = (scores, scores);
            add(&mut lower, low, false, 1.0);
            add(&mut higher, low + more, false, 1.0);
            prop_assert!(lower.curve(PRIOR).share_above(wanted) <= higher.curve(PRIOR).share_above(wanted) * (1.0 + 1e-9));
        }
    }
}
