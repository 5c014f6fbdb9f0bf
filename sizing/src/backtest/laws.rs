//! The laws of synthetic usage, and the probabilities that follow from them.

use super::law_sets::{Kind, LawSet, Magnitudes};
use crate::random::Random;

/// Hours of a day.
pub(super) const HOURS: usize = 24;
const DAY: usize = 1440;

/// The noise of a resource: usage is `level · factor · e^z`, and `(z ÷ spread)^shape` is exponentially distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Noise {
    /// KiB or millicores.
    level: f64,
    spread: f64,
    /// 1: a heavy tail, that of a power law. 2: a light one.
    shape: f64,
}

impl Noise {
    pub(super) fn draw(&self, factor: f64, random: &mut Random) -> f64 {
        self.level * factor * (self.spread * random.exponential().powf(1.0 / self.shape)).exp()
    }

    /// The probability that usage of an hour is at most `limit`.
    fn within(&self, factor: f64, limit: f64) -> f64 {
        let z = (limit / (self.level * factor)).ln() / self.spread;
        if z > 0.0 { 1.0 - (-z.powf(self.shape)).exp() } else { 0.0 }
    }

    /// Expected usage above `request`, and expected usage, of an hour. For a shape of 1, where `e^z` has a power law with the
    /// exponent `1 ÷ spread`; the spread is below 1.
    fn work(&self, factor: f64, request: f64) -> (f64, f64) {
        let (base, tail) = (self.level * factor, 1.0 / self.spread);
        let all = base * tail / (tail - 1.0);
        if request <= base {
            return (all - request, all);
        }
        (base.powf(tail) * request.powf(1.0 - tail) / (tail - 1.0), all)
    }
}

/// One workload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stream {
    kind: Kind,
    magnitudes: &'static Magnitudes,
    pub(super) memory: Noise,
    pub(super) cpu: Noise,
    /// Share by which usage is higher at the busiest hour, and on weekdays; growth of a leak a day.
    amplitude: f64,
    weekly: f64,
    leak: f64,
    /// The busiest hour.
    busiest: f64,
}

/// What a stream remembers from day to day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct State {
    day: usize,
    level: f64,
    slope: f64,
    /// Hours since the last restart.
    since: f64,
}

impl Default for State {
    fn default() -> Self {
        Self { day: 0, level: 1.0, slope: 0.0, since: 0.0 }
    }
}

/// What can happen on a day.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scenario {
    pub(super) probability: f64,
    pub(super) factors: [f64; HOURS],
    /// The state of the next day.
    pub(super) next: State,
}

impl Stream {
    /// A random stream.
    pub(super) fn new(laws: LawSet, kind: Kind, random: &mut Random) -> Self {
        let of = laws.magnitudes();
        let mut log = |(low, high): (f64, f64)| (random.between(low.ln(), high.ln())).exp();
        let (memory, cpu) = (log(of.memory), log(of.cpu));
        let (spread, of_cpu, leak) = (log(of.memory_spread), log(of.cpu_spread), log(of.leak));
        let shape = random.pick(of.shapes).copied().unwrap_or(1.0);
        Self {
            kind,
            magnitudes: of,
            memory: Noise { level: memory, spread, shape },
            cpu: Noise { level: cpu, spread: of_cpu, shape: 1.0 },
            amplitude: random.between(of.amplitude.0, of.amplitude.1),
            weekly: random.between(of.weekly.0, of.weekly.1),
            leak,
            busiest: random.between(0.0, HOURS as f64),
        }
    }

    /// All that can happen on the day that begins with a state; the probabilities add up to 1.
    pub(super) fn scenarios(&self, state: State) -> Vec<Scenario> {
        let of = self.magnitudes;
        let next = State { day: state.day + 1, ..state };
        let one = |probability: f64, next: State, factor: &dyn Fn(usize) -> f64| Scenario {
            probability,
            factors: std::array::from_fn(factor),
            next,
        };
        match self.kind {
            Kind::Level | Kind::Limited => vec![one(1.0, next, &|_| 1.0)],
            Kind::Trend => {
                let (slopes, changes) = (of.slopes, of.slope_changes);
                let with = |probability: f64, slope: f64| {
                    let factor =
                        |hour: usize| state.level * (slope * (hour as f64 + 1.0) / HOURS as f64).exp();
                    one(probability, State { level: state.level * slope.exp(), slope, ..next }, &factor)
                };
                let new = slopes.iter().map(|slope| with(changes / slopes.len() as f64, *slope));
                new.chain([with(1.0 - changes, state.slope)]).collect()
            }
            Kind::Seasons => {
                let weekday = if state.day % 7 < 5 { 1.0 + self.weekly } else { 1.0 };
                let factor = |hour: usize| {
                    let angle = (hour as f64 - self.busiest) / HOURS as f64 * std::f64::consts::TAU;
                    weekday * (1.0 + self.amplitude * angle.cos().max(0.0))
                };
                vec![one(1.0, next, &factor)]
            }
            Kind::Rollouts => {
                let mut all = vec![one(1.0 - of.rollout, next, &|_| state.level)];
                for at in 0..HOURS {
                    for factor in of.rollouts {
                        let level = state.level * factor;
                        let probability = of.rollout / (HOURS * of.rollouts.len()) as f64;
                        let by_hour = |hour: usize| if hour < at { state.level } else { level };
                        all.push(one(probability, State { level, ..next }, &by_hour));
                    }
                }
                all
            }
            Kind::Together => {
                let shock = |factor: &f64| one(of.shock / of.shocks.len() as f64, next, &|_| *factor);
                let calm = one(1.0 - of.shock, next, &|_| 1.0);
                std::iter::once(calm).chain(of.shocks.iter().map(shock)).collect()
            }
            Kind::Restarts => {
                let grown = |hours: f64| 1.0 + self.leak * hours.min(of.longest) / HOURS as f64;
                let calm = |hour: usize| grown(state.since + hour as f64);
                let since = (state.since + HOURS as f64).min(of.longest);
                let mut all = vec![one(1.0 - of.restart, State { since, ..next }, &calm)];
                for at in 0..HOURS {
                    let factor = |hour: usize| match hour.checked_sub(at) {
                        None => calm(hour),
                        Some(0) => of.start,
                        Some(after) => grown(after as f64),
                    };
                    let since = (HOURS - at) as f64;
                    all.push(one(of.restart / HOURS as f64, State { since, ..next }, &factor));
                }
                all
            }
            Kind::Spikes => {
                let hours = 0..HOURS;
                let spike = |at: usize| {
                    of.spikes.iter().map(move |(factor, probability)| {
                        let by_hour = |hour: usize| if hour == at { *factor } else { 1.0 };
                        one(probability / HOURS as f64, next, &by_hour)
                    })
                };
                hours.flat_map(spike).collect()
            }
        }
    }
}

/// One workload of the truth: its stream, the state at the beginning of each day, and its pods.
type Simulated = (Stream, Vec<State>, usize);

/// The true probabilities of synthetic usage.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// By workload.
    streams: Vec<Simulated>,
}

impl Truth {
    pub(super) fn new(streams: Vec<Simulated>) -> Self {
        Self { streams }
    }

    fn at(&self, group: usize, now: usize) -> Option<(&Stream, Vec<Scenario>)> {
        let (stream, states, _) = self.streams.get(group)?;
        Some((stream, stream.scenarios(*states.get(now / DAY)?)))
    }

    /// The probability that a pod of a workload uses more memory than `limit`, KiB, on the day that begins at the minute `now`,
    /// given all that was before. 0 of days beyond the end.
    pub fn exceeded(&self, group: usize, now: usize, limit: f64) -> f64 {
        let Some((stream, scenarios)) = self.at(group, now) else { return 0.0 };
        // Hours with the same factor are alike.
        let within = |scenario: &Scenario| {
            let alike = scenario.factors.chunk_by(|a, b| a == b);
            let of_hours = |hours: &[f64]| {
                let of_one = hours.first().map_or(1.0, |factor| stream.memory.within(*factor, limit));
                of_one.powi(hours.len().min(HOURS) as i32)
            };
            alike.map(of_hours).product::<f64>()
        };
        // Summed up as complements, since 1 minus a sum near 1 would lose the digits that count.
        scenarios.iter().map(|scenario| scenario.probability * (1.0 - within(scenario))).sum()
    }

    /// Expected CPU time above `request`, millicores, and expected CPU time, of a pod on the day that begins at the minute `now`:
    /// sums over its hours, millicores.
    pub fn work(&self, group: usize, now: usize, request: f64) -> (f64, f64) {
        let Some((stream, scenarios)) = self.at(group, now) else { return (0.0, 0.0) };
        let mut sum = (0.0, 0.0);
        for scenario in &scenarios {
            for hours in scenario.factors.chunk_by(|a, b| a == b) {
                let (above, all) =
                    hours.first().map_or((0.0, 0.0), |factor| stream.cpu.work(*factor, request));
                sum.0 += scenario.probability * above * hours.len() as f64;
                sum.1 += scenario.probability * all * hours.len() as f64;
            }
        }
        sum
    }

    /// The pods of a workload.
    pub(super) fn pods(&self, group: usize) -> f64 {
        self.streams.get(group).map_or(0, |(_, _, pods)| *pods) as f64
    }
}
