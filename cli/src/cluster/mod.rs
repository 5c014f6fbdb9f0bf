//! Talks to a cluster: to its agents through the API server's proxy of pods, and about what is around their workloads.

mod constraints;
mod occupancy;

use std::path::PathBuf;

use anyhow::{Context as _, Error, Result};
use clap::Args;
use futures_util::{StreamExt as _, io::AsyncReadExt as _, stream};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

pub use self::constraints::{
    Autoscaler, ClusterConstraints, DisruptionBudget, ManagedWorkload, QuotaHeadroom,
};
pub use self::occupancy::{EmptiedNodes, Occupancy};
use crate::{
    evidence::{AgentResponses, Snapshot},
    policy::PolicyAnnotation,
};

/// What agents go by.
const AGENTS: &str = "app.kubernetes.io/name=snug-agent";
/// Where `deploy/` puts them.
const NAMESPACE: &str = "snug";
/// Their port, if a pod does not name one `metrics`.
const PORT: i32 = 9750;
/// Agents that are asked at the same time.
const AT_ONCE: usize = 8;

/// KubeContext cluster, as kubectl has it.
#[derive(Clone, Debug, Default, Args)]
pub struct KubeContext {
    /// The kubeconfig file. Without it: $KUBECONFIG, else ~/.kube/config, else the pod's service account.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["agent", "prometheus", "file"])]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Without it: its current one.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["agent", "prometheus", "file"])]
    context: Option<String>,
}

impl KubeContext {
    /// Whether the user named one.
    pub const fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// Whether there is one to be had without a word of the user's.
    pub fn is_there() -> bool {
        let of_user = || std::env::home_dir().is_some_and(|home| home.join(".kube/config").is_file());
        std::env::var_os("KUBECONFIG").is_some_and(|files| !files.is_empty())
            || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
            || of_user()
    }
}

/// Why a cluster does not say what is asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No usable kubeconfig.
    #[error(
        "the kubeconfig cannot be used; name one by --kubeconfig or $KUBECONFIG, a context of it by --context"
    )]
    Kubeconfig(#[source] Box<KubeconfigError>),
    /// Neither a kubeconfig nor a service account.
    #[error("there is no kubeconfig, and this is no pod with a service account; name a file by --kubeconfig")]
    Inferred(#[source] Box<kube::config::InferConfigError>),
    /// A configuration that makes no client.
    #[error("the kubeconfig makes no client")]
    Client(#[source] Box<kube::Error>),
    /// A right is missing.
    #[error("the API server does not let you {verb} {what}; ask for the right to, or name agents by --agent")]
    Denied {
        /// `list` or `get`.
        verb: &'static str,
        /// Resource and namespace.
        what: String,
    },
    /// Anything else that it says, or that it says nothing.
    #[error("the API server does not answer the question for {what}")]
    Failed {
        /// The question.
        what: String,
        /// What came of it.
        source: Box<kube::Error>,
    },
    /// Nobody to ask.
    #[error(
        "no pod of the cluster has the label {AGENTS}; install the agent (`kubectl apply -k deploy/base`), or name agents by --agent"
    )]
    NoAgents,
    /// No thread to wait with.
    #[error("no runtime can be had")]
    Runtime(#[source] std::io::Error),
}

/// A connection to the API server.
pub struct Cluster {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    /// Reads the kubeconfig; asks nothing yet.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn connect(which: &KubeContext) -> Result<Self, ClusterError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClusterError::Runtime)?;
        let client = runtime.block_on(async {
            let config = configuration(which).await?;
            Client::try_from(config).map_err(|error| ClusterError::Client(Box::new(error)))
        })?;
        Ok(Self { client, runtime })
    }

    /// What all agents know since a time in seconds, put together. One that does not answer is told on standard error.
    ///
    /// # Errors
    /// When there are no agents, none answers, or rights are missing.
    pub fn evidence(&self, since: Option<u64>) -> Result<Snapshot> {
        self.runtime.block_on(async {
            let agents = agents(&self.client).await?;
            let mut answers = AgentResponses::new(agents.len());
            let asked = stream::iter(agents).map(|agent| self.ask(agent, since)).buffer_unordered(AT_ONCE);
            let mut asked = std::pin::pin!(asked);
            while let Some((agent, answer)) = asked.next().await {
                let answer =
                    answer.map_err(Error::from).and_then(|body| Snapshot::from_reader(&agent, &*body));
                answers.take(answer.context(agent))?;
            }
            answers.finish()
        })
    }

    /// What is around the workloads.
    pub fn constraints(&self) -> ClusterConstraints {
        self.runtime.block_on(constraints::gather(&self.client))
    }

    /// Nodes, and what their pods ask for.
    ///
    /// # Errors
    /// When nodes or pods cannot be listed.
    pub fn occupancy(&self) -> Result<Occupancy, ClusterError> {
        self.runtime.block_on(Occupancy::gather(&self.client))
    }

    /// Names of the pods with these labels.
    ///
    /// # Errors
    /// When the selector is none, or pods cannot be listed.
    pub fn pods(&self, selector: &str) -> Result<Vec<(String, String)>, ClusterError> {
        let names = self
            .list_pods(&ListParams::default().labels(selector))?
            .into_iter()
            .map(|metadata| (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default()));
        Ok(names.collect())
    }

    /// What pods are annotated with.
    ///
    /// # Errors
    /// When pods cannot be listed.
    pub fn annotated(&self, annotation: &str) -> Result<Vec<PolicyAnnotation>, ClusterError> {
        let annotated = self.list_pods(&ListParams::default())?.into_iter().filter_map(|metadata| {
            let text = metadata.annotations?.remove(annotation)?;
            Some(PolicyAnnotation {
                namespace: metadata.namespace.unwrap_or_default(),
                pod: metadata.name.unwrap_or_default(),
                text,
            })
        });
        Ok(annotated.collect())
    }

    fn list_pods(&self, which: &ListParams) -> Result<Vec<ObjectMeta>, ClusterError> {
        let pods = Api::<Pod>::all(self.client.clone());
        let listed = self.runtime.block_on(pods.list_metadata(which));
        let listed = listed.map_err(|error| failed("list", "pods in all namespaces", error))?;
        Ok(listed.items.into_iter().map(|pod| pod.metadata).collect())
    }

    async fn ask(&self, agent: AgentPod, since: Option<u64>) -> (String, Result<Vec<u8>, ClusterError>) {
        let AgentPod { namespace, name, port } = agent;
        let query = since.map(|since| format!("?since={since}")).unwrap_or_default();
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/api/v1/evidence{query}");
        let what = format!("the evidence of {namespace}/{name}");
        let answer = async {
            let request = http::Request::get(path)
                // A snapshot tells by its first bytes whether it is packed.
                .header(http::header::ACCEPT_ENCODING, "gzip")
                .body(Vec::new())
                .map_err(kube::Error::HttpError)?;
            let mut body = Vec::new();
            let mut stream = std::pin::pin!(self.client.request_stream(request).await?);
            stream.read_to_end(&mut body).await.map_err(kube::Error::ReadEvents)?;
            Ok(body)
        };
        let answer = answer.await.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 403 => {
                ClusterError::Denied { verb: "get", what: format!("pods/proxy in the namespace {namespace}") }
            }
            error => ClusterError::Failed { what, source: Box::new(error) },
        });
        (format!("{namespace}/{name}"), answer)
    }
}

async fn configuration(which: &KubeContext) -> Result<Config, ClusterError> {
    let unusable = |error| ClusterError::Kubeconfig(Box::new(error));
    let options = KubeConfigOptions { context: which.context.clone(), ..KubeConfigOptions::default() };
    match &which.kubeconfig {
        Some(file) => {
            let file = Kubeconfig::read_from(file).map_err(unusable)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(unusable)
        }
        None if which.context.is_some() => Config::from_kubeconfig(&options).await.map_err(unusable),
        None => Config::infer().await.map_err(|error| ClusterError::Inferred(Box::new(error))),
    }
}

/// An agent's pod that runs.
#[derive(Debug, PartialEq, Eq)]
struct AgentPod {
    namespace: String,
    name: String,
    port: i32,
}

/// All agents; where pods may not be listed everywhere, those of the namespace that `deploy/` uses.
async fn agents(client: &Client) -> Result<Vec<AgentPod>, ClusterError> {
    let labels = ListParams::default().labels(AGENTS);
    let everywhere = Api::<Pod>::all(client.clone()).list(&labels).await;
    let listed = match everywhere {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let own = Api::<Pod>::namespaced(client.clone(), NAMESPACE).list(&labels).await;
            own.map_err(|error| failed("list", &format!("pods in the namespace {NAMESPACE}"), error))?
        }
        listed => listed.map_err(|error| failed("list", "pods in all namespaces", error))?,
    };
    let agents: Vec<AgentPod> = listed.items.into_iter().filter_map(agent).collect();
    if agents.is_empty() { Err(ClusterError::NoAgents) } else { Ok(agents) }
}

fn agent(pod: Pod) -> Option<AgentPod> {
    let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let ports = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|one| one.ports.iter().flatten());
    let port = ports.filter(|port| port.name.as_deref() == Some("metrics")).map(|port| port.container_port);
    let (namespace, name) = (pod.metadata.namespace?, pod.metadata.name?);
    runs.then_some(AgentPod { namespace, name, port: port.take(1).next().unwrap_or(PORT) })
}

fn failed(verb: &'static str, what: &str, error: kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            ClusterError::Denied { verb, what: what.to_owned() }
        }
        error => ClusterError::Failed { what: what.to_owned(), source: Box::new(error) },
    }
}
