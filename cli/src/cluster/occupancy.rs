//! Nodes and the requests of their pods, to count nodes that could be emptied.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use serde::Serialize;
use snug_sizing::{
    cost::{NodeHeadroom, empty_nodes},
    pod::{PodRequests, effective_requests},
    workload::{Resources, Role},
};

use super::{
    ClusterError,
    constraints::{allocatable, bytes, millicores, resources},
    failed,
};

/// Pods per page of a list.
const PAGE: u32 = 500;
/// Allocatable pods of a node without that field: the kubelet's default.
const DEFAULT_PODS: u64 = 110;

/// Name, role and resources of a container in a pod spec.
type Specified = (String, Role, Resources);

/// A pod that has not terminated.
#[derive(Clone, Debug, PartialEq)]
struct PlacedPod {
    namespace: String,
    name: String,
    /// Name of the node; empty while the pod is pending.
    node: String,
    /// Whether the pod is bound to its node: a pod of a DaemonSet, or a static pod.
    is_bound_to_node: bool,
    containers: Vec<Specified>,
    /// Requests of the whole pod (`spec.resources`).
    own: Resources,
    overhead: PodRequests,
}

/// Nodes and their pods.
#[derive(Clone, Debug, Default)]
pub struct Occupancy {
    nodes: Vec<(String, NodeHeadroom)>,
    pods: Vec<PlacedPod>,
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
    /// Lists all nodes and pods.
    pub(super) async fn gather(client: &Client) -> Result<Self, ClusterError> {
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
        let nodes = nodes.map_err(|error| failed("list", "nodes", error))?;
        let pods = Api::<Pod>::all(client.clone());
        let mut parameters =
            ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed").limit(PAGE);
        let mut placed = Vec::new();
        loop {
            let page = pods
                .list(&parameters)
                .await
                .map_err(|error| failed("list", "pods in all namespaces", error))?;
            placed.extend(page.items.iter().map(placed_pod));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => break,
            }
        }
        Ok(Self { nodes: nodes.items.iter().filter_map(headroom).collect(), pods: placed })
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
            let requests = pod.requests(recommended);
            if !pod.is_bound_to_node {
                pods.push(requests);
            } else if let Some(headroom) = headrooms.get_mut(pod.node.as_str()) {
                headroom.requests = headroom.requests.minus(requests);
                headroom.pods = headroom.pods.saturating_sub(1);
            }
        }
        empty_nodes(&headrooms.into_values().collect::<Vec<_>>(), &pods)
    }
}

impl PlacedPod {
    fn requests(&self, recommended: &BTreeMap<(&str, &str, &str), Resources>) -> PodRequests {
        let containers: Vec<(Role, Resources)> = self
            .containers
            .iter()
            .map(|(container, role, specified)| {
                let other =
                    recommended.get(&(self.namespace.as_str(), self.name.as_str(), container.as_str()));
                (*role, other.map_or(*specified, |other| or_specified(*other, *specified)))
            })
            .collect();
        let of_containers = effective_requests(&containers);
        // A recommendation raises the pod's own requests to those of its containers, and never lowers them.
        let own = PodRequests {
            cpu: self.own.cpu_request.unwrap_or(0),
            memory: self.own.memory_request.unwrap_or(0),
        };
        of_containers.max(own).plus(self.overhead)
    }
}

/// Recommended requests, or the requests of the spec where there is no recommendation.
fn or_specified(recommended: Resources, specified: Resources) -> Resources {
    Resources {
        cpu_request: recommended.cpu_request.or(specified.cpu_request),
        memory_request: recommended.memory_request.or(specified.memory_request),
        ..specified
    }
}

fn headroom(node: &Node) -> Option<(String, NodeHeadroom)> {
    let requests = allocatable(node)?;
    let pods = bytes(&node.status.as_ref()?.allocatable, "pods").unwrap_or(DEFAULT_PODS);
    Some((node.name_any(), NodeHeadroom { requests, pods }))
}

fn placed_pod(pod: &Pod) -> PlacedPod {
    let spec = pod.spec.clone().unwrap_or_default();
    let is_bound_to_node =
        pod.owner_references().iter().any(|owner| matches!(owner.kind.as_str(), "DaemonSet" | "Node"));
    let init = spec.init_containers.iter().flatten().map(|container| {
        let is_sidecar = container.restart_policy.as_deref() == Some("Always");
        specified(container, if is_sidecar { Role::Sidecar } else { Role::Init })
    });
    let apps = spec.containers.iter().map(|container| specified(container, Role::App));
    let overhead = PodRequests {
        cpu: millicores(&spec.overhead, "cpu").unwrap_or(0),
        memory: bytes(&spec.overhead, "memory").unwrap_or(0),
    };
    PlacedPod {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        node: spec.node_name.clone().unwrap_or_default(),
        is_bound_to_node,
        containers: init.chain(apps).collect(),
        own: resources(spec.resources.as_ref()),
        overhead,
    }
}

fn specified(container: &Container, role: Role) -> Specified {
    (container.name.clone(), role, resources(container.resources.as_ref()))
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn object<K: DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn node(name: &str) -> Node {
        let allocatable = json!({ "cpu": "2", "memory": "4Gi", "pods": "10" });
        object(json!({ "metadata": { "name": name }, "status": { "allocatable": allocatable } }))
    }

    fn pod(name: &str, node: &str, owner: &str, cpu: &str) -> PlacedPod {
        let owner = json!({ "apiVersion": "apps/v1", "kind": owner, "name": "owner", "uid": "1" });
        placed_pod(&object(json!({
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
            pod("web-1", "a", "ReplicaSet", "400m").requests(&none),
            PodRequests { cpu: 550, memory: 1 << 30 }
        );
        assert_eq!(
            pod("web-1", "a", "ReplicaSet", "10m").requests(&none).cpu,
            300,
            "its start asks for more"
        );
        let less = Resources { cpu_request: Some(200), ..Resources::default() };
        let recommended = BTreeMap::from([(("shop", "web-1", "app"), less)]);
        let requests = pod("web-1", "a", "ReplicaSet", "400m").requests(&recommended);
        assert_eq!(requests, PodRequests { cpu: 350, memory: 1 << 30 }, "what is not recommended stays");
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
