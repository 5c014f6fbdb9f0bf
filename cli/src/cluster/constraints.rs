//! The objects of a cluster that constrain recommendations: rules and headroom of namespaces, nodes, and autoscalers.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::join;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, ResourceMetricSource},
        core::v1::{LimitRange as LimitRangeObject, Node, Pod, ResourceQuota},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::api::resource::Quantity as Amount,
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
    core::{Selector, SelectorExt as _},
};
use serde::de::DeserializeOwned;
use snug_sizing::{constraints::LimitRange, pod::PodRequests, quantity::Quantity};

/// The constraints of a cluster. A list that could not be read is empty, and `missing` has the reason.
#[derive(Clone, Debug, Default)]
pub struct ClusterConstraints {
    /// `LimitRange`s of containers, by namespace.
    pub limit_ranges: Vec<(String, LimitRange)>,
    /// Headroom of `ResourceQuota`s.
    pub quotas: Vec<QuotaHeadroom>,
    /// `HorizontalPodAutoscaler`s that scale on the utilization of a request.
    pub autoscalers: Vec<Autoscaler>,
    /// `PodDisruptionBudget`s, with the pods that they select.
    pub budgets: Vec<DisruptionBudget>,
    /// Workloads that a VerticalPodAutoscaler sizes or KEDA scales.
    pub managed: Vec<ManagedWorkload>,
    /// Allocatable of the largest node, of each resource on its own.
    pub largest_node: Option<PodRequests>,
    /// Errors of lists that could not be read.
    pub missing: Vec<String>,
}

/// `hard` minus `used` of a `ResourceQuota` for requests; `None` if it does not limit a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaHeadroom {
    pub namespace: String,
    pub name: String,
    pub cpu_left: Option<u64>,
    pub memory_left: Option<u64>,
}

/// A `HorizontalPodAutoscaler` with a target for the utilization of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoscaler {
    pub namespace: String,
    pub name: String,
    /// Kind and name of `scaleTargetRef`.
    pub target: (String, String),
    /// `averageUtilization` of CPU, percent.
    pub cpu: Option<u32>,
    /// `averageUtilization` of memory, percent.
    pub memory: Option<u32>,
}

/// A `PodDisruptionBudget`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisruptionBudget {
    pub namespace: String,
    /// `disruptionsAllowed`.
    pub allowed: u64,
    /// Names of the pods that it selects.
    pub pods: BTreeSet<String>,
}

/// A workload that a VerticalPodAutoscaler sizes or KEDA scales.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedWorkload {
    pub namespace: String,
    /// Kind and name of the workload.
    pub target: (String, String),
    /// Kind and name of that object.
    pub by: (&'static str, String),
}

/// Lists all constraints concurrently. Missing permissions are reported in `missing`; kinds that the cluster does not have are
/// treated as empty.
pub(super) async fn gather(client: &Client) -> ClusterConstraints {
    let (ranges, quotas, autoscalers, nodes, verticals, scaled) = join!(
        list::<LimitRangeObject>(client, "limitranges"),
        list::<ResourceQuota>(client, "resourcequotas"),
        list::<HorizontalPodAutoscaler>(client, "horizontalpodautoscalers"),
        list_nodes(client),
        list_custom(client, "autoscaling.k8s.io", "v1", "VerticalPodAutoscaler"),
        list_custom(client, "keda.sh", "v1alpha1", "ScaledObject"),
    );
    let (budgets, pods) =
        join!(list::<PodDisruptionBudget>(client, "poddisruptionbudgets"), pod_labels(client));
    let mut missing = Vec::new();
    let mut or_missing = |error: Option<String>| missing.extend(error);
    or_missing(ranges.1);
    or_missing(quotas.1);
    or_missing(autoscalers.1);
    or_missing(nodes.1);
    or_missing(verticals.1);
    or_missing(scaled.1);
    or_missing(budgets.1);
    or_missing(pods.1);
    let managed =
        verticals.0.iter().filter_map(|object| managed(object, "VerticalPodAutoscaler", "targetRef"));
    let scaled = scaled.0.iter().filter_map(managed_by_keda);
    ClusterConstraints {
        limit_ranges: ranges.0.iter().flat_map(limit_ranges).collect(),
        quotas: quotas.0.iter().filter_map(quota).collect(),
        autoscalers: autoscalers.0.iter().filter_map(autoscaler).collect(),
        budgets: budgets.0.iter().map(|budget| disruption_budget(budget, &pods.0)).collect(),
        managed: managed.chain(scaled).collect(),
        largest_node: largest(&nodes.0),
        missing,
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
        Err(error) => (Vec::new(), Some(format!("{what}: {error}"))),
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

async fn list_nodes(client: &Client) -> Listed<Node> {
    let response = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    listed("nodes", response.map(|list| list.items))
}

async fn list_custom(client: &Client, group: &str, version: &str, kind: &str) -> Listed<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let response =
        Api::<DynamicObject>::all_with(client.clone(), &resource).list(&ListParams::default()).await;
    listed(&resource.plural, response.map(|list| list.items))
}

/// Namespace, name and labels of a pod.
type Labelled = (String, String, BTreeMap<String, String>);

async fn pod_labels(client: &Client) -> Listed<Labelled> {
    let response = Api::<Pod>::all(client.clone()).list_metadata(&ListParams::default()).await;
    let of_pod = |metadata: kube::core::ObjectMeta| {
        (
            metadata.namespace.unwrap_or_default(),
            metadata.name.unwrap_or_default(),
            metadata.labels.unwrap_or_default(),
        )
    };
    listed("pods", response.map(|list| list.items.into_iter().map(|pod| of_pod(pod.metadata)).collect()))
}

type Amounts = Option<BTreeMap<String, Amount>>;

fn quantity(amounts: &Amounts, name: &str) -> Option<Quantity> {
    amounts.as_ref()?.get(name)?.0.parse().ok()
}

pub(super) fn millicores(amounts: &Amounts, name: &str) -> Option<u64> {
    u64::try_from(quantity(amounts, name)?.millis()).ok()
}

pub(super) fn bytes(amounts: &Amounts, name: &str) -> Option<u64> {
    u64::try_from(quantity(amounts, name)?.value()).ok()
}

fn ratio(amounts: &Amounts, name: &str) -> Option<f64> {
    Some(quantity(amounts, name)?.millis() as f64 / 1000.0)
}

fn limit_ranges(object: &LimitRangeObject) -> Vec<(String, LimitRange)> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let items = object.spec.iter().flat_map(|spec| &spec.limits).filter(|item| item.type_ == "Container");
    let rule = |amounts: &Amounts| (millicores(amounts, "cpu"), bytes(amounts, "memory"));
    items
        .map(|item| {
            let most = &item.max_limit_request_ratio;
            let range = LimitRange {
                min: rule(&item.min),
                max: rule(&item.max),
                ratio: (ratio(most, "cpu"), ratio(most, "memory")),
            };
            (namespace.clone(), range)
        })
        .collect()
}

fn quota(object: &ResourceQuota) -> Option<QuotaHeadroom> {
    let status = object.status.as_ref()?;
    // `cpu` and `requests.cpu` mean the same; so do the names of memory.
    let left = |names: [&str; 2], of: fn(&Amounts, &str) -> Option<u64>| {
        let each = names.into_iter().filter_map(|name| {
            Some(of(&status.hard, name)?.saturating_sub(of(&status.used, name).unwrap_or(0)))
        });
        each.min()
    };
    let quota = QuotaHeadroom {
        namespace: object.metadata.namespace.clone()?,
        name: object.metadata.name.clone()?,
        cpu_left: left(["requests.cpu", "cpu"], millicores),
        memory_left: left(["requests.memory", "memory"], bytes),
    };
    (quota.cpu_left.is_some() || quota.memory_left.is_some()).then_some(quota)
}

fn autoscaler(object: &HorizontalPodAutoscaler) -> Option<Autoscaler> {
    let spec = object.spec.as_ref()?;
    let share = |wanted: &str| {
        let of_resource = |metric: &MetricSpec| {
            let ResourceMetricSource { name, target } = metric.resource.as_ref()?;
            (name == wanted).then(|| u32::try_from(target.average_utilization?).ok())?
        };
        spec.metrics.iter().flatten().find_map(of_resource)
    };
    let autoscaler = Autoscaler {
        namespace: object.metadata.namespace.clone()?,
        name: object.metadata.name.clone()?,
        target: (spec.scale_target_ref.kind.clone(), spec.scale_target_ref.name.clone()),
        cpu: share("cpu"),
        memory: share("memory"),
    };
    (autoscaler.cpu.is_some() || autoscaler.memory.is_some()).then_some(autoscaler)
}

fn disruption_budget(object: &PodDisruptionBudget, pods: &[Labelled]) -> DisruptionBudget {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let allowed = object.status.as_ref().map_or(0, |status| status.disruptions_allowed);
    let selector = object.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector: Option<Selector> = selector.and_then(|selector| selector.try_into().ok());
    let is_selected = |(of, _, labels): &&Labelled| {
        *of == namespace && selector.as_ref().is_some_and(|selector| selector.matches(labels))
    };
    let pods = pods.iter().filter(is_selected).map(|(_, name, _)| name.clone()).collect();
    DisruptionBudget { pods, allowed: u64::try_from(allowed).unwrap_or(0), namespace }
}

fn managed(object: &DynamicObject, kind: &'static str, field: &str) -> Option<ManagedWorkload> {
    let target = &object.data["spec"][field];
    let text = |name: &str| target[name].as_str().map(str::to_owned);
    Some(ManagedWorkload {
        namespace: object.metadata.namespace.clone()?,
        // KEDA's default is a Deployment.
        target: (text("kind").unwrap_or_else(|| "Deployment".to_owned()), text("name")?),
        by: (kind, object.metadata.name.clone()?),
    })
}

fn managed_by_keda(object: &DynamicObject) -> Option<ManagedWorkload> {
    managed(object, "ScaledObject", "scaleTargetRef")
}

/// Allocatable CPU and memory of a node.
pub(super) fn allocatable(node: &Node) -> Option<PodRequests> {
    let amounts = &node.status.as_ref()?.allocatable;
    Some(PodRequests { cpu: millicores(amounts, "cpu")?, memory: bytes(amounts, "memory")? })
}

fn largest(nodes: &[Node]) -> Option<PodRequests> {
    let schedulable =
        |node: &&Node| !node.spec.as_ref().is_some_and(|spec| spec.unschedulable.unwrap_or_default());
    nodes.iter().filter(schedulable).filter_map(allocatable).reduce(PodRequests::max)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object<K: DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn limit_ranges_are_those_of_containers() {
        let ranges = limit_ranges(&object(json!({
            "metadata": { "name": "limits", "namespace": "shop" },
            "spec": { "limits": [
                { "type": "Pod", "max": { "cpu": "4" } },
                {
                    "type": "Container", "min": { "cpu": "50m", "memory": "16Mi" }, "max": { "memory": "1Gi" },
                    "maxLimitRequestRatio": { "cpu": "2.5" },
                },
            ] },
        })));
        let rule = LimitRange {
            min: (Some(50), Some(16 << 20)),
            max: (None, Some(1 << 30)),
            ratio: (Some(2.5), None),
        };
        assert_eq!(ranges, [("shop".to_owned(), rule)]);
    }

    #[test]
    fn quota_headroom_is_the_lowest_of_both_spellings() {
        let status = json!({
            "hard": { "requests.cpu": "4", "cpu": "3", "pods": "10" }, "used": { "requests.cpu": "1500m", "cpu": "1500m" },
        });
        let left =
            quota(&object(json!({ "metadata": { "name": "q", "namespace": "shop" }, "status": status })));
        let expected = QuotaHeadroom {
            namespace: "shop".to_owned(),
            name: "q".to_owned(),
            cpu_left: Some(1500),
            memory_left: None,
        };
        assert_eq!(left, Some(expected));
        let of_pods = json!({ "metadata": { "name": "q", "namespace": "shop" }, "status": { "hard": { "pods": "1" } } });
        assert_eq!(quota(&object(of_pods)), None);
    }

    #[test]
    fn autoscalers_need_a_utilization_target() {
        let with = |metrics: Value| {
            autoscaler(&object(json!({
                "metadata": { "name": "web", "namespace": "shop" },
                "spec": {
                    "maxReplicas": 9, "metrics": metrics,
                    "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
                },
            })))
        };
        let resource =
            |target: Value| json!([{ "type": "Resource", "resource": { "name": "cpu", "target": target } }]);
        let found = with(resource(json!({ "type": "Utilization", "averageUtilization": 80 }))).unwrap();
        assert_eq!((found.target.1.as_str(), found.cpu, found.memory), ("web", Some(80), None));
        assert_eq!(with(resource(json!({ "type": "AverageValue", "averageValue": "100m" }))), None);
        assert_eq!(with(json!([])), None);
    }

    #[test]
    fn disruption_budgets_select_pods() {
        let budget = object(json!({
            "metadata": { "name": "b", "namespace": "shop" },
            "spec": { "selector": {
                "matchLabels": { "app": "web" },
                "matchExpressions": [{ "key": "track", "operator": "NotIn", "values": ["canary"] }],
            } },
            "status": { "currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1 },
        }));
        let pod = |namespace: &str, name: &str, labels: &[(&str, &str)]| -> Labelled {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            (namespace.to_owned(), name.to_owned(), labels.collect())
        };
        let pods = [
            pod("shop", "held", &[("app", "web")]),
            pod("shop", "canary", &[("app", "web"), ("track", "canary")]),
            pod("other", "elsewhere", &[("app", "web")]),
        ];
        let held = disruption_budget(&budget, &pods);
        assert_eq!((held.allowed, held.pods), (0, BTreeSet::from(["held".to_owned()])));
    }

    #[test]
    fn managed_workloads_have_a_target() {
        let vertical: DynamicObject = object(json!({
            "apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
            "metadata": { "name": "v", "namespace": "shop" },
            "spec": { "targetRef": { "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db" } },
        }));
        let found = managed(&vertical, "VerticalPodAutoscaler", "targetRef").unwrap();
        assert_eq!(found.target, ("StatefulSet".to_owned(), "db".to_owned()));
        let scaled: DynamicObject = object(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": { "name": "s", "namespace": "shop" },
            "spec": { "scaleTargetRef": { "name": "web" } },
        }));
        assert_eq!(managed_by_keda(&scaled).unwrap().target, ("Deployment".to_owned(), "web".to_owned()));
    }

    #[test]
    fn the_largest_node_is_schedulable() {
        let node = |cpu: &str, memory: &str, unschedulable: bool| -> Node {
            object(json!({
                "spec": { "unschedulable": unschedulable },
                "status": { "allocatable": { "cpu": cpu, "memory": memory } },
            }))
        };
        let nodes = [node("2", "4Gi", false), node("1900m", "8Gi", false), node("64", "512Gi", true)];
        assert_eq!(largest(&nodes), Some(PodRequests { cpu: 2000, memory: 8 << 30 }));
        assert_eq!(largest(&[]), None);
    }
}
