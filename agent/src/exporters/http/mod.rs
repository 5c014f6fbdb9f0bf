//! The HTTP server: metrics and health.
//!
//! Everything is bounded: connections, header sizes, the time a client may take, and the number of expositions that
//! are written at once. An exposition is written on a blocking thread while it is sent, so the runtime, which may
//! have one thread only, stays free, and memory stays small however long the exposition is.

mod negotiate;
mod routes;
mod stall;

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use rustix::io::Errno;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use super::{
    limits::SeriesLimits,
    series::{Push, Scrapes},
};
use crate::{history, views::CurrentView};

/// How much clients may ask of the server.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Connections at a time; more wait in the kernel's backlog.
    pub connections: usize,
    /// Expositions written at a time; more wait for their turn. One whose client keeps it waiting does not count.
    pub expositions: usize,
    /// Time in which a client must send its request's head. Idle connections are closed after it, too.
    pub head_within: Duration,
    /// Time in which a client must read something.
    pub stall: Duration,
    /// Time in which a client must have read a whole exposition.
    pub body_within: Duration,
    /// Time that open requests get when the server shuts down.
    pub shutdown_within: Duration,
    /// Age of the last publication beyond which the agent is no longer healthy.
    pub stale_after: Duration,
    /// Time that the agent gets for its first publication before it is no longer healthy.
    pub first_within: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            expositions: 2,
            head_within: Duration::from_secs(30),
            stall: Duration::from_secs(10),
            body_within: Duration::from_secs(60),
            shutdown_within: Duration::from_secs(3),
            stale_after: Duration::from_secs(10),
            first_within: Duration::from_secs(60),
        }
    }
}

/// What the server serves.
#[derive(Debug)]
pub struct ServerState {
    /// What the store publishes.
    pub views: Arc<CurrentView>,
    /// What the metric endpoints leave out.
    pub limits: Arc<SeriesLimits>,
    /// Whether `/metrics/cadvisor` is served. Off where the kubelet's own endpoint is scraped, else all would double.
    pub kubelet: bool,
    /// When the agent started.
    pub started: Instant,
    /// How much clients may ask.
    pub server: ServerLimits,
    /// The history; `None` where there is none.
    pub history: Option<Arc<history::Store>>,
    /// Whether histograms have buckets with fixed bounds, too.
    pub classic_histograms: bool,
    /// What pushes to others; `None` where there is none.
    pub push: Option<Arc<dyn Push>>,
    /// What each endpoint last held.
    pub(crate) scrapes: Arc<Scrapes>,
    expositions: Arc<Semaphore>,
}

impl ServerState {
    /// A state with nothing scraped yet, started now.
    pub fn new(views: Arc<CurrentView>, limits: SeriesLimits, kubelet: bool, server: ServerLimits) -> Self {
        let expositions = Arc::new(Semaphore::new(server.expositions.max(1)));
        let (limits, started) = (Arc::new(limits), Instant::now());
        Self {
            views,
            limits,
            kubelet,
            started,
            server,
            history: None,
            classic_histograms: false,
            push: None,
            scrapes: Arc::default(),
            expositions,
        }
    }
}

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket is of no use.
    #[error("cannot accept connections on {address}; the address must be one of this host")]
    Accept {
        /// Where it listened.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Serves until `shutdown` is done, then lets open requests finish within [`ServerLimits::shutdown_within`].
///
/// Works on a runtime with one thread; it needs the I/O driver, the timer and blocking threads.
pub async fn serve(
    listener: TcpListener,
    state: Arc<ServerState>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut shutdown = pin!(shutdown);
    let connections = Arc::new(Semaphore::new(state.server.connections.max(1)));
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(state.server.head_within)
        .max_headers(64)
        .max_buf_size(32 * 1024);

    loop {
        let accept = async {
            let permit = Arc::clone(&connections).acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = tasks.join_next() => continue,
            accepted = accept => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(source) if is_fatal(&source) => {
                let address = listener.local_addr().map_or_else(|_| "its address".into(), |a| a.to_string());
                return Err(ServeError::Accept { address, source });
            }
            Err(error) => {
                // Mostly out of file descriptors: connections that end make room.
                tracing::warn!(%error, "cannot accept a connection, trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let io = TokioIo::new(stall::StallGuard::new(stream, state.server.stall));
        let state = Arc::clone(&state);
        let service = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(routes::respond(&request, &state).await) }
        });
        let connection = graceful.watch(http.serve_connection(io, service));
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }

    drop(listener);
    if tokio::time::timeout(state.server.shutdown_within, graceful.shutdown()).await.is_err() {
        tracing::warn!(open = tasks.len(), "clients did not read their responses, closing their connections");
    }
    tasks.shutdown().await;
    Ok(())
}

/// Whether accepting can never work again on this socket.
fn is_fatal(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)
    )
}

#[cfg(test)]
mod tests;
