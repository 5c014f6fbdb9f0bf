//! Responses that are being sent: only a few at a time, because each holds a view and some buffers.
//!
//! A client that reads slowly keeps its response open. When others wait, the connection of the response that has waited longest for its
//! client is closed. Its body alone cannot end it: it is not asked for more while the socket is full. A free place is for the client with
//! the fewest open responses, so whoever has many slow readers delays others for one of them only.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::clients::{Closer, Requester};
use crate::exporters::{
    series::{Limited, Scrapes},
    stream::SendingPlace,
};

/// How often those that wait look again.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct OpenResponses {
    max: usize,
    /// How long a response may wait for its client even if others wait for a place.
    grace: Duration,
    counts: Arc<Scrapes>,
    state: Mutex<State>,
    closed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: Vec<Slot>,
    /// The clients that wait for a place, in the order in which they came.
    waiting: Vec<(u64, IpAddr)>,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    client: IpAddr,
    since: Instant,
    /// How long the response has waited for its client.
    waited: Duration,
    waiting_since: Option<Instant>,
    closer: Closer,
    is_closing: bool,
}

/// Someone who waits for a place, until it is dropped.
#[derive(Debug)]
struct Waiter<'a> {
    all: &'a Arc<OpenResponses>,
    number: u64,
}

/// A place among the open responses.
#[derive(Debug)]
struct OpenSlot {
    all: Arc<OpenResponses>,
    number: u64,
}

impl OpenResponses {
    pub(super) fn new(max: usize, grace: Duration, counts: Arc<Scrapes>) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), grace, counts, state: Mutex::default(), closed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>, requester: &Requester) -> Arc<dyn SendingPlace> {
        let waiter = self.wait(requester.client);
        loop {
            let closed = self.closed.notified();
            if let Some(place) = waiter.try_enter(&requester.closer, Instant::now()) {
                return place;
            }
            let _ = tokio::time::timeout(CHECK_INTERVAL, closed).await;
        }
    }

    fn wait(self: &Arc<Self>, client: IpAddr) -> Waiter<'_> {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.waiting.push((number, client));
        drop(state);
        Waiter { all: self, number }
    }
}

impl State {
    /// The one who gets the next place, and its client.
    fn first(&self) -> Option<(u64, IpAddr)> {
        let open_of = |client| self.open.iter().filter(|slot| slot.client == client).count();
        self.waiting.iter().copied().min_by_key(|(number, client)| (open_of(*client), *number))
    }
}

impl Waiter<'_> {
    fn try_enter(&self, closer: &Closer, now: Instant) -> Option<Arc<OpenSlot>> {
        let Self { all, number } = *self;
        let mut state = all.state();
        if state.open.len() >= all.max {
            // One at a time: it closes soon.
            let is_closing = state.open.iter().any(|slot| slot.is_closing);
            let slowest = state.open.iter_mut().max_by_key(|slot| slot.waited(now))?;
            if !is_closing && slowest.is_slow(all.grace, now) {
                all.counts.limit(Limited::SlowReader);
                slowest.is_closing = true;
                slowest.closer.close();
            }
            return None;
        }
        let (_, client) = state.first().filter(|(first, _)| *first == number)?;
        state.waiting.retain(|(other, _)| *other != number);
        state.open.push(Slot {
            number,
            client,
            since: now,
            waited: Duration::ZERO,
            waiting_since: None,
            closer: closer.clone(),
            is_closing: false,
        });
        Some(Arc::new(OpenSlot { all: Arc::clone(all), number }))
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.all.state().waiting.retain(|(number, _)| *number != self.number);
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
        if let Some(slot) = self.all.state().open.iter_mut().find(|slot| slot.number == self.number) {
            slot.set_waiting(is_waiting, Instant::now());
        }
    }
}

impl Drop for OpenSlot {
    fn drop(&mut self) {
        self.all.state().open.retain(|slot| slot.number != self.number);
        self.all.closed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(1);

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    fn set_waiting(all: &OpenResponses, number: u64, is_waiting: bool, at: Instant) {
        all.state().open.iter_mut().find(|slot| slot.number == number).unwrap().set_waiting(is_waiting, at);
    }

    #[test]
    fn the_slowest_reader_is_cut_off_after_its_grace() {
        let all = OpenResponses::new(2, GRACE, Arc::default());
        let start = Instant::now();
        let closers = [(); 3].map(|()| Closer::default());
        let waiters = [(); 3].map(|()| all.wait(client(1)));
        let enter = |number: usize, at| waiters[number].try_enter(&closers[number], at);
        let is_cut_off = |number: usize| closers[number].closed().now_or_never().is_some();
        let first = enter(0, start).unwrap();
        let second = enter(1, start).unwrap();
        set_waiting(&all, 1, true, start);
        let later = start + GRACE;
        assert!(enter(2, later - Duration::from_millis(1)).is_none());
        assert!(!is_cut_off(1), "its grace is not over");
        assert!(enter(2, later).is_none());
        assert!(is_cut_off(1));
        set_waiting(&all, 0, true, start);
        assert!(enter(2, later + GRACE).is_none());
        assert!(!is_cut_off(0), "one at a time");
        drop(second);
        let third = enter(2, later + GRACE).unwrap();
        set_waiting(&all, 0, false, start);
        let another = all.wait(client(1));
        assert!(another.try_enter(&Closer::default(), later + 60 * GRACE).is_none());
        assert!(!is_cut_off(0) && !is_cut_off(2), "nobody is slow");
        drop((first, third, another));
        assert!(all.state().open.is_empty() && all.state().waiting.is_empty());
    }

    proptest! {
        /// Whoever has fewer open responses than another client is served before it, and nobody waits while there is room.
        #[test]
        fn places_go_to_clients_with_few(waiting in prop::collection::vec(0..5_u8, 1..40), freed in prop::collection::vec(0..8_usize, 0..40)) {
            const MAX: usize = 4;
            let all = OpenResponses::new(MAX, GRACE, Arc::default());
            let mut waiters: Vec<(u8, Waiter<'_>)> = waiting.iter().map(|one| (*one, all.wait(client(*one)))).collect();
            let mut open: Vec<(u8, Arc<OpenSlot>)> = Vec::new();
            let mut freed = freed.into_iter();
            loop {
                let entered = waiters.iter().enumerate().find_map(|(index, (_, waiter))| {
                    Some((index, waiter.try_enter(&Closer::default(), Instant::now())?))
                });
                let of = |who: u8, open: &[(u8, Arc<OpenSlot>)]| open.iter().filter(|(one, _)| *one == who).count();
                match entered {
                    Some((index, slot)) => {
                        let (who, _) = waiters.remove(index);
                        prop_assert!(waiters.iter().all(|(other, _)| of(who, &open) <= of(*other, &open)));
                        open.push((who, slot));
                        prop_assert!(open.len() <= MAX);
                    }
                    None if waiters.is_empty() => break,
                    None => {
                        prop_assert_eq!(open.len(), MAX, "nobody waits while there is room");
                        let number = freed.next().unwrap_or(0) % open.len();
                        open.remove(number);
                    }
                }
            }
        }
    }
}
