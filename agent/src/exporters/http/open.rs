//! Responses that are being sent: only a few at a time, because each holds a view and some buffers.
//!
//! A client that reads slowly keeps its response open. When others wait, the response that has waited longest for its client is cut off.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

use crate::exporters::{
    series::{Limited, Scrapes},
    stream::{OpenResponse, SendingPlace},
};

/// How long a response may wait for its client even if others wait for a place.
const GRACE: Duration = Duration::from_secs(1);
/// How often those that wait look again.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The open responses.
#[derive(Debug)]
pub(super) struct OpenResponses {
    max: usize,
    counts: Arc<Scrapes>,
    open: Mutex<Vec<Slot>>,
    closed: Notify,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    /// How long the response has waited for its client.
    waited: Duration,
    waiting_since: Option<Instant>,
    cut_off: Option<oneshot::Sender<()>>,
}

/// A place among the open responses.
#[derive(Debug)]
struct OpenSlot {
    all: Arc<OpenResponses>,
    number: u64,
}

impl OpenResponses {
    pub(super) fn new(max: usize, counts: Arc<Scrapes>) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), counts, open: Mutex::default(), closed: Notify::new() })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> OpenResponse {
        loop {
            let closed = self.closed.notified();
            if let Some(response) = self.try_enter(Instant::now()) {
                return response;
            }
            let _ = tokio::time::timeout(CHECK_INTERVAL, closed).await;
        }
    }

    fn try_enter(self: &Arc<Self>, now: Instant) -> Option<OpenResponse> {
        let mut open = self.open();
        if open.len() >= self.max {
            // One at a time: whoever has been cut off closes soon.
            let is_closing = open.iter().any(|slot| slot.cut_off.is_none());
            let slowest = open.iter_mut().max_by_key(|slot| slot.waited(now))?;
            if !is_closing && slowest.waited(now) >= GRACE {
                self.counts.limit(Limited::SlowReader);
                if let Some(cut_off) = slowest.cut_off.take() {
                    let _ = cut_off.send(());
                }
            }
            return None;
        }
        let number = open.iter().map(|slot| slot.number).max().map_or(0, |last| last + 1);
        let (cut_off, is_cut_off) = oneshot::channel();
        open.push(Slot { number, waited: Duration::ZERO, waiting_since: None, cut_off: Some(cut_off) });
        let place = Arc::new(OpenSlot { all: Arc::clone(self), number });
        Some(OpenResponse { is_cut_off, place })
    }
}

impl Slot {
    fn waited(&self, now: Instant) -> Duration {
        let waiting = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.waited + waiting
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
    use super::*;

    #[test]
    fn the_slowest_reader_is_cut_off_after_its_grace() {
        let all = OpenResponses::new(2, Arc::default());
        let start = Instant::now();
        let wait = |number: usize, is_waiting, at| all.open()[number].set_waiting(is_waiting, at);
        let mut first = all.try_enter(start).unwrap();
        let mut second = all.try_enter(start).unwrap();
        wait(1, true, start);
        let later = start + GRACE;
        assert!(all.try_enter(later - Duration::from_millis(1)).is_none());
        assert!(second.is_cut_off.try_recv().is_err(), "its grace is not over");
        assert!(all.try_enter(later).is_none());
        assert!(second.is_cut_off.try_recv().is_ok());
        wait(0, true, start);
        assert!(all.try_enter(later + GRACE).is_none());
        assert!(first.is_cut_off.try_recv().is_err(), "one at a time");
        drop(second);
        let mut third = all.try_enter(later + GRACE).unwrap();
        wait(0, false, start);
        assert!(all.try_enter(later + 60 * GRACE).is_none());
        assert!(
            first.is_cut_off.try_recv().is_err() && third.is_cut_off.try_recv().is_err(),
            "nobody is slow"
        );
        drop((first, third));
        assert_eq!(all.open().len(), 0);
    }
}
