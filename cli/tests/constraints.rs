//! `snug recommend` as a process, with an API server that has objects around the workloads, and one agent.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

mod api_server;
#[path = "../../tests/src/http.rs"]
pub mod http;

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

/// Kinds of lists with their API versions, by the last part of their path.
const KINDS: [(&str, &str, &str); 8] = [
    ("limitranges", "v1", "LimitRange"),
    ("resourcequotas", "v1", "ResourceQuota"),
    ("horizontalpodautoscalers", "autoscaling/v2", "HorizontalPodAutoscaler"),
    ("nodes", "v1", "Node"),
    ("verticalpodautoscalers", "autoscaling.k8s.io/v1", "VerticalPodAutoscaler"),
    ("scaledobjects", "keda.sh/v1alpha1", "ScaledObject"),
    ("poddisruptionbudgets", "policy/v1", "PodDisruptionBudget"),
    ("pods", "v1", "Pod"),
];

fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/advice").join(name);
    fs::read_to_string(path).unwrap()
}

/// What the API server answers: status and body.
fn answer(head: &str, objects: &Value) -> (&'static str, String) {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let kind = KINDS.iter().find(|(plural, ..)| path.ends_with(plural));
    let is_optional = |plural: &str| matches!(plural, "verticalpodautoscalers" | "scaledobjects");
    let Some((plural, version, kind)) =
        kind.filter(|(plural, ..)| !is_optional(plural) || !objects[*plural].is_null())
    else {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404 });
        return ("404 Not Found", status.to_string());
    };
    let mut items = objects[*plural].as_array().cloned().unwrap_or_default();
    if target.contains("snug-agent") {
        let metadata = json!({ "name": "agent-1", "namespace": "snug" });
        items = vec![json!({ "metadata": metadata, "status": { "phase": "Running" } })];
    }
    let (mut version, mut list) = (*version, format!("{kind}List"));
    if head.contains("PartialObjectMetadata") {
        (version, list) = ("meta.k8s.io/v1", "PartialObjectMetadataList".to_owned());
        items.iter_mut().for_each(|item| *item = json!({ "metadata": item["metadata"] }));
    }
    let body = json!({ "kind": list, "apiVersion": version, "metadata": { "resourceVersion": "1" }, "items": items });
    ("200 OK", body.to_string())
}

/// The output of `snug recommend` with these objects and this recording of the one agent.
fn recommend(objects: &Value, recording: &str, output: &str) -> String {
    let (served, recording) = (objects.clone(), recording.to_owned());
    let file = api_server::start(move |head| answer(head, &served), move |_| Some(recording.clone()));
    let run = Command::new(env!("CARGO_BIN_EXE_snug"))
        .args(["recommend", "-o", output, "--kubeconfig"])
        .arg(file.path())
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The recommendations for the Deployment `web` by container, and all warnings.
fn of_web(objects: &Value, recording: &str) -> (Vec<Value>, Vec<String>) {
    let report: Value = serde_json::from_str(&recommend(objects, recording, "json")).unwrap();
    let all = report["recommendations"].as_array().unwrap();
    let warnings = all.iter().flat_map(|entry| entry["warnings"].as_array().unwrap());
    let warnings = warnings.map(|warning| warning["text"].as_str().unwrap().to_owned()).collect();
    (all.iter().filter(|entry| entry["workload"] == "web").cloned().collect(), warnings)
}

fn web_and_db() -> String {
    fixture("web-and-db.ndjson")
}

fn objects(name: &str) -> Value {
    serde_json::from_str(&fixture(name)).unwrap()
}

#[test]
fn an_autoscaler_of_one_container_keeps_its_request_and_target_together() {
    let (web, warnings) = of_web(&objects("autoscaler-of-a-container.json"), &web_and_db());
    assert_eq!(web[0]["recommended"]["cpu_request"], 889, "at 80 % of 1 core it adds replicas: 90 % of 889m");
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(
        warning.starts_with("the HorizontalPodAutoscaler web scales on cpu utilization of the container app")
    );
    assert!(warning.contains("from 80 % to 90 %"), "{warning}");
}

#[test]
fn a_quota_of_limits_demands_them_and_has_little_left() {
    let of_limits = objects("quota-of-limits.json");
    let (_, warnings) = of_web(&of_limits, &fixture("web.ndjson"));
    let [demanded, exceeded] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(demanded.starts_with("the ResourceQuota q demands limits.cpu of every container"), "{demanded}");
    assert!(
        exceeded.contains("more limits.memory than now, but the ResourceQuota q has 196Mi left"),
        "{exceeded}"
    );
    let patch = recommend(&of_limits, &fixture("web.ndjson"), "patch");
    assert!(patch.starts_with("# shop/web: cannot be patched: the cluster would refuse its pods"), "{patch}");

    // A CPU limit of today is not removed.
    let (web, warnings) = of_web(&of_limits, &web_and_db());
    let limits: Vec<&Value> = web.iter().map(|entry| &entry["recommended"]["cpu_limit"]).collect();
    assert_eq!(limits, [&json!(2000), &Value::Null]);
    assert!(warnings.iter().any(|text| text.ends_with("a cpu limit of 2 is proposed")), "{warnings:?}");
}

#[test]
fn a_missing_limit_becomes_the_default_of_a_limit_range() {
    let (web, warnings) = of_web(&objects("limit-range-default.json"), &web_and_db());
    let limits: Vec<&Value> = web.iter().map(|entry| &entry["recommended"]["cpu_limit"]).collect();
    assert_eq!(limits, [&json!(2000), &Value::Null], "the limit of today stays");
    let [kept, refused] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(kept.contains("the LimitRange lr sets its default of 100m"), "{kept}");
    assert!(refused.contains("the LimitRange lr sets its default of 100m, which is below the request of"));
    let patch = recommend(&objects("limit-range-default.json"), &web_and_db(), "patch");
    assert!(patch.contains("kubectl -n shop patch statefulset/db"), "the other one can be patched: {patch}");
    assert!(patch.contains("# shop/web: cannot be patched: the cluster would refuse its pods"), "{patch}");
}

#[test]
fn a_vertical_autoscaler_that_only_recommends_is_no_conflict() {
    let mut objects = objects("vertical-autoscaler-off.json");
    let (_, warnings) = of_web(&objects, &web_and_db());
    assert_eq!(warnings, [""; 0]);
    objects["verticalpodautoscalers"][0]["spec"]["updatePolicy"]["updateMode"] = json!("Recreate");
    let (_, warnings) = of_web(&objects, &web_and_db());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn a_quota_of_another_priority_class_does_not_count() {
    let mut objects = objects("quota-of-a-priority-class.json");
    let (_, warnings) = of_web(&objects, &fixture("web.ndjson"));
    assert_eq!(warnings, [""; 0]);
    for pod in objects["pods"].as_array_mut().unwrap() {
        pod["spec"] = json!({ "priorityClassName": "batch", "containers": [{ "name": "app" }] });
    }
    let (_, warnings) = of_web(&objects, &fixture("web.ndjson"));
    assert_eq!(warnings.len(), 2, "CPU and memory: {warnings:?}");
    assert!(
        warnings.iter().all(|text| text.ends_with("the ResourceQuota batch-only has 0 left")),
        "{warnings:?}"
    );
}

#[test]
fn a_pod_with_requests_and_limits_of_its_own_counts_with_them() {
    let own = json!({ "cpu_request": 1500, "cpu_limit": 1500, "memory_request": 128 << 20, "memory_limit": 256 << 20 });
    let known = web_and_db();
    let lines = known.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if line["workload"]["name"] == "web" {
            let container = line["container"].as_object_mut().unwrap();
            container.insert("current".to_owned(), json!({}));
            container.insert("pod_resources".to_owned(), own.clone());
        }
        line.to_string() + "\n"
    });
    let recording: String = lines.collect();
    let (web, warnings) = of_web(&json!({}), &recording);
    let pod = &web[1]["pod_resources"];
    assert_eq!(pod, &web[0]["pod_resources"], "both are in one pod");
    assert_eq!((&pod["current"], &pod["recommended"]["cpu_request"]), (&own, &json!(1500)), "it is enough");
    let sum: u64 = web.iter().map(|entry| entry["recommended"]["memory_request"].as_u64().unwrap()).sum();
    let recommended = &pod["recommended"];
    assert_eq!((&recommended["memory_request"], &recommended["memory_limit"]), (&json!(sum), &json!(sum)));
    assert_eq!(warnings.len(), 2, "request and limit are raised: {warnings:?}");

    let patch = recommend(&json!({}), &recording, "patch");
    let quantity = recommended_quantity(pod);
    let raised = format!(r#""resources":{{"limits":{{"cpu":"1500m","memory":"{quantity}"}},"#);
    assert!(patch.contains(&raised), "{raised} {patch}");
    let table = recommend(&json!({}), &recording, "table");
    let cpu = table.lines().find(|line| line.starts_with("all pods ")).unwrap();
    assert!(cpu.contains(" 3250 "), "two pods of 1500m and one of 250m: {cpu}");
}

fn recommended_quantity(pod: &Value) -> &str {
    pod["quantities"]["limits"]["memory"].as_str().unwrap()
}
