//! Start-up: how long it lasts and how much more CPU it takes, from usage by the age of containers.
//!
//! The agent adds up, in each container's first hour, the observed time and the CPU time by the container's age, in steps
//! that double: the first second, the second one, to 4 s, to 8 s and so on. So the sums of runs, replicas and nodes simply
//! add, and a duration is known to a factor of two.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Steps of the age: the last one is from 2048 s to the end of the first hour.
pub const STEPS: usize = 13;
/// Observed microseconds without which a step says nothing.
const MIN_OBSERVED: u64 = 500_000;

/// Usage by age of containers in their first hour. Both lists are as long as the ages that were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageByAge {
    /// Observed time by step, microseconds.
    pub observed_micros: Vec<u64>,
    /// CPU time used by step, microseconds.
    pub cpu_micros: Vec<u64>,
}

/// A measured start-up, in the terms of the `startupBoost` of a VerticalPodAutoscaler.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StartUp {
    /// Seconds from the start of a container until its usage is no longer above its request: the end of a step.
    pub seconds: u64,
    /// Mean usage in the busiest step until then, cores.
    pub cores: f64,
    /// These cores divided by the CPU request, rounded up: VPA's `factor` is a whole number.
    pub factor: u64,
    /// Container-seconds observed in the first hour of containers.
    pub observed: u64,
}

impl fmt::Display for StartUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, cores, factor, .. } = self;
        write!(
            f,
            "start-up: until {seconds} s after a start usage is above the CPU request, up to {cores:.2} cores on average; as startupBoost of \
             a VerticalPodAutoscaler: factor {factor}, {seconds} s"
        )
    }
}

/// The step of an age in seconds.
fn step(age: f64) -> usize {
    if age < 1.0 { 0 } else { (age.log2() as usize + 1).min(STEPS - 1) }
}

/// The age at which a step ends, seconds.
const fn end(step: usize) -> u64 {
    1 << step
}

impl UsageByAge {
    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.observed_micros.iter().all(|micros| *micros == 0)
    }

    /// Adds usage at an age in seconds.
    pub fn add(&mut self, age: f64, observed_micros: u64, cpu_micros: u64) {
        let step = step(age);
        for (sums, more) in [(&mut self.observed_micros, observed_micros), (&mut self.cpu_micros, cpu_micros)]
        {
            if sums.len() <= step {
                sums.resize(step + 1, 0);
            }
            if let Some(sum) = sums.get_mut(step) {
                *sum = sum.saturating_add(more);
            }
        }
    }

    /// Adds other usage. Steps beyond the last one are ignored.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in
            [(&mut self.observed_micros, &other.observed_micros), (&mut self.cpu_micros, &other.cpu_micros)]
        {
            if mine.len() < theirs.len() {
                mine.resize(theirs.len().min(STEPS), 0);
            }
            for (sum, more) in mine.iter_mut().zip(theirs) {
                *sum = sum.saturating_add(*more);
            }
        }
    }

    /// Mean usage by step, cores; without steps that were hardly observed.
    fn cores(&self) -> impl DoubleEndedIterator<Item = (usize, f64)> + '_ {
        let both = self.observed_micros.iter().take(STEPS).zip(&self.cpu_micros).enumerate();
        both.filter(|(_, (observed, _))| **observed >= MIN_OBSERVED)
            .map(|(step, (observed, used))| (step, *used as f64 / *observed as f64))
    }

    /// Start-up above a CPU request in cores. `None` if usage by age is never above the request, or still is at the last age
    /// that was observed: then it is load, or its end is not known.
    pub fn above(&self, request: f64) -> Option<StartUp> {
        let (last, _) = self.cores().next_back()?;
        let (step, _) = self.cores().rfind(|(_, cores)| *cores > request)?;
        if step == last || request <= 0.0 {
            return None;
        }
        let cores = self.cores().map(|(_, cores)| cores).fold(0.0, f64::max);
        let observed = self.observed_micros.iter().fold(0_u64, |sum, micros| sum.saturating_add(*micros));
        // `as` saturates.
        Some(StartUp {
            seconds: end(step),
            cores,
            factor: (cores / request).ceil() as u64,
            observed: observed / 1_000_000,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Usage of a container second by second: two cores for `start` seconds, then a tenth.
    fn started(start: u64, lifetime: u64) -> UsageByAge {
        let mut usage = UsageByAge::default();
        for second in 0..lifetime {
            let micros = if second < start { 2_000_000 } else { 100_000 };
            usage.add(second as f64 + 0.5, 1_000_000, micros);
        }
        usage
    }

    #[test]
    fn steps_double() {
        assert_eq!(
            [0.0, 0.9, 1.0, 1.9, 2.0, 3.9, 4.0, 2047.0, 2048.0, 3599.0, 1e9].map(step),
            [0, 0, 1, 1, 2, 2, 3, 11, 12, 12, 12]
        );
        assert_eq!([0, 1, 2, 12].map(end), [1, 2, 4, 4096]);
    }

    #[test]
    fn start_up_lasts_until_usage_is_below_the_request() {
        let found = started(30, 600).above(0.5).unwrap();
        // To 32 s usage is above half a core, and in the steps before it is two cores.
        assert_eq!((found.seconds, found.cores, found.factor, found.observed), (32, 2.0, 4, 600));
        assert_eq!(started(30, 600).above(2.0), None);
        assert_eq!(started(600, 600).above(0.5), None, "its end was not seen");
        assert_eq!(UsageByAge::default().above(0.5), None);
        assert!(UsageByAge::default().is_empty() && !started(1, 2).is_empty());
    }

    proptest! {
            #[test]
            fn a_duration_is_known_to_a_factor_of_two(start in 1..1500_u64) {
                let found = started(start, 3600).above(0.2).unwrap();
    prop_assert!(2 * found.seconds > start && found.seconds <= start.next_power_of_two(), "{start}: {found:?}");
            }

            #[test]
            fn usage_of_several_runs_adds_up(runs in prop::collection::vec((0..2000_u64, 1..3600_u64), 1..4)) {
                let mut sum = UsageByAge::default();
                runs.iter().for_each(|(start, lifetime)| sum.merge(&started(*start, *lifetime)));
                let mut back = UsageByAge::default();
                runs.iter().rev().for_each(|(start, lifetime)| back.merge(&started(*start, *lifetime)));
                prop_assert_eq!(&sum, &back);
                let seconds: u64 = runs.iter().map(|(_, lifetime)| lifetime).sum();
                prop_assert_eq!(sum.observed_micros.iter().sum::<u64>(), seconds * 1_000_000);
            }
        }
}
