//! The options that select the source of usage history, and reading from it.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use snug_client::{
    agent::{self, Agent},
    http::{self, RootCertificates},
};

use snug_sizing::{
    engine::{LikesScope, Pools},
    evidence::{Evidence, HOUR, Hour},
};

use crate::{
    advice::CommandRule,
    cluster::{Cluster, ClusterConstraints, KubeContext},
    columns::plain,
    evidence::{AgentResponses, Snapshot},
    progress,
    prometheus::{self, Prometheus, PrometheusHistory},
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
    /// File with a bearer token for --prometheus or --agent, so that it is on no command line [default: the token in $SNUG_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Read only series with these labels from --prometheus: Prometheus matchers, such as cluster=prod or
    /// 'cluster=~"prod-.*",region!=us'; can be repeated
    #[arg(long = "match", value_name = "MATCHERS", requires = "prometheus", value_parser = prometheus::parse_matchers)]
    matchers: Vec<prometheus::Matchers>,
    /// Label of the series of --prometheus that names clusters: each gets results of its own [default: a label such as cluster
    /// or k8s_cluster, if all series have it]
    #[arg(long, value_name = "LABEL", requires = "prometheus", value_parser = prometheus::parse_label)]
    cluster_label: Option<String>,
    /// Use results that --prometheus calls partial, with a warning and a low confidence, instead of an error
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

/// Evidence of one cluster and, if the source is a cluster, the connection to it.
pub struct OpenedSource {
    /// The name of the cluster, if the source has several.
    pub name: String,
    /// The evidence of all selected containers, in whole hours.
    pub snapshot: Snapshot,
    /// What the past of all containers of the source says, whichever are selected.
    pub pools: Pools,
    pub cluster: Option<Cluster>,
    /// Constraints that the source itself knows: the autoscalers that a Prometheus has metrics of.
    pub constraints: Option<ClusterConstraints>,
}

/// A source as it is, with the fields of [`OpenedSource`].
struct LoadedSource {
    name: String,
    snapshot: Snapshot,
    cluster: Option<Cluster>,
    constraints: Option<ClusterConstraints>,
}

/// The first second of the last `since` before the hours that are not complete at a time in seconds. So the first hour changes
/// together with the last one.
fn first_second(now: u64, since: Duration) -> u64 {
    (u64::from(Hour::first_unfinished(now).0) * HOUR).saturating_sub(since.as_secs())
}

/// The calibration by all evidence of a source; then keeps the selected evidence.
///
/// A narrowed source reads the selected evidence only, as queries of Prometheus do. What others used must not count in one
/// answer and be unknown in the next, so there it never counts.
fn calibrate(
    snapshot: &mut Snapshot,
    is_narrowed: bool,
    likes: LikesScope,
    select: impl Fn(&Evidence) -> bool,
) -> Pools {
    if !CommandRule::AnySelection.is_on() {
        snapshot.retain(select);
        return snapshot.pools(likes);
    }
    let pools = if is_narrowed { Pools::default() } else { snapshot.pools(likes) };
    snapshot.retain(select);
    pools
}

impl EvidenceSource {
    /// Reads the evidence as it is, for a copy. An agent that does not respond is reported on standard error; if none responds,
    /// that is an error.
    ///
    /// # Errors
    /// When the source cannot be read, or has several clusters.
    pub fn read(&self) -> Result<Snapshot> {
        let mut loaded = self.load()?;
        if loaded.len() > 1 {
            let names = loaded.iter().map(|it| it.name.as_str());
            bail!(
                "a snapshot has one cluster; select one of {} with --match",
                names.collect::<Vec<_>>().join(", ")
            );
        }
        let Some(LoadedSource { mut snapshot, cluster, .. }) = loaded.pop() else {
            return Ok(Snapshot::default());
        };
        snapshot.retain(self.selection(cluster.as_ref())?);
        Ok(snapshot)
    }

    /// Reads the evidence in whole hours with its calibration, and keeps the connection to the cluster for further requests.
    /// There are several results if a Prometheus has several clusters, and one otherwise.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn open(&self, likes: LikesScope) -> Result<Vec<OpenedSource>> {
        let open = |loaded: LoadedSource| {
            let LoadedSource { name, snapshot, cluster, constraints } = loaded;
            let mut snapshot = snapshot.unified();
            snapshot.settle();
            let select = self.selection(cluster.as_ref())?;
            let pools = calibrate(&mut snapshot, self.prometheus.is_some(), likes, select);
            Ok(OpenedSource { name, snapshot, pools, cluster, constraints })
        };
        self.load()?.into_iter().map(open).collect()
    }

    /// Reads the evidence of all containers.
    fn load(&self) -> Result<Vec<LoadedSource>> {
        let one = |snapshot, cluster| {
            vec![LoadedSource { name: String::new(), snapshot, cluster, constraints: None }]
        };
        let mut all = if self.is_cluster() {
            let cluster = Cluster::connect(&self.cluster)?;
            let mut snapshot = cluster.evidence(self.since_seconds())?;
            // Of a single node all pods are of one class.
            if snapshot.nodes.len() > 1 {
                snapshot.set_node_classes(&cluster.node_classes());
            }
            one(snapshot, Some(cluster))
        } else if self.selector.is_some() {
            bail!("--selector needs a cluster, and there is no kubeconfig; set --kubeconfig");
        } else if let Some(address) = &self.prometheus {
            self.read_prometheus(address)?
        } else {
            one(self.read_without_cluster()?, None)
        };
        for loaded in &mut all {
            loaded.snapshot.remember_last_seen();
            if let Some(since) = self.since {
                loaded.snapshot.since(first_second(loaded.snapshot.at, since));
            }
        }
        Ok(all)
    }

    /// Whether evidence is of a selected container.
    fn selection(&self, cluster: Option<&Cluster>) -> Result<impl Fn(&Evidence) -> bool> {
        let pods: Option<BTreeSet<(String, String)>> = match (&self.selector, cluster) {
            (Some(selector), Some(cluster)) => Some(cluster.pods(selector)?.into_iter().collect()),
            _ => None,
        };
        Ok(move |evidence: &Evidence| {
            let namespace = &evidence.workload.namespace;
            let has_pod = |pods: &BTreeSet<(String, String)>| {
                evidence.pods.keys().any(|pod| pods.contains(&(namespace.clone(), pod.clone())))
            };
            (self.namespace.is_empty() || self.namespace.contains(namespace))
                && pods.as_ref().is_none_or(has_pod)
        })
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
        self.since.map(|since| first_second(now, since))
    }

    fn read_prometheus(&self, address: &str) -> Result<Vec<LoadedSource>> {
        let since = self.since.unwrap_or(PROMETHEUS_SINCE);
        let mut headers = self.header.clone();
        if let Some(token) = self.token()? {
            ensure!(
                !headers.iter().any(prometheus::Header::is_authorization),
                "there are two tokens: leave out either the header Authorization or --token-file and $SNUG_TOKEN"
            );
            headers.push(prometheus::Header::bearer(&token));
        }
        let prometheus = Prometheus::new(address, &headers, &self.root_certificates(), self.allow_partial)
            .selecting(&self.matchers, &self.namespace);
        let loaded = |history: PrometheusHistory| {
            let PrometheusHistory { cluster: name, mut snapshot, autoscalers, missing } = history;
            // Only the selected namespaces were read, and the server's clock says what is old.
            snapshot.last_seen = snapshot.at;
            let of = if name.is_empty() { String::new() } else { format!("cluster {}: ", plain(&name)) };
            missing.iter().for_each(|missing| crate::remark!("{of}{missing}"));
            let constraints = ClusterConstraints { autoscalers, ..ClusterConstraints::default() };
            LoadedSource { name, snapshot, cluster: None, constraints: Some(constraints) }
        };
        let histories = prometheus.histories(since, self.cluster_label.as_deref())?;
        Ok(histories.into_iter().map(loaded).collect())
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
        Ok(snapshot)
    }

    /// The bearer token of --token-file or the environment.
    fn token(&self) -> Result<Option<String>> {
        let (text, source) = match &self.token_file {
            Some(file) => {
                let name = format!("the token file {}", file.display());
                (std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?, name)
            }
            None => match std::env::var("SNUG_TOKEN") {
                Ok(text) if !text.is_empty() => (text, "$SNUG_TOKEN".to_owned()),
                _ => return Ok(None),
            },
        };
        let token = text.trim();
        // As RFC 6750 has it. The text itself is in no message.
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(is_token, "{source} has no token: a token is one line of visible ASCII characters");
        Ok(Some(token.to_owned()))
    }

    fn read_agents(&self) -> Result<Snapshot> {
        let since = self.since_seconds();
        let token = self.token()?;
        let local = [LOCAL.to_owned()];
        let addresses = if self.agent.is_empty() { &local } else { self.agent.as_slice() };
        let mut responses = AgentResponses::new(addresses.len());
        for (number, address) in addresses.iter().enumerate() {
            let (number, all) = (number + 1, addresses.len());
            progress::step(&format!("reading the usage history: agent {number} of {all}"));
            let response = Agent::new(address, &self.root_certificates())
                .with_token(token.as_deref())
                .evidence(since)
                .map_err(anyhow::Error::from);
            responses.add(response.and_then(|body| Snapshot::from_reader(address, body)))?;
        }
        responses.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snug_sizing::{
        engine::{Policy, Profile},
        evidence::Peak,
        workload::{Container, Workload},
    };

    use super::*;
    use crate::{policy::Policies, recommend::report::Report};

    /// Peaks in MiB by the hour, of the workload with this number. Even numbers are in the namespace `shop`.
    fn snapshot(workloads: &[Vec<u64>]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (number, peaks) in workloads.iter().enumerate() {
            let namespace = if number % 2 == 0 { "shop" } else { "ops" }.to_owned();
            let workload = Workload { namespace, name: format!("w{number}"), ..Workload::default() };
            let mut evidence = Evidence::new(workload, Container::default(), 60_000);
            for (hour, mib) in peaks.iter().enumerate() {
                let at = hour as u64 * HOUR;
                let record = evidence.hour(Hour::from_seconds(at));
                record.observed = HOUR;
                record.cpu.record(0.1, 60);
                record.peak = Some(Peak { bytes: mib << 20, at, pod: "pod".to_owned() });
            }
            snapshot.insert(evidence);
        }
        snapshot
    }

    #[test]
    fn an_answer_does_not_depend_on_the_selection() {
        // Some workloads double their usage every few days, so calibration by the pool matters.
        let workload = (64..4096_u64, 1..96_usize).prop_map(|(mib, period)| {
            (0..240_usize).map(|hour| if hour % period == 0 { mib * 2 } else { mib }).collect::<Vec<u64>>()
        });
        let in_shop = |evidence: &Evidence| evidence.workload.namespace == "shop";
        let advice = |workloads: &[Vec<u64>], is_narrowed, select: &dyn Fn(&Evidence) -> bool| {
            let mut snapshot = snapshot(workloads);
            let pools = calibrate(&mut snapshot, is_narrowed, LikesScope::default(), select);
            let policies = Policies::new(Policy::new(Profile::Standard.risk()));
            let all = Report::make(&snapshot, &pools, &policies, in_shop).recommendations;
            all.into_iter().map(|entry| entry.recommended).collect::<Vec<_>>()
        };
        CommandRule::AnySelection.prove(
            &(prop::collection::vec(workload, 2..6), any::<bool>()),
            |_| true,
            |(workloads, is_narrowed)| {
                let [all, some] = [&(|_: &Evidence| true) as &dyn Fn(&Evidence) -> bool, &in_shop]
                    .map(|select| advice(workloads, *is_narrowed, select));
                if all == some { Ok(()) } else { Err(format!("{all:?} of all, {some:?} of a selection")) }
            },
        );
    }
}
