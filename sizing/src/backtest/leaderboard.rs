//! Policies beside each other: a proper score, the frontier, and what people notice.
//!
//! The score is the pinball loss at the asked level: of a limit below the highest usage of the next day, the missing amount counts
//! `1 − risk`, and of a limit above it the spare amount counts `risk`. Its expectation is lowest for the true quantile, so a policy
//! cannot improve it by being careless or timid ([Gneiting and Raftery 2007](https://doi.org/10.1198/016214506000001437)). For
//! CPU the same is done with each sample and the asked share of CPU time. Amounts are relative to the usage before the decision,
//! so each pod-day counts the same.

use serde::Serialize;

use super::{
    bootstrap::{Interval, of_difference},
    calibration::{unserved, violated, within_pct},
    open::{Decisions, Outcome},
    score::part,
    world::World,
};
use crate::engine::Risk;

/// One resource of one policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    pub policy: String,
    /// Violated pod-days, or CPU time above the request: percent.
    pub failed_pct: f64,
    /// Σ value ÷ Σ usage.
    pub footprint_ratio: f64,
    /// The engine's footprint where its curve has the same share of failures, divided by this footprint; `None` where its curve
    /// does not reach.
    pub curve_ratio: Option<f64>,
    /// The highest of these ratios with all values of the policy times any of the factors that were replayed.
    pub scaled_ratio: Option<f64>,
    /// Pinball loss at the asked level, percent of past usage.
    pub loss_pct: f64,
    /// Its difference from the engine's loss, with the paired interval; `None` for the engine.
    pub difference: Option<Interval>,
    /// Workloads within the asked risk, percent.
    pub within_pct: f64,
    /// Changes per day, divided by those of the policy that changes are measured by.
    pub changes_ratio: Option<f64>,
}

/// One resource of the leaderboard.
struct Resource<'l> {
    asked: f64,
    /// Failures as a share, of all and of a workload.
    failed: fn(&Outcome) -> Option<f64>,
    footprint: fn(&Outcome) -> (f64, f64),
    loss: fn(&Outcome) -> (f64, f64),
    changes: fn(&Outcome) -> (u64, u64),
    world: &'l World,
}

/// A policy.
#[derive(Clone, Debug)]
pub struct Contender<'l> {
    pub name: &'l str,
    pub decisions: &'l Decisions,
    /// Its decisions with all values times a factor.
    pub scaled: Vec<&'l Decisions>,
}

/// The leaderboard of memory limits. The first policy is the engine; `curve` are its decisions at other risks, and `changes_by` is
/// the name of the policy that changes are measured by.
pub fn memory(
    world: &World,
    asked: Risk,
    policies: &[Contender<'_>],
    curve: &[Decisions],
    changes_by: &str,
) -> Vec<Entry> {
    let resource = Resource {
        asked: asked.oom_kills,
        failed: violated,
        footprint: |outcome| outcome.memory.footprint(),
        loss: |outcome| outcome.memory.loss(),
        changes: |outcome| outcome.memory.changes(),
        world,
    };
    resource.entries(policies, curve, changes_by)
}

/// The leaderboard of CPU requests; see [`memory`].
pub fn cpu(
    world: &World,
    asked: Risk,
    policies: &[Contender<'_>],
    curve: &[Decisions],
    changes_by: &str,
) -> Vec<Entry> {
    let resource = Resource {
        asked: asked.cpu_work,
        failed: unserved,
        footprint: |outcome| outcome.cpu.footprint(),
        loss: |outcome| outcome.cpu.loss(),
        changes: |outcome| outcome.cpu.changes(),
        world,
    };
    resource.entries(policies, curve, changes_by)
}

fn ratio(parts: (f64, f64)) -> f64 {
    part(parts.0, parts.1)
}

impl Resource<'_> {
    fn entries(&self, policies: &[Contender<'_>], curve: &[Decisions], changes_by: &str) -> Vec<Entry> {
        let totals: Vec<Outcome> = policies.iter().map(|policy| policy.decisions.total()).collect();
        let rate = |outcome: &Outcome| {
            let (changes, decisions) = (self.changes)(outcome);
            part(changes as f64, decisions as f64)
        };
        let by = policies.iter().zip(&totals).find(|(policy, _)| policy.name == changes_by);
        let by = by.map(|(_, total)| rate(total)).filter(|rate| *rate > 0.0);
        let point = |outcome: &Outcome| {
            let failed = (self.failed)(outcome).unwrap_or(0.0);
            (failed, ratio((self.footprint)(outcome)))
        };
        let mut points: Vec<(f64, f64)> = curve.iter().map(|run| point(&run.total())).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let losses: Vec<Vec<(f64, f64)>> =
            policies.iter().map(|policy| self.losses(policy.decisions)).collect();
        let groups: Vec<usize> = (0..self.world.trace.groups.len()).collect();
        let ratio_at = |(failed, footprint): (f64, f64)| Some(part(at_risk(&points, failed)?, footprint));
        let entry = |(place, (policy, total)): (usize, (&Contender<'_>, &Outcome))| {
            let Contender { name, decisions, scaled } = policy;
            let (failed, footprint) = point(total);
            let curve_ratio = (place > 0).then(|| ratio_at((failed, footprint))).flatten();
            let ratios = scaled.iter().filter_map(|run| ratio_at(point(&run.total())));
            let by_group = decisions.by(&groups, groups.len());
            Entry {
                policy: (*name).to_owned(),
                failed_pct: 100.0 * failed,
                footprint_ratio: footprint,
                curve_ratio,
                scaled_ratio: ratios.chain(curve_ratio).reduce(f64::max).filter(|_| place > 0),
                loss_pct: 100.0 * ratio((self.loss)(total)),
                difference: (place > 0).then(|| difference(&losses, place)).flatten(),
                within_pct: within_pct(&by_group, self.asked, self.failed),
                changes_ratio: by.map(|by| rate(total) / by),
            }
        };
        policies.iter().zip(&totals).enumerate().map(entry).collect()
    }

    /// Loss and what it is divided by, by block.
    fn losses(&self, decisions: &Decisions) -> Vec<(f64, f64)> {
        let blocks = self.world.blocks.iter().max().map_or(0, |last| last + 1);
        decisions.by(&self.world.blocks, blocks).iter().map(self.loss).collect()
    }
}

/// The difference of a policy's loss from the engine's, percent.
fn difference(losses: &[Vec<(f64, f64)>], place: usize) -> Option<Interval> {
    let Interval { value, low, high } = of_difference(losses.get(place)?, losses.first()?);
    Some(Interval { value: 100.0 * value, low: 100.0 * low, high: 100.0 * high })
}

/// The footprint of a curve at a share of failures: linear between the points in the logarithm of the share. `points` ascend
/// by share. `None` outside of the curve. A share of 0 is no point of a logarithm: there, the smallest footprint without failures.
fn at_risk(points: &[(f64, f64)], failed: f64) -> Option<f64> {
    if failed <= 0.0 {
        return points.iter().filter(|(share, _)| *share <= 0.0).map(|(_, at)| *at).reduce(f64::min);
    }
    let positive: Vec<(f64, f64)> = points.iter().copied().filter(|(share, _)| *share > 0.0).collect();
    positive.windows(2).find_map(|pair| {
        let [(low, at_low), (high, at_high)] = *pair else { return None };
        if !(low..=high).contains(&failed) {
            return None;
        }
        let span = (high / low).ln();
        let part = if span > 0.0 { (failed / low).ln() / span } else { 0.0 };
        Some(at_low + (at_high - at_low) * part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::{
        calibration::at_level,
        open::Replay,
        policies::{Floors, PolicyChoice, Run},
        streams::{Kind, LawSet, Size, world},
    };

    #[test]
    fn a_point_of_a_curve() {
        let points = [(0.0, 3.0), (0.001, 2.0), (0.1, 1.0)];
        assert!((at_risk(&points, 0.01).unwrap() - 1.5).abs() < 1e-12);
        assert_eq!(
            [0.0, 0.001, 0.0001, 0.2].map(|failed| at_risk(&points, failed)),
            [Some(3.0), Some(2.0), None, None]
        );
        assert_eq!(at_risk(&[], 0.1), None);
    }

    #[test]
    fn entries_by_hand() {
        let world = world(LawSet::First, Kind::Level, Size { workloads: 10, days: 40 }, 5);
        let krr = PolicyChoice::Krr { floors: Floors::Off, kills: false };
        let runs = [1.0, 0.9, 1.2].map(|factor| Run { choice: krr, factor });
        let decisions = Replay::new(&world, at_level(0.05)).open(&runs);
        let contender = |(name, place): (&'static str, usize)| Contender {
            name,
            decisions: &decisions[place],
            scaled: decisions.iter().collect(),
        };
        let policies = [("same", 0), ("tight", 1), ("wide", 2)].map(contender);
        let found = memory(&world, at_level(0.05), &policies, &decisions, "same");
        assert_eq!((found[0].difference, found[0].curve_ratio, found[0].scaled_ratio), (None, None, None));
        assert!(
            found[1].failed_pct > found[0].failed_pct && found[0].failed_pct >= found[2].failed_pct,
            "{found:?}"
        );
        assert!((found[1].footprint_ratio / found[0].footprint_ratio - 0.9).abs() < 1e-9);
        // Each is a point of the curve itself.
        assert!((found[1].curve_ratio.unwrap() - 1.0).abs() < 1e-9);
        assert!((found[1].scaled_ratio.unwrap() - 1.0).abs() < 1e-9);
        // Of a policy and the same one scaled, the ratio that is worse for the engine.
        let runs =
            Replay::new(&world, at_level(0.05)).open(&[0.95, 1.1].map(|factor| Run { choice: krr, factor }));
        let other = |place: usize, others: &[usize]| {
            let scaled = others.iter().map(|other| &runs[*other]).collect();
            let contender = Contender { name: "other", decisions: &runs[place], scaled };
            memory(&world, at_level(0.05), &[policies[0].clone(), contender], &decisions, "same").remove(1)
        };
        let [low, high] = [0, 1].map(|place| other(place, &[]).curve_ratio.unwrap());
        assert!(low != high);
        assert_eq!(other(0, &[1]).scaled_ratio, Some(low.max(high)));
        let difference = found[1].difference.unwrap();
        assert!((difference.value - (found[1].loss_pct - found[0].loss_pct)).abs() < 1e-9);
        assert!(difference.low <= difference.value && difference.value <= difference.high);
        assert_eq!(found.iter().map(|entry| entry.changes_ratio).collect::<Vec<_>>(), [Some(1.0); 3]);
        assert!(found[1].within_pct <= found[2].within_pct);
    }
}
