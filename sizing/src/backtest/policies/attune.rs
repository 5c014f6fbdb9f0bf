//! Attune as a policy.

use super::Floors;
use crate::{
    backtest::policy::{Policy, PolicyInput, Values},
    baselines::attune::{CPU, MEMORY, Profile, STEP, Settings},
};

/// The hour of the day at minute 0. The traces of `docs/backtest.md` begin at 17:00 UTC, or at an unknown hour.
const FIRST_HOUR: usize = 17;

#[derive(Debug)]
pub(super) struct Attune {
    confident: bool,
    floors: Floors,
    cpu: Profile,
    memory: Profile,
    /// The next step.
    until: usize,
}

impl Attune {
    pub(super) fn new(confident: bool, floors: Floors) -> Self {
        Self { confident, floors, cpu: Profile::default(), memory: Profile::default(), until: 0 }
    }
}

impl Policy for Attune {
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values> {
        while self.until * STEP < view.now {
            let minute = self.until * STEP;
            let cpu = view.rows.iter().filter_map(|row| row.cpu.at(minute)).reduce(f64::max);
            let memory = view.memory.iter().filter_map(|series| series.at(minute)).reduce(f64::max);
            cpu.into_iter().for_each(|usage| self.cpu.add(self.until, usage));
            memory.into_iter().for_each(|usage| self.memory.add(self.until, usage));
            self.until += 1;
        }
        let settings = |shipped: Settings| match self.floors {
            Floors::Shipped => shipped,
            Floors::Rounded | Floors::Off => Settings { floor: 0.0, ..shipped },
        };
        Some(Values {
            cpu: self.cpu.recommend(settings(CPU), FIRST_HOUR, self.confident)?,
            memory: self.memory.recommend(settings(MEMORY), FIRST_HOUR, self.confident)?,
        })
    }
}
