//! The report of a back-test on traces.

use std::fmt::Write as _;

use serde::Serialize;
use snug_sizing::{
    backtest::{
        closed,
        open::{Outcome, Replay},
        policies::{PolicyChoice, Run},
        score,
        trace::Trace,
        validate::{Figures, Validation, cross_validate},
    },
    engine::{Risk, Rule},
};

/// Version of the JSON output; increased when a field changes its meaning or is removed.
const SCHEMA_VERSION: u32 = 1;
/// Factors on the engine's risk, and on the oracle's share of time above the request, for the curves.
const RISKS: [f64; 9] = [0.125, 0.25, 0.5, 0.71, 1.0, 1.41, 2.0, 4.0, 8.0];
/// Factors on the values of other policies, for the curves.
const FACTORS: [f64; 7] = [0.8, 0.87, 0.93, 1.0, 1.1, 1.25, 1.5];

/// The engine with its risk and constants.
#[derive(Clone, Copy, Debug)]
pub struct EngineUnderTest {
    risk: Risk,
    rule: Rule,
}

impl EngineUnderTest {
    /// The engine at a risk, with the fitted constants.
    pub fn new(risk: Risk) -> Self {
        Self { risk, rule: Rule::FITTED }
    }

    /// The engine as a policy.
    pub fn choice(&self) -> PolicyChoice {
        PolicyChoice::Snug(self.risk, self.rule)
    }

    /// The runs of a policy's curve: factors on the risk of the engine, or on the values of other policies.
    fn swept(&self, choice: PolicyChoice) -> Vec<(f64, Run)> {
        match choice {
            PolicyChoice::Oracle { exceeded } => {
                let at =
                    |factor: &f64| (*factor, PolicyChoice::Oracle { exceeded: exceeded * factor }.into());
                RISKS.iter().map(at).collect()
            }
            PolicyChoice::Snug(risk, rule) => RISKS
                .iter()
                .map(|factor| (*factor, PolicyChoice::Snug(risk.times(*factor), rule).into()))
                .collect(),
            other => FACTORS.iter().map(|factor| (*factor, Run { choice: other, factor: *factor })).collect(),
        }
    }
}

/// The report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Report {
    schema_version: u32,
    /// The replayed traces.
    pub traces: Traces,
    pub risk: Risk,
    /// Open loop: decisions do not change usage.
    pub open: Vec<Figures>,
    /// Closed loop: usage above the limit is an OOM kill, which the policy gets to know.
    pub closed: Vec<Closed>,
    /// Open loop, with a sweep of each policy's margin.
    pub curves: Vec<Curve>,
    /// Open loop, each workload judged with constants fitted without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

/// The size of the replayed traces.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Traces {
    pub containers: usize,
    pub workloads: usize,
    pub minutes: usize,
}

/// Figures of one policy in the closed loop.
#[derive(Debug, Serialize)]
pub struct Closed {
    pub policy: String,
    #[serde(flatten)]
    pub memory: closed::Figures,
}

#[derive(Debug, Serialize)]
pub struct Curve {
    pub policy: String,
    /// Points by factor.
    pub points: Vec<Point>,
}

/// One point of a curve.
#[derive(Debug, Serialize)]
pub struct Point {
    pub factor: f64,
    pub memory: score::Memory,
    pub cpu: score::Cpu,
}

/// Figures of each run over all workloads.
fn sum(outcomes: &[Vec<Outcome>]) -> Vec<(score::Memory, score::Cpu)> {
    let runs = outcomes.first().map_or(0, Vec::len);
    let mut sums = vec![Outcome::default(); runs];
    for workload in outcomes {
        sums.iter_mut().zip(workload).for_each(|(sum, outcome)| *sum += outcome);
    }
    sums.iter().map(|sum| (sum.memory.memory(), sum.cpu.cpu())).collect()
}

impl Report {
    /// Replays the policies. With `folds`, also cross-validates the engine's constants.
    pub fn make(
        trace: &Trace,
        engine: &EngineUnderTest,
        chosen: &[(String, PolicyChoice)],
        folds: Option<u64>,
    ) -> Self {
        let replay = Replay::new(trace, engine.rule);
        // All runs at once, because the preparation of a workload is shared.
        let swept: Vec<Vec<(f64, Run)>> = chosen.iter().map(|(_, choice)| engine.swept(*choice)).collect();
        let plain = chosen.iter().map(|(_, choice)| Run::from(*choice));
        let runs: Vec<Run> = plain.chain(swept.iter().flatten().map(|(_, run)| *run)).collect();
        let mut figures = sum(&replay.open(&runs)).into_iter();
        let open = chosen
            .iter()
            .zip(figures.by_ref())
            .map(|((policy, _), (memory, cpu))| Figures { policy: policy.clone(), memory, cpu })
            .collect();
        let curve = |((policy, _), swept): (&(String, PolicyChoice), &Vec<(f64, Run)>)| {
            let points = swept.iter().zip(figures.by_ref());
            let points =
                points.map(|((factor, _), (memory, cpu))| Point { factor: *factor, memory, cpu }).collect();
            Curve { policy: policy.clone(), points }
        };
        let curves = chosen.iter().zip(&swept).map(curve).collect();
        let choices: Vec<PolicyChoice> = chosen.iter().map(|(_, choice)| *choice).collect();
        let mut sums = vec![closed::Sums::default(); choices.len()];
        for workload in replay.closed(&choices) {
            for (sum, one) in sums.iter_mut().zip(workload) {
                *sum += one;
            }
        }
        let closed = chosen
            .iter()
            .zip(sums)
            .map(|((policy, _), sums)| Closed { policy: policy.clone(), memory: sums.figures() })
            .collect();
        let containers = trace.groups.iter().map(|group| group.rows.len()).sum();
        let traces = Traces { containers, workloads: trace.groups.len(), minutes: trace.minutes };
        let others: Vec<_> =
            chosen.iter().filter(|(_, choice)| !matches!(choice, PolicyChoice::Snug(..))).cloned().collect();
        let validation = folds.map(|folds| cross_validate(trace, engine.risk, folds, &others));
        Self { schema_version: SCHEMA_VERSION, traces, risk: engine.risk, open, closed, curves, validation }
    }

    /// The title of the tables.
    pub(crate) fn title(&self) -> String {
        let Traces { containers, workloads, minutes } = self.traces;
        let mut text = format!(
            "{containers} containers of {workloads} workloads over {:.1} days",
            minutes as f64 / 1440.0
        );
        let Risk { oom_kills, cpu_work, .. } = self.risk;
        // Writing to a string does not fail.
        let _: Result<(), std::fmt::Error> = write!(
            text,
            "; accepted risk of snug: {:.2} % of pod-days with an OOM kill, {:.2} % of CPU time above the request",
            oom_kills * 100.0,
            cpu_work * 100.0
        );
        text
    }
}
