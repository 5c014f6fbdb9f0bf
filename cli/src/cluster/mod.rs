//! Access to a cluster: to agents through ports that the API server forwards, and to the objects that constrain workloads.

mod amounts;
mod bare_pod;
mod constraints;
mod forward;
mod links;
mod listed;
mod live_pod;
mod managers;
mod node_class;
mod objects;
mod occupancy;

use std::{cell::OnceCell, collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Error, Result};
use clap::Args;
use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use self::listed::{ListedNode, ListedPods};
pub use self::{
    bare_pod::{BarePod, PodContainer},
    constraints::{Autoscaler, ClusterConstraints, DisruptionBudget, ManagedWorkload, NodeSpace},
    forward::ForwardError,
    links::AgentLinks,
    live_pod::LivePod,
    managers::Manager,
    node_class::NodeClasses,
    objects::{ObjectsQuery, TEMPLATED, Template, WorkloadObjects},
    occupancy::{EmptiedNodes, Occupancy},
};
use crate::{
    evidence::{AgentResponses, Snapshot},
    policy::PolicyAnnotation,
    progress,
};

/// Label selector of the agents' pods.
const AGENTS: &str = "app.kubernetes.io/name=snug-agent";
/// Namespace of the agents in `deploy/`.
const NAMESPACE: &str = "snug";
/// Name of the port of an agent's pod that only the pod itself can connect to.
const PORT_NAME: &str = "local";
/// The port of an agent whose pod has no port with that name.
const PORT: u16 = 9750;
/// What a list of pods is called in messages.
const PODS: &str = "pods in all namespaces";
/// Number of concurrent requests to agents.
const AT_ONCE: usize = 8;

/// Options that select a cluster, as in kubectl.
#[derive(Clone, Debug, Default, Args)]
pub struct KubeContext {
    /// Kubeconfig file [default: $KUBECONFIG, else ~/.kube/config, else the pod's service account]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["agent", "prometheus", "file"])]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current context]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["agent", "prometheus", "file"])]
    context: Option<String>,
}

impl KubeContext {
    /// From values of options of the same names.
    pub const fn new(kubeconfig: Option<PathBuf>, context: Option<String>) -> Self {
        Self { kubeconfig, context }
    }

    /// Whether the user set one of the options.
    pub const fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// Whether a kubeconfig or service account is available without these options.
    pub fn is_available() -> bool {
        let has_default_file =
            || std::env::home_dir().is_some_and(|home| home.join(".kube/config").is_file());
        std::env::var_os("KUBECONFIG").is_some_and(|files| !files.is_empty())
            || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
            || has_default_file()
    }
}

/// Why a request to the cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No usable kubeconfig.
    #[error("cannot use the kubeconfig; check --kubeconfig, $KUBECONFIG and --context")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    /// Neither a kubeconfig nor a service account.
    #[error("no kubeconfig and no service account found; set --kubeconfig")]
    Inferred(#[source] Box<kube::config::InferConfigError>),
    /// No client can be created from the kubeconfig.
    #[error("cannot create a client from the kubeconfig; check its certificates and addresses")]
    Client(#[source] Box<kube::Error>),
    /// An RBAC permission is missing.
    #[error("no permission to {verb} {what}; ask for an RBAC role, or use --agent")]
    Denied {
        /// Such as `list`.
        verb: &'static str,
        /// Resource and namespace.
        what: String,
    },
    #[error("the request for {what} failed: {text}")]
    Status {
        what: String,
        /// The status in the API server's own words.
        text: String,
    },
    #[error("the request for {what} to the API server failed")]
    Failed { what: String, source: Box<kube::Error> },
    /// The API server forwards the port, and the agent does not respond.
    #[error("the request to {what} failed")]
    Agent { what: String, source: ForwardError },
    /// The cluster has no agents.
    #[error(
        "no running pod has the label {AGENTS}; install the agent (`kubectl apply -k deploy/base`), or use --agent"
    )]
    NoAgents,
    /// The async runtime cannot start.
    #[error("cannot start the async runtime")]
    Runtime(#[source] std::io::Error),
}

/// A connection to the API server.
pub struct Cluster {
    client: Client,
    runtime: tokio::runtime::Runtime,
    /// All pods and all nodes, each listed when they are first needed.
    pods: OnceCell<Result<ListedPods, ClusterError>>,
    nodes: OnceCell<Result<Vec<ListedNode>, ClusterError>>,
}

impl Cluster {
    /// Reads the kubeconfig, without sending a request.
    ///
    /// # Errors
    /// When the kubeconfig is missing or cannot be used.
    pub fn connect(context: &KubeContext) -> Result<Self, ClusterError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClusterError::Runtime)?;
        let client = runtime.block_on(async {
            let mut config = configuration(context).await?;
            if config.root_cert.is_none() && config.cluster_url.scheme_str() == Some("http") {
                // The roots of the system are not needed, and a small image has none.
                config.root_cert = Some(Vec::new());
            }
            Client::try_from(config).map_err(|error| ClusterError::Client(Box::new(error)))
        })?;
        Ok(Self { client, runtime, pods: OnceCell::new(), nodes: OnceCell::new() })
    }

    /// Merges the evidence of all agents since a time in seconds. An agent that does not respond is reported on standard error.
    ///
    /// # Errors
    /// When there are no agents, none responds, or permissions are missing.
    pub fn evidence(&self, since: Option<u64>) -> Result<Snapshot> {
        self.runtime.block_on(async {
            let agents = agents(&self.client).await?;
            let mut responses = AgentResponses::new(agents.len());
            let pending =
                stream::iter(agents).map(|agent| self.request(agent, since)).buffer_unordered(AT_ONCE);
            let mut pending = std::pin::pin!(pending);
            let (all, mut done) = (responses.requested(), 0);
            while let Some((agent, response)) = pending.next().await {
                let response =
                    response.map_err(Error::from).and_then(|body| Snapshot::from_reader(&agent, &*body));
                responses.add(response.context(agent))?;
                done += 1;
                progress::step(&format!("reading the usage history: {done} of {all} agents"));
            }
            responses.finish()
        })
    }

    /// The objects that constrain workloads.
    pub fn constraints(&self) -> ClusterConstraints {
        let (pods, nodes) = (self.listed_pods(), self.listed_nodes());
        self.runtime.block_on(constraints::gather(&self.client, pods, nodes))
    }

    /// Reads the objects that recommendations are applied to.
    pub fn objects(&self, query: &ObjectsQuery) -> WorkloadObjects {
        let pods = self.listed_pods();
        let nodes = if query.bare_pods.is_empty() { &[] } else { self.listed_nodes().unwrap_or_default() };
        self.runtime.block_on(objects::gather(&self.client, query, pods, nodes))
    }

    /// Nodes and the requests of their pods.
    ///
    /// # Errors
    /// When nodes or pods cannot be listed.
    pub fn occupancy(&self) -> Result<Occupancy, &ClusterError> {
        Ok(Occupancy::new(self.listed_nodes()?, &self.listed_pods()?.live))
    }

    /// The class of each pod's node; empty when nodes or pods cannot be listed.
    pub fn node_classes(&self) -> NodeClasses {
        let listed = self.listed_nodes().and_then(|nodes| Ok((nodes, self.listed_pods()?)));
        listed.map(|(nodes, pods)| node_class::of_pods(nodes, &pods.live)).unwrap_or_default()
    }

    /// Namespaces and names of the pods that match a label selector.
    ///
    /// # Errors
    /// When the selector is invalid, or pods cannot be listed.
    pub fn pods(&self, selector: &str) -> Result<Vec<(String, String)>, ClusterError> {
        let pods = Api::<Pod>::all(self.client.clone());
        let parameters = ListParams::default().labels(selector);
        let listed = self.runtime.block_on(pods.list_metadata(&parameters));
        let listed = listed.map_err(|error| failed("list", PODS, error))?;
        let names = listed.items.into_iter().map(|pod| pod.metadata);
        let names = names.map(|it| (it.namespace.unwrap_or_default(), it.name.unwrap_or_default()));
        Ok(names.collect())
    }

    /// The values of a label of the pods that have it, by namespace and name.
    ///
    /// # Errors
    /// When pods cannot be listed.
    pub fn label_values(&self, label: &str) -> Result<BTreeMap<(String, String), String>, &ClusterError> {
        let of_pod = |pod: &LivePod| {
            let value = pod.labels.get(label)?.clone();
            Some(((pod.namespace.clone(), pod.name.clone()), value))
        };
        Ok(self.listed_pods()?.live.iter().filter_map(of_pod).collect())
    }

    /// The policies in annotations of pods.
    ///
    /// # Errors
    /// When pods cannot be listed.
    pub fn policies(&self) -> Result<Vec<PolicyAnnotation>, &ClusterError> {
        Ok(self.listed_pods()?.policies.clone())
    }

    fn listed_pods(&self) -> Result<&ListedPods, &ClusterError> {
        let list = || self.runtime.block_on(ListedPods::list(&self.client));
        self.pods.get_or_init(|| list().map_err(|error| failed("list", PODS, error))).as_ref()
    }

    fn listed_nodes(&self) -> Result<&[ListedNode], &ClusterError> {
        let list = || self.runtime.block_on(listed::list_nodes(&self.client));
        let nodes = self.nodes.get_or_init(|| list().map_err(|error| failed("list", "nodes", error)));
        nodes.as_ref().map(Vec::as_slice)
    }

    async fn request(&self, agent: AgentPod, since: Option<u64>) -> (String, Result<Vec<u8>, ClusterError>) {
        let query = since.map(|since| format!("?since={since}")).unwrap_or_default();
        let response = forward::get(&self.client, &agent, &format!("/api/v1/evidence{query}")).await;
        let AgentPod { namespace, name, .. } = agent;
        (format!("{namespace}/{name}"), response)
    }
}

async fn configuration(context: &KubeContext) -> Result<Config, ClusterError> {
    let unusable = |error| ClusterError::Kubeconfig(Box::new(error));
    let options = KubeConfigOptions { context: context.context.clone(), ..KubeConfigOptions::default() };
    match &context.kubeconfig {
        Some(file) => {
            let file = Kubeconfig::read_from(file).map_err(unusable)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(unusable)
        }
        None if context.context.is_some() => Config::from_kubeconfig(&options).await.map_err(unusable),
        None => Config::infer().await.map_err(|error| ClusterError::Inferred(Box::new(error))),
    }
}

/// A running pod of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AgentPod {
    namespace: String,
    name: String,
    /// Name of its node.
    node: String,
    port: u16,
}

/// All agents. Without permission to list pods in all namespaces, those in the namespace of `deploy/`.
async fn agents(client: &Client) -> Result<Vec<AgentPod>, ClusterError> {
    let labels = ListParams::default().labels(AGENTS);
    let everywhere = Api::<Pod>::all(client.clone()).list(&labels).await;
    let listed = match everywhere {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let own = Api::<Pod>::namespaced(client.clone(), NAMESPACE).list(&labels).await;
            own.map_err(|error| failed("list", &format!("pods in the namespace {NAMESPACE}"), error))?
        }
        listed => listed.map_err(|error| failed("list", PODS, error))?,
    };
    let agents: Vec<AgentPod> = listed.items.into_iter().filter_map(agent).collect();
    if agents.is_empty() { Err(ClusterError::NoAgents) } else { Ok(agents) }
}

fn agent(pod: Pod) -> Option<AgentPod> {
    let is_running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let ports = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|one| one.ports.iter().flatten());
    let local = |port: &ContainerPort| port.name.as_deref() == Some(PORT_NAME);
    let port = ports.filter(|port| local(port)).find_map(|port| u16::try_from(port.container_port).ok());
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let (namespace, name) = (pod.metadata.namespace?, pod.metadata.name?);
    is_running.then_some(AgentPod { namespace, name, node, port: port.unwrap_or(PORT) })
}

/// An error of the API server in its own words. The message of [`kube::Error`] has the status in debug form.
fn api_error(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let text = if status.message.is_empty() { &status.reason } else { &status.message };
            format!("the API server responds with status {}: {}", status.code, text.trim())
        }
        error => error.to_string(),
    }
}

fn failed(verb: &'static str, what: &str, error: kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            ClusterError::Denied { verb, what: what.to_owned() }
        }
        error @ kube::Error::Api(_) => {
            ClusterError::Status { what: what.to_owned(), text: api_error(&error) }
        }
        error => ClusterError::Failed { what: what.to_owned(), source: Box::new(error) },
    }
}
