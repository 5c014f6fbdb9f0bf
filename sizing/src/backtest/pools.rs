//! What the engine learns from all workloads of a world before a decision.

use super::{observe::Observer, trace::Series, world::World};
use crate::{
    engine::{Pool, Rule, memory},
    evidence::Evidence,
};

/// The pool of some usage histories, as `snug` makes it of those of a cluster.
pub fn pool<'e>(all: impl IntoIterator<Item = &'e Evidence>, rule: Rule) -> Pool {
    let mut pool = Pool::default();
    for evidence in all {
        pool.memory.merge(memory::tally(evidence, rule));
    }
    pool
}

/// The pool before each decision of a world, in order of time.
pub fn pools(world: &World, rule: Rule) -> Vec<Pool> {
    let groups = &world.trace.groups;
    let memory: Vec<Vec<Series>> =
        groups.iter().map(|group| group.rows.iter().map(|row| row.memory.clone()).collect()).collect();
    let mut observers: Vec<Observer> =
        groups.iter().map(|group| Observer::new(group, world.trace.interval, world.keep_hours)).collect();
    let at = |now: usize| {
        for ((observer, group), memory) in observers.iter_mut().zip(groups).zip(&memory) {
            observer.advance(group, memory, now);
        }
        pool(observers.iter().map(Observer::evidence), rule)
    };
    world.decisions().map(at).collect()
}
