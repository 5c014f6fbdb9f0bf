//! `snug_pod_*`: one row per pod cgroup. Its values include the sandbox and terminated containers, so they exceed the sum over
//! the pod's containers.

use snug_sizing::workload::Resources;

use super::{Family, Samples::Pod, Value, cores, limit_cores, one, seconds};
use crate::model::CgroupRow;

pub(super) static FAMILIES: &[Family] = &[
    Family::counter(
        "snug_pod_cpu_usage_seconds",
        "CPU time used by the pod, including terminated containers",
        Pod(|row, emit| one(emit, row.values.cpu.map(|cpu| seconds(cpu.usage_ns)))),
    ),
    Family::gauge(
        "snug_pod_memory_working_set_bytes",
        "Memory usage of the pod without inactive file cache",
        Pod(|row, emit| one(emit, row.values.working_set.map(|set| Value::Int(set.bytes)))),
    ),
    Family::gauge(
        "snug_pod_memory_usage_bytes",
        "Memory charged to the pod, including file cache and memory-backed volumes",
        Pod(|row, emit| one(emit, row.values.memory.map(|memory| Value::Int(memory.usage_bytes)))),
    ),
    Family::gauge(
        "snug_pod_cpu_request_cores",
        "CPU request of the pod as a whole (spec.resources), which its containers share; absent without one",
        Pod(|row, emit| one(emit, own_resources(row).cpu_request.map(cores))),
    ),
    Family::gauge(
        "snug_pod_memory_request_bytes",
        "Memory request of the pod as a whole (spec.resources), which its containers share; absent without one",
        Pod(|row, emit| one(emit, own_resources(row).memory_request.map(Value::Int))),
    ),
    Family::gauge(
        "snug_pod_cpu_limit_cores",
        "CPU limit of the pod's cgroup: its own (spec.resources), or the sum if each container has one; absent without a limit",
        Pod(limit_cores),
    ),
    Family::gauge(
        "snug_pod_memory_limit_bytes",
        "Memory limit of the pod's cgroup: its own (spec.resources), or the sum if each container has one; absent without a limit",
        Pod(|row, emit| one(emit, row.values.memory.and_then(|m| m.limit_bytes).map(Value::Int))),
    ),
    Family::gauge(
        "snug_pod_spec_cpu_limit_cores",
        "CPU limit of the pod as a whole (spec.resources), which its containers share; absent without one; snug_pod_cpu_limit_cores has the limit of the cgroup",
        Pod(|row, emit| one(emit, own_resources(row).cpu_limit.map(cores))),
    ),
    Family::gauge(
        "snug_pod_spec_memory_limit_bytes",
        "Memory limit of the pod as a whole (spec.resources), which its containers share; absent without one; snug_pod_memory_limit_bytes has the limit of the cgroup",
        Pod(|row, emit| one(emit, own_resources(row).memory_limit.map(Value::Int))),
    ),
];

/// Requests and limits of the whole pod.
fn own_resources(row: &CgroupRow) -> Resources {
    row.identity.names.as_deref().map(|names| names.resources).unwrap_or_default()
}
