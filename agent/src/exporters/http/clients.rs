//! The clients of a listener: how many connections each may have, and which one ends when there are too many.
//!
//! A new client is worth more than an idle connection, and one connection of a client more than the many of another one. So nobody
//! who opens connections, or begins requests without ending them, keeps others from scrapes and probes.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore};

use crate::{
    exporters::series::{Limited, Scrapes},
    rate_limit::RateLimit,
};

/// The requests that a client may send: this many at once, then one per interval.
const REQUESTS: RateLimit = RateLimit::new(200, REQUEST_INTERVAL);
const REQUEST_INTERVAL: Duration = Duration::from_millis(50);
/// Connections that may wait for room, for each one that is open.
const MAX_WAITING: usize = 4;
/// How long a connection may be without a request before another one of its client ends it: the request may be on its way.
const REQUEST_WITHIN: Duration = Duration::from_secs(1);
/// How often those that wait look again.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Clients whose requests are counted. Above it, those that are not connected are forgotten.
const MAX_RATES: usize = 1024;

/// The open connections of a listener.
#[derive(Debug)]
pub(super) struct Clients {
    max: usize,
    max_per_client: usize,
    counts: Arc<Scrapes>,
    state: Mutex<State>,
    /// Places for connections that wait for room.
    waiting: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: HashMap<u64, Open>,
    rates: HashMap<IpAddr, RateLimit>,
}

#[derive(Debug)]
struct Open {
    client: IpAddr,
    /// Since when the connection has been waiting for a request; `None` while it has one.
    idle_since: Option<Instant>,
    since: Instant,
    closer: Closer,
}

/// An open connection. It ends with the value.
#[derive(Debug)]
pub(super) struct Connection {
    clients: Arc<Clients>,
    number: u64,
    client: IpAddr,
    closer: Closer,
}

/// Closes a connection, whatever it is doing.
#[derive(Clone, Debug, Default)]
pub(super) struct Closer(Arc<Notify>);

impl Closer {
    pub(super) fn close(&self) {
        self.0.notify_one();
    }

    /// Completes when the connection has to be closed.
    pub(super) async fn closed(&self) {
        self.0.notified().await;
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Requester {
    /// The client: see [`client_of`].
    pub(super) client: IpAddr,
    /// Closes its connection.
    pub(super) closer: Closer,
}

impl Default for Requester {
    fn default() -> Self {
        Self { client: Ipv4Addr::UNSPECIFIED.into(), closer: Closer::default() }
    }
}

/// A request of a connection, until its response is sent.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl Clients {
    pub(super) fn new(max: usize, max_per_client: usize, counts: Arc<Scrapes>) -> Arc<Self> {
        let waiting = Semaphore::new(max * MAX_WAITING);
        Arc::new(Self { max, max_per_client, counts, state: Mutex::default(), waiting })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection, if need be after waiting for room. `None`: it has to be closed.
    pub(super) async fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        within: Duration,
    ) -> Option<Arc<Connection>> {
        let reason = match self.open(address, Instant::now()) {
            Ok(connection) => return Some(connection),
            Err(reason) => reason,
        };
        if let Ok(_place) = self.waiting.try_acquire() {
            let end = Instant::now() + within;
            while Instant::now() < end {
                tokio::time::sleep(CHECK_INTERVAL).await;
                if let Ok(connection) = self.open(address, Instant::now()) {
                    return Some(connection);
                }
            }
        }
        self.counts.limit(reason);
        None
    }

    /// Admits a connection, and ends an idle one if there are too many. The error is the reason why there is no room.
    fn open(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Arc<Connection>, Limited> {
        let client = client_of(address);
        let mut state = self.state();
        let number_of = |client| state.open.values().filter(|one| one.client == client).count();
        let own = number_of(client);
        let victim = if own >= self.max_per_client {
            let is_late = |since| now.saturating_duration_since(since) >= REQUEST_WITHIN;
            let is_own = |one: &Open| one.client == client && one.idle_since.is_some_and(is_late);
            Some((Limited::PerClient, state.idlest(now, is_own)))
        } else if state.open.len() >= self.max {
            let most = state.open.values().map(|one| one.client).max_by_key(|client| number_of(*client));
            let of_most = |one: &Open| Some(one.client) == most;
            let greedy = most.filter(|most| number_of(*most) > own + 1);
            let idlest = state.idlest(now, of_most).or_else(|| state.idlest(now, |_| true));
            Some((Limited::Crowded, idlest.or_else(|| greedy.and_then(|_| state.oldest(of_most)))))
        } else {
            None
        };
        if let Some((reason, victim)) = victim {
            let victim = victim.and_then(|victim| state.open.remove(&victim)).ok_or(reason)?;
            self.counts.limit(reason);
            victim.closer.close();
        }
        state.next += 1;
        let (number, closer) = (state.next, Closer::default());
        state.open.insert(number, Open { client, idle_since: Some(now), since: now, closer: closer.clone() });
        drop(state);
        Ok(Arc::new(Connection { clients: Arc::clone(self), number, client, closer }))
    }
}

impl State {
    fn idlest(&self, now: Instant, of: impl Fn(&Open) -> bool) -> Option<u64> {
        let idle = self.open.iter().filter(|(_, one)| of(one));
        let idle =
            idle.filter_map(|(number, one)| Some((now.checked_duration_since(one.idle_since?)?, *number)));
        idle.max().map(|(_, number)| number)
    }

    fn oldest(&self, of: impl Fn(&Open) -> bool) -> Option<u64> {
        let open = self.open.iter().filter(|(_, one)| of(one));
        open.min_by_key(|(_, one)| one.since).map(|(number, _)| *number)
    }
}

impl Connection {
    pub(super) fn closer(&self) -> &Closer {
        &self.closer
    }

    pub(super) fn requester(&self) -> Requester {
        Requester { client: self.client, closer: self.closer.clone() }
    }

    /// A request begins; `None` if its client has sent too many. The error is the time until it may send one.
    pub(super) fn request(self: &Arc<Self>, now: Instant) -> Result<Busy, Duration> {
        let mut state = self.clients.state();
        if let Some(open) = state.open.get_mut(&self.number) {
            open.idle_since = None;
        }
        let busy = Busy(Arc::clone(self));
        let State { rates, open, .. } = &mut *state;
        if rates.len() >= MAX_RATES && !rates.contains_key(&self.client) {
            rates.retain(|client, _| open.values().any(|one| one.client == *client));
        }
        let is_admitted = rates.entry(self.client).or_insert(REQUESTS).take(now);
        drop(state);
        if is_admitted {
            return Ok(busy);
        }
        self.clients.counts.limit(Limited::Rate);
        Err(REQUEST_INTERVAL)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Connection { clients, number, .. } = &*self.0;
        if let Some(open) = clients.state().open.get_mut(number) {
            open.idle_since = Some(Instant::now());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.clients.state().open.remove(&self.number);
    }
}

/// A client: an address of IPv4, or a network of IPv6, in which one host has any number of addresses.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    #[test]
    fn hosts_are_told_apart_but_not_their_addresses() {
        let of = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8:0:0:ffff::9"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), client(1));
        assert_ne!(client(1), client(2));
    }

    #[test]
    fn a_client_sends_so_many_requests_and_no_more() {
        let clients = Clients::new(4, 2, Arc::default());
        let now = Instant::now();
        let (one, other) = (clients.open(client(1), now).unwrap(), clients.open(client(2), now).unwrap());
        let admitted = |connection: &Arc<Connection>, at, tries: usize| {
            (0..tries).filter(|_| connection.request(at).is_ok()).count()
        };
        assert_eq!(admitted(&one, now, 1000), 200);
        assert_eq!(admitted(&other, now, 50), 50, "others are not affected");
        assert_eq!(admitted(&one, now + Duration::from_secs(2), 1000), 40);
    }

    #[test]
    fn a_client_ends_its_own_connection_only_if_no_request_came() {
        let clients = Clients::new(4, 2, Arc::default());
        let now = Instant::now();
        let busy = clients.open(client(1), now).unwrap();
        let _request = busy.request(now).unwrap();
        let _idle = clients.open(client(1), now).unwrap();
        let after = |passed| clients.open(client(1), now + passed).map(drop);
        assert_eq!(after(REQUEST_WITHIN / 2), Err(Limited::PerClient));
        assert_eq!(after(REQUEST_WITHIN), Ok(()));
    }

    proptest! {
        /// Whoever opens whatever: the bounds hold, and a client with few connections is always let in.
        #[test]
        fn nobody_keeps_others_out(
            steps in prop::collection::vec((0..8_u8, 0..3_u8), 1..200),
        ) {
            let (max, per_client) = (8, 5);
            let clients = Clients::new(max, per_client, Arc::default());
            let mut now = Instant::now();
            let mut open: Vec<(Arc<Connection>, Option<Busy>)> = Vec::new();
            for (who, what) in steps {
                now += Duration::from_millis(1);
                match what {
                    // Clients 0 to 2 open connections, and some have requests that never end.
                    0 | 1 => if let Ok(connection) = clients.open(client(who % 3), now) {
                        let busy = (what == 1).then(|| connection.request(now).ok()).flatten();
                        open.push((connection, busy));
                    },
                    _ => {
                        if !open.is_empty() { open.remove(usize::from(who) % open.len()); }
                        let newcomer = clients.open(client(100 + who), now);
                        prop_assert!(newcomer.is_ok());
                    }
                }
                let state = clients.state();
                prop_assert!(state.open.len() <= max);
                for number in 0..3 {
                    let own = state.open.values().filter(|one| one.client == client(number)).count();
                    prop_assert!(own <= per_client);
                }
            }
        }
    }
}
