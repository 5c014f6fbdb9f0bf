//! Times of the CPU samples, which are the ends of the CPU windows.
//!
//! A sample is taken ten times a second, and most cgroups are idle in it. Idle cgroups are left out; their idle windows are
//! counted later, as the number of windows between two samples.

use std::time::{Duration, Instant};

/// Maximum number of windows counted between two samples: a longer gap is a stall of the machine.
const MAX_WINDOWS: f64 = 600.0;

#[derive(Clone, Copy, Debug)]
pub(super) struct SampleTime {
    pub(super) at: Instant,
    /// Windows since the first sample.
    pub(super) windows: u64,
}

/// The times of the last two samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleClock {
    window: Duration,
    pub(super) before: Option<SampleTime>,
    pub(super) now: Option<SampleTime>,
}

impl SampleClock {
    pub(super) const fn new(window_millis: u64) -> Self {
        Self { window: Duration::from_millis(window_millis), before: None, now: None }
    }

    /// A sample is taken at `at`.
    pub(super) fn tick(&mut self, at: Instant) {
        let windows = self.now.map_or(0, |before| {
            let elapsed = at.saturating_duration_since(before.at);
            before.windows + self.windows_of(elapsed.as_nanos() as f64)
        });
        self.before = self.now.replace(SampleTime { at, windows });
    }

    /// Length of a window, nanoseconds.
    pub(super) fn window_ns(&self) -> f64 {
        self.window.as_nanos() as f64
    }

    /// Number of windows in `elapsed_ns`, at least one.
    pub(super) fn windows_of(&self, elapsed_ns: f64) -> u64 {
        (elapsed_ns / self.window_ns()).round().clamp(1.0, MAX_WINDOWS) as u64
    }
}
