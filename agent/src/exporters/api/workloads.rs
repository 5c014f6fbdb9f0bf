//! What workloads did since the agent started.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{RowQuery, Traffic, VERSION, page, seconds};
use crate::exporters::query::is_wanted;
use crate::model::{OomScope, View, WorkloadRow};

/// Containers of workloads, ended ones included.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Workloads<'a> {
    /// `v1`.
    version: &'static str,
    /// Name of the node.
    node: &'a str,
    /// When the agent started, seconds since the Unix epoch: counters count from then.
    agent_started: f64,
    /// By `id`.
    workloads: Vec<Workload<'a>>,
    /// The row to go on after; `null` if these are all.
    next: Option<String>,
}

/// The containers of one name in the pods of one workload, all together. What is not measured is `null`.
#[derive(Debug, Serialize, JsonSchema)]
struct Workload<'a> {
    /// Namespace, kind, name and container, with slashes between them.
    id: String,
    namespace: &'a str,
    workload_kind: &'a str,
    workload: &'a str,
    container: &'a str,
    cpu_seconds: f64,
    cfs_periods: u64,
    cfs_throttled_periods: u64,
    cfs_throttled_seconds: f64,
    memory_peak_bytes: u64,
    containers_started: u64,
    containers_ended: u64,
    restarts: u64,
    terminations: Vec<Termination>,
    /// By whose limit it was: `container`, `pod`, `ancestor` or `node`.
    oom_kills: Option<BTreeMap<&'static str, u64>>,
    network: Option<Traffic>,
}

/// Ends of one kind.
#[derive(Debug, Serialize, JsonSchema)]
struct Termination {
    reason: &'static str,
    /// `null`: codes beyond the number that are told apart, together.
    exit_code: Option<u8>,
    count: u64,
}

impl<'a> Workloads<'a> {
    /// Of what was published last.
    pub(super) fn of(published: &'a View, asked: &RowQuery) -> Self {
        let mut rows: Vec<Workload<'a>> = published
            .workloads
            .iter()
            .filter(|row| {
                is_wanted(&asked.namespace, Some(&row.namespace))
                    && is_wanted(&asked.workload, Some(&row.workload))
                    && is_wanted(&asked.container, Some(&row.container))
            })
            .map(Workload::of)
            .filter(|row| asked.after.as_ref().is_none_or(|after| row.id > *after))
            .collect();
        rows.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let (workloads, next) = page(rows.into_iter(), asked.limit, |row| row.id.clone());
        let agent = &published.agent;
        Self { version: VERSION, node: &agent.node, agent_started: agent.started_unix, workloads, next }
    }
}

impl<'a> Workload<'a> {
    fn of(row: &'a WorkloadRow) -> Self {
        let WorkloadRow { namespace, workload_kind, workload, container, .. } = row;
        let terminations = row.terminations.iter().map(|(reason, exit_code, count)| Termination {
            reason: reason.as_str(),
            exit_code,
            count,
        });
        let scopes = OomScope::ALL.map(OomScope::as_str);
        Self {
            id: format!("{namespace}/{workload_kind}/{workload}/{container}"),
            namespace,
            workload_kind,
            workload,
            container,
            cpu_seconds: seconds(row.cpu_ns),
            cfs_periods: row.periods,
            cfs_throttled_periods: row.throttled_periods,
            cfs_throttled_seconds: seconds(row.throttled_ns),
            memory_peak_bytes: row.memory_peak_bytes,
            containers_started: row.containers_started,
            containers_ended: row.containers_ended,
            restarts: row.restarts,
            terminations: terminations.collect(),
            oom_kills: row.oom_kills.map(|kills| scopes.into_iter().zip(kills).collect()),
            network: row.network.as_ref().map(Traffic::of),
        }
    }
}
