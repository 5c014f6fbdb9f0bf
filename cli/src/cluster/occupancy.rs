//! Nodes and the requests of their pods, to count nodes that could be emptied.

use std::collections::BTreeMap;

use serde::Serialize;
use snug_sizing::{
    constraints::PodContainer,
    cost::{NodeHeadroom, empty_nodes},
    pod::{PodRequests, effective_requests},
    workload::{Resources, Role},
};

use super::{listed::ListedNode, live_pod::LivePod};

/// Nodes and their pods.
#[derive(Clone, Debug, Default)]
pub struct Occupancy {
    nodes: Vec<(String, NodeHeadroom)>,
    pods: Vec<LivePod>,
}

/// Number of nodes that packing could empty. Only CPU, memory and the number of pods are considered: taints, affinities and
/// volumes may keep more nodes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct EmptiedNodes {
    pub nodes: usize,
    /// With current requests; `None` if the packing fails.
    pub now: Option<usize>,
    /// With recommended requests; `None` if the packing fails.
    pub then: Option<usize>,
}

impl Occupancy {
    pub(super) fn new(nodes: &[ListedNode], pods: &[LivePod]) -> Self {
        Self { nodes: nodes.iter().filter_map(headroom).collect(), pods: pods.to_vec() }
    }

    /// Counts the nodes that packing could empty. `recommended` has requests by namespace, pod and container.
    pub fn emptied(&self, recommended: &BTreeMap<(&str, &str, &str), Resources>) -> EmptiedNodes {
        let none = BTreeMap::new();
        let [now, then] = [&none, recommended].map(|recommended| self.pack(recommended));
        EmptiedNodes { nodes: self.nodes.len(), now, then }
    }

    fn pack(&self, recommended: &BTreeMap<(&str, &str, &str), Resources>) -> Option<usize> {
        let mut headrooms: BTreeMap<&str, NodeHeadroom> =
            self.nodes.iter().map(|(name, headroom)| (name.as_str(), *headroom)).collect();
        let mut pods = Vec::new();
        for pod in &self.pods {
            let requests = requests(pod, recommended);
            if pod.bound_by.is_none() {
                pods.push(requests);
            } else if let Some(headroom) = headrooms.get_mut(pod.node.as_str()) {
                headroom.requests = headroom.requests.minus(requests);
                headroom.pods = headroom.pods.saturating_sub(1);
            }
        }
        empty_nodes(&headrooms.into_values().collect::<Vec<_>>(), &pods)
    }
}

/// The requests of a pod with the recommended ones.
fn requests(pod: &LivePod, recommended: &BTreeMap<(&str, &str, &str), Resources>) -> PodRequests {
    let in_use = |container: &PodContainer| {
        let name = (pod.namespace.as_str(), pod.name.as_str(), container.name.as_str());
        let recommended = recommended.get(&name);
        (container.role, recommended.map_or(container.values, |other| or_specified(*other, container.values)))
    };
    let containers: Vec<(Role, Resources)> = pod.spec.containers.iter().map(in_use).collect();
    let of_containers = effective_requests(&containers);
    // A recommendation raises the pod's own requests to those of its containers, and never lowers them.
    let own = pod.spec.pod.unwrap_or_default();
    let own = PodRequests { cpu: own.cpu_request.unwrap_or(0), memory: own.memory_request.unwrap_or(0) };
    of_containers.max(own).plus(pod.spec.overhead)
}

/// Recommended requests, or the requests of the spec where there is no recommendation.
fn or_specified(recommended: Resources, specified: Resources) -> Resources {
    Resources {
        cpu_request: recommended.cpu_request.or(specified.cpu_request),
        memory_request: recommended.memory_request.or(specified.memory_request),
        ..specified
    }
}

fn headroom(node: &ListedNode) -> Option<(String, NodeHeadroom)> {
    let ListedNode { name, allocatable, pods, .. } = node;
    Some((name.clone(), NodeHeadroom { requests: (*allocatable)?, pods: *pods }))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::live_pod::live_pod;

    fn object<K: DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn node(name: &str) -> ListedNode {
        let allocatable = json!({ "cpu": "2", "memory": "4Gi", "pods": "10" });
        let node = json!({ "metadata": { "name": name }, "status": { "allocatable": allocatable } });
        object::<Node>(node).into()
    }

    fn pod(name: &str, node: &str, owner: &str, cpu: &str) -> LivePod {
        let owner = json!({ "apiVersion": "apps/v1", "kind": owner, "name": "owner", "uid": "1" });
        live_pod(object(json!({
            "metadata": { "namespace": "shop", "name": name, "ownerReferences": [owner] },
            "spec": {
                "nodeName": node,
                "overhead": { "cpu": "50m" },
                "initContainers": [
                    { "name": "mesh", "restartPolicy": "Always", "resources": { "requests": { "cpu": "100m" } } },
                    { "name": "setup", "resources": { "requests": { "cpu": "150m" } } },
                ],
                "containers": [{ "name": "app", "resources": { "requests": { "cpu": cpu, "memory": "1Gi" } } }],
            },
        })))
    }

    #[test]
    fn effective_requests_of_a_pod() {
        let none = BTreeMap::new();
        assert_eq!(
            requests(&pod("web-1", "a", "ReplicaSet", "400m"), &none),
            PodRequests { cpu: 550, memory: 1 << 30 }
        );
        assert_eq!(
            requests(&pod("web-1", "a", "ReplicaSet", "10m"), &none).cpu,
            300,
            "its start asks for more"
        );
        let less = Resources { cpu_request: Some(200), ..Resources::default() };
        let recommended = BTreeMap::from([(("shop", "web-1", "app"), less)]);
        let found = requests(&pod("web-1", "a", "ReplicaSet", "400m"), &recommended);
        assert_eq!(found, PodRequests { cpu: 350, memory: 1 << 30 }, "what is not recommended stays");
    }

    #[test]
    fn daemon_set_pods_stay_on_their_node() {
        let nodes: Vec<_> = ["a", "b"].iter().filter_map(|name| headroom(&node(name))).collect();
        assert_eq!(
            nodes[0].1,
            NodeHeadroom { requests: PodRequests { cpu: 2000, memory: 4 << 30 }, pods: 10 }
        );
        let pods = vec![
            pod("log-a", "a", "DaemonSet", "100m"),
            pod("log-b", "b", "DaemonSet", "100m"),
            pod("web-1", "a", "ReplicaSet", "900m"),
            pod("web-2", "b", "ReplicaSet", "900m"),
        ];
        let occupancy = Occupancy { nodes, pods };
        assert_eq!(
            occupancy.emptied(&BTreeMap::new()),
            EmptiedNodes { nodes: 2, now: Some(0), then: Some(0) }
        );
        let less = Resources { cpu_request: Some(500), ..Resources::default() };
        let recommended =
            BTreeMap::from([(("shop", "web-1", "app"), less), (("shop", "web-2", "app"), less)]);
        assert_eq!(occupancy.emptied(&recommended), EmptiedNodes { nodes: 2, now: Some(0), then: Some(1) });
    }
}
