//! The resources of a pod, as its template states them.

use crate::{
    pod::{PodRequests, effective},
    workload::{QosClass, Resources, Role},
};

use super::resource::Resource;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodContainer {
    pub name: String,
    /// Role in the pod.
    pub role: Role,
    /// Requests and limits.
    pub values: Resources,
    /// Whether there is a recommendation for the container. The values of others stay.
    pub is_advised: bool,
}

/// What the cluster checks of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSpec {
    /// Containers in the order of the pod spec, init containers first.
    pub containers: Vec<PodContainer>,
    /// Requests and limits of the whole pod (`spec.resources`).
    pub pod: Option<Resources>,
    /// What the runtime needs beside the containers (`spec.overhead`).
    pub overhead: PodRequests,
    /// `spec.priorityClassName`; empty without.
    pub priority_class: String,
    /// Whether `spec.activeDeadlineSeconds` is set.
    pub has_deadline: bool,
    /// Whether an affinity names other namespaces.
    pub has_cross_namespace_affinity: bool,
}

impl PodSpec {
    /// The sum of a value over the containers, as the scheduler counts it; missing values count as 0.
    pub(super) fn sum(&self, pick: impl Fn(&Resources) -> Option<u64>) -> u64 {
        effective(
            self.containers.iter().map(|container| (container.role, pick(&container.values).unwrap_or(0))),
        )
    }

    /// The request of the pod: its own, or the sum over its containers, and the overhead.
    pub(super) fn request(&self, resource: Resource) -> u64 {
        let own = self.pod.as_ref().and_then(|pod| resource.request(pod));
        let overhead = match resource {
            Resource::Cpu => self.overhead.cpu,
            Resource::Memory => self.overhead.memory,
        };
        own.unwrap_or_else(|| self.sum(|values| resource.request(values))).saturating_add(overhead)
    }

    /// The limit of the pod: its own, or the sum over its containers, with the overhead if there is a limit.
    pub(super) fn limit(&self, resource: Resource) -> u64 {
        let own = self.pod.as_ref().and_then(|pod| resource.limit(pod));
        let limit = own.unwrap_or_else(|| self.sum(|values| resource.limit(values)));
        let overhead = match resource {
            _ if limit == 0 => 0,
            Resource::Cpu => self.overhead.cpu,
            Resource::Memory => self.overhead.memory,
        };
        limit.saturating_add(overhead)
    }

    /// The QoS class: by the pod's own resources if it has any, else by those of its containers.
    pub(super) fn qos(&self) -> QosClass {
        match self.pod {
            Some(pod) if pod != Resources::default() => QosClass::from_containers(&[pod]),
            _ => QosClass::from_containers(
                &self.containers.iter().map(|container| container.values).collect::<Vec<_>>(),
            ),
        }
    }
}
