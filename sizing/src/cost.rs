//! Money: at list prices, and what could really be empty_nodes.

use crate::pod::PodRequests;

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// List prices, in whatever currency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Of a core for an hour.
    pub core_hour: f64,
    /// Of a GiB for an hour.
    pub gib_hour: f64,
}

impl Prices {
    /// What requests cost in an hour.
    pub fn hourly_cost(&self, requests: PodRequests) -> f64 {
        requests.cpu as f64 / 1000.0 * self.core_hour + requests.memory as f64 / GIB * self.gib_hour
    }
}

/// What a node has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeHeadroom {
    /// Allocatable, less what the node runs anyway.
    pub requests: PodRequests,
    /// Pods, likewise.
    pub pods: u64,
}

/// Nodes that are empty when pods are packed onto as few as can be found by *first fit decreasing*: pods by the greater of their two
/// shares of a whole cluster, the greatest first, each onto the first node with room, the nodes in the order given. `None` where a pod fits
/// nowhere. A heuristic: a better packing may free more.
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
    fn nodes_are_freed_whole_or_not_at_all() {
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
