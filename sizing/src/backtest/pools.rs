//! What the engine learns from all workloads of a world before a decision.

use super::{STEP, observe::Observer, trace::Series, world::World};
use crate::{
    engine::{LikesScope, Member, Pool, Pools, Rule},
    evidence::Hour,
};

/// The pool of each workload before each decision of a world, in order of time: as `snug` makes it of the history of a cluster.
pub fn pools(world: &World, rule: Rule) -> Vec<Vec<Pool>> {
    let groups = &world.trace.groups;
    let scope = LikesScope::default();
    let memory: Vec<Vec<Series>> =
        groups.iter().map(|group| group.rows.iter().map(|row| row.memory.clone()).collect()).collect();
    let mut observers: Vec<Observer> =
        groups.iter().map(|group| Observer::new(group, world.trace.interval, world.keep_hours)).collect();
    let mut pools = Pools::empty(rule, scope).with_step(Hour::from_seconds(world.step as u64 * 60));
    let mut decisions = world.decisions().peekable();
    let first = decisions.peek().copied().unwrap_or_default();
    // As in a cluster, the engine learns from the first day, before it decides for the first time.
    let before: Vec<usize> = (0..first)
        .step_by(world.step.max(STEP))
        .filter(|now| (first - now) % world.step.max(STEP) == 0)
        .collect();
    let mut at = |now: usize| {
        for ((observer, group), memory) in observers.iter_mut().zip(groups).zip(&memory) {
            observer.advance(group, memory, now);
        }
        let members: Vec<Member<'_>> =
            observers.iter().map(|observer| Member::new(observer.evidence(), scope)).collect();
        pools.advance(Hour::from_seconds(now as u64 * 60), &members);
        observers.iter().map(|observer| pools.of(observer.evidence())).collect()
    };
    for now in before {
        let _: Vec<Pool> = at(now);
    }
    decisions.map(at).collect()
}
