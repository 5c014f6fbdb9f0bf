//! Workloads and containers with their current requests and limits.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::HOUR;

pub mod names;

/// How the pods of a workload start and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadKind {
    /// Pods that run until they are replaced: Deployments, StatefulSets and unknown owners.
    #[default]
    Service,
    /// One pod per node.
    DaemonSet,
    /// Pods that run to completion: Jobs and CronJobs.
    Job,
}

impl WorkloadKind {
    /// From the `kind` of the owner in Kubernetes.
    pub fn from_owner(owner: &str) -> Self {
        match owner {
            "DaemonSet" => Self::DaemonSet,
            "Job" | "CronJob" => Self::Job,
            _ => Self::Service,
        }
    }
}

/// Role of a container in its pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A regular container.
    #[default]
    App,
    /// An init container, which ends before the regular containers start.
    Init,
    /// A sidecar: an init container with `restartPolicy: Always`.
    Sidecar,
}

/// Requests and limits of one container: millicores and bytes. `None` is unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Resources {
    /// CPU request, millicores.
    pub cpu_request: Option<u64>,
    /// CPU limit, millicores.
    pub cpu_limit: Option<u64>,
    /// Memory request, bytes.
    pub memory_request: Option<u64>,
    /// Memory limit, bytes.
    pub memory_limit: Option<u64>,
}

/// Limits from here on are none: cgroups have the largest number for "unlimited", with or without the last bits of a page.
const UNLIMITED: u64 = 1 << 62;

impl Resources {
    /// Without what sets nothing: numbers so large that they mean "unlimited", limits of 0, which kubelets take for none, and
    /// requests of 0 without a limit. A request of 0 beside a limit stays, because without it the limit would be the request.
    #[must_use]
    pub fn effective(self) -> Self {
        let limit = |value: Option<u64>| value.filter(|value| (1..UNLIMITED).contains(value));
        let request = |value: Option<u64>, limit: Option<u64>| {
            value.filter(|value| *value < UNLIMITED && (*value > 0 || limit.is_some()))
        };
        let (cpu_limit, memory_limit) = (limit(self.cpu_limit), limit(self.memory_limit));
        Self {
            cpu_request: request(self.cpu_request, cpu_limit),
            cpu_limit,
            memory_request: request(self.memory_request, memory_limit),
            memory_limit,
        }
    }
}

/// QoS class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QosClass {
    /// Requests equal limits for CPU and memory in every container.
    Guaranteed,
    /// Any other requests or limits.
    Burstable,
    /// No requests and limits.
    BestEffort,
}

impl QosClass {
    /// The QoS class of a pod with these containers, by
    /// [Kubernetes' rules](https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/). A missing request defaults to the limit.
    pub fn from_containers(containers: &[Resources]) -> Self {
        let guaranteed = |it: &Resources| {
            let same =
                |request: Option<u64>, limit: Option<u64>| limit.is_some() && request.or(limit) == limit;
            same(it.cpu_request, it.cpu_limit) && same(it.memory_request, it.memory_limit)
        };
        if containers.iter().all(|it| *it == Resources::default()) {
            Self::BestEffort
        } else if containers.iter().all(guaranteed) {
            Self::Guaranteed
        } else {
            Self::Burstable
        }
    }
}

/// The QoS class of a workload's pods. `None` if the requests and limits of no container are known.
///
/// Only containers seen within an hour of the newest count: older ones may have been removed from the pod spec. An init
/// container that ran long ago and is left out can only lower the class, not raise it.
pub fn pod_qos<'c>(containers: impl Iterator<Item = &'c Container> + Clone) -> Option<QosClass> {
    let newest = containers.clone().map(|container| container.seen).max().filter(|seen| *seen > 0)?;
    let now = containers.filter(|container| container.seen > 0 && newest - container.seen <= HOUR);
    // The requests and limits of the pod as a whole decide, if it has any.
    if let Some(own) = now.clone().find_map(|container| container.pod_resources) {
        return Some(QosClass::from_containers(&[own]));
    }
    Some(QosClass::from_containers(&now.map(|container| container.current).collect::<Vec<_>>()))
}

/// A workload: the owner of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    pub namespace: String,
    /// Name of the owner.
    pub name: String,
    /// `kind` of the owner in Kubernetes, such as `Deployment`; empty if unknown.
    #[serde(default)]
    pub owner: String,
    /// How the pods start and end.
    pub kind: WorkloadKind,
    /// Running pods.
    pub replicas: u64,
}

impl Workload {
    /// `namespace/name`.
    pub fn key(&self) -> impl fmt::Display + PartialEq + use<> {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether both are the same workload. A Deployment and a StatefulSet of the same name are two.
    pub fn is(&self, other: &Self) -> bool {
        (&self.namespace, &self.name, &self.owner) == (&other.namespace, &other.name, &other.owner)
    }

    /// Adds the replicas of another node: an agent sees only the pods of its own node.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.replicas = self.replicas.saturating_add(other.replicas);
        self.kind = self.kind.max(other.kind);
    }
}

/// A container with its current requests and limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Container {
    pub name: String,
    /// Role in the pod.
    pub role: Role,
    /// When `current` was read, seconds since the Unix epoch; 0 if never.
    pub seen: u64,
    /// Current requests and limits.
    #[serde(alias = "in_force")]
    pub current: Resources,
    /// Requests and limits of the whole pod (`spec.resources`); `None` without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_resources: Option<Resources>,
    /// Image as the pod names it; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Settings of the language runtime in the pod's arguments and environment, such as `-Xmx`; only known names, because
    /// environments hold secrets. The value is empty where it comes from another object (`valueFrom`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Size limits of the mounted `emptyDir` volumes in memory, bytes: their files count as memory of the container. `u64::MAX` if
    /// one has no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_volumes: u64,
    /// Limits of huge pages, bytes: they are not part of the memory limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hugepages: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Container {
    /// Keeps the newer fields; of two at the same time, those with the higher requests and limits. The other fields decide last, so
    /// that the order of merging does not matter.
    pub(crate) fn merge(&mut self, other: &Self) {
        if (self.seen, self.current, self.role, &*self) < (other.seen, other.current, other.role, other) {
            self.clone_from(other);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn workload(name: &str) -> Workload {
        Workload {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            owner: "Deployment".to_owned(),
            kind: WorkloadKind::Service,
            replicas: 1,
        }
    }

    pub(crate) fn container(name: &str) -> Container {
        Container { name: name.to_owned(), ..Container::default() }
    }

    #[test]
    fn qos_classes() {
        let set = |cpu_request, cpu_limit, memory_request, memory_limit| Resources {
            cpu_request,
            cpu_limit,
            memory_request,
            memory_limit,
        };
        let full = set(Some(1), Some(1), None, Some(2));
        assert_eq!(QosClass::from_containers(&[Resources::default(); 2]), QosClass::BestEffort);
        assert_eq!(QosClass::from_containers(&[full, full]), QosClass::Guaranteed);
        assert_eq!(QosClass::from_containers(&[full, Resources::default()]), QosClass::Burstable);
        assert_eq!(QosClass::from_containers(&[set(Some(1), Some(2), None, Some(2))]), QosClass::Burstable);
        assert_eq!(QosClass::from_containers(&[set(Some(1), None, None, None)]), QosClass::Burstable);
    }

    #[test]
    fn only_recent_containers_count_for_the_qos_class() {
        let full = Resources {
            cpu_request: Some(1),
            cpu_limit: Some(1),
            memory_request: Some(2),
            memory_limit: Some(2),
        };
        let at = |seen, current| Container { seen, current, ..container("it") };
        let class = |containers: &[Container]| pod_qos(containers.iter());
        assert_eq!(class(&[]), None);
        assert_eq!(class(&[at(0, full)]), None, "requests and limits were never read");
        let unset = Resources::default();
        assert_eq!(class(&[at(9_000, full), at(0, unset)]), Some(QosClass::Guaranteed));
        assert_eq!(class(&[at(9_000, full), at(8_970, unset)]), Some(QosClass::Burstable));
        assert_eq!(
            class(&[at(9_000, full), at(5_000, unset)]),
            Some(QosClass::Guaranteed),
            "it was taken out"
        );
        assert_eq!(class(&[at(9_000, unset)]), Some(QosClass::BestEffort));
        let of_pod = Container { pod_resources: Some(full), ..at(9_000, unset) };
        assert_eq!(class(&[of_pod]), Some(QosClass::Guaranteed), "the pod's own resources decide");
    }
}
