//! What the API server says of this node's pods: a watch that survives the server, and what it knows at any moment.
//!
//! Everything here runs on the serving runtime. The sampling thread only loads [`PodWatch::pods`].

mod known;
mod owners;
mod watch;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use thiserror::Error;

use crate::model::{KubernetesRow, Pods};

/// Longer than the server lets a watch last, so that only a dead connection meets it.
const READ_TIMEOUT: Duration = Duration::from_secs(330);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to read a configuration that cannot be used.
const CONFIGURE_AGAIN: Duration = Duration::from_secs(15);

/// Whose pods to watch, and how to reach the API server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name in the cluster.
    pub node: String,
    /// A kubeconfig; without one, the service account of the pod that the agent runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Whether to ask for owners that the pods do not tell for certain.
    pub owner_lookup: bool,
}

/// Why the API server cannot be asked at all.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No kubeconfig, or none that can be used.
    #[error("the kubeconfig {} cannot be used", path.display())]
    Kubeconfig {
        path: PathBuf,
        /// What is wrong.
        source: Box<KubeconfigError>,
    },
    /// Not in a pod, or in one without a service account's token.
    #[error(
        "there is no service account here; run the agent in a pod with automountServiceAccountToken, or give --kubeconfig"
    )]
    InCluster(#[source] Box<InClusterError>),
    /// The configuration makes no client.
    #[error("the configuration of the API server makes no client")]
    Client(#[source] Box<kube::Error>),
}

/// Whether the agent runs in a pod: the kubelet tells every container of one where the API server is.
pub fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// What the watch knows. Shared by the watch, which writes it, and the sampling thread.
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
    /// The pods as they were last told; another [`Arc`] after each change.
    pub fn pods(&self) -> Arc<Pods> {
        self.pods.load_full()
    }

    /// Objects that could not be used, so far.
    pub fn skipped_pods(&self) -> u64 {
        self.skipped_pods.load(Ordering::Relaxed)
    }

    /// How the watch fares, for one who has taken those pods up: what is counted is never ahead of what is shown.
    pub fn row(&self, taken_up: &Pods) -> KubernetesRow {
        KubernetesRow {
            synced: self.synced.load(Ordering::Relaxed),
            connected: self.connected.load(Ordering::Relaxed),
            pods: taken_up.len() as u64,
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

/// Watches for ever. What fails is logged once, counted, and tried again.
pub async fn follow(settings: Settings, watched: Arc<PodWatch>) {
    let mut said = false;
    let client = loop {
        match connect(&settings).await {
            Ok(client) => break client,
            Err(error) => {
                count(&watched.errors);
                if !std::mem::replace(&mut said, true) {
                    let error = anyhow::Error::from(error);
                    tracing::error!(
                        error = format!("{error:#}"),
                        "pods are not watched; containers go by what the runtime says; tried again"
                    );
                }
                tokio::time::sleep(CONFIGURE_AGAIN).await;
            }
        }
    };
    watch::run(client, &settings, &watched).await;
}

async fn connect(settings: &Settings) -> Result<Client, ConnectError> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let unusable = |source| ConnectError::Kubeconfig { path: path.clone(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(unusable)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(unusable)?
        }
        None => Config::incluster().map_err(|error| ConnectError::InCluster(Box::new(error)))?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))
}
