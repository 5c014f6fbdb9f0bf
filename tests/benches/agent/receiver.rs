//! An OTLP receiver over HTTP that accepts all requests and counts their bytes.

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

/// The receiver, in a thread that runs until the bench exits.
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
                // A broken connection must not stop the receiver.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        };
        thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || {
                let ended: Result<Infallible> = runtime.block_on(serve);
                let Err(error) = ended;
                eprintln!("bench: the OTLP receiver failed: {error:#}");
            })
            .context("cannot start the OTLP receiver")?;
        Ok(Self { port, received })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Total size of the request bodies so far, in bytes.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// An empty response accepts all data.
async fn take(
    request: Request<Incoming>,
    bytes: Arc<AtomicU64>,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    Ok(Response::new(Empty::new()))
}
