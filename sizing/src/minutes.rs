//! The last hours minute by minute: what is shown and plotted, where an hour's distribution has no order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A minute, counted from the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Minute(pub u32);

/// Seconds in a minute.
pub const MINUTE: u64 = 60;

impl Minute {
    /// The minute that a second lies in. Times beyond the year 10,136 are in the last one.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(u32::try_from(seconds / MINUTE).unwrap_or(u32::MAX))
    }

    /// Its first second.
    pub fn start(self) -> u64 {
        u64::from(self.0) * MINUTE
    }
}

/// What one minute of all replicas showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteRecord {
    /// Milliseconds of watched containers: 60,000 for each that ran all the minute.
    pub observed_millis: u64,
    /// CPU time used, milliseconds.
    pub cpu_millis: u64,
    /// Highest memory use of any replica, bytes.
    pub memory_peak: u64,
    /// CFS periods in which the container was runnable, under the limit in force.
    pub periods: u64,
    /// Of these, periods in which it was throttled.
    pub throttled: u64,
}

impl MinuteRecord {
    /// Adds what another source saw in the same minute.
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

    /// Cores that a replica used on average; `None` where none was watched.
    pub fn cores(&self) -> Option<f64> {
        (self.observed_millis > 0).then(|| self.cpu_millis as f64 / self.observed_millis as f64)
    }
}

/// Minutes in order; those in which nothing was watched are not there.
pub type Minutes = BTreeMap<Minute, MinuteRecord>;

/// Adds what another source saw.
pub fn merge(mine: &mut Minutes, theirs: &Minutes) {
    for (minute, record) in theirs {
        mine.entry(*minute).or_default().merge(record);
    }
}
