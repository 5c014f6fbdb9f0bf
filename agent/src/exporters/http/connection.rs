//! One connection: the handshake of TLS, then requests.

use std::{convert::Infallible, sync::Arc, time::Instant};

use hyper::{
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::graceful::Watcher};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{Door, ServerState, door::Peer};

/// Why a connection has ended early.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    #[error("the TLS handshake took too long")]
    SlowHandshake,
    #[error("there is no usable certificate yet")]
    NoCertificate,
    #[error("the client did not keep to HTTP or went away")]
    Http(#[source] hyper::Error),
}

/// Serves a connection to its end.
pub(super) async fn serve<S>(
    stream: S,
    http: &http1::Builder,
    door: &Door,
    state: &Arc<ServerState>,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = match door {
        Door::Tls(tls, _) => over_tls(stream, tls.current(), http, door, state, watcher).await,
        _ => requests(stream, Peer { has_certificate: false }, http, door, state, watcher).await,
    };
    if let Err(error) = served {
        tracing::debug!(error = format!("{:#}", anyhow::Error::from(error)), "a connection closed early");
    }
}

async fn over_tls<S>(
    stream: S,
    config: Option<Arc<rustls::ServerConfig>>,
    http: &http1::Builder,
    door: &Door,
    state: &Arc<ServerState>,
    watcher: Watcher,
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = config.ok_or(ConnectionError::NoCertificate)?;
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = timeout(state.server.head_within, handshake)
        .await
        .map_err(|_| ConnectionError::SlowHandshake)?
        .map_err(ConnectionError::Handshake)?;
    let has_certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
    requests(stream, Peer { has_certificate }, http, door, state, watcher).await
}

async fn requests<S>(
    stream: S,
    peer: Peer,
    http: &http1::Builder,
    door: &Door,
    state: &Arc<ServerState>,
    watcher: Watcher,
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let since = Instant::now();
    let service = service_fn(|request| async move {
        let mut response = door.respond(&request, peer, state).await;
        // A new connection needs a certificate that is still valid, of an authority that is still trusted.
        if since.elapsed() >= state.server.connection_age {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(response)
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    watcher.watch(connection).await.map_err(ConnectionError::Http)
}
