//! Wall-clock time. Durations are measured with `Instant`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the Unix epoch; 0 before it.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since the Unix epoch; 0 before it.
pub(crate) fn unix_now() -> f64 {
    since_epoch().as_secs_f64()
}

/// Whole seconds since the Unix epoch; 0 before it.
pub(crate) fn unix_seconds() -> u64 {
    since_epoch().as_secs()
}
