//! The objects of a cluster that constrain recommendations: rules and headroom of namespaces, nodes, and autoscalers.

mod budgets;
mod managed;
mod nodes;
mod rules;

use std::collections::BTreeSet;

use futures_util::join;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{LimitRange as LimitRangeObject, ResourceQuota},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde::de::DeserializeOwned;
use snug_sizing::{
    constraints::{ClusterLimits, LimitRange, Quota, Rollout},
    pod::PodRequests,
};

pub use self::{budgets::DisruptionBudget, managed::ManagedWorkload, nodes::NodeSpace, rules::Autoscaler};
use super::{
    ClusterError, api_error,
    listed::{ListedNode, ListedPods},
    live_pod::LivePod,
};

/// The constraints of a cluster. A list that could not be read is empty, and `missing` has the reason.
#[derive(Clone, Debug, Default)]
pub struct ClusterConstraints {
    /// `LimitRange`s of containers and pods, by namespace.
    pub limit_ranges: Vec<(String, LimitRange)>,
    /// `ResourceQuota`s of CPU and memory, by namespace.
    pub quotas: Vec<(String, Quota)>,
    /// `HorizontalPodAutoscaler`s that scale on the utilization of a request.
    pub autoscalers: Vec<Autoscaler>,
    /// `PodDisruptionBudget`s, with the pods that they select.
    pub budgets: Vec<DisruptionBudget>,
    /// Workloads that a VerticalPodAutoscaler sizes or KEDA scales.
    pub managed: Vec<ManagedWorkload>,
    /// Schedulable nodes.
    pub nodes: Vec<NodeSpace>,
    /// Pods that have not terminated.
    pub pods: Vec<LivePod>,
    /// Errors of lists that could not be read.
    pub missing: Vec<String>,
}

impl ClusterConstraints {
    /// The newest of some pods of a namespace; `None` if none of them lives or pods could not be listed.
    pub fn newest_pod(&self, namespace: &str, names: &BTreeSet<&str>) -> Option<&LivePod> {
        let named =
            self.pods.iter().filter(|pod| pod.namespace == namespace && names.contains(pod.name.as_str()));
        named.max_by_key(|pod| (pod.created, &pod.name))
    }

    /// What the cluster allows the pods of a workload, whose owner has a kind and a name.
    pub fn limits(
        &self,
        namespace: &str,
        owner: &(String, String),
        pods: &BTreeSet<&str>,
        (replicas, rollout): (u64, Rollout),
    ) -> ClusterLimits {
        let own = |(of, item): &(String, LimitRange)| (of == namespace).then(|| item.clone());
        let own_quota = |(of, item): &(String, Quota)| (of == namespace).then(|| item.clone());
        let scales = |it: &&Autoscaler| it.namespace == namespace && it.target == *owner;
        let holds = |it: &&DisruptionBudget| {
            it.namespace == namespace
                && it.allowed == Some(0)
                && it.pods.iter().any(|pod| pods.contains(pod.as_str()))
        };
        let pod = self.newest_pod(namespace, pods);
        let accepts = |node: &&NodeSpace| pod.is_none_or(|pod| node.accepts(pod));
        let accepting = || self.nodes.iter().filter(accepts);
        let left: Vec<PodRequests> = accepting().map(|node| node.left_for(namespace, owner)).collect();
        // Without the list of pods, what they leave is unknown.
        let is_known = !self.pods.is_empty();
        let is_asked = |node: &&NodeSpace| !rollout.on_every_node || node.has_pod_of(namespace, owner);
        let room = accepting().filter(|node| is_known && is_asked(node)).map(|node| node.free).collect();
        ClusterLimits {
            ranges: self.limit_ranges.iter().filter_map(own).collect(),
            quotas: self.quotas.iter().filter_map(own_quota).collect(),
            targets: self.autoscalers.iter().filter(scales).flat_map(|it| it.targets.clone()).collect(),
            nodes: left,
            exhausted_budgets: self.budgets.iter().filter(holds).map(|budget| budget.name.clone()).collect(),
            replicas,
            rollout,
            room,
        }
    }
}

/// Lists all constraints concurrently. Missing permissions are reported in `missing`; kinds that the cluster does not have are
/// treated as empty.
pub(super) async fn gather(
    client: &Client,
    pods: Result<&ListedPods, &ClusterError>,
    nodes: Result<&[ListedNode], &ClusterError>,
) -> ClusterConstraints {
    let (ranges, quotas, autoscalers, verticals, scaled, budgets) = join!(
        list::<LimitRangeObject>(client, "limitranges"),
        list::<ResourceQuota>(client, "resourcequotas"),
        list::<HorizontalPodAutoscaler>(client, "horizontalpodautoscalers"),
        list_custom(client, "autoscaling.k8s.io", "v1", "VerticalPodAutoscaler"),
        list_custom(client, "keda.sh", "v1alpha1", "ScaledObject"),
        list::<PodDisruptionBudget>(client, "poddisruptionbudgets"),
    );
    let (pods, nodes) = (known(pods.map(|pods| pods.live.as_slice())), known(nodes));
    let errors = [ranges.1, quotas.1, autoscalers.1, nodes.1, verticals.1, scaled.1, budgets.1, pods.1];
    let objects = Objects {
        ranges: ranges.0,
        quotas: quotas.0,
        autoscalers: autoscalers.0,
        nodes: nodes.0,
        verticals: verticals.0,
        scaled: scaled.0,
        budgets: budgets.0,
        pods: pods.0,
    };
    ClusterConstraints { missing: errors.into_iter().flatten().collect(), ..objects.into() }
}

/// The objects as they are listed.
struct Objects {
    ranges: Vec<LimitRangeObject>,
    quotas: Vec<ResourceQuota>,
    autoscalers: Vec<HorizontalPodAutoscaler>,
    nodes: Vec<ListedNode>,
    verticals: Vec<DynamicObject>,
    scaled: Vec<DynamicObject>,
    budgets: Vec<PodDisruptionBudget>,
    pods: Vec<LivePod>,
}

impl From<Objects> for ClusterConstraints {
    fn from(objects: Objects) -> Self {
        let Objects { ranges, quotas, autoscalers, nodes, verticals, scaled, budgets, pods } = objects;
        let mut limit_ranges: Vec<(String, LimitRange)> =
            ranges.iter().flat_map(rules::limit_ranges).collect();
        // The first default counts. The API server has no order of its own.
        limit_ranges.sort_by(|one, other| (&one.0, &one.1.name).cmp(&(&other.0, &other.1.name)));
        let managed = verticals.iter().filter_map(managed::by_vertical_autoscaler);
        Self {
            limit_ranges,
            quotas: quotas.iter().filter_map(rules::quota).collect(),
            autoscalers: autoscalers.iter().filter_map(rules::autoscaler).collect(),
            budgets: budgets.iter().map(|budget| budgets::disruption_budget(budget, &pods)).collect(),
            managed: managed.chain(scaled.iter().filter_map(managed::by_keda)).collect(),
            nodes: nodes::spaces(&nodes, &pods),
            pods,
            missing: Vec::new(),
        }
    }
}

/// What was listed before.
fn known<T: Clone>(listed: Result<&[T], &ClusterError>) -> Listed<T> {
    match listed {
        Ok(items) => (items.to_vec(), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    }
}

/// Items, and an error if they could not be listed.
type Listed<T> = (Vec<T>, Option<String>);

fn listed<T>(what: &str, response: Result<Vec<T>, kube::Error>) -> Listed<T> {
    match response {
        Ok(items) => (items, None),
        // A cluster without that kind has none of it.
        Err(kube::Error::Api(status)) if status.code == 404 => (Vec::new(), None),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            (Vec::new(), Some(format!("no permission to list {what} in all namespaces")))
        }
        Err(error) => (Vec::new(), Some(format!("cannot list {what}: {}", api_error(&error)))),
    }
}

async fn list<K>(client: &Client, what: &str) -> Listed<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let response = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    listed(what, response.map(|list| list.items))
}

async fn list_custom(client: &Client, group: &str, version: &str, kind: &str) -> Listed<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let response =
        Api::<DynamicObject>::all_with(client.clone(), &resource).list(&ListParams::default()).await;
    listed(&resource.plural, response.map(|list| list.items))
}

#[cfg(test)]
mod tests;
