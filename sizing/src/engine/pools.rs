//! What a cluster's past says about each of its workloads, from a replay in time order.
//!
//! At each step, first the decisions of a day ago are judged, then all workloads are decided again. So each decision uses only
//! outcomes that were known: nothing uses a day before it is over.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{
    calibration::{ClusterPast, Exceeded, Pool, RISKS, STEPS},
    cpu::{self, ClusterCpu, CpuMember, JudgedDays},
    likes::{Like, LikesScope},
    memory::{PeakHistory, TRIAL_DAY, TRIAL_WEIGHT, Trial},
    rule::Rule,
};
use crate::evidence::{Evidence, Hour};

/// The past of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    rule: Rule,
    scope: LikesScope,
    memory: ClusterPast,
    cpu: ClusterCpu,
    likes: HashMap<Like, Exceeded>,
    own: HashMap<Key, Exceeded>,
    undecided: VecDeque<Step>,
    /// The hour of the first decision that something followed.
    first: Option<Hour>,
    /// Part of a day that a trial counts as, since days overlap.
    weight: f64,
}

/// Namespace, workload and container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key(String);

/// The decisions of one time.
#[derive(Clone, Debug)]
struct Step {
    at: Hour,
    decided: HashMap<Key, Decided>,
}

/// A decision that is not judged yet.
#[derive(Clone, Copy, Debug)]
struct Decided {
    trial: Trial,
    /// Factor of the margin.
    factor: f64,
    /// By risk of [`RISKS`].
    levels: [f64; STEPS],
}

impl Key {
    fn new(evidence: &Evidence) -> Self {
        Self(evidence.title())
    }
}

/// A workload's container with its peaks, prepared once for all steps.
#[derive(Debug)]
pub struct Member<'e> {
    key: Key,
    like: Like,
    history: PeakHistory<'e>,
    cpu: JudgedDays,
}

impl<'e> Member<'e> {
    /// Prepares a container.
    pub fn new(evidence: &'e Evidence, scope: LikesScope) -> Self {
        Self {
            key: Key::new(evidence),
            like: Like::new(evidence, scope),
            history: PeakHistory::new(evidence),
            cpu: JudgedDays::new(evidence),
        }
    }
}

impl Pools {
    /// No past yet.
    pub fn empty(rule: Rule, scope: LikesScope) -> Self {
        Self { rule, scope, weight: TRIAL_WEIGHT, ..Self::default() }
    }

    /// For steps of so many hours.
    #[must_use]
    pub fn with_step(self, hours: Hour) -> Self {
        Self { weight: (f64::from(hours.0) / f64::from(TRIAL_DAY)).min(1.0), ..self }
    }

    /// Replays the whole history of a cluster. It must have whole hours only.
    pub fn new(members: &[Member<'_>], rule: Rule, scope: LikesScope) -> Self {
        let mut pools = Self::empty(rule, scope);
        let times: BTreeSet<Hour> = members.iter().flat_map(|member| member.history.trial_hours()).collect();
        times.into_iter().for_each(|now| pools.step(now, members));
        if let Some(last) = members.iter().filter_map(|member| member.history.last()).max() {
            pools.step(last.later(1), members);
        }
        pools.cpu.lend(of_cpu(members));
        pools
    }

    /// One step: judges the decisions whose day is over at the beginning of an hour, and decides again. Hours must not decrease.
    pub fn advance(&mut self, now: Hour, members: &[Member<'_>]) {
        self.step(now, members);
        self.cpu.lend(of_cpu(members));
    }

    fn step(&mut self, now: Hour, members: &[Member<'_>]) {
        self.judge(now, members);
        self.cpu.advance(now, self.rule, &of_cpu(members));
        let trials: Vec<(&Member<'_>, Trial)> = members
            .iter()
            .filter_map(|member| Some((member, member.history.trial(now, self.rule)?)))
            .collect();
        let running: Vec<f64> =
            trials.iter().map(|(_, trial)| trial.pods).filter(|pods| *pods > 0.0).collect();
        self.memory.pods_today = running.iter().sum::<f64>() / running.len().max(1) as f64;
        let of_all = self.memory.calibration(Exceeded::default());
        let levels = RISKS.map(|risk| of_all.level(risk));
        let decided = trials.iter().map(|(member, trial)| {
            let own = self.own.get(&member.key).copied().unwrap_or_default();
            let calibration = of_all.with_likes(self.likes(&member.like, own));
            (
                member.key.clone(),
                Decided { trial: *trial, factor: calibration.factors(own).product(), levels },
            )
        });
        let decided = decided.collect();
        self.undecided.push_back(Step { at: now, decided });
    }

    /// How often likes exceeded the reference level, without the workload itself.
    fn likes(&self, like: &Like, own: Exceeded) -> Exceeded {
        self.likes.get(like).copied().unwrap_or_default().without(own)
    }

    fn judge(&mut self, now: Hour, members: &[Member<'_>]) {
        while self.undecided.front().is_some_and(|step| step.at.later(TRIAL_DAY) <= now) {
            let Some(step) = self.undecided.pop_front() else { return };
            for member in members {
                let Some(decided) = step.decided.get(&member.key) else { continue };
                let Some(outcome) = member.history.outcome(step.at) else { continue };
                let first = *self.first.get_or_insert(step.at);
                let days =
                    f64::from(step.at.later(TRIAL_DAY).0.saturating_sub(first.0)) / f64::from(TRIAL_DAY);
                let Decided { trial, factor, levels } = *decided;
                let (past, weight) = (&mut self.memory, self.weight);
                let above = |level: f64| outcome.pods_above(trial.limit(level, factor));
                past.add(days, (outcome.pods, outcome.killed), weight, above);
                for ((delivered, risk), level) in past.delivered.iter_mut().zip(RISKS).zip(levels) {
                    let Some(failed) = trial.failed(&outcome, level, factor) else { continue };
                    delivered.asked += weight * outcome.pods * risk;
                    delivered.seen += weight * failed;
                }
                let is_above = trial.exceeds_reference(&outcome);
                past.exceeded.add(is_above, weight);
                self.own.entry(member.key.clone()).or_default().add(is_above, weight);
                self.likes.entry(member.like.clone()).or_default().add(is_above, weight);
            }
            self.memory.end_time();
        }
    }

    /// What the past says about any container of the cluster.
    pub fn of_cluster(&self) -> Pool {
        Pool { memory: self.memory.calibration(Exceeded::default()), cpu: self.cpu.of_cluster() }
    }

    /// What the past says about one container, whether it is part of it or not.
    pub fn of(&self, evidence: &Evidence) -> Pool {
        let (key, like) = (Key::new(evidence), Like::new(evidence, self.scope));
        let own = self.own.get(&key).copied().unwrap_or_default();
        let likes = self.likes(&like, own);
        let cpu = self.cpu.of(&key.0, &like, cpu::window_millis(evidence));
        Pool { memory: self.memory.calibration(likes), cpu }
    }
}

fn of_cpu<'m>(members: &'m [Member<'_>]) -> impl Iterator<Item = CpuMember<'m>> + Clone {
    members.iter().map(|Member { key, like, cpu, .. }| CpuMember { name: &key.0, like, days: cpu })
}

#[cfg(test)]
mod tests;
