//! One connection: the handshake of TLS, then requests.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{
    Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{CONNECTION, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::graceful::Watcher};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    AccessPolicy, ServerState,
    clients::{Busy, Connection},
    policy::Peer,
    routes,
};
use crate::{
    exporters::stream::{BodyError, ResponseBody},
    messages,
};

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
    policy: &AccessPolicy,
    state: &Arc<ServerState>,
    watcher: Watcher,
    client: &Arc<Connection>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = match policy {
        AccessPolicy::Tls(tls, _) => match handshake(stream, tls.current(), state).await {
            Ok((stream, peer)) => requests(stream, peer, http, policy, state, watcher, client).await,
            Err(error) => Err(error),
        },
        _ => requests(stream, Peer { has_certificate: false }, http, policy, state, watcher, client).await,
    };
    if let Err(error) = served {
        tracing::debug!(error = messages::chain(&error), "a connection closed early");
    }
}

async fn handshake<S>(
    stream: S,
    config: Option<Arc<rustls::ServerConfig>>,
    state: &ServerState,
) -> Result<(TlsStream<S>, Peer), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = config.ok_or(ConnectionError::NoCertificate)?;
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = timeout(state.server.head_within, handshake)
        .await
        .map_err(|_| ConnectionError::SlowHandshake)?
        .map_err(ConnectionError::Handshake)?;
    let has_certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
    Ok((stream, Peer { has_certificate }))
}

async fn requests<S>(
    stream: S,
    peer: Peer,
    http: &http1::Builder,
    policy: &AccessPolicy,
    state: &Arc<ServerState>,
    watcher: Watcher,
    client: &Arc<Connection>,
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let since = Instant::now();
    let service = service_fn(|mut request: Request<Incoming>| async move {
        request.extensions_mut().insert(client.requester());
        let busy = client.request(Instant::now());
        let mut response = match busy {
            Ok(_) => policy.respond(&request, peer, state).await,
            Err(wait) => too_many_requests(wait),
        };
        // A new connection needs a certificate that is still valid, of an authority that is still trusted.
        if since.elapsed() >= state.server.connection_age {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let busy = busy.ok();
        Ok::<_, Infallible>(response.map(|body| BusyBody { body, _busy: busy }))
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    watcher.watch(connection).await.map_err(ConnectionError::Http)
}

fn too_many_requests(wait: Duration) -> Response<ResponseBody> {
    let text = "this client sends too many requests\n".to_owned();
    let mut response = routes::plain(StatusCode::TOO_MANY_REQUESTS, text);
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// A body whose connection is busy until it is sent.
struct BusyBody {
    body: ResponseBody,
    _busy: Option<Busy>,
}

impl Body for BusyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
