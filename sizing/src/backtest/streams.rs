//! Synthetic usage with a known hazard.
//!
//! Recorded traces are too short to judge a risk of 0.25 %: even a perfect rule lands between a third and 1.3 times of it in
//! little more than a third of their resamplings. Here usage is drawn from laws that are known, so the probability that the
//! next day exceeds a limit is computed instead of counted.
//!
//! Usage is by the hour, and decisions are made once a day, at midnight: the day that follows is a whole one. In each hour of a
//! day, usage is a base times `e^z`. The base depends on the kind of the stream ([`Kind`]) and on what happens on that day
//! (`laws.rs`); `z ≥ 0` is drawn for each pod and hour.

pub use super::law_sets::{Kind, LawSet};
use super::{
    laws::{HOURS, State, Stream, Truth},
    trace::{ContainerTrace, Series, Trace},
    world::World,
};
use crate::random::Random;

/// Minutes of an hour and of a day.
const HOUR: usize = 60;
const DAY: usize = 1440;
/// Hours of history that policies get: as with Prometheus by default, two weeks.
const KEEP_HOURS: u32 = 14 * 24;

/// The size of the streams of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub workloads: usize,
    pub days: usize,
}

impl Size {
    /// 15,360 pod-days of each kind in the first set of laws, and 18,240 in the second.
    pub const FULL: Self = Self { workloads: 40, days: 120 };
}

/// The streams of one kind, as a world with its truth. The same seed gives the same world.
pub fn world(laws: LawSet, kind: Kind, size: Size, seed: u64) -> World {
    let of = laws.magnitudes();
    let mut random = Random::new(seed ^ (kind as u64).wrapping_mul(0x9e37_79b9));
    let family = |workload: usize| if kind == Kind::Together { workload / of.family } else { workload };
    // What happens to a family on a day happens to all of its workloads.
    let mut draws: Vec<Vec<f64>> = Vec::new();
    let mut rows = Vec::new();
    let mut streams = Vec::new();
    for workload in 0..size.workloads {
        if draws.len() <= family(workload) {
            draws.push((0..size.days).map(|_| random.unit()).collect());
        }
        let stream = Stream::new(laws, kind, &mut random);
        let days = draws.last().map(Vec::as_slice).unwrap_or_default();
        let (states, factors) = live(&stream, days);
        let pods = of.replicas.get(workload % of.replicas.len()).copied().unwrap_or(1);
        for pod in 0..pods {
            let hours = || factors.iter().flatten();
            let memory = hours().map(|factor| stream.memory.draw(*factor, &mut random)).collect();
            let cpu = hours().map(|factor| stream.cpu.draw(*factor, &mut random)).collect();
            rows.push(ContainerTrace {
                namespace: kind.as_str().to_owned(),
                pod: format!("w{workload:03}-{pod}"),
                container: format!("c{:03}", family(workload)),
                node: String::new(),
                cpu: Series::with_step(HOUR, cpu),
                memory: Series::with_step(HOUR, memory),
            });
        }
        streams.push((stream, states, pods));
    }
    let mut world = World::of_trace(kind.as_str(), Trace::new(size.days * DAY, rows));
    world.step = DAY;
    world.keep_hours = Some(KEEP_HOURS);
    world.truth = Some(Truth::new(streams));
    world
}

/// The state at the beginning of each day, and the factors of its hours. Each day's draw picks what happens on it.
fn live(stream: &Stream, days: &[f64]) -> (Vec<State>, Vec<[f64; HOURS]>) {
    let mut state = State::default();
    let mut states = Vec::new();
    let mut factors = Vec::new();
    for draw in days {
        states.push(state);
        let mut scenarios = stream.scenarios(state);
        let mut rest = *draw;
        let at = scenarios.iter().position(|scenario| {
            rest -= scenario.probability;
            rest < 0.0
        });
        let scenario = scenarios.swap_remove(at.unwrap_or(scenarios.len() - 1));
        factors.push(scenario.factors);
        state = scenario.next;
    }
    (states, factors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backtest::{
            open::Replay,
            policies::{Floors, PolicyChoice, Run},
        },
        engine::Profile,
    };

    const SMALL: Size = Size { workloads: 10, days: 400 };

    #[test]
    fn the_same_seed_gives_the_same_usage() {
        let size = Size { workloads: 5, days: 3 };
        for kind in Kind::ALL {
            assert_eq!(world(LawSet::First, kind, size, 1).trace, world(LawSet::First, kind, size, 1).trace);
            assert_ne!(world(LawSet::First, kind, size, 1).trace, world(LawSet::First, kind, size, 2).trace);
        }
        let of = LawSet::First.magnitudes();
        let pods: usize =
            (0..Size::FULL.workloads).map(|workload| of.replicas[workload % of.replicas.len()]).sum();
        assert!(pods * Size::FULL.days * LawSet::First.kinds().len() >= 100_000);
    }

    /// Counts what the truth gives the probability of, over limits and requests from tight to wide.
    #[test]
    fn the_truth_is_what_happens() {
        for kind in Kind::ALL {
            let world = world(LawSet::First, kind, SMALL, 7);
            let truth = world.truth.as_ref().unwrap();
            for (margin, share) in [(1.1, 0.5), (1.3, 0.9), (1.6, 0.99)] {
                let (mut expected, mut seen, mut variance) = (0.0, 0.0, 0.0);
                let (mut above, mut all, mut true_above, mut true_all) = (0.0, 0.0, 0.0, 0.0);
                for (group, of) in world.trace.groups.iter().enumerate() {
                    for now in (DAY..world.trace.minutes).step_by(DAY) {
                        // Yesterday's median is a limit that is sometimes exceeded.
                        let row = &of.rows[0];
                        let mut before: Vec<f64> =
                            row.memory.range(now - DAY, now).map(|(_, used)| used).collect();
                        before.sort_by(f64::total_cmp);
                        let limit = before[12] * margin;
                        let probability = truth.exceeded(group, now, limit);
                        expected += probability;
                        variance += probability * (1.0 - probability);
                        seen += f64::from(u8::from(row.memory.highest(now, now + DAY).unwrap() > limit));

                        let mut cores: Vec<f64> =
                            row.cpu.range(now - DAY, now).map(|(_, used)| used).collect();
                        cores.sort_by(f64::total_cmp);
                        let request = cores[(23.0 * share) as usize];
                        for (_, used) in row.cpu.range(now, now + DAY) {
                            above += (used - request).max(0.0);
                            all += used;
                        }
                        let (of_above, of_all) = truth.work(group, now, request);
                        true_above += of_above;
                        true_all += of_all;
                    }
                }
                // Days of one family are not independent where it fails together.
                let spread = 4.0 * variance.sqrt() * if kind == Kind::Together { 3.0 } else { 1.0 };
                assert!((expected - seen).abs() <= spread.max(3.0), "{kind:?}, {margin}: {expected} {seen}");
                let (found, wanted) = (above / all, true_above / true_all);
                assert!((found / wanted - 1.0).abs() < 0.25, "{kind:?}, {share}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn a_wider_limit_is_exceeded_less_often() {
        for kind in Kind::ALL {
            let world = world(LawSet::First, kind, Size { workloads: 5, days: 30 }, 3);
            let truth = world.truth.as_ref().unwrap();
            for group in 0..world.trace.groups.len() {
                let at = |scale: f64| truth.exceeded(group, 20 * DAY, scale);
                let highest = world.trace.groups[group].rows[0].memory.highest(0, 20 * DAY).unwrap();
                assert!((at(0.0) - 1.0).abs() < 1e-9 && at(highest * 1e6) < 1e-9, "{kind:?}");
                let limits: Vec<f64> = (1..60).map(|step| at(highest * f64::from(step) / 20.0)).collect();
                assert!(limits.windows(2).all(|pair| pair[0] >= pair[1] - 1e-12), "{kind:?} {limits:?}");
            }
        }
    }

    #[test]
    fn the_truth_counts_all_pods() {
        let world = world(LawSet::First, Kind::Level, Size { workloads: 5, days: 4 }, 3);
        // The fifth workload has eight replicas, the first one.
        let nothing = PolicyChoice::Krr { floors: Floors::Off, kills: false };
        let decisions =
            Replay::new(&world, Profile::Standard.risk()).open(&[Run { choice: nothing, factor: 0.0 }]);
        let last = decisions[0].0.iter().filter(|it| it.at == 3 * DAY);
        let truth: Vec<_> =
            last.map(|it| (it.group, it.outcome.memory.truth(), it.outcome.cpu.truth())).collect();
        assert_eq!(truth.len(), 5);
        for (group, (bad, pods), (above, all)) in truth {
            assert_eq!(pods as usize, LawSet::First.magnitudes().replicas[group]);
            assert!((bad - pods).abs() < 1e-9 && (above - all).abs() < 1e-9 * all && all > 0.0, "{group}");
        }
    }
}
