//! Asked beside delivered: whether a policy keeps the risk that it was given.

use std::collections::HashSet;

use serde::Serialize;

use super::{
    bootstrap::{Interval, of_ratio},
    open::{Decisions, Outcome},
    score::part,
    streams::{Kind, LawSet},
    world::World,
};
use crate::engine::Risk;

/// The asked levels: shares of pod-days, and of CPU time.
pub const LEVELS: [f64; 5] = [0.05, 0.02, 0.01, 0.005, 0.0025];
/// Below so many violations, or families with violations, nothing is said.
pub const MIN_VIOLATIONS: u64 = 30;
/// See [`MIN_VIOLATIONS`].
pub const MIN_FAMILIES: usize = 10;
/// Delivered ÷ asked that counts as kept.
pub const KEPT: std::ops::RangeInclusive<f64> = 1.0 / 3.0..=1.3;
/// Pod-days that have to be known, times the risk, until the risk has to be kept on streams.
const KNOWN: f64 = 20.0;

/// The risk with the same level for memory and CPU.
pub const fn at_level(level: f64) -> Risk {
    Risk { oom_kills: level, cpu_work: level, throttled: level }
}

/// What can be said about asked and delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Delivered is within [`KEPT`] of asked.
    Kept,
    /// Less than that.
    Below,
    /// More than that.
    Above,
    /// Too few violations, or in too few families.
    TooFew,
}

/// One level, asked and delivered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Asked, percent.
    pub asked_pct: f64,
    pub pod_days: u64,
    /// Violated pod-days, percent, with the bootstrap interval over blocks.
    pub memory_pct: Interval,
    /// Violated pod-days.
    pub violations: u64,
    /// Families with violated pod-days.
    pub families: usize,
    /// Verdict on memory.
    pub memory: Verdict,
    /// Σ limit ÷ Σ maximum.
    pub memory_footprint: f64,
    /// CPU time above the request, percent of all, with the bootstrap interval.
    pub cpu_pct: Interval,
    /// The same, as the mean over workloads.
    pub cpu_mean_pct: f64,
    /// Workloads within what was asked, percent.
    pub cpu_within_pct: f64,
    /// Families with CPU time above the request.
    pub cpu_families: usize,
    /// Verdict on the mean of CPU.
    pub cpu: Verdict,
    /// Σ request ÷ Σ usage.
    pub cpu_footprint: f64,
}

fn verdict(ratio: f64, enough: bool) -> Verdict {
    match ratio {
        _ if !enough => Verdict::TooFew,
        ratio if ratio < *KEPT.start() => Verdict::Below,
        ratio if ratio > *KEPT.end() => Verdict::Above,
        _ => Verdict::Kept,
    }
}

fn footprint(parts: (f64, f64)) -> f64 {
    part(parts.0, parts.1)
}

/// The share of workloads that are within a share of their own, of those with any usage; percent.
pub(super) fn within_pct(groups: &[Outcome], asked: f64, share: impl Fn(&Outcome) -> Option<f64>) -> f64 {
    let shares: Vec<f64> = groups.iter().filter_map(share).collect();
    100.0 * part(shares.iter().filter(|share| **share <= asked).count() as f64, shares.len() as f64)
}

/// The share of violated pod-days; `None` without pod-days.
pub(super) fn violated(outcome: &Outcome) -> Option<f64> {
    (outcome.memory.units() > 0).then(|| outcome.memory.violated_share())
}

/// The share of CPU time above the request; `None` without CPU time.
pub(super) fn unserved(outcome: &Outcome) -> Option<f64> {
    (outcome.cpu.work().1 > 0.0).then(|| outcome.cpu.unserved_share())
}

/// Judges decisions that were made with the same level for memory and CPU.
pub fn judge(world: &World, decisions: &Decisions, asked: f64) -> Calibration {
    let blocks = world.blocks.iter().max().map_or(0, |last| last + 1);
    let by_block = decisions.by(&world.blocks, blocks);
    let groups: Vec<usize> = (0..world.trace.groups.len()).collect();
    let by_group = decisions.by(&groups, groups.len());
    let families = |is_bad: &dyn Fn(&Outcome) -> bool| {
        let bad = by_group.iter().zip(&world.families).filter(|(outcome, _)| is_bad(outcome));
        bad.map(|(_, family)| family).collect::<HashSet<_>>().len()
    };
    let total = decisions.total();
    let percent = |Interval { value, low, high }: Interval| Interval {
        value: 100.0 * value,
        low: 100.0 * low,
        high: 100.0 * high,
    };
    let of = |pick: &dyn Fn(&Outcome) -> (f64, f64)| {
        percent(of_ratio(&by_block.iter().map(pick).collect::<Vec<_>>()))
    };
    let violations = total.memory.violated();
    let bad_families = families(&|outcome| outcome.memory.violated() > 0);
    let cpu_families = families(&|outcome| outcome.cpu.work().0 > 0.0);
    let shares: Vec<f64> = by_group.iter().filter_map(unserved).collect();
    let mean = part(shares.iter().sum(), shares.len() as f64);
    let is_enough = violations >= MIN_VIOLATIONS && bad_families >= MIN_FAMILIES;
    Calibration {
        asked_pct: 100.0 * asked,
        pod_days: total.memory.units(),
        memory_pct: of(&|outcome| (outcome.memory.violated() as f64, outcome.memory.units() as f64)),
        violations,
        families: bad_families,
        memory: verdict(total.memory.violated_share() / asked, is_enough),
        memory_footprint: footprint(total.memory.footprint()),
        cpu_pct: of(&|outcome| outcome.cpu.work()),
        cpu_mean_pct: 100.0 * mean,
        cpu_within_pct: within_pct(&by_group, asked, unserved),
        cpu_families,
        cpu: verdict(mean / asked, cpu_families >= MIN_FAMILIES),
        cpu_footprint: footprint(total.cpu.footprint()),
    }
}

/// One level on synthetic streams of a kind, where the probability of a violation is known. Over several worlds: what one world
/// delivers depends on the few rare days that its first weeks had.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamCalibration {
    pub laws: LawSet,
    pub kind: String,
    /// Asked, percent.
    pub asked_pct: f64,
    pub worlds: usize,
    /// Pod-days of decisions made while fewer than 20 ÷ risk pod-days were known in their world, and after.
    pub pod_days: (f64, f64),
    /// The mean probability of a violated pod-day, percent: before, and after.
    pub memory_pct: (f64, f64),
    /// Standard error of the latter, from the differences between worlds; `None` of one world.
    pub memory_error_pct: Option<f64>,
    /// Counted violations after that, percent.
    pub counted_pct: f64,
    /// Σ limit ÷ Σ maximum, after that.
    pub memory_footprint: f64,
    /// Expected CPU time above the request, percent of all: before, and after.
    pub cpu_pct: (f64, f64),
    /// The same after that, as the mean over workloads.
    pub cpu_mean_pct: f64,
    /// Standard error of the latter.
    pub cpu_error_pct: Option<f64>,
    /// Σ request ÷ Σ usage, after that.
    pub cpu_footprint: f64,
}

/// What one world of streams was delivered at one level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamOutcome {
    /// While fewer than 20 ÷ risk pod-days were known, and after.
    before: Outcome,
    after: Outcome,
    /// The mean over workloads of the share of CPU time above the request, after.
    cpu_mean: f64,
}

impl StreamOutcome {
    /// Sums up decisions that were made with the same level for memory and CPU.
    pub fn new(world: &World, decisions: &Decisions, asked: f64) -> Self {
        let pods: usize = world.trace.groups.iter().map(|group| group.rows.len()).sum();
        let enough = |at: usize| (pods * at) as f64 / 1440.0 >= KNOWN / asked;
        let mut by_group = vec![(0.0, 0.0); world.trace.groups.len()];
        for decision in decisions.0.iter().filter(|decision| enough(decision.at)) {
            let (above, all) = decision.outcome.cpu.truth();
            if let Some(sum) = by_group.get_mut(decision.group) {
                *sum = (sum.0 + above, sum.1 + all);
            }
        }
        let shares: Vec<f64> =
            by_group.iter().filter(|(_, all)| *all > 0.0).map(|(above, all)| above / all).collect();
        Self {
            before: decisions.sum(|decision| !enough(decision.at)),
            after: decisions.sum(|decision| enough(decision.at)),
            cpu_mean: part(shares.iter().sum(), shares.len() as f64),
        }
    }
}

/// Standard error of the mean; `None` of fewer than two values.
fn standard_error(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = part(values.iter().sum(), count);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt())
}

/// Judges one level of a kind over worlds of the same size.
pub fn judge_streams(laws: LawSet, kind: Kind, asked: f64, worlds: &[StreamOutcome]) -> StreamCalibration {
    let (mut before, mut after) = (Outcome::default(), Outcome::default());
    for world in worlds {
        before += &world.before;
        after += &world.after;
    }
    let percent = |parts: (f64, f64)| 100.0 * part(parts.0, parts.1);
    let memory: Vec<f64> = worlds.iter().map(|world| percent(world.after.memory.truth())).collect();
    let cpu: Vec<f64> = worlds.iter().map(|world| 100.0 * world.cpu_mean).collect();
    StreamCalibration {
        laws,
        kind: kind.as_str().to_owned(),
        asked_pct: 100.0 * asked,
        worlds: worlds.len(),
        pod_days: (before.memory.units() as f64, after.memory.units() as f64),
        memory_pct: (percent(before.memory.truth()), percent(after.memory.truth())),
        memory_error_pct: standard_error(&memory),
        counted_pct: 100.0 * after.memory.violated_share(),
        memory_footprint: footprint(after.memory.footprint()),
        cpu_pct: (percent(before.cpu.truth()), percent(after.cpu.truth())),
        cpu_mean_pct: part(cpu.iter().sum(), cpu.len() as f64),
        cpu_error_pct: standard_error(&cpu),
        cpu_footprint: footprint(after.cpu.footprint()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::{
        open::Replay,
        policies::{Floors, PolicyChoice},
        streams::{Size, world},
    };

    #[test]
    fn verdicts() {
        let all = [0.3, 0.34, 1.0, 1.3, 1.31].map(|ratio| verdict(ratio, true));
        assert_eq!(all, [Verdict::Below, Verdict::Kept, Verdict::Kept, Verdict::Kept, Verdict::Above]);
        assert_eq!(verdict(1.0, false), Verdict::TooFew);
    }

    #[test]
    fn the_standard_error_of_a_mean() {
        // The variance of three values is 1, so √(1 ÷ 3).
        assert!((standard_error(&[1.0, 2.0, 3.0]).unwrap() - 0.577).abs() < 0.001);
        assert_eq!((standard_error(&[1.0]), standard_error(&[2.0, 2.0])), (None, Some(0.0)));
    }

    #[test]
    fn counted_and_true_shares_agree() {
        let world = world(LawSet::First, Kind::Level, Size { workloads: 20, days: 60 }, 5);
        let choice = PolicyChoice::Krr { floors: Floors::Off, kills: false };
        let decisions = Replay::new(&world, at_level(0.05)).open(&[choice.into()]);
        let outcome = StreamOutcome::new(&world, &decisions[0], 0.05);
        let found = judge_streams(LawSet::First, Kind::Level, 0.05, &[outcome.clone(), outcome]);
        assert_eq!((found.worlds, found.memory_error_pct, found.cpu_error_pct), (2, Some(0.0), Some(0.0)));
        // 64 pods; 400 pod-days are known after 6.25 days, so the days from the seventh on count.
        assert_eq!(found.pod_days.1, 2.0 * 64.0 * 53.0);
        let counted = judge(&world, &decisions[0], 0.05);
        assert_eq!(2.0 * counted.pod_days as f64, found.pod_days.0 + found.pod_days.1);
        assert!((found.memory_pct.1 - found.counted_pct).abs() < 0.5, "{found:?}");
        assert!(
            counted.memory_pct.low <= counted.memory_pct.value
                && counted.memory_pct.value <= counted.memory_pct.high
        );
    }
}
