//! Cross-validation: whether constants that fit some workloads fit others.
//!
//! A hash of namespace and container name assigns workloads to folds, so that several instances of the same application stay
//! together. For each fold, the constants are fitted on all other folds and judged on this one. So every workload is judged
//! once, with constants that were fitted without it.

use serde::Serialize;

use super::{
    open::{Outcome, Replay},
    policies::{PolicyChoice, Run},
    score,
    trace::{GroupKey, Trace},
};
use crate::engine::{Risk, Rule};

/// Candidate values: one constant per resource. Two constants for memory fit the noise of the few failures, and fail nearly
/// twice as often on held-out workloads.
const ABSOLUTE_MIB: [f64; 6] = [8.0, 16.0, 24.0, 32.0, 48.0, 64.0];
const EXCESS: [f64; 5] = [0.3, 0.4, 0.5, 0.65, 0.8];
const MIB: f64 = 1024.0 * 1024.0;

/// Figures of one policy.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Its name.
    pub policy: String,
    /// Memory.
    pub memory: score::Memory,
    /// CPU.
    pub cpu: score::Cpu,
}

/// One fold.
#[derive(Clone, Debug, Serialize)]
pub struct Fold {
    /// Workloads in it.
    pub workloads: usize,
    /// The constants fitted on the other folds.
    pub rule: Rule,
    /// The engine first, then the other policies.
    pub figures: Vec<Figures>,
}

/// The result of cross-validation.
#[derive(Clone, Debug, Serialize)]
pub struct Validation {
    /// Figures by fold.
    pub folds: Vec<Fold>,
    /// All folds together: each workload judged with constants fitted without it.
    pub held_out: Vec<Figures>,
    /// The constants fitted on all workloads.
    pub overall: Rule,
}

/// FNV-1a: the same on every machine and in every version.
fn hash(key: &GroupKey) -> u64 {
    let text = format!("{}/{}", key.namespace, key.container);
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Sums of the run with index `run` over the workloads that `take` selects.
fn sum(outcomes: &[Vec<Outcome>], run: usize, take: impl Fn(usize) -> bool) -> Outcome {
    let mut sum = Outcome::default();
    for (_, outcome) in outcomes.iter().enumerate().filter(|(workload, _)| take(*workload)) {
        if let Some(outcome) = outcome.get(run) {
            sum += outcome;
        }
    }
    sum
}

/// A candidate rule with the outcome of each workload.
struct Candidate {
    rule: Rule,
    outcomes: Vec<Vec<Outcome>>,
}

/// The candidate with the smallest footprint among those within the risk; if none is, the one nearest to the risk.
fn cheapest(
    candidates: &[Candidate],
    risk: f64,
    figures: impl Fn(&Candidate) -> (f64, f64),
) -> Option<&Candidate> {
    let cost = |candidate: &&Candidate| {
        let (failed, footprint) = figures(candidate);
        if failed <= risk { (false, footprint) } else { (true, failed) }
    };
    candidates.iter().min_by(|a, b| cost(a).partial_cmp(&cost(b)).unwrap_or(std::cmp::Ordering::Equal))
}

/// Cross-validates the engine's constants at a risk, and judges other policies on the same folds.
pub fn cross_validate(
    trace: &Trace,
    risk: Risk,
    folds: u64,
    others: &[(String, PolicyChoice)],
) -> Validation {
    let fold: Vec<u64> = trace.groups.iter().map(|group| hash(&group.key) % folds.max(1)).collect();
    let candidate = |rule| {
        let replay = Replay::new(trace, rule);
        Candidate { rule, outcomes: replay.open(&[PolicyChoice::Snug(risk, rule).into()]) }
    };
    let memory: Vec<Candidate> =
        ABSOLUTE_MIB.iter().map(|mib| candidate(Rule { absolute: mib * MIB, ..Rule::FITTED })).collect();
    let cpu: Vec<Candidate> =
        EXCESS.iter().map(|excess| candidate(Rule { excess: *excess, ..Rule::FITTED })).collect();
    let baselines: Vec<Run> = others.iter().map(|(_, choice)| Run::from(*choice)).collect();
    let baselines = Replay::new(trace, Rule::FITTED).open(&baselines);

    // The constants of memory and CPU are independent, so they are fitted separately.
    let choose = |take: &dyn Fn(usize) -> bool| {
        let by_memory = cheapest(&memory, risk.oom_kills, |it| {
            let figures = sum(&it.outcomes, 0, take).memory.memory();
            (figures.violation_pod_days_pct / 100.0, figures.footprint_ratio)
        });
        let by_cpu = cheapest(&cpu, risk.cpu_work, |it| {
            let figures = sum(&it.outcomes, 0, take).cpu.cpu();
            (figures.unserved_work_pct / 100.0, figures.footprint_ratio)
        });
        by_memory.zip(by_cpu)
    };
    let names = || std::iter::once("snug".to_owned()).chain(others.iter().map(|(name, _)| name.clone()));
    let figures = |sums: &[Outcome]| -> Vec<Figures> {
        names()
            .zip(sums)
            .map(|(policy, sum)| Figures { policy, memory: sum.memory.memory(), cpu: sum.cpu.cpu() })
            .collect()
    };
    let mut all = vec![Outcome::default(); 1 + others.len()];
    let mut found = Vec::new();
    for number in 0..folds.max(1) {
        let inside = |workload: usize| fold.get(workload) == Some(&number);
        let Some((by_memory, by_cpu)) = choose(&|workload| !inside(workload)) else { continue };
        let snug = Outcome {
            memory: sum(&by_memory.outcomes, 0, inside).memory,
            cpu: sum(&by_cpu.outcomes, 0, inside).cpu,
        };
        let rest = (0..others.len()).map(|run| sum(&baselines, run, inside));
        let sums: Vec<Outcome> = std::iter::once(snug).chain(rest).collect();
        for (all, sum) in all.iter_mut().zip(&sums) {
            *all += sum;
        }
        let workloads = fold.iter().filter(|fold| **fold == number).count();
        let rule = Rule { excess: by_cpu.rule.excess, ..by_memory.rule };
        found.push(Fold { workloads, rule, figures: figures(&sums) });
    }
    let overall = choose(&|_| true)
        .map_or(Rule::FITTED, |(memory, cpu)| Rule { excess: cpu.rule.excess, ..memory.rule });
    Validation { folds: found, held_out: figures(&all), overall }
}
