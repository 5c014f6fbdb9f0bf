//! The API server's rules for the resources of pods, on objects as they are sent, to check what would come of a patch.
//!
//! Written by the sources, independently of what Snug does with LimitRanges and quotas:
//! [defaults](https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/v1/defaults.go) (`SetDefaults_Pod`,
//! `SetDefaults_LimitRangeItem`),
//! [LimitRanger](https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/admission/limitranger/admission.go),
//! [validation](https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/validation.go)
//! (`ValidateContainerResourceRequirements`, `validatePodResources`, `ValidatePodResize`) and
//! [quota](https://github.com/kubernetes/kubernetes/blob/master/pkg/quota/v1/evaluator/core/pods.go) (`Constraints`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use snug_sizing::quantity::Quantity;

/// Lists of containers in a pod spec.
const LISTS: [&str; 2] = ["initContainers", "containers"];

/// A quantity in billionths.
fn amount(value: &Value) -> Option<i128> {
    Some(value.as_str()?.parse::<Quantity>().unwrap().nanos())
}

fn get(resources: &Value, kind: &str, name: &str) -> Option<i128> {
    amount(&resources[kind][name])
}

fn names(list: &Value) -> Vec<String> {
    list.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    LISTS.iter().flat_map(|list| spec[*list].as_array().into_iter().flatten())
}

/// Sets a value that is missing.
fn default(resources: &mut Value, kind: &str, name: &str, value: &Value) {
    if resources.is_null() {
        *resources = json!({});
    }
    if resources[kind][name].is_null() && !value.is_null() {
        resources[kind][name] = value.clone();
    }
}

/// A strategic merge patch of a pod spec: containers are merged by name, null removes a field.
pub(crate) fn merge(spec: &mut Value, patch: &Map<String, Value>) {
    for (field, change) in patch {
        if !LISTS.contains(&field.as_str()) {
            merge_value(&mut spec[field], change);
            continue;
        }
        for change in change.as_array().unwrap() {
            let all = spec[field].as_array_mut().expect("the template has no such list");
            let own = all.iter_mut().find(|own| own["name"] == change["name"]);
            merge_value(own.expect("the template has no such container"), change);
        }
    }
}

fn merge_value(own: &mut Value, change: &Value) {
    let Some(change) = change.as_object() else {
        *own = change.clone();
        return;
    };
    if !own.is_object() {
        *own = json!({});
    }
    for (field, change) in change {
        if change.is_null() {
            own.as_object_mut().unwrap().remove(field);
        } else {
            merge_value(&mut own[field], change);
        }
    }
}

/// The pod that the API server stores, before LimitRanges.
fn with_defaults(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for list in LISTS {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let limits = container["resources"]["limits"].clone();
            for name in names(&limits) {
                default(&mut container["resources"], "requests", &name, &limits[&name]);
            }
        }
    }
    let limits = spec["resources"]["limits"].clone();
    if !names(&limits).is_empty() {
        for name in ["cpu", "memory"] {
            if let Some(sum) = aggregate(&spec, "requests", name) {
                default(&mut spec["resources"], "requests", name, &written(sum));
            }
            default(&mut spec["resources"], "requests", name, &limits[name]);
        }
    }
    spec
}

/// An amount that [`amount`] reads.
fn written(nanos: i128) -> Value {
    json!(format!("{nanos}n"))
}

/// Init containers run one by one beside the sidecars that started before, then sidecars and containers together.
fn aggregate(spec: &Value, kind: &str, name: &str) -> Option<i128> {
    let of = |container: &Value| get(&container["resources"], kind, name);
    let (mut sidecars, mut highest, mut found) = (0, 0, false);
    for container in spec["initContainers"].as_array().into_iter().flatten() {
        let value = of(container);
        found |= value.is_some();
        if container["restartPolicy"] == "Always" {
            sidecars += value.unwrap_or(0);
            highest = highest.max(sidecars);
        } else {
            highest = highest.max(sidecars + value.unwrap_or(0));
        }
    }
    let apps = spec["containers"].as_array().into_iter().flatten().filter_map(of);
    found |= apps.clone().next().is_some();
    found.then(|| highest.max(sidecars + apps.sum::<i128>()))
}

/// Why the cluster refuses new pods with this spec: LimitRanges, then validation, then what quotas demand.
pub(crate) fn refusals(spec: &Value, limit_ranges: &[Value], quotas: &[Value]) -> Vec<String> {
    let mut spec = with_defaults(spec);
    let items = limit_ranges.iter().flat_map(|range| range["spec"]["limits"].as_array().unwrap());
    for item in items.clone().filter(|item| item["type"] == "Container") {
        for list in LISTS {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                for name in ["cpu", "memory"] {
                    let of = |field: &str| Some(&item[field][name]).filter(|value| !value.is_null());
                    let limit = of("default").or_else(|| of("max"));
                    let request = of("defaultRequest").or(limit).or_else(|| of("min"));
                    default(&mut container["resources"], "limits", name, limit.unwrap_or(&Value::Null));
                    default(&mut container["resources"], "requests", name, request.unwrap_or(&Value::Null));
                }
            }
        }
    }
    let mut found = Vec::new();
    for item in items {
        for name in ["cpu", "memory"] {
            if item["type"] == "Container" {
                for container in containers(&spec) {
                    let of = |kind| get(&container["resources"], kind, name);
                    limit(item, name, of("requests"), of("limits"), &mut found);
                }
            } else {
                let total =
                    |kind| get(&spec["resources"], kind, name).or_else(|| stated_sum(&spec, kind, name));
                limit(item, name, total("requests"), total("limits"), &mut found);
            }
        }
    }
    validate(&spec, &mut found);
    demands(&spec, quotas, &mut found);
    found
}

/// A sum exists only if every container has the value; init containers count where they are higher.
fn stated_sum(spec: &Value, kind: &str, name: &str) -> Option<i128> {
    let of = |container: &Value| get(&container["resources"], kind, name);
    let apps = spec["containers"].as_array().into_iter().flatten();
    if apps.clone().all(|container| of(container).is_some()) {
        return aggregate(spec, kind, name);
    }
    spec["initContainers"].as_array().into_iter().flatten().filter_map(of).max()
}

/// `minConstraint`, `maxConstraint` and `limitRequestRatioConstraint`.
fn limit(item: &Value, name: &str, request: Option<i128>, limit: Option<i128>, found: &mut Vec<String>) {
    let mut refuse = |what: &str| found.push(format!("{what} {name} per {}", item["type"]));
    if let Some(min) = get(item, "min", name)
        && (request.is_none_or(|request| request < min) || limit.is_some_and(|limit| limit < min))
    {
        refuse("minimum");
    }
    if let Some(max) = get(item, "max", name)
        && (limit.is_none_or(|limit| limit > max) || request.is_some_and(|request| request > max))
    {
        refuse("maximum");
    }
    if let Some(ratio) = get(item, "maxLimitRequestRatio", name) {
        let (request, limit) = (request.unwrap_or(0), limit.unwrap_or(0));
        if request == 0 || limit == 0 || limit as f64 / request as f64 * 1e9 > ratio as f64 {
            refuse("ratio of");
        }
    }
}

fn validate(spec: &Value, found: &mut Vec<String>) {
    let own = &spec["resources"];
    for resources in containers(spec).map(|container| &container["resources"]).chain([own]) {
        for name in names(&resources["requests"]) {
            let (request, limit) = (get(resources, "requests", &name), get(resources, "limits", &name));
            let is_above = limit.is_some_and(|limit| request > Some(limit));
            // Pages that are not there cannot be overcommitted.
            let is_apart = name.starts_with("hugepages-") && request != limit;
            if is_above || is_apart {
                found.push(format!("the request of {name} is not its limit or below"));
            }
        }
        let all = [names(&resources["requests"]), names(&resources["limits"])].concat();
        if all.iter().any(|name| name.starts_with("hugepages-"))
            && !all.iter().any(|name| name == "cpu" || name == "memory")
        {
            found.push("huge pages need CPU or memory".to_owned());
        }
    }
    for name in names(&own["requests"]) {
        if aggregate(spec, "requests", &name).is_some_and(|sum| Some(sum) > get(own, "requests", &name)) {
            found.push(format!("the pod requests less {name} than its containers"));
        }
    }
    for name in names(&own["limits"]) {
        let limit = get(own, "limits", &name);
        let mut apps = spec["containers"].as_array().into_iter().flatten();
        if apps.any(|container| get(&container["resources"], "limits", &name) > limit) {
            found.push(format!("a container has a higher limit of {name} than the pod"));
        }
        if name.starts_with("hugepages-") && aggregate(spec, "limits", &name) > limit {
            found.push(format!("the containers have more {name} than the pod"));
        }
    }
}

/// Every container must have what a quota counts, unless the pod has resources of its own.
fn demands(spec: &Value, quotas: &[Value], found: &mut Vec<String>) {
    if spec["resources"]["requests"].is_object() || spec["resources"]["limits"].is_object() {
        return;
    }
    for name in quotas.iter().flat_map(|quota| names(&quota["status"]["hard"])) {
        let (kind, resource) = name.split_once('.').unwrap_or(("requests", &name));
        let is_compute = matches!(kind, "requests" | "limits") && matches!(resource, "cpu" | "memory");
        if is_compute && containers(spec).any(|it| get(&it["resources"], kind, resource).is_none()) {
            found.push(format!("must specify {name}"));
        }
    }
}

/// Why the subresource `resize` of a running pod refuses its new spec. `minor` is that of the API server, 1.33 or newer.
pub(crate) fn resize_refusals(before: &Value, after: &Value, minor: u32) -> Vec<String> {
    let mut found = Vec::new();
    let without = |spec: &Value| {
        let mut spec = spec.clone();
        for list in LISTS {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["resources"] = Value::Null;
            }
        }
        spec
    };
    if without(before) != without(after) {
        found.push("only the resources of containers may change".to_owned());
    }
    let inits = before["initContainers"].as_array().map_or(0, Vec::len);
    for (at, (before, after)) in containers(before).zip(containers(after)).enumerate() {
        let (own, other) = (&before["resources"], &after["resources"]);
        if own != other && at < inits && before["restartPolicy"] != "Always" {
            found.push("init containers cannot be resized".to_owned());
        }
        for kind in ["requests", "limits"] {
            let both = [names(&own[kind]), names(&other[kind])].concat();
            for name in both.into_iter().collect::<BTreeSet<_>>() {
                let (was, will) = (get(own, kind, &name), get(other, kind, &name));
                if was != will && !matches!(name.as_str(), "cpu" | "memory") {
                    found.push(format!("{name} cannot be resized"));
                }
                if will.is_none() {
                    found.push(format!("{kind} of {name} cannot be removed"));
                }
                let policies = before["resizePolicy"].as_array().into_iter().flatten();
                let restarts = policies
                    .filter(|policy| policy["resourceName"] == "memory")
                    .any(|policy| policy["restartPolicy"] == "RestartContainer");
                if (kind, name.as_str()) == ("limits", "memory") && will < was && minor < 34 && !restarts {
                    found.push("memory limits cannot be decreased".to_owned());
                }
            }
        }
    }
    if qos(&with_defaults(before)) != qos(&with_defaults(after)) {
        found.push("the QoS class may not change".to_owned());
    }
    validate(&with_defaults(after), &mut found);
    found
}

fn qos(spec: &Value) -> &'static str {
    let all: Vec<&Value> = match &spec["resources"] {
        own if own.is_object() => vec![own],
        _ => containers(spec).map(|container| &container["resources"]).collect(),
    };
    let both = ["cpu", "memory"];
    let is_set = |it: &&Value, kind: &str, name: &str| get(it, kind, name).is_some_and(|value| value > 0);
    let is_guaranteed = |it: &&Value| {
        both.iter()
            .all(|name| is_set(it, "limits", name) && get(it, "requests", name) == get(it, "limits", name))
    };
    let is_best_effort =
        |it: &&Value| both.iter().all(|name| !is_set(it, "requests", name) && !is_set(it, "limits", name));
    match () {
        () if all.iter().all(is_best_effort) => "BestEffort",
        () if all.iter().all(is_guaranteed) => "Guaranteed",
        () => "Burstable",
    }
}

#[test]
fn recorded_refusals() {
    let range = |limits: Value| json!({ "spec": { "limits": limits } });
    let container = |resources: Value| json!({ "name": "c", "resources": resources });
    let pod = |resources: Value| json!({ "containers": [container(resources)] });
    let set = |cpu: &str, memory: &str| json!({ "cpu": cpu, "memory": memory });
    let equal = json!({ "requests": set("1", "1Gi"), "limits": set("1", "1Gi") });
    assert_eq!(refusals(&pod(equal.clone()), &[], &[]), [""; 0]);
    // From the documentation: https://kubernetes.io/docs/concepts/policy/limit-range/#example-of-setting-default-resources
    let limits = [range(json!([{
        "type": "Container", "default": { "cpu": "500m" }, "defaultRequest": { "cpu": "500m" },
        "min": { "cpu": "100m" }, "max": { "cpu": "1" },
    }]))];
    let only_request = json!({ "requests": { "cpu": "700m" } });
    assert_eq!(
        refusals(&pod(only_request), &limits, &[]),
        ["the request of cpu is not its limit or below"],
        "the first example of the page is refused"
    );
    let with_limit = json!({ "requests": { "cpu": "700m" }, "limits": { "cpu": "700m" } });
    assert_eq!(refusals(&pod(with_limit), &limits, &[]), [""; 0], "the second is not");
    // `must be greater than or equal to aggregate container requests of 1500m`, as a real API server of 1.34 says.
    let own = |cpu: &str| {
        json!({
            "containers": [container(json!({ "requests": { "cpu": "1" } })), container(json!({ "requests": { "cpu": "500m" } }))],
            "resources": { "requests": { "cpu": cpu } },
        })
    };
    assert_eq!(refusals(&own("1"), &[], &[]), ["the pod requests less cpu than its containers"]);
    assert_eq!(refusals(&own("1500m"), &[], &[]), [""; 0]);
    let quota = json!({ "status": { "hard": { "limits.cpu": "10", "pods": "1" } } });
    let requests = json!({ "requests": { "cpu": "1" } });
    assert_eq!(refusals(&pod(requests), &[], std::slice::from_ref(&quota)), ["must specify limits.cpu"]);
    assert_eq!(refusals(&own("1500m"), &[], &[quota]), [""; 0], "the pod's own resources lift the demand");
    let pages = json!({ "requests": { "hugepages-2Mi": "2Mi" }, "limits": { "hugepages-2Mi": "4Mi" } });
    assert_eq!(refusals(&pod(pages), &[], &[]).len(), 2, "neither equal nor with CPU or memory");
    let ratio = [range(json!([{ "type": "Pod", "maxLimitRequestRatio": { "memory": "2" } }]))];
    let wide = json!({ "requests": { "memory": "1Gi" }, "limits": { "memory": "3Gi" } });
    assert_eq!(refusals(&pod(wide), &ratio, &[]), ["ratio of memory per \"Pod\""]);
}

#[test]
fn recorded_refusals_of_resizes() {
    let pod = |cpu: &str, memory: &str| json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu }, "limits": { "memory": memory } } }] });
    let refused = |before: &Value, after: &Value, minor| resize_refusals(before, after, minor).len();
    assert_eq!(refused(&pod("1", "1Gi"), &pod("2", "2Gi"), 33), 0);
    assert_eq!(refused(&pod("1", "1Gi"), &pod("1", "900Mi"), 33), 1, "1.33 decreases no memory limit");
    assert_eq!(refused(&pod("1", "1Gi"), &pod("1", "900Mi"), 34), 0);
    let guaranteed = json!({
        "containers": [{ "name": "c", "resources": { "limits": { "cpu": "1", "memory": "1Gi" } } }],
    });
    assert!(refused(&pod("1", "1Gi"), &guaranteed, 34) > 0, "the QoS class and a removed request");
}
