//! Container names from the runtime's CRI socket, if that is enabled: for containers that neither the API server nor a bundle
//! names.
//!
//! Access to the socket is equivalent to root on the host, so it is off by default. Only two list calls are made, and only
//! when a container without a name appears.

mod api;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{net::UnixStream, sync::Notify, time::timeout};
use tonic::{
    Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{identity::bundle::Bundle, retry::Outage};

/// The timeout of both list calls together.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The minimum pause between two requests.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause after a failed request.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);
/// The maximum size of a response, bytes: some thousand containers.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// Why the runtime returned no names.
#[derive(Debug, Error)]
pub enum CriError {
    /// The socket does not exist or refuses the connection.
    #[error("cannot connect to the CRI socket {}; check cri-socket, and that it is mounted", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        source: tonic::transport::Error,
    },
    /// The runtime returned an error.
    #[error("the runtime at {} refuses {method}; CRI v1 is required", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The gRPC method.
        method: &'static str,
        source: Box<Status>,
    },
    /// The runtime does not answer in time.
    #[error("the runtime at {} has not answered for {} s", path.display(), RESPONSE_TIMEOUT.as_secs())]
    Hangs {
        /// The socket.
        path: PathBuf,
    },
}

/// Container names from the runtime. The task [`run`] updates them, and the sampling thread reads them without waiting.
#[derive(Debug)]
pub struct CriNames {
    socket: PathBuf,
    named: ArcSwap<HashMap<String, Bundle>>,
    requested: Notify,
    failures: AtomicU64,
}

impl CriNames {
    /// No names yet, from the runtime at this socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, named: ArcSwap::default(), requested: Notify::new(), failures: AtomicU64::new(0) }
    }

    /// The names of a container in the last response. If it is not there, a new request is made in the background.
    pub fn find(&self, id: &str) -> Option<Bundle> {
        let found = self.named.load().get(id).cloned();
        if found.is_none() {
            self.requested.notify_one();
        }
        found
    }

    /// The number of failed requests.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// Requests names for ever, whenever [`CriNames::find`] misses one. A failure is counted and retried, and each cause is logged once.
pub async fn run(runtime: Arc<CriNames>) {
    let mut outage = Outage::default();
    loop {
        runtime.requested.notified().await;
        match list_with_timeout(&runtime.socket).await {
            Ok(named) => {
                runtime.named.store(Arc::new(named));
                if outage.end() {
                    tracing::info!("the runtime answers again");
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                runtime.failures.fetch_add(1, Ordering::Relaxed);
                if let Some(error) = outage.new_cause(&error) {
                    tracing::warn!(error, "no container names from the runtime; will retry");
                }
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

/// Containers and sandboxes by id.
async fn list_with_timeout(socket: &Path) -> Result<HashMap<String, Bundle>, CriError> {
    let hangs = |_| CriError::Hangs { path: socket.to_owned() };
    timeout(RESPONSE_TIMEOUT, list(socket)).await.map_err(hangs)?
}

async fn list(socket: &Path) -> Result<HashMap<String, Bundle>, CriError> {
    let connect = |source| CriError::Connect { path: socket.to_owned(), source };
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The host name is not resolved, but HTTP requires one.
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await.map_err(connect)?;
    let containers: api::Containers = call(channel.clone(), socket, api::LIST_CONTAINERS).await?;
    let sandboxes: api::Sandboxes = call(channel, socket, api::LIST_SANDBOXES).await?;
    let containers = containers.containers.into_iter().filter_map(container_bundle);
    Ok(containers.chain(sandboxes.items.into_iter().filter_map(sandbox_bundle)).collect())
}

async fn call<Response: prost::Message + Default + 'static>(
    channel: Channel,
    socket: &Path,
    method: &'static str,
) -> Result<Response, CriError> {
    let refused = |source| CriError::Refused { path: socket.to_owned(), method, source: Box::new(source) };
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
    client.ready().await.map_err(|source| CriError::Connect { path: socket.to_owned(), source })?;
    let codec = ProstCodec::<api::All, Response>::default();
    let path = PathAndQuery::from_static(method);
    let answer = client.unary(tonic::Request::new(api::All {}), path, codec).await.map_err(refused)?;
    Ok(answer.into_inner())
}

/// `None` for a container outside pods.
fn container_bundle(container: api::Container) -> Option<(String, Bundle)> {
    let api::Container { id, image, mut labels } = container;
    let mut label = |name: &str| labels.remove(name).filter(|value| !value.is_empty());
    let bundle = Bundle {
        namespace: label("io.kubernetes.pod.namespace")?,
        pod: label("io.kubernetes.pod.name")?,
        container: Some(label("io.kubernetes.container.name")?),
        image: image.map_or_else(String::new, |image| match image.user_specified_image {
            specified if !specified.is_empty() => specified,
            _ => image.image,
        }),
    };
    Some((id, bundle))
}

fn sandbox_bundle(sandbox: api::Sandbox) -> Option<(String, Bundle)> {
    let api::SandboxMetadata { name: pod, namespace } = sandbox.metadata?;
    Some((sandbox.id, Bundle { namespace, pod, container: None, image: String::new() }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use prost::Message as _;

    use super::*;

    fn list_once(socket: &Path) -> Result<HashMap<String, Bundle>, CriError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(list_with_timeout(socket))
    }

    #[test]
    fn errors_name_a_socket_that_is_absent_or_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("cri.sock");
        let absent = list_once(&socket).unwrap_err();
        assert!(matches!(absent, CriError::Connect { .. }), "{absent}");
        assert!(absent.to_string().contains("cri.sock"), "{absent}");
        // This listener accepts connections and never answers.
        let _listener = UnixListener::bind(&socket).unwrap();
        let hangs = list_once(&socket).unwrap_err();
        assert!(matches!(hangs, CriError::Hangs { .. }), "{hangs}");
    }

    /// Bytes as `protoc --encode` would write them: a container of containerd, one of no pod, and a sandbox.
    #[test]
    fn messages_are_read_by_their_numbers() {
        let label = |key: &str, value: &str| {
            let mut entry = vec![0x0a, key.len() as u8];
            entry.extend(key.bytes());
            entry.extend([0x12, value.len() as u8]);
            entry.extend(value.bytes());
            let mut field = vec![0x42, entry.len() as u8];
            field.extend(entry);
            field
        };
        let mut container = vec![0x0a, 2, b'c', b'1', 0x12, 1, b's'];
        container.extend([0x22, 3, 0x0a, 1, b'i', 0x30, 1]);
        container.extend(label("io.kubernetes.container.name", "main"));
        container.extend(label("io.kubernetes.pod.name", "web-0"));
        container.extend(label("io.kubernetes.pod.namespace", "shop"));
        let mut containers = vec![0x0a, container.len() as u8];
        containers.extend(container);
        containers.extend([0x0a, 3, 0x0a, 1, b'x']);
        let containers = api::Containers::decode(&containers[..]).unwrap();
        let named: Vec<_> = containers.containers.into_iter().filter_map(container_bundle).collect();
        let main = Bundle {
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            container: Some("main".to_owned()),
            image: "i".to_owned(),
        };
        assert_eq!(named, [("c1".to_owned(), main)]);

        let sandboxes = b"\x0a\x0e\x0a\x01s\x12\x09\x0a\x01p\x12\x01u\x1a\x01n";
        let sandboxes = api::Sandboxes::decode(&sandboxes[..]).unwrap();
        let (id, sandbox) = sandbox_bundle(sandboxes.items.into_iter().next().unwrap()).unwrap();
        assert_eq!((&*id, &*sandbox.namespace, &*sandbox.pod, sandbox.container), ("s", "n", "p", None));
    }
}
