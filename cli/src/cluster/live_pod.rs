//! Pods that have not terminated, with what constraints apply to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Container, Pod, PodAffinityTerm, PodSpec as PodObjectSpec, Toleration,
};
use kube::ResourceExt as _;
use snug_sizing::{
    constraints::{PodContainer, PodSpec},
    pod::{PodRequests, effective_requests},
    workload::{Resources, Role},
};

use super::amounts::{bytes, millicores, resources};

/// A pod that has not terminated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LivePod {
    pub namespace: String,
    pub name: String,
    /// When it was created, seconds since the Unix epoch.
    pub created: i64,
    pub labels: BTreeMap<String, String>,
    /// Name of its node; empty while it is pending.
    pub node: String,
    /// Kind and name of the controller, of pods that are bound to their node: those of DaemonSets, and static pods.
    pub bound_by: Option<(String, String)>,
    /// Its containers and resources. Empty if only metadata could be read.
    pub spec: PodSpec,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
}

impl LivePod {
    /// The requests that the scheduler counts.
    pub fn requests(&self) -> PodRequests {
        let all: Vec<(Role, Resources)> =
            self.spec.containers.iter().map(|container| (container.role, container.values)).collect();
        let of_containers = effective_requests(&all);
        let own = self.spec.pod.unwrap_or_default();
        let requests = PodRequests {
            cpu: own.cpu_request.unwrap_or(of_containers.cpu),
            memory: own.memory_request.unwrap_or(of_containers.memory),
        };
        requests.plus(self.spec.overhead)
    }
}

/// A pod that has not terminated.
pub(super) fn live_pod(pod: Pod) -> LivePod {
    let owner =
        pod.owner_references().iter().find(|owner| matches!(owner.kind.as_str(), "DaemonSet" | "Node"));
    let bound_by = owner.map(|owner| (owner.kind.clone(), owner.name.clone()));
    let created = pod.metadata.creation_timestamp.as_ref();
    let created = created.map_or(0, |time| time.0.as_second());
    let spec = pod.spec.unwrap_or_default();
    LivePod {
        namespace: pod.metadata.namespace.unwrap_or_default(),
        name: pod.metadata.name.unwrap_or_default(),
        created,
        labels: pod.metadata.labels.unwrap_or_default(),
        node: spec.node_name.clone().unwrap_or_default(),
        bound_by,
        spec: pod_spec(&spec),
        node_selector: spec.node_selector.unwrap_or_default(),
        tolerations: spec.tolerations.unwrap_or_default(),
    }
}

fn pod_spec(spec: &PodObjectSpec) -> PodSpec {
    let container = |container: &Container, role| PodContainer {
        name: container.name.clone(),
        role,
        values: resources(container.resources.as_ref()),
        is_advised: false,
    };
    let init = spec.init_containers.iter().flatten().map(|it| {
        let is_sidecar = it.restart_policy.as_deref() == Some("Always");
        container(it, if is_sidecar { Role::Sidecar } else { Role::Init })
    });
    let own = resources(spec.resources.as_ref());
    PodSpec {
        containers: init.chain(spec.containers.iter().map(|it| container(it, Role::App))).collect(),
        pod: (own != Resources::default()).then_some(own),
        overhead: PodRequests {
            cpu: millicores(&spec.overhead, "cpu").unwrap_or(0),
            memory: bytes(&spec.overhead, "memory").unwrap_or(0),
        },
        priority_class: spec.priority_class_name.clone().unwrap_or_default(),
        has_deadline: spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0),
        has_cross_namespace_affinity: spec.affinity.as_ref().is_some_and(names_other_namespaces),
    }
}

/// Whether an affinity or anti-affinity names namespaces.
fn names_other_namespaces(affinity: &Affinity) -> bool {
    let names = |term: &PodAffinityTerm| {
        term.namespace_selector.is_some() || term.namespaces.iter().flatten().next().is_some()
    };
    let near = affinity.pod_affinity.iter().flat_map(|it| {
        let preferred = it.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = it.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|weighted| &weighted.pod_affinity_term))
    });
    let apart = affinity.pod_anti_affinity.iter().flat_map(|it| {
        let preferred = it.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = it.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|weighted| &weighted.pod_affinity_term))
    });
    near.chain(apart).any(names)
}
