//! The open loop.

use super::{
    HORIZON, LEAST_SAMPLES, decisions,
    observe::Observer,
    policies::Run,
    policy::{CpuSample, Values, View, sorted_cpu},
    score::{Sums, judge},
    trace::{Group, Series, Trace},
};
use crate::engine::{
    Pool,
    memory::{self, Rule},
};

/// Sums of one workload, by policy in the order asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Memory.
    pub memory: Sums,
    /// CPU.
    pub cpu: Sums,
}

/// A trace made ready for replays.
#[derive(Debug)]
pub struct Replay<'t> {
    /// The trace.
    pub trace: &'t Trace,
    /// How the engine's rule did on all workloads before each decision.
    pub pools: Vec<Pool>,
}

/// One workload made ready.
pub(super) struct Ready<'t> {
    pub(super) group: &'t Group,
    pub(super) cpu: Vec<CpuSample>,
    /// Minutes at which it is decided, with the number of the decision.
    pub(super) decided: Vec<(usize, usize)>,
}

impl<'t> Ready<'t> {
    pub(super) fn new(group: &'t Group, minutes: usize) -> Self {
        let samples = |pick: fn(&super::trace::Row) -> &Series, now: usize| -> usize {
            group.rows.iter().map(|row| pick(row).range(0, now).count()).sum()
        };
        let enough = |now| {
            samples(|row| &row.memory, now) >= LEAST_SAMPLES && samples(|row| &row.cpu, now) >= LEAST_SAMPLES
        };
        // Once there is enough there always is.
        let decided = decisions(minutes).enumerate().skip_while(|(_, now)| !enough(*now)).collect();
        Self { group, cpu: sorted_cpu(&group.rows), decided }
    }
}

impl<'t> Replay<'t> {
    /// Replays the engine's rule on the past of each decision, for the pool.
    pub fn new(trace: &'t Trace, rule: Rule) -> Self {
        let mut pools = vec![Pool::default(); decisions(trace.minutes).count()];
        for group in &trace.groups {
            let memory: Vec<Series> = group.rows.iter().map(|row| row.memory.clone()).collect();
            let mut observer = Observer::new(group);
            for (pool, now) in pools.iter_mut().zip(decisions(trace.minutes)) {
                pool.memory.merge(memory::tally(observer.advance(group, &memory, now), rule));
            }
        }
        Self { trace, pools }
    }

    /// What became of each workload under each policy.
    pub fn open(&self, runs: &[Run]) -> Vec<Vec<Outcome>> {
        self.trace.groups.iter().map(|group| self.one(group, runs)).collect()
    }

    fn one(&self, group: &Group, runs: &[Run]) -> Vec<Outcome> {
        let minutes = self.trace.minutes;
        let ready = Ready::new(group, minutes);
        let memory: Vec<Series> = group.rows.iter().map(|row| row.memory.clone()).collect();
        let each = |run: &Run| {
            let mut policy = run.choice.policy(group);
            let mut outcome = Outcome::default();
            let mut before: Option<Values> = None;
            for (number, now) in &ready.decided {
                let pool = self.pools.get(*number).copied().unwrap_or_default();
                let (key, rows, cpu) = (&group.key, &group.rows[..], &ready.cpu[..]);
                let view = View { key, rows, memory: &memory, cpu, now: *now, minutes, kills: &[], pool };
                let Some(Values { cpu, memory }) = policy.decide(&view) else { continue };
                let values = Values { cpu: cpu * run.factor, memory: memory * run.factor };
                let to = (now + HORIZON).min(minutes);
                judge(rows, values, before, *now, to, &mut outcome.memory, &mut outcome.cpu);
                before = Some(values);
            }
            outcome
        };
        runs.iter().map(each).collect()
    }
}
