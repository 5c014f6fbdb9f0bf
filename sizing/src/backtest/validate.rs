//! Left out: whether constants that fit some workloads fit others.
//!
//! Constants are fitted without what is judged, in three ways:
//!
//! - *families*: blocks of families ([`crate::families`]) are assigned to folds by a hash of their names, and each fold is judged
//!   with constants fitted on the others. All workloads are of the same world and days, so what all families have in common is
//!   known.
//! - *days*: the same, and the constants are fitted on the first half of the time alone, and judged from a day after its end. A
//!   decision belongs to the first half if its whole horizon does.
//! - *world*: constants are fitted on all other worlds.

use serde::Serialize;

use super::{
    HORIZON,
    calibration::{Calibration, LEVELS, at_level, judge},
    open::{Decision, Decisions, Outcome, Replay},
    policies::{PolicyChoice, Run},
    score,
    world::World,
};
use crate::engine::{Risk, Rule};

/// Candidate values: one constant per resource. Two constants for memory fit the noise of the few failures, and fail nearly
/// twice as often on held-out workloads.
const ABSOLUTE_MIB: [f64; 6] = [8.0, 16.0, 24.0, 32.0, 48.0, 64.0];
const EXCESS: [f64; 5] = [0.3, 0.4, 0.5, 0.65, 0.8];
const MIB: f64 = 1024.0 * 1024.0;
/// Minutes between the time of fitting and the time of judging.
const EMBARGO: usize = 1440;

/// Figures of one policy.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Its name.
    pub policy: String,
    pub memory: score::Memory,
    pub cpu: score::Cpu,
}

/// What was left out of the fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The judged families.
    Families,
    /// The judged families, and the time from a day before.
    Days,
    /// The judged world.
    World,
}

impl Split {
    /// All ways.
    pub const ALL: [Self; 3] = [Self::Families, Self::Days, Self::World];
}

/// The engine on decisions that its constants were fitted without.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// The judged world.
    pub world: String,
    /// What was left out.
    pub split: Split,
    /// The constants, one set for each part that was judged.
    pub rules: Vec<Rule>,
    /// As shipped, at the asked risk.
    pub shipped: Figures,
    /// Asked and delivered, without the rules of advice.
    pub calibration: Vec<Calibration>,
}

/// FNV-1a: the same on every machine and in every version.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The fold of each workload: that of the first family in its block.
pub fn folds(world: &World, folds: u64) -> Vec<u64> {
    let fold = |block: &usize| {
        let first = world.blocks.iter().position(|other| other == block);
        let family = first.and_then(|first| world.families.get(first));
        let name = family.map(|it| format!("{}/{}/{}", it.namespace, it.owner, it.container));
        hash(&name.unwrap_or_default()) % folds.max(1)
    };
    world.blocks.iter().map(fold).collect()
}

/// A candidate rule with its decisions in each world.
struct Candidate {
    rule: Rule,
    decisions: Vec<Decisions>,
}

/// Which decisions constants are fitted on: by the index of the world.
type Training<'t> = dyn Fn(usize, &Decision) -> bool + 't;

impl Candidate {
    fn new(worlds: &[World], risk: Risk, rule: Rule) -> Self {
        let run = [PolicyChoice::SnugNeed(risk, rule).into()];
        let decisions = worlds.iter().filter_map(|world| Replay::new(world, risk).open(&run).pop());
        Self { rule, decisions: decisions.collect() }
    }

    /// The mean over worlds of failures and footprint on the training side, so that large worlds do not decide alone.
    fn figures(&self, training: &Training<'_>, pick: &dyn Fn(&Outcome) -> Option<(f64, f64)>) -> (f64, f64) {
        let sums = self.decisions.iter().enumerate();
        let sums = sums.map(|(world, decisions)| decisions.sum(|decision| training(world, decision)));
        let figures: Vec<(f64, f64)> = sums.filter_map(|sum| pick(&sum)).collect();
        let mean =
            |pick: fn(&(f64, f64)) -> f64| score::part(figures.iter().map(pick).sum(), figures.len() as f64);
        (mean(|figures| figures.0), mean(|figures| figures.1))
    }
}

/// The candidate with the smallest footprint among those within the risk; if none is, the one nearest to the risk.
fn cheapest<'c>(
    candidates: &'c [Candidate],
    risk: f64,
    training: &Training<'_>,
    pick: &dyn Fn(&Outcome) -> Option<(f64, f64)>,
) -> Option<&'c Candidate> {
    let cost = |candidate: &&Candidate| {
        let (failed, footprint) = candidate.figures(training, pick);
        if failed <= risk { (false, footprint) } else { (true, failed) }
    };
    candidates.iter().min_by(|a, b| cost(a).partial_cmp(&cost(b)).unwrap_or(std::cmp::Ordering::Equal))
}

/// The fit of the engine's constants.
pub struct Fit {
    risk: Risk,
    memory: Vec<Candidate>,
    cpu: Vec<Candidate>,
}

impl Fit {
    /// Replays all candidates on all worlds.
    pub fn new(worlds: &[World], risk: Risk) -> Self {
        let candidate = |rule| Candidate::new(worlds, risk, rule);
        let memory = ABSOLUTE_MIB.map(|mib| candidate(Rule { absolute: mib * MIB, ..Rule::FITTED }));
        let cpu = EXCESS.map(|excess| candidate(Rule { excess, ..Rule::FITTED }));
        Self { risk, memory: memory.into(), cpu: cpu.into() }
    }

    /// The constants that fit some decisions. Those of memory and CPU are independent, so they are fitted separately.
    pub fn fit(&self, training: &Training<'_>) -> Rule {
        let of_memory = |sum: &Outcome| {
            let figures = sum.memory.memory();
            (figures.pod_days > 0)
                .then_some((figures.violation_pod_days_pct / 100.0, figures.footprint_ratio))
        };
        let of_cpu = |sum: &Outcome| {
            let figures = sum.cpu.cpu();
            (figures.pod_days > 0).then_some((figures.unserved_work_pct / 100.0, figures.footprint_ratio))
        };
        let memory = cheapest(&self.memory, self.risk.oom_kills, training, &of_memory);
        let cpu = cheapest(&self.cpu, self.risk.cpu_work, training, &of_cpu);
        memory.zip(cpu).map_or(Rule::FITTED, |(memory, cpu)| Rule { excess: cpu.rule.excess, ..memory.rule })
    }
}

/// What is judged with one set of constants, by workload and decision.
type Judged<'j> = Box<dyn Fn(&Decision) -> bool + 'j>;

/// Decisions of one rule: as shipped at the asked risk, then without the rules of advice at each level.
struct OfRule {
    rule: Rule,
    runs: Vec<Decisions>,
}

/// Judges the engine in each world in each way. `folds` is the number of folds of families.
pub fn left_out(worlds: &[World], risk: Risk, folds: u64) -> Vec<LeftOut> {
    let fit = Fit::new(worlds, risk);
    let fold_of: Vec<Vec<u64>> = worlds.iter().map(|world| self::folds(world, folds)).collect();
    let mut found = Vec::new();
    for (place, world) in worlds.iter().enumerate() {
        let mut known: Vec<OfRule> = Vec::new();
        let fold =
            |decision: &Decision| fold_of.get(place).and_then(|folds| folds.get(decision.group)).copied();
        let half = world.trace.minutes / 2;
        for split in Split::ALL {
            let parts: Vec<(Rule, Judged<'_>)> = match split {
                Split::World if worlds.len() < 2 => continue,
                Split::World => vec![(fit.fit(&|other, _| other != place), Box::new(|_| true))],
                Split::Families => (0..folds)
                    .map(|number| {
                        let rule = fit.fit(&|other, at| other == place && fold(at) != Some(number));
                        let judged: Judged<'_> = Box::new(move |at| fold(at) == Some(number));
                        (rule, judged)
                    })
                    .collect(),
                Split::Days => (0..folds)
                    .map(|number| {
                        let rule = fit.fit(&|other, decision| {
                            let is_early = decision.at + HORIZON <= half;
                            other == place && fold(decision) != Some(number) && is_early
                        });
                        let judged: Judged<'_> = Box::new(move |decision| {
                            decision.at >= half + EMBARGO && fold(decision) == Some(number)
                        });
                        (rule, judged)
                    })
                    .collect(),
            };
            found.push(judge_parts(world, risk, split, &parts, &mut known));
        }
    }
    found
}

fn judge_parts(
    world: &World,
    risk: Risk,
    split: Split,
    parts: &[(Rule, Judged<'_>)],
    known: &mut Vec<OfRule>,
) -> LeftOut {
    let mut joined = vec![Decisions::default(); 1 + LEVELS.len()];
    for (rule, judged) in parts {
        if known.iter().all(|of| of.rule != *rule) {
            let shipped = Run::from(PolicyChoice::Snug(risk, *rule));
            let need = LEVELS.map(|level| PolicyChoice::SnugNeed(at_level(level), *rule).into());
            let runs: Vec<Run> = std::iter::once(shipped).chain(need).collect();
            known.push(OfRule { rule: *rule, runs: Replay::new(world, risk).open(&runs) });
        }
        let runs = known.iter().filter(|of| of.rule == *rule).flat_map(|of| &of.runs);
        for (joined, run) in joined.iter_mut().zip(runs) {
            joined.0.extend(run.0.iter().filter(|decision| judged(decision)).cloned());
        }
    }
    let total = joined.first().map(Decisions::total).unwrap_or_default();
    let levels = LEVELS.iter().zip(joined.iter().skip(1));
    LeftOut {
        world: world.name.clone(),
        split,
        rules: parts.iter().map(|(rule, _)| *rule).collect(),
        shipped: Figures { policy: "snug".to_owned(), memory: total.memory.memory(), cpu: total.cpu.cpu() },
        calibration: levels.map(|(level, decisions)| judge(world, decisions, *level)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backtest::streams::{Kind, LawSet, Size},
        engine::Profile,
    };

    const SIZE: Size = Size { workloads: 10, days: 12 };

    fn world(kind: Kind) -> World {
        super::super::streams::world(LawSet::First, kind, SIZE, 1)
    }

    #[test]
    fn folds_do_not_separate_blocks() {
        let together = world(Kind::Together);
        let found = folds(&together, 3);
        for (block, fold) in together.blocks.iter().zip(&found) {
            for (other, of_other) in together.blocks.iter().zip(&found) {
                assert!(block != other || fold == of_other);
            }
        }
        let apart = folds(&world(Kind::Level), 3);
        assert!(apart.iter().any(|fold| *fold != apart[0]));
    }

    #[test]
    fn each_decision_is_judged_once_and_with_constants_fitted_without_it() {
        let worlds = [world(Kind::Level), world(Kind::Trend)];
        let risk = Profile::Batch.risk();
        let found = left_out(&worlds, risk, 3);
        let splits: Vec<(&str, Split)> = found.iter().map(|it| (&*it.world, it.split)).collect();
        let wanted = ["level", "trend"].map(|name| Split::ALL.map(|split| (name, split)));
        assert_eq!(splits, wanted.concat());
        let all = Replay::new(&worlds[0], risk).open(&[PolicyChoice::SnugNeed(risk, Rule::FITTED).into()]);
        let pod_days = all[0].total().memory.units();
        for it in &found[..3] {
            let judged = it.calibration[0].pod_days;
            match it.split {
                // 12 days: the first half ends on day 6, and a day later are the decisions of days 7 to 11, of 2 to 11.
                Split::Days => assert!(judged < pod_days && judged > pod_days / 4, "{judged} {pod_days}"),
                _ => assert_eq!(judged, pod_days),
            }
        }
        // The world's own decisions do not matter for the constants that it is judged with when it is left out.
        let other = [super::super::streams::world(LawSet::First, Kind::Level, SIZE, 99), world(Kind::Trend)];
        let again = left_out(&other, risk, 3);
        assert_eq!(again[2].rules, found[2].rules);
    }
}
