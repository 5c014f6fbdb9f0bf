//! The constants that were fitted on recorded usage. All other constants are derived where they are used.

use serde::Serialize;

/// The fitted constants. `docs/backtest.md` shows results on workloads that were not part of the fit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// Memory headroom that grows with usage, as a share of usage at level one ([`super::calibration`]).
    pub relative: f64,
    /// Memory headroom that does not grow with usage, bytes: at level one a container with this usage and no history gets a
    /// headroom of 100 %.
    pub absolute: f64,
    /// Mean excess of CPU usage above a request while usage exceeds it, as a share of mean usage.
    pub excess: f64,
}

impl Default for Rule {
    fn default() -> Self {
        Self::FITTED
    }
}

impl Rule {
    /// The constants in use.
    pub const FITTED: Self = Self { relative: 0.025, absolute: 24.0 * 1024.0 * 1024.0, excess: 1.0 / 3.0 };
}
