//! When a container begins to be throttled much, and when that is over.
//!
//! It begins when a quarter of the CFS periods of ten seconds were throttled: the share at which the alert of the
//! Kubernetes mixin (`CPUThrottlingHigh`) fires, over a time that a user would notice. It is over when for a minute less
//! than a twentieth of them were, so that a load that comes and goes is told once.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::{
    model::{EventDetails, Subject, Throttled},
    store::{Key, Store},
    values::Throttling as Counters,
};

/// What a beginning is judged by.
const STRETCH: Duration = Duration::from_secs(10);
const BEGIN_SHARE: f64 = 0.25;
/// Fewer periods than a second has tell nothing.
const MIN_PERIODS: u64 = 10;
/// For how long it must be over.
const QUIET: Duration = Duration::from_secs(60);
const QUIET_SHARE: f64 = 0.05;

/// The counters at a time.
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
struct Watched {
    /// Where the stretch or the quiet minute that is judged next began.
    from: Mark,
    /// Where the throttling began, if it is throttled.
    since: Option<Mark>,
}

impl Watched {
    fn see(&mut self, mark: Mark) -> Option<EventDetails> {
        let seen = self.from.until(&mark);
        let long = mark.at.saturating_duration_since(self.from.at);
        match self.since {
            None if long >= STRETCH => {
                let from = std::mem::replace(&mut self.from, mark);
                let much = seen.periods >= MIN_PERIODS && seen.share() >= BEGIN_SHARE;
                much.then(|| {
                    self.since = Some(from);
                    EventDetails::ThrottlingStart(seen)
                })
            }
            // So the quiet has not begun yet.
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

/// Watches all containers with a quota.
#[derive(Debug, Default)]
pub(super) struct Throttling(FxHashMap<Key, Watched>);

impl Throttling {
    /// Looks at all living containers, once a second.
    pub(super) fn detect(&mut self, store: &Store, now: Instant) -> Vec<(Subject, EventDetails)> {
        let mut told = Vec::new();
        for (key, identity) in store.living() {
            // Without a quota there are no periods.
            let counters = store.values(key).and_then(|values| values.throttling);
            let counters = counters.filter(|counters| counters.periods > 0);
            let Some(counters) = counters.filter(|_| identity.of_path.level.is_container()) else { continue };
            let mark = Mark { at: now, counters };
            let watched = self.0.entry(key).or_insert(Watched { from: mark, since: None });
            told.extend(watched.see(mark).map(|details| (Subject::new(identity), details)));
        }
        told
    }

    /// Containers that are gone: their end says enough.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        for key in gone {
            self.0.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sees one container for so many seconds, of which each has ten periods and so many of them throttled.
    fn seconds(watched: &mut Watched, last: &mut Mark, count: u64, throttled: u64) -> Vec<EventDetails> {
        let one = |_| {
            last.at += Duration::from_secs(1);
            last.counters.periods += 10;
            last.counters.throttled_periods += throttled;
            watched.see(*last)
        };
        (0..count).filter_map(one).collect()
    }

    #[test]
    fn it_begins_once_and_ends_after_a_quiet_minute() {
        let mut last = Mark { at: Instant::now(), counters: Counters::default() };
        let mut watched = Watched { from: last, since: None };
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
        let mut watched = Watched { from: last, since: None };
        last.at += STRETCH;
        last.counters.periods = MIN_PERIODS - 1;
        last.counters.throttled_periods = MIN_PERIODS - 1;
        assert_eq!(watched.see(last), None);
    }
}
