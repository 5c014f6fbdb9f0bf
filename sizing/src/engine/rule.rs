//! The constants that were fitted on recorded use. All others are reasoned, and written where they are used.

use serde::Serialize;

/// What was fitted. `docs/backtest.md` shows how fits do on workloads that they have not seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// The part of memory's margin that grows with the container, at the default risk. Not fitted: half of the 10 % that Autopilot
    /// uses at least, because the other part comes to it.
    pub relative: f64,
    /// The part that does not, bytes: a container of this size without a pod-day of history would get a margin of all its size.
    pub absolute: f64,
    /// By how much CPU use exceeds a request while it does, as a part of the mean use.
    pub excess: f64,
}

impl Rule {
    /// The one that is used.
    pub const FITTED: Self = Self { relative: 0.05, absolute: 24.0 * 1024.0 * 1024.0, excess: 0.5 };
}
