//! `snug_pod_container_*`: what pods and their statuses say of containers, those included that do not run.

use snug_sizing::workload::Resources;

use super::{
    Emit, Family,
    Samples::Status,
    Unit::{Bytes, Cores, None},
    Value, cores,
};
use crate::model::pod::{KnownContainer, State};

pub(super) static FAMILIES: &[Family] = &[
    Family::gauge(
        "snug_pod_container_cpu_request_cores",
        "CPU request by stage: desired in the spec, allocated by the node, applied by the kubelet; the three differ while an in-place resize is under way",
        Cores,
        Status(|container, emit| stages(container, emit, |of| of.cpu_request.map(cores))),
    )
    .labels(&["stage"]),
    Family::gauge(
        "snug_pod_container_cpu_limit_cores",
        "CPU limit by stage; the limit in force in the cgroup is snug_container_cpu_limit_cores",
        Cores,
        Status(|container, emit| stages(container, emit, |of| of.cpu_limit.map(cores))),
    )
    .labels(&["stage"]),
    Family::gauge(
        "snug_pod_container_memory_request_bytes",
        "Memory request by stage",
        Bytes,
        Status(|container, emit| stages(container, emit, |of| of.memory_request.map(Value::Int))),
    )
    .labels(&["stage"]),
    Family::gauge(
        "snug_pod_container_memory_limit_bytes",
        "Memory limit by stage; the limit in force in the cgroup is snug_container_memory_limit_bytes",
        Bytes,
        Status(|container, emit| stages(container, emit, |of| of.memory_limit.map(Value::Int))),
    )
    .labels(&["stage"]),
    Family::counter(
        "snug_pod_container_restarts",
        "Restarts as the kubelet counts them, those before the agent included; restarts that the agent saw are in snug_workload_restarts_total",
        None,
        Status(|container, emit| {
            if let Some(status) = &container.status {
                emit(&[], Value::Int(status.restarts));
            }
        }),
    ),
    Family::gauge(
        "snug_pod_container_ready",
        "Whether the container is ready: 1 or 0",
        None,
        Status(|container, emit| {
            if let Some(status) = &container.status {
                emit(&[], Value::Int(status.ready.into()));
            }
        }),
    ),
    Family::gauge(
        "snug_pod_container_waiting",
        "One while the container waits, with the kubelet's reason (CrashLoopBackOff, ImagePullBackOff, CreateContainerConfigError, …); absent otherwise",
        None,
        Status(|container, emit| {
            if let Some(State::Waiting(reason)) = container.status.as_ref().map(|status| &status.state) {
                emit(&[reason], Value::Int(1));
            }
        }),
    )
    .labels(&["reason"]),
    Family::gauge(
        "snug_pod_container_last_termination",
        "One, with the reason and exit code with which the container's last run ended, as the kubelet says; every end is in snug_workload_terminations_total",
        None,
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
