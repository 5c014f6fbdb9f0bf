//! The kinds of streams, and sets of laws: the same kinds with other magnitudes.
//!
//! A method that was chosen with one set of laws in sight is not judged by it alone. So there are further sets. Each was written down
//! before the method that it judges was chosen, and is replayed to report, not to choose. The second set was in sight when the third one
//! was written, and all three when the fourth one was.

/// What a stream does from day to day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Usage varies around a constant.
    Level,
    /// Usage grows or falls by a share a day, and at random days by another one.
    Trend,
    /// Usage follows the hour of the day and the day of the week.
    Seasons,
    /// Usage changes for good with a rollout on random days, at any hour.
    Rollouts,
    /// Usage of all workloads of a family is higher on some days.
    Together,
    /// Usage grows until a restart on a random day, and is higher in the hour of the start.
    Restarts,
    /// Usage varies around a constant, and what exceeds the current limit is killed and not seen: for the closed loop.
    Limited,
    /// Usage of one hour of a day is higher, on some days by much.
    Spikes,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Level,
        Self::Trend,
        Self::Seasons,
        Self::Rollouts,
        Self::Together,
        Self::Restarts,
        Self::Limited,
        Self::Spikes,
    ];

    /// The name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Level => "level",
            Self::Trend => "trend",
            Self::Seasons => "seasons",
            Self::Rollouts => "rollouts",
            Self::Together => "together",
            Self::Restarts => "restarts",
            Self::Limited => "limited",
            Self::Spikes => "spikes",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LawSet {
    /// The one that was in sight.
    First,
    /// Other magnitudes, and days with spikes.
    Second,
    /// Other magnitudes again, and heavier tails.
    Third,
    /// Other magnitudes again, between the others, and tails of CPU usage from nearly none to heavy.
    Fourth,
}

impl LawSet {
    /// All sets.
    pub const ALL: [Self; 4] = [Self::First, Self::Second, Self::Third, Self::Fourth];

    /// The kinds of streams that are judged with the set.
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::First => Kind::ALL.split_at(Kind::ALL.len() - 1).0,
            Self::Second | Self::Third | Self::Fourth => &Kind::ALL,
        }
    }

    /// The first seed of the published figures; each further world has the next one.
    pub const fn seed(self) -> u64 {
        match self {
            Self::First | Self::Second => 23,
            Self::Third => 4177,
            Self::Fourth => 90_210,
        }
    }

    /// The name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
            Self::Third => "third",
            Self::Fourth => "fourth",
        }
    }

    pub(super) const fn magnitudes(self) -> &'static Magnitudes {
        match self {
            Self::First => &FIRST,
            Self::Second => &SECOND,
            Self::Third => &THIRD,
            Self::Fourth => &FOURTH,
        }
    }
}

/// What the laws of a set have in numbers. Pairs are the lowest and the highest value that a stream may draw.
#[derive(Debug, PartialEq)]
pub(super) struct Magnitudes {
    /// KiB, and millicores.
    pub(super) memory: (f64, f64),
    pub(super) cpu: (f64, f64),
    /// Spreads of the noise of memory and CPU, and shapes of that of memory.
    pub(super) memory_spread: (f64, f64),
    pub(super) cpu_spread: (f64, f64),
    pub(super) shapes: &'static [f64],
    /// Shares by which usage is higher at the busiest hour, and on weekdays; growth of a leak a day.
    pub(super) amplitude: (f64, f64),
    pub(super) weekly: (f64, f64),
    pub(super) leak: (f64, f64),
    /// Growth a day, as a logarithm, and the probability of a day that it changes.
    pub(super) slopes: &'static [f64],
    pub(super) slope_changes: f64,
    /// Factors of a rollout, and the probability of a day that there is one.
    pub(super) rollouts: &'static [f64],
    pub(super) rollout: f64,
    /// Factors of a day on which a family fails together, the probability of such a day, and workloads of a family.
    pub(super) shocks: &'static [f64],
    pub(super) shock: f64,
    pub(super) family: usize,
    /// The probability of a day that there is a restart, the factor of the hour of the start, and the longest growth in hours.
    pub(super) restart: f64,
    pub(super) start: f64,
    pub(super) longest: f64,
    /// Factors of the highest hour of a day, with probabilities that add up to 1.
    pub(super) spikes: &'static [(f64, f64)],
    /// Replicas of workloads, in turn.
    pub(super) replicas: &'static [usize],
}

const MIB: f64 = 1024.0;
const GIB: f64 = 1024.0 * MIB;

static FIRST: Magnitudes = Magnitudes {
    memory: (16.0 * MIB, 4.0 * GIB),
    cpu: (5.0, 2000.0),
    memory_spread: (0.01, 0.08),
    cpu_spread: (0.05, 0.4),
    shapes: &[1.0, 2.0],
    amplitude: (0.1, 1.0),
    weekly: (0.0, 0.5),
    leak: (0.01, 0.08),
    slopes: &[-0.02, 0.0, 0.01, 0.03],
    slope_changes: 1.0 / 20.0,
    rollouts: &[0.7, 0.9, 1.1, 1.3, 1.6],
    rollout: 1.0 / 15.0,
    shocks: &[1.2, 1.5, 2.0],
    shock: 1.0 / 50.0,
    family: 8,
    restart: 1.0 / 7.0,
    start: 1.3,
    longest: 30.0 * 24.0,
    spikes: &[(1.0, 0.9), (1.5, 0.1)],
    replicas: &[1, 1, 2, 4, 8],
};

static SECOND: Magnitudes = Magnitudes {
    memory: (8.0 * MIB, 16.0 * GIB),
    cpu: (2.0, 8000.0),
    memory_spread: (0.005, 0.15),
    cpu_spread: (0.1, 0.6),
    shapes: &[1.0, 1.5, 3.0],
    amplitude: (0.3, 2.0),
    weekly: (0.0, 1.0),
    leak: (0.02, 0.15),
    slopes: &[-0.05, -0.01, 0.005, 0.02, 0.05],
    slope_changes: 1.0 / 10.0,
    rollouts: &[0.5, 0.8, 1.05, 1.2, 1.4, 2.0],
    rollout: 1.0 / 30.0,
    shocks: &[1.1, 1.3, 1.8, 3.0],
    shock: 1.0 / 30.0,
    family: 5,
    restart: 1.0 / 4.0,
    start: 1.6,
    longest: 20.0 * 24.0,
    // Each time that the excess above the level is doubled, half of the days remain: a tail like 1 ÷ excess.
    spikes: &[
        (1.0, 0.5),
        (1.1, 0.25),
        (1.2, 0.125),
        (1.4, 0.0625),
        (1.8, 0.03125),
        (2.6, 0.015_625),
        (4.2, 0.015_625),
    ],
    replicas: &[1, 2, 1, 3, 12],
};

static THIRD: Magnitudes = Magnitudes {
    memory: (32.0 * MIB, 8.0 * GIB),
    cpu: (10.0, 4000.0),
    memory_spread: (0.01, 0.12),
    // Exponents of the tail from 1.8 to 6.7. Half of the workloads are below 3.5, where the fifth moment of usage is infinite.
    cpu_spread: (0.15, 0.55),
    // 0.8: heavier than any power law.
    shapes: &[0.8, 1.0, 1.0, 2.0],
    amplitude: (0.2, 1.5),
    weekly: (0.1, 0.7),
    leak: (0.005, 0.12),
    slopes: &[-0.03, 0.0, 0.005, 0.015, 0.04, 0.08],
    slope_changes: 1.0 / 14.0,
    rollouts: &[0.6, 0.85, 1.0, 1.15, 1.5, 2.5, 4.0],
    rollout: 1.0 / 20.0,
    shocks: &[1.15, 1.4, 1.9, 2.8, 5.0],
    shock: 1.0 / 40.0,
    family: 10,
    restart: 1.0 / 5.0,
    start: 2.0,
    longest: 14.0 * 24.0,
    // Each time that the excess above the level is doubled, three fifths of the days remain.
    spikes: &[
        (1.0, 0.6),
        (1.15, 0.16),
        (1.3, 0.096),
        (1.6, 0.0576),
        (2.2, 0.034_56),
        (3.4, 0.020_736),
        (5.8, 0.031_104),
    ],
    replicas: &[1, 4, 2, 1, 10],
};

static FOURTH: Magnitudes = Magnitudes {
    memory: (24.0 * MIB, 6.0 * GIB),
    cpu: (3.0, 3000.0),
    memory_spread: (0.008, 0.1),
    // Exponents of the tail from 2 to 33.
    cpu_spread: (0.03, 0.5),
    shapes: &[0.9, 1.0, 1.3, 2.0],
    amplitude: (0.2, 1.2),
    weekly: (0.0, 0.8),
    leak: (0.008, 0.1),
    slopes: &[-0.04, -0.01, 0.0, 0.01, 0.025, 0.06],
    slope_changes: 1.0 / 12.0,
    rollouts: &[0.55, 0.8, 0.95, 1.1, 1.25, 1.8, 3.0],
    rollout: 1.0 / 25.0,
    shocks: &[1.1, 1.25, 1.6, 2.2, 3.5],
    shock: 1.0 / 60.0,
    family: 6,
    restart: 1.0 / 6.0,
    start: 1.8,
    longest: 21.0 * 24.0,
    // As in the second set, but most days have none.
    spikes: &[(1.0, 0.7), (1.1, 0.15), (1.25, 0.075), (1.55, 0.0375), (2.15, 0.01875), (3.35, 0.01875)],
    replicas: &[1, 3, 1, 2, 6],
};
