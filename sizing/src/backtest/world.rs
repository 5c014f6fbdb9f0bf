//! A world: the sets of traces of one cluster and one time.
//!
//! Workloads of a world can be alike and can fail together, so what is learnt from some of them is not tested by the others.
//! Only another world, or other families at another time, can do that.

use super::{
    HORIZON, STEP, decisions,
    laws::Truth,
    trace::{ContainerTrace, Trace},
};
use crate::families::Family;

/// One or more traces with the same clock.
#[derive(Clone, Debug)]
pub struct World {
    pub name: String,
    /// The usage of all sets together.
    pub trace: Trace,
    /// Names of the sets.
    pub sets: Vec<String>,
    /// The set of each group.
    pub set_of: Vec<usize>,
    /// The family of each group.
    pub families: Vec<Family>,
    /// The block of each group: [`crate::families::blocks`].
    pub blocks: Vec<usize>,
    /// Minutes between decisions.
    pub step: usize,
    /// Hours of history that policies get; `None`: all.
    pub keep_hours: Option<u32>,
    /// The true probabilities, where usage is synthetic.
    pub truth: Option<Truth>,
}

/// The sets of a world are of different lengths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the sets of the world {world} do not have the same clock: {a} has {of_a} minutes, and {b} has {of_b}; make them separate worlds"
)]
pub struct ClockError {
    world: String,
    a: String,
    of_a: usize,
    b: String,
    of_b: usize,
}

impl World {
    /// A world of sets with their names. A workload that two sets have is one workload of the first.
    ///
    /// # Errors
    /// When the sets are of different lengths.
    pub fn new(name: &str, sets: Vec<(String, Trace)>) -> Result<Self, ClockError> {
        let mut minutes: Option<(String, usize)> = None;
        let mut names = Vec::new();
        let mut set_of_key = std::collections::HashMap::new();
        let mut rows: Vec<ContainerTrace> = Vec::new();
        for (set, trace) in sets {
            match &minutes {
                Some((a, of_a)) if *of_a != trace.minutes => {
                    return Err(ClockError {
                        world: name.to_owned(),
                        a: a.clone(),
                        of_a: *of_a,
                        b: set,
                        of_b: trace.minutes,
                    });
                }
                Some(_) => {}
                None => minutes = Some((set.clone(), trace.minutes)),
            }
            for group in trace.groups {
                set_of_key.entry(group.key).or_insert(names.len());
                rows.extend(group.rows);
            }
            names.push(set);
        }
        let trace = Trace::new(minutes.map_or(0, |(_, minutes)| minutes), rows);
        let set_of = trace
            .groups
            .iter()
            .map(|group| set_of_key.get(&group.key).copied().unwrap_or_default())
            .collect();
        Ok(Self::of(name, trace, names, set_of))
    }

    /// A world of one trace.
    pub fn of_trace(name: &str, trace: Trace) -> Self {
        let set_of = vec![0; trace.groups.len()];
        Self::of(name, trace, vec![name.to_owned()], set_of)
    }

    fn of(name: &str, trace: Trace, sets: Vec<String>, set_of: Vec<usize>) -> Self {
        let (families, blocks) = trace.families();
        Self {
            name: name.to_owned(),
            trace,
            sets,
            set_of,
            families,
            blocks,
            step: STEP,
            keep_hours: None,
            truth: None,
        }
    }

    /// The minutes of the decisions.
    pub fn decisions(&self) -> impl Iterator<Item = usize> + use<> {
        decisions(self.trace.minutes, self.step)
    }

    /// The end of the horizon of a decision.
    pub fn horizon_end(&self, now: usize) -> usize {
        (now + HORIZON).min(self.trace.minutes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::trace::Series;

    fn set(minutes: usize, names: &[(&str, &str)]) -> Trace {
        let row = |(pod, container): &(&str, &str)| ContainerTrace {
            pod: (*pod).to_owned(),
            container: (*container).to_owned(),
            memory: Series::with_step(1, vec![1.0; minutes]),
            ..ContainerTrace::default()
        };
        Trace::new(minutes, names.iter().map(row))
    }

    #[test]
    fn sets_of_one_clock_are_one_world() {
        let a = ("a".to_owned(), set(2000, &[("web-0", "app"), ("db-0", "db")]));
        let b = ("b".to_owned(), set(2000, &[("web-0", "proxy"), ("cache-0", "cache")]));
        let world = World::new("both", vec![a.clone(), b]).unwrap();
        let containers: Vec<&str> = world.trace.groups.iter().map(|group| &*group.key.container).collect();
        assert_eq!(containers, ["cache", "db", "app", "proxy"]);
        assert_eq!(world.set_of, [1, 0, 0, 1]);
        // The containers of one pod are in one block, whatever their sets.
        assert_eq!(world.blocks, [0, 1, 2, 2]);
        assert_eq!(world.decisions().collect::<Vec<_>>(), [1440]);

        let error = World::new("both", vec![a, ("c".to_owned(), set(3000, &[]))]).unwrap_err();
        assert!(error.to_string().contains("a has 2000 minutes, and c has 3000"), "{error}");
    }
}
