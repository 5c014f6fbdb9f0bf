//! Counters of workloads since the agent started.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{RowQuery, Traffic, VERSION, page, seconds};
use crate::exporters::query::matches_filter;
use crate::model::{OomScope, View, WorkloadRow};

/// Counters of workloads, including terminated containers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Workloads<'a> {
    /// `v1`.
    version: &'static str,
    /// Name of the node.
    node: &'a str,
    /// The start of the agent, in seconds since the Unix epoch. Counters start then.
    agent_started: f64,
    /// In the order of `id`.
    workloads: Vec<Workload<'a>>,
    /// The row to continue after; `null` on the last page.
    next: Option<String>,
}

/// All containers of one name in the pods of one workload. Values that are not measured are `null`.
#[derive(Debug, Serialize, JsonSchema)]
struct Workload<'a> {
    /// Namespace, kind, name and container, separated by slashes.
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
    /// By the cgroup whose limit was hit: `container`, `pod`, `ancestor` or `node`.
    oom_kills: Option<BTreeMap<&'static str, u64>>,
    network: Option<Traffic>,
}

/// Terminations with the same reason and exit code.
#[derive(Debug, Serialize, JsonSchema)]
struct Termination {
    reason: &'static str,
    /// `null` for all codes after the first 16 of the workload.
    exit_code: Option<u8>,
    count: u64,
}

impl<'a> Workloads<'a> {
    pub(super) fn new(view: &'a View, query: &RowQuery) -> Self {
        let mut rows: Vec<Workload<'a>> = view
            .workloads
            .iter()
            .filter(|row| {
                matches_filter(&query.namespace, Some(&row.namespace))
                    && matches_filter(&query.workload, Some(&row.workload))
                    && matches_filter(&query.container, Some(&row.container))
            })
            .map(Workload::new)
            .filter(|row| query.after.as_ref().is_none_or(|after| row.id > *after))
            .collect();
        rows.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let (workloads, next) = page(rows.into_iter(), query.limit, |row| row.id.clone());
        let agent = &view.agent;
        Self { version: VERSION, node: &agent.node, agent_started: agent.started_unix, workloads, next }
    }
}

impl<'a> Workload<'a> {
    fn new(row: &'a WorkloadRow) -> Self {
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
            network: row.network.as_ref().map(Traffic::new),
        }
    }
}
