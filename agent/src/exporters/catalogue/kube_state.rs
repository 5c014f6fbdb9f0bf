//! `kube_*`: names, labels and values of kube-state-metrics for the pods on this node, for queries that join with them.
//!
//! Each family has one row per pod. Labels are those of kube-state-metrics 2, in the same order except for the first three.

use snug_sizing::workload::Resources;

use self::Section::{App, Init};
use super::{Emit, Family, Samples::KubeState, Value, cores};
use crate::model::{
    ContainerKind,
    pod::{KnownContainer, KnownPod, State},
};

pub(super) static FAMILIES: &[Family] = &[
    Family::gauge("kube_pod_info", "Information about the pod", KubeState(info)).labels(&[
        "host_ip",
        "pod_ip",
        "node",
        "created_by_kind",
        "created_by_name",
        "priority_class",
        "host_network",
    ]),
    Family::gauge("kube_pod_owner", "Information about the pod's owner", KubeState(owner)).labels(&[
        "owner_kind",
        "owner_name",
        "owner_is_controller",
    ]),
    Family::gauge("kube_pod_status_phase", "The pod's current phase", KubeState(phase)).labels(&["phase"]),
    Family::gauge(
        "kube_pod_container_resource_requests",
        "Requests of the container, in cores and bytes",
        KubeState(|pod, emit| requests(pod, App, emit)),
    )
    .labels(&RESOURCE_LABELS),
    Family::gauge(
        "kube_pod_container_resource_limits",
        "Limits of the container, in cores and bytes",
        KubeState(|pod, emit| limits(pod, App, emit)),
    )
    .labels(&RESOURCE_LABELS),
    Family::counter(
        "kube_pod_container_status_restarts",
        "Restarts of the container",
        KubeState(|pod, emit| restarts(pod, App, emit)),
    )
    .labels(&["container"]),
    Family::gauge(
        "kube_pod_container_status_waiting_reason",
        "Reason why the container is waiting",
        KubeState(|pod, emit| waiting_reason(pod, App, emit)),
    )
    .labels(&["container", "reason"]),
    Family::gauge(
        "kube_pod_container_status_last_terminated_reason",
        "Reason of the last termination of the container",
        KubeState(|pod, emit| last_terminated_reason(pod, App, emit)),
    )
    .labels(&["container", "reason"]),
    Family::gauge(
        "kube_pod_init_container_info",
        "Information about the init container; the restart policy of a sidecar is Always",
        KubeState(init_info),
    )
    .labels(&["container", "image_spec", "image", "restart_policy"]),
    Family::gauge(
        "kube_pod_init_container_resource_requests",
        "Requests of the init container, in cores and bytes",
        KubeState(|pod, emit| requests(pod, Init, emit)),
    )
    .labels(&RESOURCE_LABELS),
    Family::gauge(
        "kube_pod_init_container_resource_limits",
        "Limits of the init container, in cores and bytes",
        KubeState(|pod, emit| limits(pod, Init, emit)),
    )
    .labels(&RESOURCE_LABELS),
    Family::counter(
        "kube_pod_init_container_status_restarts",
        "Restarts of the init container",
        KubeState(|pod, emit| restarts(pod, Init, emit)),
    )
    .labels(&["container"]),
    Family::gauge(
        "kube_pod_init_container_status_waiting_reason",
        "Reason why the init container is waiting",
        KubeState(|pod, emit| waiting_reason(pod, Init, emit)),
    )
    .labels(&["container", "reason"]),
    Family::gauge(
        "kube_pod_init_container_status_last_terminated_reason",
        "Reason of the last termination of the init container",
        KubeState(|pod, emit| last_terminated_reason(pod, Init, emit)),
    )
    .labels(&["container", "reason"]),
];

const RESOURCE_LABELS: [&str; 4] = ["container", "node", "resource", "unit"];

/// The section of a pod's spec; kube-state-metrics has families for each. Sidecars are init containers.
#[derive(Clone, Copy)]
enum Section {
    App,
    Init,
}

impl Section {
    const fn has(self, kind: ContainerKind) -> bool {
        match self {
            App => matches!(kind, ContainerKind::App),
            Init => matches!(kind, ContainerKind::Init | ContainerKind::Sidecar),
        }
    }
}

/// The containers of a section, with their names.
fn containers(pod: &KnownPod, section: Section) -> impl Iterator<Item = (&str, &KnownContainer)> {
    let of_section =
        pod.containers.iter().filter(move |one| one.names.kind.is_some_and(|kind| section.has(kind)));
    of_section.map(|one| (one.names.container.as_str(), one))
}

fn init_info(pod: &KnownPod, emit: &mut Emit<'_>) {
    for (name, container) in containers(pod, Init) {
        let names = &container.names;
        let restart_policy = if names.kind == Some(ContainerKind::Sidecar) { "Always" } else { "" };
        emit(&[name, &names.spec.image, &names.image, restart_policy], Value::Int(1));
    }
}

fn restarts(pod: &KnownPod, section: Section, emit: &mut Emit<'_>) {
    for (name, container) in containers(pod, section) {
        if let Some(status) = &container.status {
            emit(&[name], Value::Int(status.restarts));
        }
    }
}

fn waiting_reason(pod: &KnownPod, section: Section, emit: &mut Emit<'_>) {
    for (name, container) in containers(pod, section) {
        if let Some(State::Waiting(reason)) = container.status.as_ref().map(|status| &status.state)
            && !reason.is_empty()
        {
            emit(&[name, reason], Value::Int(1));
        }
    }
}

fn last_terminated_reason(pod: &KnownPod, section: Section, emit: &mut Emit<'_>) {
    for (name, container) in containers(pod, section) {
        if let Some(last) = container.status.as_ref().and_then(|status| status.last.as_ref()) {
            emit(&[name, &last.reason], Value::Int(1));
        }
    }
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
        None => emit(&["", "", ""], Value::Int(1)),
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

fn requests(pod: &KnownPod, section: Section, emit: &mut Emit<'_>) {
    resources(pod, section, emit, |of| (of.cpu_request, of.memory_request));
}

fn limits(pod: &KnownPod, section: Section, emit: &mut Emit<'_>) {
    resources(pod, section, emit, |of| (of.cpu_limit, of.memory_limit));
}

fn resources(
    pod: &KnownPod,
    section: Section,
    emit: &mut Emit<'_>,
    values: impl Fn(Resources) -> (Option<u64>, Option<u64>),
) {
    for (name, container) in containers(pod, section) {
        let (cpu, memory) = values(container.resources.desired);
        if let Some(millicores) = cpu {
            emit(&[name, &pod.node, "cpu", "core"], cores(millicores));
        }
        if let Some(bytes) = memory {
            emit(&[name, &pod.node, "memory", "byte"], Value::Int(bytes));
        }
    }
}
