//! How often usage exceeds a value by how much, learned from a few trials.
//!
//! A *trial* compares a past decision with what followed. Its *score* is the smallest level `u` at which the decision would have been
//! enough ([`super::memory`] says what a level is). The curve is `F(u)`, the share of trials with a score above `u`. Its quantile at a risk is
//! the level to choose: that is split conformal prediction with a normalised score
//! ([Lei et al. 2018](https://arxiv.org/abs/1604.04173); [Angelopoulos and Bates 2021](https://arxiv.org/abs/2107.07511)), whose
//! share of failures is what was asked, whatever the distribution, if old and new trials are exchangeable.
//!
//! With few trials the quantile of a small risk is above all of them. So there is a prior: `F` is a product of steps between levels, and
//! the step from one level to the next is a share with a beta prior, worth a number of trials. Its mean is
//!
//! ```text
//! F(u₀) = (over₀ + s₀·P(u₀)) ÷ (trials + s₀),     F(uₖ) = F(uₖ₋₁) · (overₖ + s·P(uₖ)/P(uₖ₋₁)) ÷ (at riskₖ + s)
//! ```
//!
//! This is the beta-Stacy process ([Walker and Muliere 1997](https://doi.org/10.1214/aos/1031594741)). Where there are many trials it is the share
//! that was counted, and beyond the highest score it falls as the prior does. A score that was cut off (the container was killed at a
//! limit, so it needed more, and nobody knows how much) counts up to where it was cut off and is not at risk above it, as in the estimator
//! of Kaplan and Meier, which is the case `s = 0`.

/// Number of levels.
const LEVELS: usize = 32;
/// The lowest level, and the factor from one level to the next.
const LOWEST: f64 = 0.0125;
const RATIO: f64 = std::f64::consts::SQRT_2;

/// The shape of the curve before any trial: `first · ((1 + u/knee) ÷ (1 + lowest/knee))^−power`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prior {
    /// The share of trials above the lowest level.
    pub first: f64,
    /// The level from which the curve falls like a power.
    pub knee: f64,
    /// That power.
    pub power: f64,
    /// Trials that the share above the lowest level is worth.
    pub trials: f64,
    /// Trials that each step to the next level is worth.
    pub steps: f64,
}

/// Counts of trials by score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// All trials.
    trials: f64,
    /// By level: trials with a score above it.
    over: [f64; LEVELS],
    /// By level: trials with a score above the level before whose comparison with this one is known.
    at_risk: [f64; LEVELS],
}

/// A score: whether it was cut off, that is, at least this high.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The level that would have been enough.
    pub level: f64,
    /// Whether more would have been needed.
    pub is_cut_off: bool,
}

fn level(number: usize) -> f64 {
    LOWEST * RATIO.powi(number.min(LEVELS) as i32)
}

impl Scores {
    /// Counts a trial with a weight.
    pub fn add(&mut self, score: Score, weight: f64) {
        self.trials += weight;
        let mut is_over_before = true;
        for (number, (over, at_risk)) in self.over.iter_mut().zip(&mut self.at_risk).enumerate() {
            let is_over = score.level > level(number);
            let is_known = is_over || !score.is_cut_off;
            if is_over_before && is_known {
                *at_risk += weight;
            }
            if is_over {
                *over += weight;
            }
            is_over_before = is_over;
        }
    }

    /// All trials.
    pub fn trials(&self) -> f64 {
        self.trials
    }

    /// The curve with a prior.
    pub fn curve(&self, prior: Prior) -> Curve {
        let of_prior = |number: usize| {
            let knee = |level: f64| 1.0 + level / prior.knee;
            prior.first * (knee(level(number)) / knee(LOWEST)).powf(-prior.power)
        };
        let mut shares = [0.0; LEVELS];
        let mut before: Option<(f64, f64)> = None;
        for (number, share) in shares.iter_mut().enumerate() {
            let expected = of_prior(number);
            let (over, at_risk) = (at(&self.over, number), at(&self.at_risk, number));
            *share = match before {
                None => (over + prior.trials * expected) / (at_risk + prior.trials),
                Some((last, last_expected)) => {
                    last * ((over + prior.steps * expected / last_expected) / (at_risk + prior.steps))
                        .min(1.0)
                }
            };
            before = Some((*share, expected));
        }
        Curve { shares }
    }
}

fn at(values: &[f64; LEVELS], number: usize) -> f64 {
    values.get(number).copied().unwrap_or_default()
}

/// The share of trials above each level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    shares: [f64; LEVELS],
}

impl Curve {
    /// The share of trials above a level, 0..=1.
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

    /// The lowest level with at most this share of trials above it, 0..=1.
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

    const PRIOR: Prior = Prior { first: 0.5, knee: 0.1, power: 1.35, trials: 20.0, steps: 20.0 };

    fn score(level: f64) -> Score {
        Score { level, is_cut_off: false }
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
            scores.add(score(f64::from(number % 1000) / 100.0), 1.0);
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
        for _ in 0..50 {
            all.add(score(1.0), 1.0);
            cut_off.add(Score { level: 1.0, is_cut_off: true }, 1.0);
        }
        // Seventy trials, of which none was above the next level, or the twenty of the prior alone.
        let times = cut_off.curve(PRIOR).share_above(4.0) / all.curve(PRIOR).share_above(4.0);
        assert!((times - 70.0 / 20.0).abs() < 1e-9, "{times}");
        assert_eq!(cut_off.curve(PRIOR).share_above(0.5), all.curve(PRIOR).share_above(0.5));
    }

    fn scores(are_cut_off: bool) -> impl Strategy<Value = Scores> {
        prop::collection::vec((0.0..400.0_f64, any::<bool>(), 0.01..30.0_f64), 0..40).prop_map(move |all| {
            let mut scores = Scores::default();
            all.into_iter().for_each(|(level, is_cut_off, weight)| {
                scores.add(Score { level, is_cut_off: is_cut_off && are_cut_off }, weight);
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
            lower.add(score(low), 1.0);
            higher.add(score(low + more), 1.0);
            prop_assert!(lower.curve(PRIOR).share_above(wanted) <= higher.curve(PRIOR).share_above(wanted) * (1.0 + 1e-9));
        }
    }
}
