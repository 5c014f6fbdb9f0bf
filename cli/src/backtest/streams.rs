//! The report on synthetic usage.

use rayon::prelude::*;
use serde::Serialize;
use snug_sizing::{
    backtest::{
        calibration::{LEVELS, StreamCalibration, StreamOutcome, at_level, judge_streams},
        closed,
        open::Replay,
        policies::{Floors, PolicyChoice, Run},
        streams::{Kind, LawSet, Size, world},
    },
    engine::Risk,
};

use super::{subject::EngineUnderTest, world_report::Closed};

/// Worlds of each kind, with a seed each.
const WORLDS: u64 = 3;

/// The engine on synthetic usage.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct StreamsReport {
    /// All pod-days, of all kinds.
    pub pod_days: usize,
    /// Asked, and delivered by the truth, without the rules of advice.
    pub calibration: Vec<StreamCalibration>,
    /// The closed loop with usage that the current limit cuts off.
    pub closed: Vec<Closed>,
}

impl StreamsReport {
    /// Replays the engine on all kinds of streams.
    pub fn make(engine: &EngineUnderTest, size: Size) -> Self {
        let kinds =
            LawSet::ALL.into_iter().flat_map(|laws| laws.kinds().iter().map(move |kind| (laws, *kind)));
        let kinds: Vec<(LawSet, Kind)> = kinds.collect();
        let found: Vec<(usize, Vec<StreamCalibration>)> =
            kinds.par_iter().map(|(laws, kind)| of_kind(engine, size, *laws, *kind)).collect();
        Self {
            pod_days: found.iter().map(|(pod_days, _)| pod_days).sum(),
            calibration: found.into_iter().flat_map(|(_, judged)| judged).collect(),
            closed: closed_loop(engine, size),
        }
    }
}

/// All pod-days of the worlds of a kind, and what was delivered at each level.
fn of_kind(
    engine: &EngineUnderTest,
    size: Size,
    laws: LawSet,
    kind: Kind,
) -> (usize, Vec<StreamCalibration>) {
    let need = |level: &f64| PolicyChoice::SnugNeed(at_level(*level), engine.rule);
    let runs: Vec<Run> = LEVELS.iter().map(|level| need(level).into()).collect();
    let of_world = |seed: u64| {
        let world = world(laws, kind, size, seed);
        let decisions = Replay::new(&world, engine.risk).open(&runs);
        let judged = LEVELS.iter().zip(&decisions);
        let outcomes: Vec<StreamOutcome> =
            judged.map(|(level, decisions)| StreamOutcome::new(&world, decisions, *level)).collect();
        let pods: usize = world.trace.groups.iter().map(|group| group.rows.len()).sum();
        (pods * size.days, outcomes)
    };
    let worlds: Vec<(usize, Vec<StreamOutcome>)> =
        (laws.seed()..laws.seed() + WORLDS).into_par_iter().map(of_world).collect();
    let at_level = |(place, level): (usize, &f64)| {
        let outcomes: Vec<StreamOutcome> =
            worlds.iter().filter_map(|(_, outcomes)| outcomes.get(place).cloned()).collect();
        judge_streams(laws, kind, *level, &outcomes)
    };
    let pod_days = worlds.iter().map(|(pod_days, _)| pod_days).sum();
    (pod_days, LEVELS.iter().enumerate().map(at_level).collect())
}

/// Usage that the current limit cuts off, at the asked risk.
fn closed_loop(engine: &EngineUnderTest, size: Size) -> Vec<Closed> {
    let EngineUnderTest { risk, rule } = *engine;
    let laws = LawSet::First;
    let world = world(laws, Kind::Limited, size, laws.seed());
    let ten_times = Risk { oom_kills: (10.0 * risk.oom_kills).min(1.0), ..risk };
    let policies = [
        ("snug", engine.choice()),
        ("snug without floors", PolicyChoice::SnugNeed(risk, rule)),
        ("snug without floors, 10 × risk", PolicyChoice::SnugNeed(ten_times, rule)),
        ("krr-simple-oomkills", PolicyChoice::Krr { floors: Floors::Shipped, kills: true }),
        ("vpa-nofloor", PolicyChoice::Vpa { floors: Floors::Rounded }),
    ];
    let mut sums = [closed::Sums::default(); 5];
    for workload in Replay::new(&world, risk).closed(&policies.map(|(_, choice)| choice)) {
        sums.iter_mut().zip(workload).for_each(|(sum, one)| *sum += one);
    }
    let figures = |((policy, _), sums): ((&str, PolicyChoice), closed::Sums)| Closed {
        policy: policy.to_owned(),
        memory: sums.figures(),
    };
    policies.into_iter().zip(sums).map(figures).collect()
}
