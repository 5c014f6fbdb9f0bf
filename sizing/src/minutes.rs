//! The last hours minute by minute, for plots: the histograms of an hour have no order in time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A minute, counted from the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Minute(pub u32);

/// Seconds in a minute.
pub const MINUTE: u64 = 60;

impl Minute {
    /// The minute of a time in seconds. Times beyond the year 10,136 are in the last minute.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(u32::try_from(seconds / MINUTE).unwrap_or(u32::MAX))
    }

    /// Its first second.
    pub fn start(self) -> u64 {
        u64::from(self.0) * MINUTE
    }
}

/// Usage of all replicas in one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteRecord {
    /// Container-milliseconds observed: 60,000 for each container that ran for the whole minute.
    pub observed_millis: u64,
    /// CPU time used, milliseconds.
    pub cpu_millis: u64,
    /// Highest memory use of any replica, bytes.
    pub memory_peak: u64,
    /// CFS periods in which the container was runnable, under its current limit.
    pub periods: u64,
    /// Of these, periods in which it was throttled.
    pub throttled: u64,
}

impl MinuteRecord {
    /// Adds another record of the same minute.
    pub fn merge(&mut self, other: &Self) {
        let Self { observed_millis, cpu_millis, memory_peak, periods, throttled } = other;
        for (mine, theirs) in [
            (&mut self.observed_millis, observed_millis),
            (&mut self.cpu_millis, cpu_millis),
            (&mut self.periods, periods),
            (&mut self.throttled, throttled),
        ] {
            *mine = mine.saturating_add(*theirs);
        }
        self.memory_peak = self.memory_peak.max(*memory_peak);
    }

    /// Mean cores used per replica; `None` if no replica was observed.
    pub fn cores(&self) -> Option<f64> {
        (self.observed_millis > 0).then(|| self.cpu_millis as f64 / self.observed_millis as f64)
    }
}

/// Records by minute, without minutes in which nothing was observed.
pub type Minutes = BTreeMap<Minute, MinuteRecord>;

/// Adds other records.
pub fn merge(mine: &mut Minutes, theirs: &Minutes) {
    for (minute, record) in theirs {
        mine.entry(*minute).or_default().merge(record);
    }
}
