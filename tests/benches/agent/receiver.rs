//! An OTLP receiver over HTTP that takes everything and counts it.

use std::{
    convert::Infallible,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

/// The receiver, in a thread of the bench; it serves until the bench ends.
pub(crate) struct Receiver {
    port: u16,
    received: Arc<AtomicU64>,
}

impl Receiver {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let received = Arc::new(AtomicU64::new(0));
        let bytes = Arc::clone(&received);
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                let bytes = Arc::clone(&bytes);
                let service = service_fn(move |request| take(request, Arc::clone(&bytes)));
                // A client that goes away ends its connection and nothing else.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        };
        thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || {
                let ended: Result<Infallible> = runtime.block_on(serve);
                let Err(error) = ended;
                eprintln!("bench: the OTLP receiver ended: {error:#}");
            })
            .context("cannot start the OTLP receiver")?;
        Ok(Self { port, received })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Bytes of requests so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// An empty answer is one that takes everything.
async fn take(
    request: Request<Incoming>,
    bytes: Arc<AtomicU64>,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    Ok(Response::new(Empty::new()))
}
