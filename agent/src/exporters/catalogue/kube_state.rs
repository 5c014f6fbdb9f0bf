//! `kube_*`: names, labels and values of kube-state-metrics for the pods on this node, for queries that join with them.
//!
//! Each family has one row per pod. Labels are those of kube-state-metrics 2, in the same order except for the first three.

use super::{Emit, Family, Samples::KubeState, Unit::None, Value, cores};
use crate::model::{
    ContainerKind,
    pod::{KnownContainer, KnownPod, State},
};

pub(super) static FAMILIES: &[Family] =
    &[
        Family::gauge("kube_pod_info", "Information about the pod", None, KubeState(info)).labels(&[
            "host_ip",
            "pod_ip",
            "node",
            "created_by_kind",
            "created_by_name",
            "priority_class",
            "host_network",
        ]),
        Family::gauge("kube_pod_owner", "Information about the pod's owner", None, KubeState(owner))
            .labels(&["owner_kind", "owner_name", "owner_is_controller"]),
        Family::gauge("kube_pod_status_phase", "The pod's current phase", None, KubeState(phase))
            .labels(&["phase"]),
        Family::gauge(
            "kube_pod_container_resource_requests",
            "Requests of the container, in cores and bytes",
            None,
            KubeState(|pod, emit| resources(pod, emit, true)),
        )
        .labels(&["container", "node", "resource", "unit"]),
        Family::gauge(
            "kube_pod_container_resource_limits",
            "Limits of the container, in cores and bytes",
            None,
            KubeState(|pod, emit| resources(pod, emit, false)),
        )
        .labels(&["container", "node", "resource", "unit"]),
        Family::counter(
            "kube_pod_container_status_restarts",
            "Restarts of the container",
            None,
            KubeState(|pod, emit| {
                for (name, container) in app_containers(pod) {
                    if let Some(status) = &container.status {
                        emit(&[name], Value::Int(status.restarts));
                    }
                }
            }),
        )
        .labels(&["container"]),
        Family::gauge(
            "kube_pod_container_status_waiting_reason",
            "Reason why the container is waiting",
            None,
            KubeState(|pod, emit| {
                for (name, container) in app_containers(pod) {
                    if let Some(State::Waiting(reason)) =
                        container.status.as_ref().map(|status| &status.state)
                        && !reason.is_empty()
                    {
                        emit(&[name, reason], Value::Int(1));
                    }
                }
            }),
        )
        .labels(&["container", "reason"]),
        Family::gauge(
            "kube_pod_container_status_last_terminated_reason",
            "Reason of the last termination of the container",
            None,
            KubeState(|pod, emit| {
                for (name, container) in app_containers(pod) {
                    if let Some(last) = container.status.as_ref().and_then(|status| status.last.as_ref()) {
                        emit(&[name, &last.reason], Value::Int(1));
                    }
                }
            }),
        )
        .labels(&["container", "reason"]),
    ];

/// App containers alone: kube-state-metrics has separate families for init containers and sidecars.
fn app_containers(pod: &KnownPod) -> impl Iterator<Item = (&str, &KnownContainer)> {
    let app = pod.containers.iter().filter(|one| one.names.kind == Some(ContainerKind::App));
    app.map(|one| (one.names.container.as_str(), one))
}

fn info(pod: &KnownPod, emit: &mut Emit<'_>) {
    let (kind, name) = pod.owner.as_ref().map_or(("", ""), |owner| (&*owner.kind, &*owner.name));
    let host_network = if pod.host_network { "true" } else { "false" };
    emit(&[&pod.host_ip, &pod.ip, &pod.node, kind, name, &pod.priority_class, host_network], Value::Int(1));
}

fn owner(pod: &KnownPod, emit: &mut Emit<'_>) {
    match &pod.owner {
        Some(owner) => {
            let controller = if owner.controller { "true" } else { "false" };
            emit(&[&owner.kind, &owner.name, controller], Value::Int(1));
        }
        Option::None => emit(&["", "", ""], Value::Int(1)),
    }
}

fn phase(pod: &KnownPod, emit: &mut Emit<'_>) {
    if pod.phase.is_empty() {
        return;
    }
    for phase in ["Pending", "Succeeded", "Failed", "Unknown", "Running"] {
        emit(&[phase], Value::Int((*pod.phase == *phase).into()));
    }
}

fn resources(pod: &KnownPod, emit: &mut Emit<'_>, requests: bool) {
    for (name, container) in app_containers(pod) {
        let of = container.resources.desired;
        let (cpu, memory) =
            if requests { (of.cpu_request, of.memory_request) } else { (of.cpu_limit, of.memory_limit) };
        if let Some(millicores) = cpu {
            emit(&[name, &pod.node, "cpu", "core"], cores(millicores));
        }
        if let Some(bytes) = memory {
            emit(&[name, &pod.node, "memory", "byte"], Value::Int(bytes));
        }
    }
}
