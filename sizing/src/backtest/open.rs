//! The open loop: decisions do not change the recorded usage.
//!
//! Decisions are made in order of time, each time for all workloads of a world. So what earlier decisions delivered can be
//! handed to later decisions of any workload, once the day that they were made for is over.

use super::{
    HORIZON, MIN_SAMPLES,
    observe::Observer,
    policies::{PolicyChoice, Run},
    policy::{CpuSample, Label, Policy, PolicyInput, Values, sorted_cpu},
    pools::pools,
    score::{Horizon, Scale, Sums},
    trace::{ContainerTrace, Group, Series},
    world::World,
};
use crate::engine::{Pool, Risk, Rule};

/// Sums of decisions under one policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub memory: Sums,
    pub cpu: Sums,
}

impl std::ops::AddAssign<&Self> for Outcome {
    fn add_assign(&mut self, other: &Self) {
        self.memory += other.memory;
        self.cpu += other.cpu;
    }
}

/// One decision for one workload, with its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Minute of the decision.
    pub at: usize,
    /// Index of the workload in the trace.
    pub group: usize,
    pub values: Values,
    /// What the horizon of this decision had.
    pub outcome: Outcome,
}

/// The decisions of one run, in order of time, and at one time in the order of the workloads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decisions(pub Vec<Decision>);

impl Decisions {
    /// Sums over the decisions that `take` selects.
    pub fn sum(&self, take: impl Fn(&Decision) -> bool) -> Outcome {
        let mut sum = Outcome::default();
        self.0.iter().filter(|decision| take(decision)).for_each(|decision| sum += &decision.outcome);
        sum
    }

    /// Sums over all decisions.
    pub fn total(&self) -> Outcome {
        self.sum(|_| true)
    }

    /// Sums by a number that belongs to each workload, such as its block; numbers are below `count`.
    pub fn by(&self, number_of: &[usize], count: usize) -> Vec<Outcome> {
        let mut sums = vec![Outcome::default(); count];
        for decision in &self.0 {
            let number = number_of.get(decision.group).and_then(|number| sums.get_mut(*number));
            number.into_iter().for_each(|sum| *sum += &decision.outcome);
        }
        sums
    }
}

/// A world to replay policies on.
#[derive(Debug)]
pub struct Replay<'w> {
    pub(super) world: &'w World,
    /// The levels of losses.
    asked: Risk,
    /// The pools of each workload before each decision, by the rule of the engine.
    pools: Vec<(Rule, Vec<Vec<Pool>>)>,
}

/// One workload prepared for replays.
pub(super) struct PreparedGroup<'t> {
    pub(super) group: &'t Group,
    pub(super) cpu: Vec<CpuSample>,
    /// Number and minute of each decision for this workload.
    pub(super) decided: Vec<(usize, usize)>,
}

impl<'t> PreparedGroup<'t> {
    pub(super) fn new(group: &'t Group, world: &World) -> Self {
        let samples = |pick: fn(&ContainerTrace) -> &Series, now: usize| -> usize {
            group.rows.iter().map(|row| pick(row).range(0, now).count()).sum()
        };
        let enough = |now| {
            samples(|row| &row.memory, now) >= MIN_SAMPLES && samples(|row| &row.cpu, now) >= MIN_SAMPLES
        };
        // The number of samples only grows.
        let decided = world.decisions().enumerate().skip_while(|(_, now)| !enough(*now)).collect();
        Self { group, cpu: sorted_cpu(&group.rows), decided }
    }
}

/// A policy of the replay, with one instance per workload.
struct Contestant<'w> {
    choice: PolicyChoice,
    policies: Vec<Box<dyn Policy + 'w>>,
    /// What is known of earlier decisions.
    labels: Vec<Label>,
    /// Labels whose day is not over, in order of time.
    pending: Vec<Label>,
}

impl Contestant<'_> {
    /// Makes the labels known whose day is over.
    fn learn(&mut self, now: usize) {
        let delay = self.choice.label_delay();
        let over = self.pending.partition_point(|label| label.at + delay <= now);
        self.labels.extend(self.pending.drain(..over));
    }
}

/// One workload in the replay.
struct Replayed<'w> {
    prepared: PreparedGroup<'w>,
    memory: Vec<Series>,
    observer: Observer,
    /// Place of the next decision in `prepared.decided`.
    next: usize,
    /// By run: the values before.
    before: Vec<Option<Values>>,
    /// Highest memory usage, sum and number of CPU samples until now, and until when.
    past: (f64, f64, usize),
    until: usize,
}

impl Replayed<'_> {
    /// Adds usage before a decision to `past`.
    fn advance(&mut self, now: usize) {
        let group = self.prepared.group;
        self.observer.advance(group, &self.memory, now);
        for row in &group.rows {
            let (highest, sum, samples) = &mut self.past;
            *highest = row.memory.highest(self.until, now).map_or(*highest, |value| value.max(*highest));
            for (_, value) in row.cpu.range(self.until, now) {
                *sum += value;
                *samples += 1;
            }
        }
        self.until = now;
    }

    fn scale(&self, asked: Risk) -> Scale {
        let (memory, sum, samples) = self.past;
        Scale { asked, memory, cpu: sum / samples.max(1) as f64 }
    }
}

impl<'w> Replay<'w> {
    /// Prepares a world. `asked` is the risk at whose levels losses are counted.
    pub fn new(world: &'w World, asked: Risk) -> Self {
        Self { world, asked, pools: Vec::new() }
    }

    /// Makes the pools of the rules of some policies, which the replay of these policies needs.
    pub fn prepare(&mut self, choices: impl IntoIterator<Item = PolicyChoice>) {
        for rule in choices.into_iter().filter_map(PolicyChoice::rule) {
            if self.pools.iter().all(|(known, _)| *known != rule) {
                self.pools.push((rule, pools(self.world, rule)));
            }
        }
    }

    /// The pool of a policy before the decision with a number, for the workload with an index.
    pub(super) fn pool(&self, choice: PolicyChoice, number: usize, group: usize) -> Pool {
        let of_rule = choice.rule().and_then(|rule| self.pools.iter().find(|(known, _)| *known == rule));
        of_rule.and_then(|(_, pools)| pools.get(number)?.get(group)).copied().unwrap_or_default()
    }

    pub fn open(&mut self, runs: &[Run]) -> Vec<Decisions> {
        self.prepare(runs.iter().map(|run| run.choice));
        let world = self.world;
        let mut replayed: Vec<Replayed<'_>> =
            world.trace.groups.iter().map(|group| self.replayed(group, runs.len())).collect();
        // A decision does not depend on the factor, so each policy decides once.
        let mut contestants: Vec<Contestant<'_>> = Vec::new();
        for run in runs {
            if contestants.iter().all(|known| known.choice != run.choice) {
                let policies = world.trace.groups.iter().map(|group| run.choice.policy(group, world));
                contestants.push(Contestant {
                    choice: run.choice,
                    policies: policies.collect(),
                    labels: Vec::new(),
                    pending: Vec::new(),
                });
            }
        }
        let mut decisions = vec![Decisions::default(); runs.len()];
        for (number, now) in world.decisions().enumerate() {
            replayed.iter_mut().for_each(|one| one.advance(now));
            contestants.iter_mut().for_each(|contestant| contestant.learn(now));
            for (group, one) in replayed.iter_mut().enumerate() {
                if one.prepared.decided.get(one.next).is_none_or(|(_, at)| *at != now) {
                    continue;
                }
                one.next += 1;
                let horizon = Horizon::new(&one.prepared.group.rows, now, world.horizon_end(now));
                for contestant in &mut contestants {
                    self.decide((group, one), (number, now), &horizon, contestant, runs, &mut decisions);
                }
            }
        }
        decisions
    }

    fn replayed(&self, group: &'w Group, runs: usize) -> Replayed<'w> {
        Replayed {
            prepared: PreparedGroup::new(group, self.world),
            memory: group.rows.iter().map(|row| row.memory.clone()).collect(),
            observer: Observer::new(group, self.world.trace.interval, self.world.keep_hours),
            next: 0,
            before: vec![None; runs],
            past: (0.0, 0.0, 0),
            until: 0,
        }
    }

    /// Has one policy decide for one workload, and judges the runs of the policy.
    fn decide(
        &self,
        (group, one): (usize, &mut Replayed<'_>),
        (number, now): (usize, usize),
        horizon: &Horizon,
        contestant: &mut Contestant<'_>,
        runs: &[Run],
        decisions: &mut [Decisions],
    ) {
        let view = PolicyInput {
            key: &one.prepared.group.key,
            rows: &one.prepared.group.rows,
            memory: &one.memory,
            cpu: &one.prepared.cpu,
            now,
            minutes: self.world.trace.minutes,
            kills: &[],
            evidence: Some(one.observer.evidence()),
            pool: self.pool(contestant.choice, number, group),
            labels: &contestant.labels,
        };
        let decision = contestant.policies.get_mut(group).and_then(|policy| policy.decide(&view));
        let Some(decision) = decision else { return };
        let scale = one.scale(self.asked);
        for (place, run) in runs.iter().enumerate().filter(|(_, run)| run.choice == contestant.choice) {
            let values = Values { cpu: decision.cpu * run.factor, memory: decision.memory * run.factor };
            let mut outcome = Outcome::default();
            let before = one.before.get_mut(place).and_then(|before| before.replace(values));
            horizon.judge(values, before, &scale, &mut outcome.memory, &mut outcome.cpu);
            if let Some(truth) = &self.world.truth {
                let pods = truth.pods(group);
                outcome.memory.add_truth(pods * truth.exceeded(group, now, values.memory), pods);
                let (above, all) = truth.work(group, now, values.cpu);
                outcome.cpu.add_truth(pods * above, pods * all);
            }
            if let Some(decisions) = decisions.get_mut(place) {
                decisions.0.push(Decision { at: now, group, values, outcome });
            }
        }
        if contestant.choice.learns() && now + HORIZON <= self.world.trace.minutes {
            contestant.pending.push(Label {
                at: now,
                group,
                values: decision,
                highest: horizon.highest().collect(),
                work: horizon.work(decision.cpu),
            });
        }
    }
}
