//! The report on one world.

use serde::Serialize;
use snug_sizing::{
    backtest::{
        calibration::{Calibration, LEVELS, at_level, judge},
        closed,
        leaderboard::{self, Contender, Entry},
        open::{Decisions, Outcome, Replay},
        policies::{PolicyChoice, Run},
        validate::Figures,
        world::World,
    },
    engine::Risk,
};

use super::subject::{Curve, EngineUnderTest, Point};

/// Levels of the engine's curve; those of [`LEVELS`] are among them.
const CURVE: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2];
/// Factors on the oracle's share of time above the request, for its curve.
const SHARES: [f64; 9] = [0.125, 0.25, 0.5, 0.71, 1.0, 1.41, 2.0, 4.0, 8.0];
/// Factors on the values of other policies, for the curves.
const FACTORS: [f64; 7] = [0.8, 0.87, 0.93, 1.0, 1.1, 1.25, 1.5];
/// The policy by whose changes changes are counted.
const CHANGES_BY: [&str; 2] = ["vpa-nofloor", "vpa"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct WorldReport {
    pub name: String,
    pub sets: Vec<SetReport>,
    /// Open loop, as shipped: all sets together.
    pub shipped: Leaderboard,
    /// The same, without minimum values and rounding of all policies.
    pub without_floors: Leaderboard,
    /// Asked and delivered by the engine, as shipped and without the rules of advice.
    pub calibration: Option<Calibrations>,
    /// Closed loop: usage above the limit is an OOM kill, which the policy gets to know.
    pub closed: Vec<Closed>,
    /// Open loop, with a sweep of each policy's margin.
    pub curves: Vec<Curve>,
}

/// One set of traces.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct SetReport {
    pub name: String,
    pub containers: usize,
    pub workloads: usize,
    pub minutes: usize,
    /// Open loop: decisions do not change usage.
    pub shipped: Vec<Figures>,
    /// The same, without minimum values and rounding of all policies.
    pub without_floors: Vec<Figures>,
}

#[derive(Debug, Serialize)]
pub struct Leaderboard {
    pub memory: Vec<Entry>,
    pub cpu: Vec<Entry>,
}

#[derive(Debug, Serialize)]
pub struct Calibrations {
    pub shipped: Vec<Calibration>,
    pub without_floors: Vec<Calibration>,
}

/// Figures of one policy in the closed loop.
#[derive(Debug, Serialize)]
pub struct Closed {
    pub policy: String,
    #[serde(flatten)]
    pub memory: closed::Figures,
}

/// Policies with their decisions, by name.
type Runs<'r> = Vec<(String, &'r Decisions)>;

/// The runs of a policy's curve with their factors: on the values, or on what the oracle leaves above the request.
fn swept(choice: PolicyChoice) -> Vec<(f64, Run)> {
    match choice {
        PolicyChoice::Oracle { exceeded, floors } => {
            let at =
                |factor: &f64| (*factor, PolicyChoice::Oracle { exceeded: exceeded * factor, floors }.into());
            SHARES.iter().map(at).collect()
        }
        other => FACTORS.iter().map(|factor| (*factor, Run { choice: other, factor: *factor })).collect(),
    }
}

/// All decisions of a replay, run by run.
struct Replayed {
    runs: Vec<(Run, Decisions)>,
}

impl Replayed {
    fn new(world: &World, risk: Risk, runs: impl IntoIterator<Item = Run>) -> Self {
        let mut wanted: Vec<Run> = Vec::new();
        for run in runs {
            if !wanted.contains(&run) {
                wanted.push(run);
            }
        }
        let decisions = Replay::new(world, risk).open(&wanted);
        Self { runs: wanted.into_iter().zip(decisions).collect() }
    }

    fn get(&self, run: Run) -> Option<&Decisions> {
        self.runs.iter().find(|(known, _)| *known == run).map(|(_, decisions)| decisions)
    }

    fn named(&self, chosen: &[(String, PolicyChoice)]) -> Runs<'_> {
        chosen
            .iter()
            .filter_map(|(name, choice)| Some((name.clone(), self.get(Run::from(*choice))?)))
            .collect()
    }
}

fn figures(policy: &str, sum: &Outcome) -> Figures {
    Figures { policy: policy.to_owned(), memory: sum.memory.memory(), cpu: sum.cpu.cpu() }
}

impl WorldReport {
    /// Replays the policies on a world.
    pub fn make(world: &World, engine: &EngineUnderTest, chosen: &[(String, PolicyChoice)]) -> Self {
        let EngineUnderTest { risk, rule } = *engine;
        let has_engine = chosen.iter().any(|(_, choice)| choice.rule().is_some());
        let at = |form: fn(Risk, snug_sizing::engine::Rule) -> PolicyChoice| {
            let levels = CURVE.iter().filter(|_| has_engine);
            levels.map(move |level| (*level, Run::from(form(at_level(*level), rule)))).collect::<Vec<_>>()
        };
        let (shipped_curve, need_curve) = (at(PolicyChoice::Snug), at(PolicyChoice::SnugNeed));
        let bare: Vec<(String, PolicyChoice)> = chosen
            .iter()
            .filter_map(|(name, choice)| Some((name.clone(), choice.without_floors()?)))
            .collect();
        let others = || chosen.iter().filter(|(_, choice)| choice.rule().is_none());
        let plain = chosen.iter().chain(&bare).map(|(_, choice)| Run::from(*choice));
        let curves = shipped_curve.iter().chain(&need_curve).map(|(_, run)| *run);
        let sweeps = others().flat_map(|(_, choice)| swept(*choice)).map(|(_, run)| run);
        let replayed = Replayed::new(world, risk, plain.chain(curves).chain(sweeps));

        let (all, all_bare) = (replayed.named(chosen), replayed.named(&bare));
        let of_curve = |curve: &[(f64, Run)]| -> Vec<Decisions> {
            curve.iter().filter_map(|(_, run)| replayed.get(*run)).cloned().collect()
        };
        let calibrated = |form: fn(Risk, snug_sizing::engine::Rule) -> PolicyChoice| -> Vec<Calibration> {
            let of = |level: &f64| {
                let decisions = replayed.get(Run::from(form(at_level(*level), rule)))?;
                Some(judge(world, decisions, *level))
            };
            LEVELS.iter().filter_map(of).collect()
        };
        let mut curves: Vec<Curve> = Vec::new();
        if has_engine {
            curves.push(engine_curve("snug", &replayed, engine.choice(), &shipped_curve));
            let need = PolicyChoice::SnugNeed(risk, rule);
            curves.push(engine_curve("snug without floors", &replayed, need, &need_curve));
        }
        curves.extend(others().map(|(name, choice)| curve(name, &replayed, *choice)));
        Self {
            name: world.name.clone(),
            sets: (0..world.sets.len()).map(|set| set_report(world, set, &all, &all_bare)).collect(),
            shipped: board(world, risk, (&replayed, chosen), &of_curve(&shipped_curve)),
            without_floors: board(world, risk, (&replayed, &bare[..]), &of_curve(&need_curve)),
            calibration: has_engine.then(|| Calibrations {
                shipped: calibrated(PolicyChoice::Snug),
                without_floors: calibrated(PolicyChoice::SnugNeed),
            }),
            closed: closed_loop(world, risk, chosen),
            curves,
        }
    }
}

fn point(factor: f64, shipped: bool, decisions: &Decisions) -> Point {
    let total = decisions.total();
    Point { factor, shipped, memory: total.memory.memory(), cpu: total.cpu.cpu() }
}

/// The engine's curve: the levels, and the asked risk, in the order of the risk.
fn engine_curve(name: &str, replayed: &Replayed, asked: PolicyChoice, levels: &[(f64, Run)]) -> Curve {
    let at = levels.iter().filter_map(|(level, run)| Some(point(*level, false, replayed.get(*run)?)));
    let mut points: Vec<Point> = at.collect();
    // The asked risk has one level for memory and another one for CPU, so it is a dot beside the line.
    points.extend(replayed.get(Run::from(asked)).map(|decisions| point(1.0, true, decisions)));
    Curve { policy: name.to_owned(), points }
}

fn curve(name: &str, replayed: &Replayed, choice: PolicyChoice) -> Curve {
    let at = |(factor, run): (f64, Run)| Some(point(factor, factor == 1.0, replayed.get(run)?));
    Curve { policy: name.to_owned(), points: swept(choice).into_iter().filter_map(at).collect() }
}

fn set_report(world: &World, set: usize, all: &Runs<'_>, all_bare: &Runs<'_>) -> SetReport {
    let is_in = |group: usize| world.set_of.get(group) == Some(&set);
    let groups = world.trace.groups.iter().enumerate().filter(|(group, _)| is_in(*group));
    let of = |runs: &Runs<'_>| {
        let sum = |decisions: &Decisions| decisions.sum(|decision| is_in(decision.group));
        runs.iter().map(|(name, decisions)| figures(name, &sum(decisions))).collect()
    };
    SetReport {
        name: world.sets.get(set).cloned().unwrap_or_default(),
        containers: groups.clone().map(|(_, group)| group.rows.len()).sum(),
        workloads: groups.count(),
        minutes: world.trace.minutes,
        shipped: of(all),
        without_floors: of(all_bare),
    }
}

fn board(
    world: &World,
    risk: Risk,
    (replayed, chosen): (&Replayed, &[(String, PolicyChoice)]),
    curve: &[Decisions],
) -> Leaderboard {
    let scaled =
        |choice: PolicyChoice| swept(choice).into_iter().filter_map(|(_, run)| replayed.get(run)).collect();
    let named = chosen.iter().filter_map(|(name, choice)| {
        let decisions = replayed.get(Run::from(*choice))?;
        Some(Contender { name, decisions, scaled: scaled(*choice) })
    });
    let policies: Vec<Contender<'_>> = named.collect();
    let by = CHANGES_BY.iter().find(|name| policies.iter().any(|other| other.name == **name));
    let by = by.copied().unwrap_or_default();
    Leaderboard {
        memory: leaderboard::memory(world, risk, &policies, curve, by),
        cpu: leaderboard::cpu(world, risk, &policies, curve, by),
    }
}

fn closed_loop(world: &World, risk: Risk, chosen: &[(String, PolicyChoice)]) -> Vec<Closed> {
    let choices: Vec<PolicyChoice> = chosen.iter().map(|(_, choice)| *choice).collect();
    let mut sums = vec![closed::Sums::default(); choices.len()];
    for workload in Replay::new(world, risk).closed(&choices) {
        sums.iter_mut().zip(workload).for_each(|(sum, one)| *sum += one);
    }
    let named = chosen.iter().zip(sums);
    named.map(|((policy, _), sums)| Closed { policy: policy.clone(), memory: sums.figures() }).collect()
}
