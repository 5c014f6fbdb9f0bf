//! `snug_pod_container_*`: spec and status of containers from the API, including containers that are not running.

use snug_sizing::workload::Resources;

use super::{Emit, Family, Samples::Status, Value, cores, one};
use crate::model::pod::{KnownContainer, State};

pub(super) static FAMILIES: &[Family] = &[
    Family::gauge(
        "snug_pod_container_cpu_request_cores",
        "CPU request by stage: desired in the spec, allocated by the node, applied by the kubelet; the stages differ during an in-place resize",
        Status(|container, emit| stages(container, emit, |of| of.cpu_request.map(cores))),
    )
    .labels(&["stage"]),
    Family::gauge(
        "snug_pod_container_cpu_limit_cores",
        "CPU limit by stage; snug_container_cpu_limit_cores has the limit of the cgroup",
        Status(|container, emit| stages(container, emit, |of| of.cpu_limit.map(cores))),
    )
    .labels(&["stage"]),
    Family::gauge(
        "snug_pod_container_memory_request_bytes",
        "Memory request by stage",
        Status(|container, emit| stages(container, emit, |of| of.memory_request.map(Value::Int))),
    )
    .labels(&["stage"]),
    Family::gauge(
        "snug_pod_container_memory_limit_bytes",
        "Memory limit by stage; snug_container_memory_limit_bytes has the limit of the cgroup",
        Status(|container, emit| stages(container, emit, |of| of.memory_limit.map(Value::Int))),
    )
    .labels(&["stage"]),
    Family::counter(
        "snug_pod_container_restarts",
        "Restarts counted by the kubelet, including those before the agent started; snug_workload_restarts_total counts restarts since then",
        Status(|container, emit| one(emit, container.status.as_ref().map(|status| Value::Int(status.restarts)))),
    ),
    Family::gauge(
        "snug_pod_container_ready",
        "Whether the container is ready: 1 or 0",
        Status(|container, emit| one(emit, container.status.as_ref().map(|status| Value::Int(status.ready.into())))),
    ),
    Family::gauge(
        "snug_pod_container_waiting",
        "Always 1; reason for which the container is waiting, reported by the kubelet (CrashLoopBackOff, ImagePullBackOff, CreateContainerConfigError, …); absent if it is not waiting",
        Status(|container, emit| {
            if let Some(State::Waiting(reason)) = container.status.as_ref().map(|status| &status.state) {
                emit(&[reason], Value::Int(1));
            }
        }),
    )
    .labels(&["reason"]),
    Family::gauge(
        "snug_pod_container_last_termination",
        "Always 1; reason and exit code of the last termination reported by the kubelet; snug_workload_terminations_total counts all terminations",
        Status(|container, emit| {
            if let Some(last) = container.status.as_ref().and_then(|status| status.terminations().last()) {
                emit(&[&last.reason, &last.exit_code.to_string()], Value::Int(1));
            }
        }),
    )
    .labels(&["reason", "exit_code"]),
];

fn stages(
    container: &KnownContainer,
    emit: &mut Emit<'_>,
    value: impl Fn(&Resources) -> Option<Value<'static>>,
) {
    for (stage, resources) in container.resources.known() {
        if let Some(value) = value(&resources) {
            emit(&[stage], value);
        }
    }
}
