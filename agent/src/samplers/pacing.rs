//! Samples less often while rounds fall behind: on a node that is overloaded, or that has more cgroups than the agent can follow.
//!
//! Metric: `snug_agent_sampling_slowdown`.

use std::time::{Duration, Instant};

/// Time over which the share of rounds is measured.
const WINDOW: Duration = Duration::from_secs(10);
/// Above this share of the time rounds have fallen behind.
const MAX_SHARE: f64 = 0.5;
/// Below this share, rounds twice as often would not fall behind either.
const MIN_SHARE: f64 = 0.2;
/// The longest interval is this many times the configured one.
const MAX_SLOWDOWN: u32 = 16;

/// How much less often rounds begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pacing {
    slowdown: u32,
    since: Instant,
    busy: Duration,
}

impl Pacing {
    pub(super) const fn new(now: Instant) -> Self {
        Self { slowdown: 1, since: now, busy: Duration::ZERO }
    }

    /// The factor by which the interval between rounds is longer than configured.
    pub(super) const fn slowdown(&self) -> u32 {
        self.slowdown
    }

    /// A round took this long.
    pub(super) fn record(&mut self, round: Duration, now: Instant) {
        self.busy += round;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < WINDOW {
            return;
        }
        let share = self.busy.as_secs_f64() / elapsed.as_secs_f64();
        (self.since, self.busy) = (now, Duration::ZERO);
        let slowdown = if share > MAX_SHARE {
            (self.slowdown * 2).min(MAX_SLOWDOWN)
        } else if share < MIN_SHARE {
            (self.slowdown / 2).max(1)
        } else {
            self.slowdown
        };
        let percent = (share * 100.0).round();
        if slowdown > self.slowdown {
            tracing::warn!(percent, slowdown, "rounds take too much of the time; sampling less often");
        } else if slowdown < self.slowdown {
            tracing::info!(percent, slowdown, "rounds are short again; sampling more often");
        }
        self.slowdown = slowdown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of this length every 100 ms times the slowdown, for this long. Returns the share of the last window.
    fn run(pacing: &mut Pacing, now: &mut Instant, round: Duration, time: Duration) -> f64 {
        let (mut busy, start) = (Duration::ZERO, *now);
        while now.saturating_duration_since(start) < time {
            let interval = Duration::from_millis(100) * pacing.slowdown();
            *now += interval.max(round);
            busy += round;
            pacing.record(round, *now);
        }
        busy.as_secs_f64() / now.saturating_duration_since(start).as_secs_f64()
    }

    #[test]
    fn long_rounds_are_made_less_often_until_they_are_short_again() {
        let mut now = Instant::now();
        let mut pacing = Pacing::new(now);
        let minute = Duration::from_secs(60);
        run(&mut pacing, &mut now, Duration::from_millis(10), minute);
        assert_eq!(pacing.slowdown(), 1);
        run(&mut pacing, &mut now, Duration::from_millis(300), minute);
        let share = run(&mut pacing, &mut now, Duration::from_millis(300), minute);
        assert!(pacing.slowdown() == 8 && share < MAX_SHARE, "{} {share}", pacing.slowdown());
        run(&mut pacing, &mut now, Duration::from_secs(5), 5 * minute);
        assert_eq!(pacing.slowdown(), MAX_SLOWDOWN);
        run(&mut pacing, &mut now, Duration::from_millis(10), 3 * minute);
        assert_eq!(pacing.slowdown(), 1);
    }

    #[test]
    fn the_slowdown_does_not_swing() {
        let mut now = Instant::now();
        for millis in 1..2000 {
            let mut pacing = Pacing::new(now);
            run(&mut pacing, &mut now, Duration::from_millis(millis), Duration::from_secs(200));
            let settled = pacing.slowdown();
            for _ in 0..5 {
                run(&mut pacing, &mut now, Duration::from_millis(millis), Duration::from_secs(20));
                assert_eq!(pacing.slowdown(), settled, "{millis} ms");
            }
        }
    }
}
