//! Which containers count as replicas.

use super::*;
use crate::model::AgentRule;

#[test]
fn instances_of_one_pod_are_one_replica() {
    let instances = proptest::collection::vec(1..3_usize, 1..4);
    AgentRule::OneReplicaPerPod.prove(
        &instances,
        |instances| instances.contains(&2),
        |instances| {
            let mut node = Node::new();
            let mut ids = 'a'..='z';
            for (pod, count) in instances.iter().enumerate() {
                for id in ids.by_ref().take(*count) {
                    let key = node.container(id, START - 10_000.0);
                    node.name(key, &format!("web-{pod}"));
                    node.memory(key, 8 * MIB, 0, 8 * MIB);
                }
            }
            node.second(0.0);
            let replicas: Vec<u64> = node.finish(2.0).iter().map(|one| one.workload.replicas).collect();
            if replicas == [instances.len() as u64] { Ok(()) } else { Err(format!("{replicas:?}")) }
        },
    );
}
