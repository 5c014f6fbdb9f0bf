//! The runtime's own socket, where it is switched on: names for containers that neither the API server nor a bundle names.
//!
//! Whoever may write to that socket can do all that the runtime can, which is as good as root; so it is off unless asked for.
//! Only the two lists are ever called, and only when a container without a name has appeared.

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

use crate::identity::bundle::Bundle;

/// A runtime that has not answered after so long hangs.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Between two questions, at least.
const PAUSE: Duration = Duration::from_millis(500);
/// After a question that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);
/// The largest answer that is read, bytes: some thousand containers.
const LARGEST_ANSWER: usize = 16 << 20;

/// Why the runtime named nobody.
#[derive(Debug, Error)]
pub enum CriError {
    /// There is no socket, or it may not be used.
    #[error("nobody answers at the CRI socket {}; check cri-socket, and that it is mounted", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the transport says.
        source: tonic::transport::Error,
    },
    /// It refused.
    #[error("the runtime at {} refuses {method}; it has to speak CRI v1", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        method: &'static str,
        /// Its answer.
        source: Box<Status>,
    },
    /// It does not answer.
    #[error("the runtime at {} has not answered for {} s", path.display(), ANSWERS_WITHIN.as_secs())]
    Hangs {
        /// The socket.
        path: PathBuf,
    },
}

/// What the runtime knows. Shared by the task that asks it and the sampling thread, which never waits for it.
#[derive(Debug)]
pub struct Runtime {
    socket: PathBuf,
    named: ArcSwap<HashMap<String, Bundle>>,
    wanted: Notify,
    failures: AtomicU64,
}

impl Runtime {
    /// A runtime that is asked at this socket.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket, named: ArcSwap::default(), wanted: Notify::new(), failures: AtomicU64::new(0) }
    }

    /// What the runtime said of a container when it was last asked; if it said nothing, it is asked again.
    pub fn find(&self, id: &str) -> Option<Bundle> {
        let found = self.named.load().get(id).cloned();
        if found.is_none() {
            self.wanted.notify_one();
        }
        found
    }

    /// Questions that had no answer, so far.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// Asks for ever, whenever a container wants a name. What fails is said once, counted, and tried again.
pub async fn follow(runtime: Arc<Runtime>) {
    let mut said = false;
    loop {
        runtime.wanted.notified().await;
        match ask(&runtime.socket).await {
            Ok(named) => {
                runtime.named.store(Arc::new(named));
                if std::mem::take(&mut said) {
                    tracing::info!("the runtime answers again");
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                runtime.failures.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut said, true) {
                    let error = anyhow::Error::from(error);
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the runtime names no container; tried again"
                    );
                }
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

/// Containers and sandboxes by id.
async fn ask(socket: &Path) -> Result<HashMap<String, Bundle>, CriError> {
    let hangs = |_| CriError::Hangs { path: socket.to_owned() };
    timeout(ANSWERS_WITHIN, list(socket)).await.map_err(hangs)?
}

async fn list(socket: &Path) -> Result<HashMap<String, Bundle>, CriError> {
    let connect = |source| CriError::Connect { path: socket.to_owned(), source };
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The name is not looked up; HTTP wants one.
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await.map_err(connect)?;
    let containers: api::Containers = call(channel.clone(), socket, api::LIST_CONTAINERS).await?;
    let sandboxes: api::Sandboxes = call(channel, socket, api::LIST_SANDBOXES).await?;
    let containers = containers.containers.into_iter().filter_map(of_container);
    Ok(containers.chain(sandboxes.items.into_iter().filter_map(of_sandbox)).collect())
}

async fn call<Answer: prost::Message + Default + 'static>(
    channel: Channel,
    socket: &Path,
    method: &'static str,
) -> Result<Answer, CriError> {
    let refused = |source| CriError::Refused { path: socket.to_owned(), method, source: Box::new(source) };
    let mut client = Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER);
    client.ready().await.map_err(|source| CriError::Connect { path: socket.to_owned(), source })?;
    let codec = ProstCodec::<api::All, Answer>::default();
    let path = PathAndQuery::from_static(method);
    let answer = client.unary(tonic::Request::new(api::All {}), path, codec).await.map_err(refused)?;
    Ok(answer.into_inner())
}

/// `None` for a container that is in no pod.
fn of_container(container: api::Container) -> Option<(String, Bundle)> {
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

fn of_sandbox(sandbox: api::Sandbox) -> Option<(String, Bundle)> {
    let api::SandboxMetadata { name: pod, namespace } = sandbox.metadata?;
    Some((sandbox.id, Bundle { namespace, pod, container: None, image: String::new() }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use prost::Message as _;

    use super::*;

    fn ask_once(socket: &Path) -> Result<HashMap<String, Bundle>, CriError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(socket))
    }

    #[test]
    fn a_socket_that_is_absent_or_hangs_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("cri.sock");
        let absent = ask_once(&socket).unwrap_err();
        assert!(matches!(absent, CriError::Connect { .. }), "{absent}");
        assert!(absent.to_string().contains("cri.sock"), "{absent}");
        // It takes connections and says nothing.
        let _listener = UnixListener::bind(&socket).unwrap();
        let hangs = ask_once(&socket).unwrap_err();
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
        let named: Vec<_> = containers.containers.into_iter().filter_map(of_container).collect();
        let main = Bundle {
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            container: Some("main".to_owned()),
            image: "i".to_owned(),
        };
        assert_eq!(named, [("c1".to_owned(), main)]);

        let sandboxes = b"\x0a\x0e\x0a\x01s\x12\x09\x0a\x01p\x12\x01u\x1a\x01n";
        let sandboxes = api::Sandboxes::decode(&sandboxes[..]).unwrap();
        let (id, sandbox) = of_sandbox(sandboxes.items.into_iter().next().unwrap()).unwrap();
        assert_eq!((&*id, &*sandbox.namespace, &*sandbox.pod, sandbox.container), ("s", "n", "p", None));
    }
}
