//! Nodes, and what they have beside the pods that are bound to them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Taint, Toleration};
use snug_sizing::pod::PodRequests;

use crate::cluster::{listed::ListedNode, live_pod::LivePod};

/// A schedulable node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSpace {
    pub labels: BTreeMap<String, String>,
    /// Taints that keep pods from being scheduled.
    pub taints: Vec<Taint>,
    pub allocatable: PodRequests,
    /// What is left beside all pods on the node.
    pub free: PodRequests,
    /// Requests of the pods that are bound to the node, each with its namespace and the kind and name of its controller.
    pub bound: Vec<(String, (String, String), PodRequests)>,
}

impl NodeSpace {
    /// What the node has for the pods of a workload, beside what is bound to the node.
    pub fn left_for(&self, namespace: &str, owner: &(String, String)) -> PodRequests {
        let others = self.bound.iter().filter(|(of, by, _)| of != namespace || by != owner);
        others.fold(self.allocatable, |left, (_, _, requests)| left.minus(*requests))
    }

    /// Whether a pod of a controller is bound to the node.
    pub fn has_pod_of(&self, namespace: &str, owner: &(String, String)) -> bool {
        self.bound.iter().any(|(of, by, _)| of == namespace && by == owner)
    }

    /// Whether the scheduler may choose the node for a pod, as far as labels and taints go.
    pub fn accepts(&self, pod: &LivePod) -> bool {
        let has_label = |(key, value): (&String, &String)| self.labels.get(key) == Some(value);
        let is_tolerated = |taint: &Taint| pod.tolerations.iter().any(|it| tolerates(it, taint));
        pod.node_selector.iter().all(has_label) && self.taints.iter().all(is_tolerated)
    }
}

/// [`ToleratesTaint`](https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/api/core/v1/toleration.go): an
/// empty effect or key matches all.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_or_empty =
        |of: &Option<String>, wanted: &str| of.as_deref().is_none_or(|of| of.is_empty() || of == wanted);
    let value = |value: &Option<String>| value.clone().unwrap_or_default();
    is_or_empty(&toleration.effect, &taint.effect)
        && is_or_empty(&toleration.key, &taint.key)
        && (toleration.operator.as_deref() == Some("Exists")
            || value(&toleration.value) == value(&taint.value))
}

/// The schedulable nodes with the pods that are bound to them.
pub(super) fn spaces(nodes: &[ListedNode], pods: &[LivePod]) -> Vec<NodeSpace> {
    let mut spaces = BTreeMap::new();
    for node in nodes {
        let ListedNode { name, labels, taints, .. } = node.clone();
        let Some(allocatable) = node.allocatable.filter(|_| !node.is_unschedulable) else { continue };
        let taints = taints.into_iter().filter(|taint| taint.effect != "PreferNoSchedule").collect();
        spaces.insert(name, NodeSpace { labels, taints, allocatable, free: allocatable, bound: Vec::new() });
    }
    for pod in pods {
        let Some(space) = spaces.get_mut(&pod.node) else { continue };
        space.free = space.free.minus(pod.requests());
        if let Some(by) = &pod.bound_by {
            space.bound.push((pod.namespace.clone(), by.clone(), pod.requests()));
        }
    }
    spaces.into_values().collect()
}
