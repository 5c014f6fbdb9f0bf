//! Watches the pods of this node through the API server, and has tokens of clients reviewed by it. The watch reconnects after any
//! failure, and the last known pods stay available.
//!
//! Everything here runs on the serving runtime. The sampling thread only loads [`PodWatch::pods`].

mod bounds;
mod cache;
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod hostile;
mod owners;
mod reviews;
mod watch;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use thiserror::Error;

use self::bounds::{Bounds, HEAD_TIMEOUT};
pub use self::reviews::{ReviewError, TokenReviewer, Verdict};
use crate::{
    model::{KubernetesRow, Pods},
    retry::Outage,
};

/// Longer than the maximum duration of a watch, so that only a dead connection times out.
const READ_TIMEOUT: Duration = Duration::from_secs(330);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before an unusable configuration is read again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(15);

/// Which pods to watch, and how to reach the API server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name in the cluster.
    pub node: String,
    /// A kubeconfig. Default: the service account of the agent's pod.
    pub kubeconfig: Option<PathBuf>,
    /// Whether to read owners that pods do not show for certain.
    pub owner_lookup: bool,
}

/// Why no client for the API server can be created.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The kubeconfig is missing or invalid.
    #[error("the kubeconfig {} cannot be used", path.display())]
    Kubeconfig { path: PathBuf, source: Box<KubeconfigError> },
    /// The agent runs outside a pod, or in a pod without a service account token.
    #[error(
        "there is no service account here; run the agent in a pod with automountServiceAccountToken, or give --kubeconfig"
    )]
    InCluster(#[source] Box<InClusterError>),
    /// The configuration is invalid.
    #[error("no client for the API server can be created from the configuration")]
    Client(#[source] Box<kube::Error>),
}

/// Whether the agent runs in a pod: the kubelet sets the address of the API server in the environment of each container.
pub fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// The state of the watch. The watch writes it, the sampling thread reads it.
#[derive(Debug, Default)]
pub struct PodWatch {
    pods: ArcSwap<Pods>,
    synced: AtomicBool,
    connected: AtomicBool,
    events: AtomicU64,
    relists: AtomicU64,
    errors: AtomicU64,
    skipped_pods: AtomicU64,
    owner_reads: AtomicU64,
}

impl PodWatch {
    /// The current pods. After each change this is another [`Arc`].
    pub fn pods(&self) -> Arc<Pods> {
        self.pods.load_full()
    }

    /// The number of invalid objects so far.
    pub fn skipped_pods(&self) -> u64 {
        self.skipped_pods.load(Ordering::Relaxed)
    }

    /// The state for the view. `exported` are the pods of the same view, so that their number agrees with it.
    pub fn row(&self, exported: &Pods) -> KubernetesRow {
        KubernetesRow {
            synced: self.synced.load(Ordering::Relaxed),
            connected: self.connected.load(Ordering::Relaxed),
            pods: exported.len() as u64,
            events: self.events.load(Ordering::Relaxed),
            relists: self.relists.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            owner_reads: self.owner_reads.load(Ordering::Relaxed),
        }
    }

    fn publish(&self, pods: Pods) {
        self.pods.store(Arc::new(pods));
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Watches for ever. A failure is counted and retried, and each cause is logged once.
pub async fn run(settings: Settings, watch_state: Arc<PodWatch>) {
    run_within(settings, watch_state, HEAD_TIMEOUT).await;
}

/// As [`run`], with the time within which the API server has to respond.
async fn run_within(settings: Settings, watch_state: Arc<PodWatch>, head_timeout: Duration) {
    let mut outage = Outage::default();
    let client = loop {
        let bounds = Bounds { head_timeout, watch: Some(Arc::clone(&watch_state)) };
        let connecting = connect(settings.kubeconfig.as_deref(), READ_TIMEOUT, bounds);
        match connecting.await {
            Ok(client) => break client,
            Err(error) => {
                count(&watch_state.errors);
                if let Some(error) = outage.new_cause(&error) {
                    tracing::error!(
                        error,
                        "pods are not watched; container names come from the runtime only; will retry"
                    );
                }
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    };
    watch::run(client, &settings, &watch_state).await;
}

/// A client with bounds. Their watch learns that the API server responds: a watch without events has nothing else to show for it.
async fn connect(
    kubeconfig: Option<&Path>,
    read_timeout: Duration,
    bounds: Bounds,
) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let unusable =
                |source| ConnectError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(unusable)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(unusable)?
        }
        None => Config::incluster().map_err(|error| ConnectError::InCluster(Box::new(error)))?,
    };
    if config.root_cert.is_none() && config.cluster_url.scheme_str() == Some("http") {
        // The roots of the system are not needed, and a small image has none.
        config.root_cert = Some(Vec::new());
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(read_timeout);
    // Whoever asks has pauses of its own. The client would do what `Retry-After` says, also without any pause.
    config.default_retry = false;
    let client = ClientBuilder::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
    Ok(client.with_layer(&bounds).build())
}
