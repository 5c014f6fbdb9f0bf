//! The policies that are compared.

mod attune;
#[cfg(test)]
pub(super) mod cheat;
mod kruize;
mod snug;

use super::{
    policy::{Policy, PolicyInput, Values},
    trace::Group,
    world::World,
};
use crate::{
    baselines::{autopilot, krr, kruize as kruize_models, vpa},
    engine::{Risk, Rule},
};

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;
const DAY: usize = 1440;

/// A policy to replay on a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PolicyChoice {
    /// The engine, at a risk, as shipped.
    Snug(Risk, Rule),
    /// What the engine finds is needed for the next day, at a risk: without the rules of advice (floors, steps, kept values,
    /// growth to a longer horizon).
    SnugNeed(Risk, Rule),
    /// KRR `simple`.
    Krr {
        /// Whether its minimum values apply.
        floors: Floors,
        /// `--use-oomkill-data`.
        kills: bool,
    },
    /// KRR `simple_limit`.
    KrrLimit,
    /// VPA's target, simplified: amounts are not rounded down, and the days of memory peaks are counted back from the
    /// decision.
    Vpa {
        /// Whether its minimum values apply.
        floors: Floors,
    },
    /// VPA's recommender itself, fed minute by minute.
    VpaRecommender {
        /// Which of its values.
        bound: VpaBound,
        /// Whether its minimum values apply.
        floors: Floors,
    },
    /// Autopilot's moving window.
    Autopilot,
    /// Attune, without its change filter.
    Attune {
        /// Whether it is as confident as after seven days.
        confident: bool,
        /// Whether its minimum values apply.
        floors: Floors,
    },
    /// A model of Kruize, approximately: its CPU percentile, as a share.
    Kruize(f64),
    /// Knows the horizon.
    Oracle {
        /// Share of the time in which usage exceeds the CPU request.
        exceeded: f64,
        /// Whether values are rounded up.
        floors: Floors,
    },
    /// A policy that uses what it cannot know, to prove that tests notice.
    #[cfg(test)]
    Cheat(cheat::Cheat),
}

/// The minimum values and the rounding of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floors {
    /// As the tool ships them.
    Shipped,
    /// Without minimum values, but rounded.
    Rounded,
    /// Neither.
    Off,
}

/// One policy with its values times a factor, for a sweep of its margin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    pub choice: PolicyChoice,
    /// Factor on its values.
    pub factor: f64,
}

impl From<PolicyChoice> for Run {
    fn from(choice: PolicyChoice) -> Self {
        Self { choice, factor: 1.0 }
    }
}

/// One of VPA's three values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VpaBound {
    /// `target`, which pods get.
    Target,
    /// `lowerBound`: Goldilocks' burstable requests.
    Lower,
    /// `upperBound`: Goldilocks' burstable limits.
    Upper,
}

impl PolicyChoice {
    /// All policies but the engine, with their names.
    pub const BASELINES: [(&'static str, Self); 15] = [
        ("krr-simple", Self::Krr { floors: Floors::Shipped, kills: false }),
        ("krr-simple-nofloor", Self::Krr { floors: Floors::Rounded, kills: false }),
        ("krr-simple-oomkills", Self::Krr { floors: Floors::Shipped, kills: true }),
        ("krr-simple-limit", Self::KrrLimit),
        ("vpa", Self::Vpa { floors: Floors::Shipped }),
        ("vpa-nofloor", Self::Vpa { floors: Floors::Rounded }),
        ("vpa-recommender", Self::VpaRecommender { bound: VpaBound::Target, floors: Floors::Shipped }),
        ("goldilocks-request", Self::VpaRecommender { bound: VpaBound::Lower, floors: Floors::Shipped }),
        ("goldilocks-limit", Self::VpaRecommender { bound: VpaBound::Upper, floors: Floors::Shipped }),
        ("autopilot-window", Self::Autopilot),
        ("attune-nofilter", Self::Attune { confident: false, floors: Floors::Shipped }),
        ("attune-nofilter-fullconf", Self::Attune { confident: true, floors: Floors::Shipped }),
        ("kruize-approx-performance", Self::Kruize(kruize_models::PERFORMANCE)),
        ("kruize-approx-cost", Self::Kruize(kruize_models::COST)),
        ("oracle", Self::Oracle { exceeded: ORACLE_EXCEEDED, floors: Floors::Shipped }),
    ];

    /// The constants of the engine; `None` of other policies.
    pub const fn rule(self) -> Option<Rule> {
        match self {
            Self::Snug(_, rule) | Self::SnugNeed(_, rule) => Some(rule),
            _ => None,
        }
    }

    /// Whether the policy gets what its earlier decisions delivered.
    pub(super) const fn learns(self) -> bool {
        match self {
            #[cfg(test)]
            Self::Cheat(_) => true,
            _ => self.rule().is_some(),
        }
    }

    /// Minutes from a decision until its label is known: its whole horizon.
    pub(super) const fn label_delay(self) -> usize {
        match self {
            #[cfg(test)]
            Self::Cheat(cheat) => cheat.label_delay(),
            _ => super::HORIZON,
        }
    }

    /// The policy without minimum values and rounding. `None` where another policy is the same without them.
    pub const fn without_floors(self) -> Option<Self> {
        Some(match self {
            Self::Snug(risk, rule) => Self::SnugNeed(risk, rule),
            Self::Krr { floors: Floors::Shipped, kills: false } => {
                Self::Krr { floors: Floors::Off, kills: false }
            }
            Self::Vpa { floors: Floors::Shipped } => Self::Vpa { floors: Floors::Off },
            Self::VpaRecommender { bound: VpaBound::Target, floors: Floors::Shipped } => {
                Self::VpaRecommender { bound: VpaBound::Target, floors: Floors::Off }
            }
            Self::Attune { confident, floors: Floors::Shipped } => {
                Self::Attune { confident, floors: Floors::Off }
            }
            Self::Oracle { exceeded, floors: Floors::Shipped } => {
                Self::Oracle { exceeded, floors: Floors::Off }
            }
            Self::Autopilot | Self::Kruize(_) => self,
            _ => return None,
        })
    }

    /// A policy for one workload of a world.
    pub fn policy<'w>(self, group: &'w Group, world: &World) -> Box<dyn Policy + 'w> {
        match self {
            Self::Snug(risk, rule) => Box::new(snug::Snug::new(group, world, risk, rule, true)),
            Self::SnugNeed(risk, rule) => Box::new(snug::Snug::new(group, world, risk, rule, false)),
            Self::Attune { confident, floors } => Box::new(attune::Attune::new(confident, floors)),
            Self::Kruize(share) => Box::new(kruize::Kruize { share }),
            #[cfg(test)]
            Self::Cheat(cheat) => Box::new(cheat),
            Self::Krr { floors, kills } => Box::new(Krr { floors, kills }),
            Self::KrrLimit => Box::new(KrrLimit),
            Self::Vpa { floors } => Box::new(Vpa { floors }),
            Self::VpaRecommender { bound, floors } => Box::new(VpaRecommender {
                bound,
                floors,
                aggregate: vpa::Aggregate::default(),
                memory: vec![vpa::ContainerMemory::default(); group.rows.len()],
                until: 0,
                kills: 0,
            }),
            Self::Autopilot => Box::new(Autopilot { window: autopilot::Window::default(), until: 0 }),
            Self::Oracle { exceeded, floors } => Box::new(Oracle { exceeded, floors }),
        }
    }
}

/// KRR `simple`.
struct Krr {
    floors: Floors,
    kills: bool,
}

/// CPU samples by pod, each ascending.
fn by_pod(view: &PolicyInput<'_>) -> Vec<Vec<f64>> {
    let mut pods = vec![Vec::new(); view.rows.len()];
    for sample in view.past_cpu() {
        if let Some(pod) = pods.get_mut(sample.row as usize) {
            pod.push(sample.value);
        }
    }
    pods
}

impl Policy for Krr {
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values> {
        if self.floors == Floors::Off {
            let pods = by_pod(view);
            let cpu =
                pods.iter().filter_map(|sorted| krr::percentile(sorted, krr::CPU_SHARE)).reduce(f64::max)?;
            return Some(Values { cpu, memory: view.highest()? * krr::MEMORY_BUFFER });
        }
        let floor = |value: f64| if self.floors == Floors::Shipped { value } else { 0.0 };
        let failed = view.kills.iter().map(|kill| kill.limit * KIB).reduce(f64::max).filter(|_| self.kills);
        let cpu = krr::cpu_request(&by_pod(view), floor(krr::CPU_FLOOR))?;
        let memory = krr::memory(view.highest()? * KIB, failed, floor(krr::MEMORY_FLOOR)) / KIB;
        Some(Values { cpu, memory })
    }
}

/// KRR `simple_limit`, with its CPU request.
struct KrrLimit;

impl Policy for KrrLimit {
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values> {
        let all: Vec<f64> = view.past_cpu().map(|sample| sample.value).collect();
        let (cpu, _) = krr::cpu_request_and_limit(&all, krr::CPU_FLOOR)?;
        Some(Values { cpu, memory: krr::memory(view.highest()? * KIB, None, krr::MEMORY_FLOOR) / KIB })
    }
}

/// VPA's target, simplified.
struct Vpa {
    floors: Floors,
}

/// Target percentile as a share, safety margin, and growth of the buckets.
const VPA_SHARE: f64 = 0.9;
const VPA_MARGIN: f64 = 1.15;
const VPA_RATIO: f64 = 1.05;
/// First buckets: millicores and KiB.
const VPA_FIRST_CPU: f64 = 10.0;
const VPA_FIRST_MEMORY: f64 = 1e7 / KIB;
/// Floors: millicores and KiB.
const VPA_MIN_CPU: f64 = 25.0;
const VPA_MIN_MEMORY: f64 = 250.0 * KIB;

/// The end of the bucket that a value lies in.
fn bucket_end(value: f64, first: f64) -> f64 {
    let growth = VPA_RATIO - 1.0;
    let bucket =
        if value < first { 0.0 } else { ((value * growth / first + 1.0).ln() / VPA_RATIO.ln()).floor() };
    first * (VPA_RATIO.powf(bucket + 1.0) - 1.0) / growth
}

/// The value at which a share of the weight is reached, of values in ascending order.
fn weighted(values: impl Iterator<Item = (f64, f64)> + Clone, share: f64) -> Option<f64> {
    let total: f64 = values.clone().map(|(_, weight)| weight).sum();
    let mut sum = 0.0;
    let mut last = None;
    for (value, weight) in values {
        sum += weight;
        last = Some(value);
        if sum >= share * total {
            break;
        }
    }
    last
}

/// Weight of a sample that is `age` minutes old, with a half-life of a day.
fn weight_at_age(age: usize) -> f64 {
    0.5_f64.powf(age as f64 / DAY as f64)
}

impl Policy for Vpa {
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values> {
        let now = view.now;
        let weights: Vec<f64> = (0..=now).map(weight_at_age).collect();
        let weight = |at: u32| weights.get(now - at as usize).copied().unwrap_or(0.0);
        let cpu = weighted(view.past_cpu().map(|sample| (sample.value, weight(sample.at))), VPA_SHARE)?;
        let mut peaks = Vec::new();
        let mut end = now;
        while end > 0 {
            let from = end.saturating_sub(DAY);
            let highest = view.memory.iter().filter_map(|series| series.highest(from, end));
            peaks.extend(highest.map(|peak| (peak, weight_at_age(now - end))));
            end = from;
        }
        for kill in view.kills {
            let needed = (kill.limit + 100.0 * KIB).max(kill.limit * 1.2);
            peaks.push((needed, weight_at_age(now.saturating_sub(kill.at))));
        }
        peaks.sort_by(|a, b| a.0.total_cmp(&b.0));
        let memory = weighted(peaks.iter().copied(), VPA_SHARE)?;
        let floor = |value: f64| if self.floors == Floors::Shipped { value } else { 0.0 };
        Some(Values {
            cpu: (bucket_end(cpu, VPA_FIRST_CPU) * VPA_MARGIN).max(floor(VPA_MIN_CPU)),
            memory: (bucket_end(memory, VPA_FIRST_MEMORY) * VPA_MARGIN).max(floor(VPA_MIN_MEMORY)),
        })
    }
}

/// VPA's recommender.
struct VpaRecommender {
    bound: VpaBound,
    floors: Floors,
    aggregate: vpa::Aggregate,
    memory: Vec<vpa::ContainerMemory>,
    until: usize,
    kills: usize,
}

impl Policy for VpaRecommender {
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values> {
        let seconds = |minute: usize| minute as f64 * 60.0;
        for minute in self.until..view.now {
            let at = seconds(minute);
            for ((row, series), container) in view.rows.iter().zip(view.memory).zip(&mut self.memory) {
                if let Some(millicores) = row.cpu.at(minute) {
                    self.aggregate.add_cpu(millicores / 1000.0, at);
                }
                if let Some(kib) = series.at(minute) {
                    container.add(kib * KIB, at, &mut self.aggregate);
                }
            }
        }
        self.until = view.now;
        for kill in view.kills.iter().skip(self.kills) {
            if let Some(container) = self.memory.get_mut(kill.row) {
                // VPA ignores an OOM kill that is too old.
                container.oom(kill.limit * KIB, seconds(kill.at), &mut self.aggregate).unwrap_or_default();
            }
        }
        self.kills = view.kills.len();
        let is_floored = self.floors == Floors::Shipped;
        let minimum = if is_floored { vpa::podwide_minimum(1) } else { vpa::Amounts::default() };
        let estimates = vpa::estimate(&self.aggregate, minimum);
        let amounts = match self.bound {
            VpaBound::Target => estimates.target,
            VpaBound::Lower => estimates.lower,
            VpaBound::Upper => estimates.upper,
        };
        Some(Values { cpu: amounts.cpu as f64, memory: amounts.memory as f64 / KIB })
    }
}

/// Autopilot's moving window.
struct Autopilot {
    window: autopilot::Window,
    until: usize,
}

impl Policy for Autopilot {
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values> {
        while self.until + 5 <= view.now {
            let (from, to) = (self.until, self.until + 5);
            let cpu = view
                .rows
                .iter()
                .flat_map(|row| row.cpu.range(from, to))
                .map(|(_, millicores)| millicores / 1000.0);
            let peak = view.memory.iter().filter_map(|series| series.highest(from, to)).reduce(f64::max);
            self.window.add(cpu, peak);
            self.until = to;
        }
        let (cpu, memory) = self.window.recommend()?;
        Some(Values { cpu: cpu * 1000.0, memory })
    }
}

/// Knows the horizon. The memory limit is its maximum. Usage exceeds the CPU request for the same share of the time in every
/// workload; no other requests of the same sum leave less CPU time above them.
struct Oracle {
    exceeded: f64,
    floors: Floors,
}

/// The share that the engine aims at by default.
const ORACLE_EXCEEDED: f64 = 0.02;

impl Policy for Oracle {
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values> {
        let (from, to) = (view.now, view.now + super::HORIZON);
        let next: Vec<f64> = view
            .cpu
            .iter()
            .filter(|sample| (from..to).contains(&(sample.at as usize)))
            .map(|sample| sample.value)
            .collect();
        let memory = view.rows.iter().filter_map(|row| row.memory.highest(from, to)).reduce(f64::max);
        let exact = Values {
            cpu: krr::percentile(&next, 1.0 - self.exceeded).unwrap_or(0.0),
            memory: memory.unwrap_or(0.0),
        };
        if self.floors == Floors::Off {
            return Some(exact);
        }
        Some(Values { cpu: exact.cpu.ceil(), memory: (exact.memory * KIB / MIB).ceil() * KIB })
    }
}
