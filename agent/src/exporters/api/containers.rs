//! Containers that exist now.

use schemars::JsonSchema;
use serde::Serialize;

use super::{RowQuery, Traffic, VERSION, Who, page, seconds};
use crate::exporters::query::is_wanted;
use crate::model::{CgroupRow, ContainerKind, Names, View};

/// Containers, units and plain cgroups that exist now.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Containers<'a> {
    /// `v1`.
    version: &'static str,
    /// Name of the node.
    node: &'a str,
    /// By `id`.
    containers: Vec<Container<'a>>,
    /// The row to go on after; `null` if these are all.
    next: Option<String>,
}

/// One of them. Counters count from its creation; what is not measured is `null`, and so is a limit that there is not.
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
    /// `containerd`, `cri-o`, `docker` or `podman`; empty where it is not known.
    runtime: &'static str,
    /// Seconds since the Unix epoch.
    created: f64,
    cpu_request_cores: Option<f64>,
    /// As the pod has it; what the kernel enforces is `cpu_quota_cores`.
    cpu_limit_cores: Option<f64>,
    memory_request_bytes: Option<u64>,
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
    /// What the kernel enforces.
    memory_limit_bytes: Option<u64>,
    oom_kills: Option<u64>,
    swap_usage_bytes: Option<u64>,
    tasks: Option<u64>,
    network: Option<Traffic>,
}

impl<'a> Containers<'a> {
    /// Of what was published last.
    pub(super) fn of(published: &'a View, asked: &RowQuery) -> Self {
        let rows = published.cgroups.iter().filter(|row| wanted(row, asked)).map(Container::of);
        let (containers, next) = page(rows, asked.limit, |row| row.id.to_owned());
        Self { version: VERSION, node: &published.agent.node, containers, next }
    }
}

fn wanted(row: &CgroupRow, asked: &RowQuery) -> bool {
    let names = row.identity.names.as_deref();
    let is = |wanted: &Option<String>, name: fn(&Names) -> &String| {
        is_wanted(wanted, names.map(|names| name(names).as_str()))
    };
    row.identity.of_path.level.is_container()
        && asked.after.as_deref().is_none_or(|after| *row.identity.path > *after)
        && is(&asked.namespace, |names| &names.namespace)
        && is(&asked.workload, |names| &names.workload)
        && is(&asked.pod, |names| &names.pod)
        && is(&asked.container, |names| &names.container)
}

impl<'a> Container<'a> {
    fn of(row: &'a CgroupRow) -> Self {
        let (identity, values) = (&*row.identity, &row.values);
        let names = identity.names.as_deref();
        let resources = names.map(|names| names.resources).unwrap_or_default();
        let cores = |millicores: Option<u64>| millicores.map(|millicores| millicores as f64 / 1000.0);
        let (memory, throttling, pressure) = (values.memory, values.throttling, values.pressure);
        Self {
            id: &identity.path,
            level: identity.of_path.level.as_str(),
            kind: names.and_then(|names| names.kind).map(ContainerKind::as_str),
            who: Who::of(names),
            pod_uid: identity.of_path.pod_uid.as_deref(),
            container_id: &identity.of_path.id,
            runtime: identity.of_path.runtime.as_str(),
            created: row.created_unix,
            cpu_request_cores: cores(resources.cpu_request),
            cpu_limit_cores: cores(resources.cpu_limit),
            memory_request_bytes: resources.memory_request,
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
            tasks: values.pids.map(|pids| pids.current),
            network: values.network.as_ref().map(Traffic::of),
        }
    }
}
