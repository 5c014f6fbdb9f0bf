//! Where evidence comes from.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use snug_client::{
    agent::{self, Agent},
    http::{self, RootCertificates},
};

use crate::{
    cluster::{Cluster, KubeContext},
    evidence::{AgentResponses, Snapshot},
    prometheus::{self, Prometheus},
};

/// As much as tells the days of a week apart.
const OF_PROMETHEUS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where from, and which part of it.
#[derive(Debug, Args)]
pub struct EvidenceSource {
    /// Where from, if no address or file says so. Without it: the agents of the cluster if there is a kubeconfig or a service account,
    /// else the agent on this host.
    #[arg(long = "source", value_enum)]
    origin: Option<DefaultSource>,
    #[command(flatten)]
    cluster: KubeContext,
    /// Address of an agent, instead of those of a cluster; may be given several times, and what they know is put together.
    #[arg(long, value_name = "URL", value_parser = agent::parse_address)]
    agent: Vec<String>,
    /// Address of a Prometheus, or of what speaks its query API, that scrapes the kubelets' /metrics/cadvisor or the agents'; instead of
    /// agents. With kube-state-metrics it also knows requests and owners.
    #[arg(long, value_name = "URL", conflicts_with_all = ["agent", "file"], value_parser = prometheus::parse_address)]
    prometheus: Option<String>,
    /// A header for that Prometheus, such as 'Authorization: Bearer …' or 'X-Scope-OrgID: …'; may be given several times.
    #[arg(long, value_name = "NAME: VALUE", requires = "prometheus", value_parser = prometheus::parse_header)]
    header: Vec<prometheus::Header>,
    /// Certificates, in PEM, that those of https:// addresses must be signed by. Without it: whom this system trusts.
    #[arg(long, value_name = "FILE", value_parser = http::parse_root_certificates, conflicts_with = "file")]
    certificate_authority: Option<RootCertificates>,
    /// A snapshot that `snug snapshot` wrote, instead of agents; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "agent")]
    file: Option<PathBuf>,
    /// Only what was seen since so long ago, such as 7d. Without it: all, and of a Prometheus 7 days.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Only these namespaces, separated by commas.
    #[arg(short = 'n', long, value_name = "NAMESPACE,…", value_delimiter = ',')]
    namespace: Vec<String>,
    /// All namespaces, which is what happens anyway.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only workloads with pods of these labels. Takes a cluster.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with_all = ["agent", "prometheus", "file"])]
    selector: Option<String>,
}

/// Where evidence comes from if nothing more is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DefaultSource {
    /// The agents of the cluster.
    Cluster,
    /// The agent on this host.
    Agent,
}

/// The agent on this host.
const LOCAL: &str = "http://127.0.0.1:9750";

/// Evidence, and the cluster that it is from.
pub struct OpenedSource {
    /// The evidence.
    pub snapshot: Snapshot,
    /// Where it is from the agents of one.
    pub cluster: Option<Cluster>,
}

impl EvidenceSource {
    /// Reads all of it. An agent that does not answer is told on standard error, and is an error if none does.
    ///
    /// # Errors
    /// When there is nothing to be had, or not what is asked for.
    pub fn read(&self) -> Result<Snapshot> {
        Ok(self.open()?.snapshot)
    }

    /// As [`Self::read`], with the cluster, to be asked for more.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn open(&self) -> Result<OpenedSource> {
        if !self.is_of_cluster() {
            if self.selector.is_some() {
                bail!("--selector takes a cluster, and there is no kubeconfig; name one by --kubeconfig");
            }
            return Ok(OpenedSource { snapshot: self.read_without_cluster()?, cluster: None });
        }
        let cluster = Cluster::connect(&self.cluster)?;
        let mut snapshot = cluster.evidence(self.first_second())?;
        self.choose(&mut snapshot);
        if let Some(selector) = &self.selector {
            let pods: BTreeSet<(String, String)> = cluster.pods(selector)?.into_iter().collect();
            snapshot.retain(|evidence| {
                let namespace = &evidence.workload.namespace;
                evidence.pods.keys().any(|pod| pods.contains(&(namespace.clone(), pod.clone())))
            });
        }
        Ok(OpenedSource { snapshot, cluster: Some(cluster) })
    }

    fn is_of_cluster(&self) -> bool {
        let named = !self.agent.is_empty() || self.prometheus.is_some() || self.file.is_some();
        match self.origin {
            Some(origin) => origin == DefaultSource::Cluster,
            None => self.cluster.is_named() || (!named && KubeContext::is_there()),
        }
    }

    fn trust(&self) -> RootCertificates {
        self.certificate_authority.clone().unwrap_or_default()
    }

    fn first_second(&self) -> Option<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.since.map(|since| now.saturating_sub(since.as_secs()))
    }

    fn choose(&self, snapshot: &mut Snapshot) {
        if let Some(since) = self.since {
            snapshot.since(snapshot.at.saturating_sub(since.as_secs()));
        }
        if !self.namespace.is_empty() {
            snapshot.retain(|evidence| self.namespace.contains(&evidence.workload.namespace));
        }
    }

    fn read_without_cluster(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        if let Some(address) = &self.prometheus {
            let since = self.since.unwrap_or(OF_PROMETHEUS);
            return Ok(
                Prometheus::new(address, &self.header, &self.trust()).evidence(since, &self.namespace)?
            );
        }
        match &self.file {
            Some(file) if file.as_os_str() == "-" => snapshot.read("standard input", io::stdin().lock())?,
            Some(file) => {
                let name = file.display().to_string();
                let open = File::open(file).with_context(|| format!("cannot open {name}"))?;
                snapshot.read(&name, open)?;
            }
            None => snapshot = self.ask()?,
        }
        self.choose(&mut snapshot);
        Ok(snapshot)
    }

    fn ask(&self) -> Result<Snapshot> {
        let since = self.first_second();
        let local = [LOCAL.to_owned()];
        let addresses = if self.agent.is_empty() { &local } else { self.agent.as_slice() };
        let mut answers = AgentResponses::new(addresses.len());
        for address in addresses {
            let answer = Agent::new(address, &self.trust()).evidence(since).map_err(anyhow::Error::from);
            answers.take(answer.and_then(|body| Snapshot::from_reader(address, body)))?;
        }
        answers.finish()
    }
}
