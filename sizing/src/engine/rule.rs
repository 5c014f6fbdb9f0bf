//! The constants that were fitted on recorded usage. All other constants are derived where they are used.

use serde::Serialize;

/// The fitted constants. `docs/backtest.md` shows results on workloads that were not part of the fit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// Memory headroom that grows with usage, as a share of usage at the default risk. Not fitted: half of the 10 % that
    /// Autopilot uses at least, because `absolute` is added.
    pub relative: f64,
    /// Memory headroom that does not grow with usage, bytes: a container with this usage and no history gets a headroom of
    /// 100 %.
    pub absolute: f64,
    /// Mean excess of CPU usage above a request while usage exceeds it, as a share of mean usage.
    pub excess: f64,
}

impl Rule {
    /// The constants in use.
    pub const FITTED: Self = Self { relative: 0.05, absolute: 24.0 * 1024.0 * 1024.0, excess: 0.4 };
}
