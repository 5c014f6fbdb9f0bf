//! The objects that recommendations are applied to: pod templates, who manages them, bare pods, and which pods run.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodSpec;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::Value;
use snug_sizing::{constraints::Rollout, workload::Role};

use super::{
    ClusterError, api_error,
    bare_pod::{BarePod, containers, version},
    listed::{ListedNode, ListedPods},
    managers::Manager,
};

/// Objects per page of a list.
const PAGE: u32 = 500;
/// Pages per kind: 100,000 objects.
const MAX_PAGES: usize = 200;

/// Kinds with a pod template, with their API groups.
pub const TEMPLATED: [(&str, &str); 5] = [
    ("Deployment", "apps"),
    ("StatefulSet", "apps"),
    ("DaemonSet", "apps"),
    ("ReplicaSet", "apps"),
    ("CronJob", "batch"),
];

/// Namespace, kind and name of a workload.
pub(super) type WorkloadName = [String; 3];

/// The objects of the workloads that have recommendations. What could not be read is absent, and `missing` has the reason.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkloadObjects {
    /// Objects with a pod template.
    pub templates: BTreeMap<WorkloadName, Template>,
    /// Kinds of which all objects are in `templates`.
    pub listed: BTreeSet<String>,
    /// Namespaces and names of pods that run; `None` if they are unknown.
    pub running: Option<BTreeSet<(String, String)>>,
    /// Bare pods by namespace and name.
    pub bare_pods: BTreeMap<(String, String), BarePod>,
    /// Errors of lists that could not be read.
    pub missing: Vec<String>,
}

/// A pod template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pub containers: BTreeMap<String, Role>,
    /// Who would revert a change of the object.
    pub manager: Option<Manager>,
    /// How its pods are replaced.
    pub rollout: Rollout,
}

/// What recommendations need to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectsQuery {
    /// Kinds of the workloads.
    pub kinds: BTreeSet<String>,
    /// Namespaces and names of bare pods.
    pub bare_pods: BTreeSet<(String, String)>,
}

/// Reads what a query needs, beside the pods and nodes that are listed already.
pub(super) async fn gather(
    client: &Client,
    query: &ObjectsQuery,
    pods: Result<&ListedPods, &ClusterError>,
    nodes: &[ListedNode],
) -> WorkloadObjects {
    let mut objects = WorkloadObjects::default();
    for (kind, group) in TEMPLATED.into_iter().filter(|(kind, _)| query.kinds.contains(*kind)) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
        match list(&api, &mut objects.templates, kind).await {
            Ok(true) => drop(objects.listed.insert(kind.to_owned())),
            Ok(false) => {
                objects.missing.push(format!("more than {} {}", MAX_PAGES * PAGE as usize, resource.plural));
            }
            Err(error) => objects.missing.push(reason(&resource.plural, &error)),
        }
    }
    let pods = match pods {
        Ok(pods) => pods,
        Err(error) => {
            objects.missing.push(error.to_string());
            return objects;
        }
    };
    objects.running = Some(pods.running.clone());
    if !query.bare_pods.is_empty() {
        let server = client.apiserver_version().await.ok().and_then(|it| version(&it.major, &it.minor));
        let with_version = |name: &(String, String)| {
            let (node, pod) = pods.bare.get(name)?;
            let kubelet = nodes.iter().find(|it| it.name == *node).and_then(|it| it.version);
            // Both take part in a resize; kubelets may be older.
            let version = server.into_iter().chain(kubelet).min();
            Some((name.clone(), BarePod { version, ..pod.clone() }))
        };
        objects.bare_pods = query.bare_pods.iter().filter_map(with_version).collect();
    }
    objects
}

/// Lists all objects of a kind; `false` if there are too many.
async fn list(
    api: &Api<DynamicObject>,
    into: &mut BTreeMap<WorkloadName, Template>,
    kind: &str,
) -> Result<bool, kube::Error> {
    let mut parameters = ListParams::default().limit(PAGE);
    for _ in 0..MAX_PAGES {
        let page = api.list(&parameters).await?;
        into.extend(page.items.iter().filter_map(|object| template(object, kind)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(true),
        }
    }
    Ok(false)
}

fn reason(what: &str, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            format!("no permission to list {what} in all namespaces")
        }
        error => format!("cannot list {what}: {}", api_error(error)),
    }
}

/// The template of an object that has one; `None` without names, or for what a Deployment made.
fn template(object: &DynamicObject, kind: &str) -> Option<(WorkloadName, Template)> {
    let template = match kind {
        "CronJob" => &object.data["spec"]["jobTemplate"]["spec"]["template"],
        _ => &object.data["spec"]["template"],
    };
    let spec: PodSpec = serde_json::from_value(template["spec"].clone()).ok()?;
    let containers = containers(&spec).map(|(container, role)| (container.name.clone(), role)).collect();
    let name = [object.namespace().unwrap_or_default(), kind.to_owned(), object.name_any()];
    let rollout = rollout(&object.data, kind);
    Some((name, Template { containers, manager: Manager::of(&object.metadata), rollout }))
}

/// How the pods of an object are replaced. Sources of the defaults and of rounding: `SetDefaults_Deployment`,
/// `SetDefaults_DaemonSet` and `ResolveFenceposts` (kubernetes/pkg/apis/apps/v1/defaults.go,
/// kubernetes/pkg/controller/deployment/util/deployment_util.go).
fn rollout(object: &Value, kind: &str) -> Rollout {
    let spec = &object["spec"];
    let number = |value: &Value, of: u64, rounds_up: bool| {
        let text = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<u64>().ok());
        let percent = |percent: u64| {
            let hundredths = of.saturating_mul(percent);
            if rounds_up { hundredths.div_ceil(100) } else { hundredths / 100 }
        };
        value.as_u64().or_else(|| text.map(percent))
    };
    match kind {
        "Deployment" if spec["strategy"]["type"] != "Recreate" => {
            let (update, replicas) =
                (&spec["strategy"]["rollingUpdate"], spec["replicas"].as_u64().unwrap_or(1));
            let default = Value::from("25%");
            let or_default = |value: &Value| if value.is_null() { default.clone() } else { value.clone() };
            let surge = number(&or_default(&update["maxSurge"]), replicas, true).unwrap_or(0);
            let unavailable = number(&or_default(&update["maxUnavailable"]), replicas, false).unwrap_or(0);
            // Both cannot be 0: nothing would move.
            let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
            Rollout { surge: surge.min(replicas), unavailable, on_every_node: false }
        }
        "DaemonSet" if spec["updateStrategy"]["type"] != "OnDelete" => {
            let update = &spec["updateStrategy"]["rollingUpdate"];
            let pods = object["status"]["desiredNumberScheduled"].as_u64().unwrap_or(1);
            let surge = number(&update["maxSurge"], pods, true).unwrap_or(0);
            let unavailable = number(&update["maxUnavailable"], pods, true).unwrap_or(1);
            Rollout { surge, unavailable, on_every_node: true }
        }
        _ => Rollout::default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_have_the_sections_of_their_containers() {
        let spec = json!({
            "initContainers": [{ "name": "migrate" }, { "name": "mesh", "restartPolicy": "Always" }],
            "containers": [{ "name": "app", "image": "example/app:1" }],
        });
        let object = |kind: &str, spec: Value| -> DynamicObject {
            let metadata = json!({ "namespace": "shop", "name": "web" });
            serde_json::from_value(
                json!({ "apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec }),
            )
            .unwrap()
        };
        let of_pods = json!({ "template": { "spec": spec } });
        let (name, found) = template(&object("Deployment", of_pods.clone()), "Deployment").unwrap();
        assert_eq!(name, ["shop", "Deployment", "web"]);
        let roles = [("app", Role::App), ("mesh", Role::Sidecar), ("migrate", Role::Init)];
        assert_eq!(found.containers, roles.map(|(name, role)| (name.to_owned(), role)).into());
        let of_jobs = json!({ "jobTemplate": { "spec": of_pods } });
        assert_eq!(template(&object("CronJob", of_jobs), "CronJob").unwrap().1.containers, found.containers);
        assert_eq!(template(&object("Deployment", json!({})), "Deployment"), None);
    }

    #[test]
    fn rollouts_as_the_controllers_compute_them() {
        let of = |kind: &str, spec: Value| {
            let Rollout { surge, unavailable, .. } =
                rollout(&json!({ "spec": spec, "status": { "desiredNumberScheduled": 10 } }), kind);
            (surge, unavailable)
        };
        let deployment = |replicas: u64, surge: Value, unavailable: Value| {
            let update = json!({ "maxSurge": surge, "maxUnavailable": unavailable });
            of("Deployment", json!({ "replicas": replicas, "strategy": { "rollingUpdate": update } }))
        };
        let default = Value::Null;
        assert_eq!(deployment(3, default.clone(), default.clone()), (1, 0), "25 %, rounded up and down");
        assert_eq!(deployment(4, default.clone(), default.clone()), (1, 1));
        assert_eq!(deployment(3, json!(0), json!("10%")), (0, 1), "something has to move");
        assert_eq!(deployment(2, json!("100%"), json!(0)), (2, 0));
        assert_eq!(deployment(2, json!(5), json!(0)), (2, 0), "no more than there are");
        assert_eq!(of("Deployment", json!({ "strategy": { "type": "Recreate" } })), (0, 0));
        assert_eq!(of("DaemonSet", json!({})), (0, 1));
        let update = json!({ "rollingUpdate": { "maxSurge": "20%", "maxUnavailable": 0 } });
        assert_eq!(of("DaemonSet", json!({ "updateStrategy": update })), (2, 0));
        assert_eq!(of("StatefulSet", json!({ "replicas": 3 })), (0, 0));
    }
}
