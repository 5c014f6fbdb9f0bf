//! Containers that exist now.

use schemars::JsonSchema;
use serde::Serialize;
use snug_sizing::workload::Resources;

use super::{RowQuery, Traffic, VERSION, Who, page, seconds};
use crate::clock::unix_now;
use crate::exporters::query::matches_filter;
use crate::model::{CgroupRow, ContainerKind, Names, View};

/// Containers, units and plain cgroups that exist now.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Containers<'a> {
    /// `v1`.
    version: &'static str,
    /// Name of the node.
    node: &'a str,
    /// When the values were measured, in seconds since the Unix epoch.
    at: f64,
    /// In the order of `id`.
    containers: Vec<Container<'a>>,
    /// The row to continue after; `null` on the last page.
    next: Option<String>,
}

/// A container. Counters start at its creation. Values that are not measured, and absent limits, are `null`.
#[derive(Debug, Serialize, JsonSchema)]
struct Container<'a> {
    /// The cgroup's path.
    id: &'a str,
    /// `container`, `sandbox`, `unit` or `cgroup`.
    level: &'static str,
    /// `app`, `init`, `sidecar`, `ephemeral` or `sandbox`, in a pod.
    kind: Option<&'static str>,
    #[serde(flatten)]
    who: Who<'a>,
    pod_uid: Option<&'a str>,
    container_id: &'a str,
    /// The name that docker, podman or nerdctl gave to a container outside of a pod; empty if there is none.
    name: &'a str,
    /// `containerd`, `cri-o`, `docker` or `podman`; empty if unknown.
    runtime: &'static str,
    /// Seconds since the Unix epoch.
    created: f64,
    cpu_request_cores: Option<f64>,
    /// From the pod spec; the limit that the kernel enforces is `cpu_quota_cores`.
    cpu_limit_cores: Option<f64>,
    memory_request_bytes: Option<u64>,
    /// Requests and limits of the whole pod (`spec.resources`), which its containers share; `null` without them. The cgroup of a
    /// container without a limit may have the pod's.
    pod_resources: Option<PodResources>,
    cpu_seconds: Option<f64>,
    cpu_quota_cores: Option<f64>,
    cfs_periods: Option<u64>,
    cfs_throttled_periods: Option<u64>,
    cfs_throttled_seconds: Option<f64>,
    cpu_pressure_seconds: Option<f64>,
    memory_pressure_seconds: Option<f64>,
    io_pressure_seconds: Option<f64>,
    memory_usage_bytes: Option<u64>,
    memory_working_set_bytes: Option<u64>,
    memory_peak_bytes: Option<u64>,
    /// The limit that the kernel enforces.
    memory_limit_bytes: Option<u64>,
    oom_kills: Option<u64>,
    swap_usage_bytes: Option<u64>,
    swap_peak_bytes: Option<u64>,
    tasks: Option<u64>,
    network: Option<Traffic>,
}

/// Requests and limits of a whole pod.
#[derive(Debug, Serialize, JsonSchema)]
struct PodResources {
    cpu_request_cores: Option<f64>,
    cpu_limit_cores: Option<f64>,
    memory_request_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
}

impl<'a> Containers<'a> {
    pub(super) fn new(view: &'a View, query: &RowQuery) -> Self {
        let rows = view.cgroups.iter().filter(|row| matches(row, query)).map(Container::new);
        let (containers, next) = page(rows, query.limit, |row| row.id.to_owned());
        let at = unix_now() - view.at.elapsed().as_secs_f64();
        Self { version: VERSION, node: &view.agent.node, at, containers, next }
    }
}

fn matches(row: &CgroupRow, query: &RowQuery) -> bool {
    let names = row.identity.names.as_deref();
    let is = |filter: &Option<String>, name: fn(&Names) -> &String| {
        matches_filter(filter, names.map(|names| name(names).as_str()))
    };
    let is_of_workload = || {
        query.workload.is_none()
            || matches_filter(&query.workload, Some(&Who::from_identity(&row.identity).workload))
    };
    row.identity.of_path.level.is_container()
        && query.after.as_deref().is_none_or(|after| *row.identity.path > *after)
        && is(&query.namespace, |names| &names.namespace)
        && is_of_workload()
        && is(&query.pod, |names| &names.pod)
        && is(&query.container, |names| &names.container)
}

impl<'a> Container<'a> {
    fn new(row: &'a CgroupRow) -> Self {
        let (identity, values) = (&*row.identity, &row.values);
        let names = identity.names.as_deref();
        let resources = names.map(|names| names.resources).unwrap_or_default();
        let cores = |millicores: Option<u64>| millicores.map(|millicores| millicores as f64 / 1000.0);
        let of_pod = |of: Resources| PodResources {
            cpu_request_cores: cores(of.cpu_request),
            cpu_limit_cores: cores(of.cpu_limit),
            memory_request_bytes: of.memory_request,
            memory_limit_bytes: of.memory_limit,
        };
        let (memory, throttling, pressure) = (values.memory, values.throttling, values.pressure);
        Self {
            id: &identity.path,
            level: identity.of_path.level.as_str(),
            kind: names.and_then(|names| names.kind).map(ContainerKind::as_str),
            who: Who::from_identity(identity),
            pod_uid: identity.of_path.pod_uid.as_deref(),
            container_id: &identity.of_path.id,
            name: identity.engine_name.as_deref().unwrap_or_default(),
            runtime: identity.of_path.runtime.as_str(),
            created: row.created_unix,
            cpu_request_cores: cores(resources.cpu_request),
            cpu_limit_cores: cores(resources.cpu_limit),
            memory_request_bytes: resources.memory_request,
            pod_resources: names.and_then(|names| names.spec.pod_resources).map(of_pod),
            cpu_seconds: values.cpu.map(|cpu| seconds(cpu.usage_ns)),
            cpu_quota_cores: throttling
                .filter(|throttling| throttling.period_ns > 0)
                .and_then(|throttling| Some(throttling.quota_ns? as f64 / throttling.period_ns as f64)),
            cfs_periods: throttling.map(|throttling| throttling.periods),
            cfs_throttled_periods: throttling.map(|throttling| throttling.throttled_periods),
            cfs_throttled_seconds: throttling.map(|throttling| seconds(throttling.throttled_ns)),
            cpu_pressure_seconds: pressure.map(|pressure| seconds(pressure.cpu.some_ns)),
            memory_pressure_seconds: pressure.map(|pressure| seconds(pressure.memory.some_ns)),
            io_pressure_seconds: pressure.map(|pressure| seconds(pressure.io.some_ns)),
            memory_usage_bytes: memory.map(|memory| memory.usage_bytes),
            memory_working_set_bytes: values.working_set.map(|working_set| working_set.bytes),
            memory_peak_bytes: memory.and_then(|memory| memory.peak_bytes),
            memory_limit_bytes: memory.and_then(|memory| memory.limit_bytes),
            oom_kills: values.memory_events.map(|events| events.oom_kill),
            swap_usage_bytes: values.swap.map(|swap| swap.usage_bytes),
            swap_peak_bytes: values.swap.and_then(|swap| swap.peak_bytes),
            tasks: values.pids.map(|pids| pids.current),
            network: values.network.as_ref().map(Traffic::new),
        }
    }
}
