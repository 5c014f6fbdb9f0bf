//! Events for the begin and the end of heavy CPU throttling, from the counters of `cpu.stat`.
//!
//! Throttling begins when a quarter of the CFS periods of ten seconds were throttled. This is the share of the alert
//! `CPUThrottlingHigh` of the Kubernetes mixin, over a time that a user notices. It ends when fewer than a twentieth of the
//! periods of a minute were throttled, so that a load that comes and goes causes one event.
//!
//! Metric: `snug_agent_events_total` (`throttling_start`, `throttling_end`).

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::{Component, Round};
use crate::{
    clock::unix_now,
    model::{EventDetails, Subject, Throttled},
    store::{Key, Store},
    values::Throttling as Counters,
};

/// Time over which the begin is judged.
const BEGIN_WINDOW: Duration = Duration::from_secs(10);
const BEGIN_SHARE: f64 = 0.25;
/// Minimum number of periods: those of one second.
const MIN_PERIODS: u64 = 10;
/// Time without heavy throttling until the end.
const QUIET: Duration = Duration::from_secs(60);
const QUIET_SHARE: f64 = 0.05;

/// The counters at one time.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    counters: Counters,
}

impl Mark {
    fn until(&self, later: &Self) -> Throttled {
        let (from, to) = (self.counters, later.counters);
        Throttled {
            seconds: later.at.saturating_duration_since(self.at).as_secs_f64(),
            periods: to.periods.saturating_sub(from.periods),
            throttled_periods: to.throttled_periods.saturating_sub(from.throttled_periods),
        }
    }
}

/// A container with a quota.
#[derive(Debug)]
struct QuotaState {
    /// Begin of the window or the quiet minute that is judged next.
    from: Mark,
    /// Begin of the throttling; `None` if the container is not throttled.
    since: Option<Mark>,
}

impl QuotaState {
    fn update(&mut self, mark: Mark) -> Option<EventDetails> {
        let seen = self.from.until(&mark);
        let long = mark.at.saturating_duration_since(self.from.at);
        match self.since {
            None if long >= BEGIN_WINDOW => {
                let from = std::mem::replace(&mut self.from, mark);
                let much = seen.periods >= MIN_PERIODS && seen.share() >= BEGIN_SHARE;
                much.then(|| {
                    self.since = Some(from);
                    EventDetails::ThrottlingStart(seen)
                })
            }
            // The quiet minute begins again.
            Some(_) if seen.share() > QUIET_SHARE => {
                self.from = mark;
                None
            }
            Some(since) if long >= QUIET => {
                let over = since.until(&self.from);
                self.from = mark;
                self.since = None;
                Some(EventDetails::ThrottlingEnd(over))
            }
            _ => None,
        }
    }
}

/// The containers with a quota.
#[derive(Debug, Default)]
pub(super) struct Throttling(FxHashMap<Key, QuotaState>);

impl Component for Throttling {
    fn round(&mut self, round: &mut Round) {
        if round.is_full {
            for (subject, details) in self.detect(&round.store, round.now) {
                round.store.record(subject, details, unix_now(), round.now);
            }
        }
    }

    /// The termination of a container is an event of its own.
    fn forget(&mut self, _: &mut Round, settled: &[Key]) {
        for key in settled {
            self.0.remove(key);
        }
    }
}

impl Throttling {
    /// Compares the counters of all containers. Called once a second.
    fn detect(&mut self, store: &Store, now: Instant) -> Vec<(Subject, EventDetails)> {
        let mut events = Vec::new();
        for (key, identity) in store.living() {
            // Without a quota there are no periods.
            let counters = store.values(key).and_then(|values| values.throttling);
            let counters = counters.filter(|counters| counters.periods > 0);
            let Some(counters) = counters.filter(|_| identity.of_path.level.is_container()) else { continue };
            let mark = Mark { at: now, counters };
            let state = self.0.entry(key).or_insert(QuotaState { from: mark, since: None });
            events.extend(state.update(mark).map(|details| (Subject::new(identity), details)));
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sees one container for so many seconds, of which each has ten periods and so many of them throttled.
    fn seconds(watched: &mut QuotaState, last: &mut Mark, count: u64, throttled: u64) -> Vec<EventDetails> {
        let one = |_| {
            last.at += Duration::from_secs(1);
            last.counters.periods += 10;
            last.counters.throttled_periods += throttled;
            watched.update(*last)
        };
        (0..count).filter_map(one).collect()
    }

    #[test]
    fn it_begins_once_and_ends_after_a_quiet_minute() {
        let mut last = Mark { at: Instant::now(), counters: Counters::default() };
        let mut watched = QuotaState { from: last, since: None };
        let watched = &mut watched;
        assert_eq!(seconds(watched, &mut last, 20, 2), [], "a fifth is not much");
        let begun = seconds(watched, &mut last, 30, 5);
        let stretch = Throttled { seconds: 10.0, periods: 100, throttled_periods: 50 };
        assert_eq!(begun, [EventDetails::ThrottlingStart(stretch)]);
        assert_eq!(seconds(watched, &mut last, 40, 0), [], "quiet, not for a minute");
        assert_eq!(seconds(watched, &mut last, 5, 5), [], "and again");
        let over = seconds(watched, &mut last, 61, 0);
        let [EventDetails::ThrottlingEnd(over)] = over.as_slice() else { panic!("{over:?}") };
        assert_eq!((over.seconds, over.throttled_periods), (75.0, 175));
        assert_eq!(seconds(watched, &mut last, 30, 0), []);
        assert_eq!(seconds(watched, &mut last, 10, 3).len(), 1);
    }

    #[test]
    fn a_container_that_hardly_ran_is_not_throttled_much() {
        let mut last = Mark { at: Instant::now(), counters: Counters::default() };
        let mut watched = QuotaState { from: last, since: None };
        last.at += BEGIN_WINDOW;
        last.counters.periods = MIN_PERIODS - 1;
        last.counters.throttled_periods = MIN_PERIODS - 1;
        assert_eq!(watched.update(last), None);
    }
}
