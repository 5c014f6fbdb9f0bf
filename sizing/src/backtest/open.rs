//! The open loop: decisions do not change the recorded usage.

use super::{
    HORIZON, MIN_SAMPLES, STEP, decisions,
    observe::Observer,
    policies::{PolicyChoice, Run},
    policy::{CpuSample, Policy, PolicyInput, Values, sorted_cpu},
    score::{Horizon, Sums},
    trace::{Group, Series, Trace},
};
use crate::{
    engine::{LikesScope, Member, Pools, Rule},
    evidence::Hour,
};

/// Sums of one workload under one policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Memory.
    pub memory: Sums,
    /// CPU.
    pub cpu: Sums,
}

impl std::ops::AddAssign<&Self> for Outcome {
    fn add_assign(&mut self, other: &Self) {
        self.memory += other.memory;
        self.cpu += other.cpu;
    }
}

/// A trace with the calibration pools of its decisions.
#[derive(Debug)]
pub struct Replay<'t> {
    /// The trace.
    pub trace: &'t Trace,
    /// Calibration of the engine's rule on all workloads before each decision.
    pub pools: Vec<Pools>,
}

/// One workload prepared for replays.
pub(super) struct PreparedGroup<'t> {
    pub(super) group: &'t Group,
    pub(super) cpu: Vec<CpuSample>,
    /// Number and minute of each decision for this workload.
    pub(super) decided: Vec<(usize, usize)>,
}

impl<'t> PreparedGroup<'t> {
    pub(super) fn new(group: &'t Group, minutes: usize) -> Self {
        let samples = |pick: fn(&super::trace::ContainerTrace) -> &Series, now: usize| -> usize {
            group.rows.iter().map(|row| pick(row).range(0, now).count()).sum()
        };
        let enough = |now| {
            samples(|row| &row.memory, now) >= MIN_SAMPLES && samples(|row| &row.cpu, now) >= MIN_SAMPLES
        };
        // The number of samples only grows.
        let decided = decisions(minutes).enumerate().skip_while(|(_, now)| !enough(*now)).collect();
        Self { group, cpu: sorted_cpu(&group.rows), decided }
    }
}

impl<'t> Replay<'t> {
    /// Replays the engine's rule on the past of each decision, to fill the pools.
    pub fn new(trace: &'t Trace, rule: Rule) -> Self {
        let scope = LikesScope::default();
        let memory: Vec<Vec<Series>> = trace
            .groups
            .iter()
            .map(|group| group.rows.iter().map(|row| row.memory.clone()).collect())
            .collect();
        let mut observers: Vec<Observer> = trace.groups.iter().map(Observer::new).collect();
        let mut pools = Pools::empty(rule, scope);
        let before = (0..decisions(trace.minutes).next().unwrap_or(0)).step_by(STEP).map(|now| (now, false));
        let steps = before.chain(decisions(trace.minutes).map(|now| (now, true)));
        let mut of_decisions = Vec::new();
        for (now, is_decision) in steps {
            let members = trace.groups.iter().zip(&memory).zip(&mut observers);
            let members: Vec<Member<'_>> = members
                .map(|((group, memory), observer)| Member::new(observer.advance(group, memory, now), scope))
                .collect();
            pools.advance(Hour::from_seconds(now as u64 * 60), &members);
            if is_decision {
                of_decisions.push(pools.clone());
            }
        }
        Self { trace, pools: of_decisions }
    }

    /// Sums of each workload under each policy.
    pub fn open(&self, runs: &[Run]) -> Vec<Vec<Outcome>> {
        self.trace.groups.iter().map(|group| self.one(group, runs)).collect()
    }

    fn one(&self, group: &Group, runs: &[Run]) -> Vec<Outcome> {
        let minutes = self.trace.minutes;
        let prepared = PreparedGroup::new(group, minutes);
        let memory: Vec<Series> = group.rows.iter().map(|row| row.memory.clone()).collect();
        let mut observer = Observer::new(group);
        // A decision does not depend on the factor, so each policy decides once.
        let mut policies: Vec<(PolicyChoice, Box<dyn Policy + '_>)> = Vec::new();
        for run in runs {
            if policies.iter().all(|(choice, _)| *choice != run.choice) {
                policies.push((run.choice, run.choice.policy(group)));
            }
        }
        let mut outcomes = vec![Outcome::default(); runs.len()];
        let mut before: Vec<Option<Values>> = vec![None; runs.len()];
        for (number, now) in &prepared.decided {
            let horizon = Horizon::new(&group.rows, *now, (now + HORIZON).min(minutes));
            let view = PolicyInput {
                key: &group.key,
                rows: &group.rows,
                memory: &memory,
                cpu: &prepared.cpu,
                now: *now,
                minutes,
                kills: &[],
                evidence: Some(observer.advance(group, &memory, *now)),
                pools: self.pools.get(*number),
            };
            for (choice, policy) in &mut policies {
                let Some(decision) = policy.decide(&view) else { continue };
                let runs_of_policy = runs
                    .iter()
                    .zip(&mut outcomes)
                    .zip(&mut before)
                    .filter(|((run, _), _)| run.choice == *choice);
                for ((run, outcome), before) in runs_of_policy {
                    let values =
                        Values { cpu: decision.cpu * run.factor, memory: decision.memory * run.factor };
                    horizon.judge(values, *before, &mut outcome.memory, &mut outcome.cpu);
                    *before = Some(values);
                }
            }
        }
        outcomes
    }
}
