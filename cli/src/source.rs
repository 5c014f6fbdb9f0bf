//! The options that select the source of usage history, and reading from it.

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
    cluster::{Cluster, ClusterConstraints, KubeContext},
    evidence::{AgentResponses, Snapshot},
    prometheus::{self, Prometheus, PrometheusError, PrometheusHistory},
};

/// The default `--since` with Prometheus: every weekday once.
const PROMETHEUS_SINCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Options for the source of usage history, and for the part of it that is used.
#[derive(Debug, Args)]
pub struct EvidenceSource {
    /// Source of usage history without --agent, --prometheus and --file [default: cluster with a kubeconfig or service
    /// account, else agent]
    #[arg(long = "source", value_name = "SOURCE", value_enum)]
    origin: Option<DefaultSource>,
    #[command(flatten)]
    cluster: KubeContext,
    /// Address of an agent; repeat the option to merge the histories of several agents
    #[arg(long, value_name = "URL", value_parser = agent::parse_address)]
    agent: Vec<String>,
    /// Address of a Prometheus-compatible server that scrapes /metrics/cadvisor of the kubelets or of the agents; requests
    /// and owners need kube-state-metrics
    #[arg(long, value_name = "URL", conflicts_with_all = ["agent", "file"], value_parser = prometheus::parse_address)]
    prometheus: Option<String>,
    /// HTTP header for --prometheus, such as 'Authorization: Bearer …' or 'X-Scope-OrgID: …'; can be repeated
    #[arg(long, value_name = "NAME: VALUE", requires = "prometheus", value_parser = prometheus::parse_header)]
    header: Vec<prometheus::Header>,
    /// Read only series with these labels from --prometheus: Prometheus matchers, such as cluster=prod or
    /// 'cluster=~"prod-.*",region!=us'; can be repeated
    #[arg(long = "match", value_name = "MATCHERS", requires = "prometheus", value_parser = prometheus::parse_matchers)]
    matchers: Vec<prometheus::Matchers>,
    /// Use results that --prometheus calls partial, with a warning, instead of an error
    #[arg(long, requires = "prometheus")]
    allow_partial: bool,
    /// Root certificates (PEM) for https:// addresses [default: the system's trust store]
    #[arg(long, value_name = "FILE", value_parser = http::parse_root_certificates, conflicts_with = "file")]
    certificate_authority: Option<RootCertificates>,
    /// Snapshot file, written by `snug snapshot`; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "agent")]
    file: Option<PathBuf>,
    /// Use only the last part of the history, such as 7d [default: all; 7d with --prometheus]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Only these namespaces, separated by commas [default: all]
    #[arg(short = 'n', long, value_name = "NAMESPACE,…", value_delimiter = ',')]
    namespace: Vec<String>,
    /// All namespaces (default)
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only workloads with pods that match this label selector; needs a cluster
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with_all = ["agent", "prometheus", "file"])]
    selector: Option<String>,
}

/// Values of `--source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DefaultSource {
    /// The agents of the cluster
    Cluster,
    /// The agent on this host
    Agent,
}

/// Address of the agent on this host.
const LOCAL: &str = "http://127.0.0.1:9750";

/// Evidence and, if the source is a cluster, the connection to it.
pub struct OpenedSource {
    /// The evidence of all selected containers.
    pub snapshot: Snapshot,
    pub cluster: Option<Cluster>,
    /// Constraints that the source itself knows: the autoscalers that a Prometheus has metrics of.
    pub constraints: Option<ClusterConstraints>,
}

impl EvidenceSource {
    /// Reads the evidence. An agent that does not respond is reported on standard error; if none responds, that is an error.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn read(&self) -> Result<Snapshot> {
        Ok(self.open()?.snapshot)
    }

    /// Reads the evidence and keeps the connection to the cluster for further requests.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn open(&self) -> Result<OpenedSource> {
        if !self.is_cluster() {
            if self.selector.is_some() {
                bail!("--selector needs a cluster, and there is no kubeconfig; set --kubeconfig");
            }
            if let Some(address) = &self.prometheus {
                return Ok(self.read_prometheus(address)?);
            }
            return Ok(OpenedSource {
                snapshot: self.read_without_cluster()?,
                cluster: None,
                constraints: None,
            });
        }
        let cluster = Cluster::connect(&self.cluster)?;
        let mut snapshot = cluster.evidence(self.since_seconds())?;
        self.filter(&mut snapshot);
        if let Some(selector) = &self.selector {
            let pods: BTreeSet<(String, String)> = cluster.pods(selector)?.into_iter().collect();
            snapshot.retain(|evidence| {
                let namespace = &evidence.workload.namespace;
                evidence.pods.keys().any(|pod| pods.contains(&(namespace.clone(), pod.clone())))
            });
        }
        Ok(OpenedSource { snapshot, cluster: Some(cluster), constraints: None })
    }

    fn is_cluster(&self) -> bool {
        let named = !self.agent.is_empty() || self.prometheus.is_some() || self.file.is_some();
        match self.origin {
            Some(origin) => origin == DefaultSource::Cluster,
            None => self.cluster.is_named() || (!named && KubeContext::is_available()),
        }
    }

    fn root_certificates(&self) -> RootCertificates {
        self.certificate_authority.clone().unwrap_or_default()
    }

    fn since_seconds(&self) -> Option<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.since.map(|since| now.saturating_sub(since.as_secs()))
    }

    fn filter(&self, snapshot: &mut Snapshot) {
        if let Some(since) = self.since {
            snapshot.since(snapshot.at.saturating_sub(since.as_secs()));
        }
        if !self.namespace.is_empty() {
            snapshot.retain(|evidence| self.namespace.contains(&evidence.workload.namespace));
        }
    }

    fn read_prometheus(&self, address: &str) -> Result<OpenedSource, PrometheusError> {
        let since = self.since.unwrap_or(PROMETHEUS_SINCE);
        let prometheus =
            Prometheus::new(address, &self.header, &self.root_certificates(), self.allow_partial)
                .selecting(&self.matchers, &self.namespace);
        let PrometheusHistory { snapshot, autoscalers, missing } = prometheus.history(since)?;
        missing.iter().for_each(|missing| eprintln!("snug: {missing}"));
        let constraints = ClusterConstraints { autoscalers, ..ClusterConstraints::default() };
        Ok(OpenedSource { snapshot, cluster: None, constraints: Some(constraints) })
    }

    fn read_without_cluster(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        match &self.file {
            Some(file) if file.as_os_str() == "-" => snapshot.read("standard input", io::stdin().lock())?,
            Some(file) => {
                let name = file.display().to_string();
                let open = File::open(file).with_context(|| format!("cannot open {name}"))?;
                snapshot.read(&name, open)?;
            }
            None => snapshot = self.read_agents()?,
        }
        self.filter(&mut snapshot);
        Ok(snapshot)
    }

    fn read_agents(&self) -> Result<Snapshot> {
        let since = self.since_seconds();
        let local = [LOCAL.to_owned()];
        let addresses = if self.agent.is_empty() { &local } else { self.agent.as_slice() };
        let mut responses = AgentResponses::new(addresses.len());
        for address in addresses {
            let response =
                Agent::new(address, &self.root_certificates()).evidence(since).map_err(anyhow::Error::from);
            responses.add(response.and_then(|body| Snapshot::from_reader(address, body)))?;
        }
        responses.finish()
    }
}
