use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use snug_sizing::constraints::{
    LimitBounds, LimitType, PriorityClasses, QuotaField, Resource as Amount, Scope,
};

use super::*;

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

impl ClusterConstraints {
    /// From lists of objects by the plural of their kind.
    pub(crate) fn from_objects(objects: &Value) -> Self {
        fn list<K: DeserializeOwned>(objects: &Value, kind: &str) -> Vec<K> {
            objects[kind].as_array().into_iter().flatten().cloned().map(object).collect()
        }
        let mut pods = ListedPods::default();
        list::<Pod>(objects, "pods").into_iter().for_each(|pod| pods.add(pod));
        let nodes = list::<Node>(objects, "nodes").into_iter().map(ListedNode::from);
        Objects {
            ranges: list(objects, "limitranges"),
            quotas: list(objects, "resourcequotas"),
            autoscalers: list(objects, "horizontalpodautoscalers"),
            nodes: nodes.collect(),
            verticals: list(objects, "verticalpodautoscalers"),
            scaled: list(objects, "scaledobjects"),
            budgets: list(objects, "poddisruptionbudgets"),
            pods: pods.live,
        }
        .into()
    }
}

#[test]
fn limit_ranges_are_those_of_containers_and_pods() {
    let ranges = rules::limit_ranges(&object(json!({
        "metadata": { "name": "limits", "namespace": "shop" },
        "spec": { "limits": [
            { "type": "Pod", "max": { "cpu": "4" } },
            { "type": "PersistentVolumeClaim", "min": { "storage": "1Gi" } },
            {
                "type": "Container", "min": { "cpu": "50m", "memory": "16Mi" }, "max": { "memory": "1Gi" },
                "default": { "cpu": "1" }, "defaultRequest": { "cpu": "100m" }, "maxLimitRequestRatio": { "cpu": "2.5" },
            },
        ] },
    })));
    let range = |limit_type, cpu, memory| {
        ("shop".to_owned(), LimitRange { name: "limits".to_owned(), limit_type, cpu, memory })
    };
    let none = LimitBounds::default();
    let of_pods = range(LimitType::Pod, LimitBounds { max: Some(4000), ..none }, none);
    let cpu = LimitBounds {
        min: Some(50),
        default: Some(1000),
        default_request: Some(100),
        ratio: Some(2.5),
        max: None,
    };
    let memory = LimitBounds { min: Some(16 << 20), max: Some(1 << 30), ..none };
    assert_eq!(ranges, [of_pods, range(LimitType::Container, cpu, memory)]);
}

#[test]
fn quotas_count_requests_and_limits_of_pods_in_their_scopes() {
    let with = |spec: Value, status: Value| {
        let metadata = json!({ "name": "q", "namespace": "shop" });
        rules::quota(&object(json!({ "metadata": metadata, "spec": spec, "status": status })))
    };
    let field = |resource, is_limit, left| QuotaField { resource, is_limit, left };
    let (_, both) = with(
        json!({}),
        json!({
            "hard": { "requests.cpu": "4", "cpu": "3", "limits.memory": "1Gi", "pods": "10" },
            "used": { "requests.cpu": "1500m", "cpu": "1500m", "limits.memory": "2Gi" },
        }),
    )
    .unwrap();
    let expected = [field(Amount::Cpu, false, Some(1500)), field(Amount::Memory, true, Some(0))];
    assert_eq!(both.fields, expected, "`cpu` and `requests.cpu` mean the same: the lower one counts");
    assert_eq!(with(json!({}), json!({ "hard": { "pods": "1" } })), None);
    let (_, new) = with(json!({ "hard": { "limits.cpu": "1" } }), json!({})).unwrap();
    assert_eq!(new.fields, [field(Amount::Cpu, true, None)], "its usage was not counted yet");

    let scopes = |spec: Value| {
        with(spec, json!({ "hard": { "cpu": "1" }, "used": {} })).map(|(_, quota)| quota.scopes)
    };
    assert_eq!(
        scopes(json!({ "scopes": ["NotTerminating", "NotBestEffort"] })),
        Some(vec![Scope::NotTerminating, Scope::NotBestEffort])
    );
    let selector = |operator: &str, values: &[&str]| {
        let expression = json!({ "scopeName": "PriorityClass", "operator": operator, "values": values });
        scopes(json!({ "scopeSelector": { "matchExpressions": [expression] } }))
    };
    let classes = |classes| Some(vec![Scope::PriorityClass(classes)]);
    assert_eq!(selector("In", &["batch"]), classes(PriorityClasses::In(vec!["batch".to_owned()])));
    assert_eq!(selector("NotIn", &["batch"]), classes(PriorityClasses::NotIn(vec!["batch".to_owned()])));
    assert_eq!(selector("Exists", &[]), classes(PriorityClasses::Exists));
    assert_eq!(selector("DoesNotExist", &[]), classes(PriorityClasses::DoesNotExist));
    assert_eq!(scopes(json!({ "scopes": ["VolumeAttributesClass"] })), Some(vec![Scope::NoPods]));
}

#[test]
fn autoscalers_need_a_utilization_target() {
    let with = |metrics: Value| {
        rules::autoscaler(&object(json!({
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": {
                "maxReplicas": 9, "metrics": metrics,
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
            },
        })))
    };
    let target = json!({ "type": "Utilization", "averageUtilization": 80 });
    let found = with(json!([
        { "type": "Resource", "resource": { "name": "cpu", "target": target } },
        { "type": "ContainerResource", "containerResource": { "name": "memory", "container": "app", "target": target } },
    ]))
    .unwrap();
    let targets: Vec<_> =
        found.targets.iter().map(|it| (it.container.as_deref(), it.resource, it.percent)).collect();
    assert_eq!(targets, [(None, Amount::Cpu, 80), (Some("app"), Amount::Memory, 80)]);
    let value = json!({ "type": "AverageValue", "averageValue": "100m" });
    assert_eq!(with(json!([{ "type": "Resource", "resource": { "name": "cpu", "target": value } }])), None);
    assert_eq!(with(json!([])), None);
}

#[test]
fn disruption_budgets_select_pods() {
    let spec = json!({ "selector": {
        "matchLabels": { "app": "web" },
        "matchExpressions": [{ "key": "track", "operator": "NotIn", "values": ["canary"] }],
    } });
    let status =
        json!({ "currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1 });
    let pod = |namespace: &str, name: &str, labels: Value| json!({ "metadata": { "name": name, "namespace": namespace, "labels": labels } });
    let constraints = |status: Value| {
        ClusterConstraints::from_objects(&json!({
            "poddisruptionbudgets": [{ "metadata": { "name": "b", "namespace": "shop" }, "spec": spec, "status": status }],
            "pods": [
                pod("shop", "held", json!({ "app": "web" })),
                pod("shop", "canary", json!({ "app": "web", "track": "canary" })),
                pod("other", "elsewhere", json!({ "app": "web" })),
            ],
        }))
    };
    let [held] = &constraints(status.clone()).budgets[..] else { panic!("one budget") };
    assert_eq!((held.allowed, &held.pods), (Some(0), &BTreeSet::from(["held".to_owned()])));
    let exhausted = |constraints: ClusterConstraints, pod: &str| {
        let owner = ("Deployment".to_owned(), "web".to_owned());
        constraints.limits("shop", &owner, &BTreeSet::from([pod]), (1, Rollout::default())).exhausted_budgets
    };
    assert_eq!(exhausted(constraints(status.clone()), "held"), ["b"]);
    assert_eq!(exhausted(constraints(status), "canary"), [""; 0]);
    assert_eq!(exhausted(constraints(Value::Null), "held"), [""; 0], "it was not computed yet");
}

#[test]
fn vertical_autoscalers_that_only_recommend_are_no_conflict() {
    let managed = |spec: Value| {
        let mut spec = spec;
        spec["targetRef"] = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db" });
        managed::by_vertical_autoscaler(&object(json!({
            "apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
            "metadata": { "name": "v", "namespace": "shop" }, "spec": spec,
        })))
    };
    let always = managed(json!({})).unwrap();
    assert_eq!(always.target, ("StatefulSet".to_owned(), "db".to_owned()));
    assert!(always.manages("any"));
    assert_eq!(managed(json!({ "updatePolicy": { "updateMode": "Off" } })), None);
    for mode in ["Initial", "Recreate", "InPlaceOrRecreate", "Auto"] {
        assert!(managed(json!({ "updatePolicy": { "updateMode": mode } })).is_some(), "{mode}");
    }
    let off = |name: &str| json!({ "containerName": name, "mode": "Off" });
    assert_eq!(managed(json!({ "resourcePolicy": { "containerPolicies": [off("*")] } })), None);
    let on = json!({ "containerName": "app", "mode": "Auto" });
    let one = managed(json!({ "resourcePolicy": { "containerPolicies": [off("*"), on] } })).unwrap();
    assert!(one.manages("app") && !one.manages("proxy"));
    let others = managed(json!({ "resourcePolicy": { "containerPolicies": [off("proxy")] } })).unwrap();
    assert!(others.manages("app") && !others.manages("proxy"));
}

#[test]
fn keda_matters_where_it_scales_by_usage() {
    let managed = |triggers: Value| {
        managed::by_keda(&object(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": { "name": "s", "namespace": "shop" },
            "spec": { "scaleTargetRef": { "name": "web" }, "triggers": triggers },
        })))
    };
    let target = Some(("Deployment".to_owned(), "web".to_owned()));
    assert_eq!(managed(json!([{ "type": "kafka" }, { "type": "cpu" }])).map(|it| it.target), target);
    assert_eq!(managed(json!([{ "type": "kafka" }])), None, "requests make no difference");
}

#[test]
fn a_node_has_what_its_daemon_sets_leave() {
    let node = |name: &str, spec: Value| {
        json!({
            "metadata": { "name": name, "labels": { "disk": "ssd" } }, "spec": spec,
            "status": { "allocatable": { "cpu": "4", "memory": "8Gi" } },
        })
    };
    let pod = |name: &str, owner: &str, phase: &str, resources: Value| {
        json!({
            "metadata": {
                "name": name, "namespace": "system",
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": owner, "name": "log", "uid": "1" }],
            },
            "spec": { "nodeName": "a", "containers": [{ "name": "c", "resources": resources }] },
            "status": { "phase": phase },
        })
    };
    let requests = json!({ "requests": { "cpu": "500m", "memory": "1Gi" } });
    let gpu = json!({ "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }] });
    let constraints = ClusterConstraints::from_objects(&json!({
        "nodes": [node("a", json!({})), node("closed", json!({ "unschedulable": true })), node("gpu", gpu)],
        "pods": [
            pod("log-1", "DaemonSet", "Running", requests.clone()),
            pod("log-0", "DaemonSet", "Failed", requests.clone()),
            pod("web-1", "ReplicaSet", "Running", requests),
        ],
    }));
    let left = |owner: &str, name: &str, pod: &str| {
        let owner = (owner.to_owned(), name.to_owned());
        constraints.limits("system", &owner, &BTreeSet::from([pod]), (1, Rollout::default())).nodes
    };
    let node = |cpu, gib: u64| PodRequests { cpu, memory: gib << 30 };
    assert_eq!(left("Deployment", "web", "web-1"), [node(3500, 7)], "the tainted node is not for it");
    assert_eq!(left("DaemonSet", "log", "log-1"), [node(4000, 8)], "its own pods are replaced");
    assert_eq!(left("Deployment", "unknown", "gone"), [node(3500, 7), node(4000, 8)]);
    let mut tolerant = constraints.pods[0].clone();
    tolerant.tolerations = vec![object(json!({ "key": "gpu", "operator": "Exists" }))];
    assert!(constraints.nodes.iter().all(|node| node.accepts(&tolerant)));
    tolerant.node_selector.insert("disk".to_owned(), "hdd".to_owned());
    assert!(!constraints.nodes.iter().any(|node| node.accepts(&tolerant)));
}

#[test]
fn a_pod_has_what_constraints_apply_to() {
    let pod = crate::cluster::live_pod::live_pod(object(json!({
        "metadata": { "name": "p", "namespace": "shop", "creationTimestamp": "2026-11-30T00:00:00Z" },
        "spec": {
            "priorityClassName": "batch", "activeDeadlineSeconds": 60, "overhead": { "cpu": "50m" },
            "resources": { "requests": { "cpu": "2" } },
            "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                { "topologyKey": "zone", "namespaces": ["other"] },
            ] } },
            "initContainers": [{ "name": "mesh", "restartPolicy": "Always" }, { "name": "setup" }],
            "containers": [{ "name": "app", "resources": { "requests": { "cpu": "1", "memory": "1Gi" } } }],
        },
    })));
    let roles: Vec<_> = pod.spec.containers.iter().map(|it| (it.name.as_str(), it.role)).collect();
    use snug_sizing::workload::Role;
    assert_eq!(roles, [("mesh", Role::Sidecar), ("setup", Role::Init), ("app", Role::App)]);
    assert_eq!((pod.spec.priority_class.as_str(), pod.spec.has_deadline), ("batch", true));
    assert!(pod.spec.has_cross_namespace_affinity && pod.created > 0);
    assert_eq!(pod.requests(), PodRequests { cpu: 2050, memory: 1 << 30 }, "its own CPU request counts");
}
