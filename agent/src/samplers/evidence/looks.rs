//! When CPU time was looked at: the ends of its windows.
//!
//! Ten times a second all cgroups are looked at, and most have used nothing since: these are passed over, and what they
//! rested is counted when they are next taken up, from the looks that there were meanwhile.

use std::time::{Duration, Instant};

/// A window that took so many times its length was a stall of the machine; beyond this it is counted as so many and no more.
const MOST_WINDOWS: f64 = 600.0;

/// One look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    /// Windows that have ended since the first look.
    pub(super) windows: u64,
}

/// The last two looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks {
    window: Duration,
    pub(super) before: Option<Look>,
    pub(super) now: Option<Look>,
}

impl Looks {
    pub(super) const fn new(window_millis: u64) -> Self {
        Self { window: Duration::from_millis(window_millis), before: None, now: None }
    }

    /// One more.
    pub(super) fn look(&mut self, at: Instant) {
        let windows = self.now.map_or(0, |before| {
            let elapsed = at.saturating_duration_since(before.at);
            before.windows + self.windows_of(elapsed.as_nanos() as f64)
        });
        self.before = self.now.replace(Look { at, windows });
    }

    /// Nanoseconds of a window.
    pub(super) fn window_ns(&self) -> f64 {
        self.window.as_nanos() as f64
    }

    /// Windows in so many nanoseconds; at least one.
    pub(super) fn windows_of(&self, elapsed_ns: f64) -> u64 {
        (elapsed_ns / self.window_ns()).round().clamp(1.0, MOST_WINDOWS) as u64
    }
}
