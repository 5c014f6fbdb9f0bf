//! The cost of requests at list prices, and the number of nodes that would become empty.

use crate::pod::PodRequests;

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// List prices, in any one currency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Price of one core for an hour.
    pub core_hour: f64,
    /// Price of one GiB of memory for an hour.
    pub gib_hour: f64,
}

impl Prices {
    /// Cost of requests for an hour.
    pub fn hourly_cost(&self, requests: PodRequests) -> f64 {
        requests.cpu as f64 / 1000.0 * self.core_hour + requests.memory as f64 / GIB * self.gib_hour
    }
}

/// What a node can still hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeHeadroom {
    /// Allocatable minus the requests of DaemonSets and static pods.
    pub requests: PodRequests,
    /// Allocatable pods minus those of DaemonSets and static pods.
    pub pods: u64,
}

/// Counts the nodes that stay empty when pods are packed by *first fit decreasing*.
///
/// Pods are sorted by their dominant share: the greater of their CPU and memory shares of the whole cluster. The largest
/// pod comes first, and each pod goes to the first node, in the given order, that can hold it. `None` where a pod fits no
/// node. This is a heuristic: a better packing may leave more nodes empty.
pub fn empty_nodes(nodes: &[NodeHeadroom], pods: &[PodRequests]) -> Option<usize> {
    let all = nodes.iter().fold((1.0, 1.0), |sum: (f64, f64), NodeHeadroom { requests, .. }| {
        (sum.0 + requests.cpu as f64, sum.1 + requests.memory as f64)
    });
    let share = |pod: &PodRequests| (pod.cpu as f64 / all.0).max(pod.memory as f64 / all.1);
    let mut pods = pods.to_vec();
    pods.sort_by(|a, b| share(b).total_cmp(&share(a)).then((b.cpu, b.memory).cmp(&(a.cpu, a.memory))));
    let mut left: Vec<(NodeHeadroom, bool)> = nodes.iter().map(|node| (*node, false)).collect();
    for pod in pods {
        let has_room = |NodeHeadroom { requests, pods }: &NodeHeadroom| {
            requests.cpu >= pod.cpu && requests.memory >= pod.memory && *pods > 0
        };
        let (node, used) = left.iter_mut().find(|(node, _)| has_room(node))?;
        node.requests.cpu -= pod.cpu;
        node.requests.memory -= pod.memory;
        node.pods -= 1;
        *used = true;
    }
    Some(left.iter().filter(|(_, used)| !used).count())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests(cpu: u64, memory: u64) -> PodRequests {
        PodRequests { cpu, memory }
    }

    fn room(cpu: u64, memory: u64) -> NodeHeadroom {
        NodeHeadroom { requests: requests(cpu, memory), pods: 110 }
    }

    #[test]
    fn list_prices() {
        let prices = Prices { core_hour: 0.04, gib_hour: 0.005 };
        assert!((prices.hourly_cost(requests(500, 4 << 30)) - 0.04).abs() < 1e-12);
    }

    #[test]
    fn only_whole_nodes_become_empty() {
        let nodes = [room(4000, 16); 3];
        assert_eq!(empty_nodes(&nodes, &[requests(2500, 1); 3]), Some(0));
        // A third less of each: two on a node.
        assert_eq!(empty_nodes(&nodes, &[requests(2000, 1); 3]), Some(1));
        // Less CPU frees nothing where memory is what is full.
        assert_eq!(empty_nodes(&nodes, &[requests(100, 16); 3]), Some(0));
        assert_eq!(empty_nodes(&nodes, &[requests(4001, 1)]), None);
        assert_eq!(empty_nodes(&[], &[]), Some(0));
        // A node takes no more than so many pods, however small.
        assert_eq!(empty_nodes(&nodes, &[requests(0, 0); 110]), Some(2));
        assert_eq!(empty_nodes(&nodes, &[requests(0, 0); 111]), Some(1));
    }

    proptest! {
        #[test]
        fn the_order_of_pods_changes_nothing(mut pods in prop::collection::vec((0..4000_u64, 0..16_u64), 0..12)) {
            let nodes = [room(4000, 16); 6];
            let pack = |pods: &[(u64, u64)]| empty_nodes(&nodes, &pods.iter().map(|(cpu, memory)| requests(*cpu, *memory)).collect::<Vec<_>>());
            let one = pack(&pods);
            pods.reverse();
            prop_assert_eq!(one, pack(&pods));
        }
    }
}
