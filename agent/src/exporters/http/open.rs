//! Responses that are being sent: only a few at a time, because each holds a view and some buffers.
//!
//! A client that reads slowly keeps its response open. When others wait, the connection of the response that has waited longest for its
//! client is closed. Its body alone cannot end it: it is not asked for more while the socket is full.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::clients::Closer;
use crate::exporters::{
    series::{Limited, Scrapes},
    stream::SendingPlace,
};

/// How often those that wait look again.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The open responses.
#[derive(Debug)]
pub(super) struct OpenResponses {
    max: usize,
    /// How long a response may wait for its client even if others wait for a place.
    grace: Duration,
    counts: Arc<Scrapes>,
    open: Mutex<Vec<Slot>>,
    closed: Notify,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    since: Instant,
    /// How long the response has waited for its client.
    waited: Duration,
    waiting_since: Option<Instant>,
    closer: Closer,
    is_closing: bool,
}

/// A place among the open responses.
#[derive(Debug)]
struct OpenSlot {
    all: Arc<OpenResponses>,
    number: u64,
}

impl OpenResponses {
    pub(super) fn new(max: usize, grace: Duration, counts: Arc<Scrapes>) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), grace, counts, open: Mutex::default(), closed: Notify::new() })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>, closer: &Closer) -> Arc<dyn SendingPlace> {
        loop {
            let closed = self.closed.notified();
            if let Some(place) = self.try_enter(closer, Instant::now()) {
                return place;
            }
            let _ = tokio::time::timeout(CHECK_INTERVAL, closed).await;
        }
    }

    fn try_enter(self: &Arc<Self>, closer: &Closer, now: Instant) -> Option<Arc<OpenSlot>> {
        let mut open = self.open();
        if open.len() >= self.max {
            // One at a time: it closes soon.
            let is_closing = open.iter().any(|slot| slot.is_closing);
            let slowest = open.iter_mut().max_by_key(|slot| slot.waited(now))?;
            if !is_closing && slowest.is_slow(self.grace, now) {
                self.counts.limit(Limited::SlowReader);
                slowest.is_closing = true;
                slowest.closer.close();
            }
            return None;
        }
        let number = open.iter().map(|slot| slot.number).max().map_or(0, |last| last + 1);
        open.push(Slot {
            number,
            since: now,
            waited: Duration::ZERO,
            waiting_since: None,
            closer: closer.clone(),
            is_closing: false,
        });
        Some(Arc::new(OpenSlot { all: Arc::clone(self), number }))
    }
}

impl Slot {
    fn waited(&self, now: Instant) -> Duration {
        let waiting = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.waited + waiting
    }

    /// Whether the client is slow, and not only this host.
    fn is_slow(&self, grace: Duration, now: Instant) -> bool {
        let waited = self.waited(now);
        waited >= grace && 2 * waited >= now.saturating_duration_since(self.since)
    }

    fn set_waiting(&mut self, is_waiting: bool, now: Instant) {
        self.waited = self.waited(now);
        self.waiting_since = is_waiting.then_some(now);
    }
}

impl SendingPlace for OpenSlot {
    fn waits(&self, is_waiting: bool) {
        if let Some(slot) = self.all.open().iter_mut().find(|slot| slot.number == self.number) {
            slot.set_waiting(is_waiting, Instant::now());
        }
    }
}

impl Drop for OpenSlot {
    fn drop(&mut self) {
        self.all.open().retain(|slot| slot.number != self.number);
        self.all.closed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const GRACE: Duration = Duration::from_secs(1);

    #[test]
    fn the_slowest_reader_is_cut_off_after_its_grace() {
        let all = OpenResponses::new(2, GRACE, Arc::default());
        let start = Instant::now();
        let wait = |number: usize, is_waiting, at| all.open()[number].set_waiting(is_waiting, at);
        let closers = [(); 3].map(|()| Closer::default());
        let enter = |number: usize, at| all.try_enter(&closers[number], at);
        let is_cut_off = |number: usize| closers[number].closed().now_or_never().is_some();
        let first = enter(0, start).unwrap();
        let second = enter(1, start).unwrap();
        wait(1, true, start);
        let later = start + GRACE;
        assert!(enter(2, later - Duration::from_millis(1)).is_none());
        assert!(!is_cut_off(1), "its grace is not over");
        assert!(enter(2, later).is_none());
        assert!(is_cut_off(1));
        wait(0, true, start);
        assert!(enter(2, later + GRACE).is_none());
        assert!(!is_cut_off(0), "one at a time");
        drop(second);
        let third = enter(2, later + GRACE).unwrap();
        wait(0, false, start);
        assert!(enter(1, later + 60 * GRACE).is_none());
        assert!(!is_cut_off(0) && !is_cut_off(2), "nobody is slow");
        drop((first, third));
        assert_eq!(all.open().len(), 0);
    }
}
