//! The HTTP server: metrics and health.
//!
//! Each listener has a [`AccessPolicy`]: who may read, and whether over TLS. Connections, header sizes, the time that a client may take and concurrent expositions are all bounded. An exposition is
//! written on a blocking thread while it is sent. So the runtime, which may have only one thread, is not blocked, and memory
//! does not grow with the size of the exposition.

mod clients;
mod connection;
#[doc(hidden)]
pub mod fuzz;
mod negotiate;
mod open;
mod policy;
mod routes;
mod stall;

use std::{
    future::Future,
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::server::conn::http1;
use hyper_util::{rt::TokioTimer, server::graceful::GracefulShutdown};
use rustix::io::Errno;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

pub use self::policy::AccessPolicy;
use self::{clients::Clients, open::OpenResponses};
use super::{
    limits::SeriesLimits,
    series::{Push, Scrapes},
};
use crate::{history, views::CurrentView};

#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Concurrent connections. A new one ends the one that has been idle for longest.
    pub connections: usize,
    /// Concurrent connections of one client.
    pub connections_per_client: usize,
    /// Responses that are sent at the same time. When others wait, the one with the slowest client is cut off.
    pub responses: usize,
    /// How long a response may wait for its client even if others wait.
    pub slow_after: Duration,
    /// Expositions that are encoded at the same time. Others wait. An exposition that waits for its client does not count.
    pub expositions: usize,
    /// Timeout of the TLS handshake, of the request head, and of idle connections.
    pub head_within: Duration,
    /// The age from which a connection is closed after a response.
    pub connection_age: Duration,
    /// Timeout of a write without progress.
    pub stall: Duration,
    /// Timeout of a whole exposition.
    pub body_within: Duration,
    /// Time for open requests to finish at shutdown.
    pub shutdown_within: Duration,
    /// Maximum age of the view for the agent to be healthy.
    pub stale_after: Duration,
    /// Maximum time from the start of the agent to the first view for the agent to be healthy.
    pub first_within: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            connections_per_client: 16,
            responses: 8,
            slow_after: Duration::from_secs(3),
            expositions: 2,
            head_within: Duration::from_secs(30),
            connection_age: Duration::from_secs(600),
            stall: Duration::from_secs(10),
            body_within: Duration::from_secs(60),
            shutdown_within: Duration::from_secs(3),
            stale_after: Duration::from_secs(10),
            first_within: Duration::from_secs(60),
        }
    }
}

/// The data that the server serves.
#[derive(Debug)]
pub struct ServerState {
    pub views: Arc<CurrentView>,
    /// Limits of the metric endpoints.
    pub limits: Arc<SeriesLimits>,
    /// Whether `/metrics/cadvisor` and `/metrics/resource` are served.
    pub kubelet: bool,
    /// When the agent started.
    pub started: Instant,
    pub server: ServerLimits,
    /// The usage history; `None` without one.
    pub history: Option<Arc<history::Store>>,
    /// Whether histograms also have classic buckets.
    pub classic_histograms: bool,
    /// The OTLP exporter; `None` without one.
    pub push: Option<Arc<dyn Push>>,
    /// Series counts of the last scrape of each endpoint.
    pub(crate) scrapes: Arc<Scrapes>,
    expositions: Arc<Semaphore>,
    open_responses: Arc<OpenResponses>,
}

impl ServerState {
    /// A state with the current time as the start of the agent.
    pub fn new(views: Arc<CurrentView>, limits: SeriesLimits, kubelet: bool, server: ServerLimits) -> Self {
        let expositions = Arc::new(Semaphore::new(server.expositions.max(1)));
        let (limits, started) = (Arc::new(limits), Instant::now());
        let scrapes = Arc::<Scrapes>::default();
        let open_responses = OpenResponses::new(server.responses, server.slow_after, Arc::clone(&scrapes));
        Self {
            views,
            limits,
            kubelet,
            started,
            server,
            history: None,
            classic_histograms: false,
            push: None,
            scrapes,
            expositions,
            open_responses,
        }
    }
}

/// Why the server stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket does not accept connections.
    #[error("cannot accept connections on {address}; the address must be one of this host")]
    Accept {
        /// The address that the server listened on.
        address: String,
        /// The error of the kernel.
        source: io::Error,
    },
}

/// Serves whoever the policy lets in until `shutdown` completes, then lets open requests finish within [`ServerLimits::shutdown_within`].
///
/// Works on a runtime with one thread; it needs the I/O driver, the timer and blocking threads.
pub async fn serve(
    listener: TcpListener,
    policy: AccessPolicy,
    state: Arc<ServerState>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut shutdown = pin!(shutdown);
    let limits = &state.server;
    let clients = Clients::new(
        limits.connections.max(1),
        limits.connections_per_client.max(1),
        Arc::clone(&state.scrapes),
    );
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(state.server.head_within)
        .max_headers(64)
        .max_buf_size(32 * 1024);

    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(source) if is_fatal(&source) => {
                let address = listener.local_addr().map_or_else(|_| "its address".into(), |a| a.to_string());
                return Err(ServeError::Accept { address, source });
            }
            Err(error) => {
                // Usually the process is out of file descriptors. Connections that close free some.
                tracing::warn!(%error, "cannot accept a connection, trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let stream = stall::StallGuard::new(stream, state.server.stall);
        let (state, policy, http) = (Arc::clone(&state), policy.clone(), http.clone());
        let (clients, watcher) = (Arc::clone(&clients), graceful.watcher());
        tasks.spawn(async move {
            let Some(client) = clients.admit(address.ip(), state.server.head_within).await else { return };
            tokio::select! {
                () = connection::serve(stream, &http, &policy, &state, watcher, &client) => {}
                () = client.closer().closed() => {}
            }
        });
    }

    drop(listener);
    if tokio::time::timeout(state.server.shutdown_within, graceful.shutdown()).await.is_err() {
        tracing::warn!(open = tasks.len(), "clients did not read their responses, closing their connections");
    }
    tasks.shutdown().await;
    Ok(())
}

/// Whether this socket can never accept a connection again.
fn is_fatal(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)
    )
}

#[cfg(test)]
mod tests;
