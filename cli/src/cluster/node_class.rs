//! Classes of nodes: nodes whose pods of a DaemonSet are expected to use alike.

use std::collections::BTreeMap;

use snug_sizing::pod::PodRequests;

use super::{listed::ListedNode, live_pod::LivePod};

/// The label that cloud providers set to the type of the machine.
const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
const GIB: f64 = (1_u64 << 30) as f64;

/// Classes by namespace and name of pods.
pub type NodeClasses = BTreeMap<(String, String), String>;

/// The class of a node: its instance type, or else its allocatable CPU and memory in whole cores and GiB, since the kubelet reserves
/// a little more or less on each node. `None` if neither is known.
fn class(node: &ListedNode) -> Option<String> {
    let named = node.labels.get(INSTANCE_TYPE).filter(|name| !name.is_empty());
    let by_size = |PodRequests { cpu, memory }: PodRequests| {
        format!("{:.0} cores, {:.0} GiB", (cpu as f64 / 1000.0).ceil(), (memory as f64 / GIB).ceil())
    };
    named.cloned().or_else(|| node.allocatable.map(by_size))
}

/// The class of each pod's node.
pub(super) fn of_pods(nodes: &[ListedNode], pods: &[LivePod]) -> NodeClasses {
    let classes: BTreeMap<&str, String> =
        nodes.iter().filter_map(|node| Some((node.name.as_str(), class(node)?))).collect();
    let of_pod = |pod: &LivePod| {
        let class = classes.get(pod.node.as_str())?.clone();
        Some(((pod.namespace.clone(), pod.name.clone()), class))
    };
    pods.iter().filter_map(of_pod).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, instance_type: Option<&str>, allocatable: Option<(u64, u64)>) -> ListedNode {
        ListedNode {
            name: name.to_owned(),
            labels: instance_type.map(|it| (INSTANCE_TYPE.to_owned(), it.to_owned())).into_iter().collect(),
            allocatable: allocatable.map(|(cpu, mib)| PodRequests { cpu, memory: mib << 20 }),
            ..ListedNode::default()
        }
    }

    #[test]
    fn pods_have_the_class_of_their_node() {
        let nodes = [
            node("a", Some("m5.large"), Some((1930, 7000))),
            node("b", None, Some((7910, 31_000))),
            node("c", None, Some((7900, 30_900))),
            node("d", Some(""), None),
        ];
        let pod = |(name, node): (&str, &str)| LivePod {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            ..LivePod::default()
        };
        let pods = [("w1", "a"), ("w2", "b"), ("w3", "c"), ("w4", "d"), ("pending", "")].map(pod);
        let found = of_pods(&nodes, &pods);
        let found: Vec<(&str, &str)> = found.iter().map(|((_, pod), class)| (&**pod, &**class)).collect();
        assert_eq!(found, [("w1", "m5.large"), ("w2", "8 cores, 31 GiB"), ("w3", "8 cores, 31 GiB")]);
    }
}
