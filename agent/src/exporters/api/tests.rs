use std::{fs, path::Path, sync::Arc};

use serde_json::{Value, json};

use super::*;
use crate::exporters::fixture;

/// The response, checked against the schema.
fn answer(resource: Resource, query: &str) -> Value {
    let query = Query::parse(resource, Some(query)).unwrap();
    let mut text = Vec::new();
    query.write(&fixture::view(), &mut text).unwrap();
    let answer: Value = serde_json::from_slice(&text).unwrap();
    let mut schema = schema().to_value();
    let name = resource.path().rsplit('/').next().unwrap();
    if resource != Resource::Schema {
        assert!(schema["properties"][name].is_object(), "{name} is not in the schema");
        schema["unevaluatedProperties"] = false.into();
        schema["required"] = json!([name]);
        let whole = json!({ name: &answer });
        let errors: Vec<String> = jsonschema::validator_for(&schema)
            .unwrap()
            .iter_errors(&whole)
            .map(|error| error.to_string())
            .collect();
        assert_eq!(errors, [""; 0], "{whole}");
    }
    answer
}

fn refusal(resource: Resource, query: &str) -> String {
    Query::parse(resource, Some(query)).unwrap_err().to_string()
}

#[test]
fn every_answer_keeps_to_the_schema() {
    for resource in Resource::ALL {
        assert!(answer(resource, "").is_object(), "{resource:?}");
        assert_eq!(Resource::at(resource.path()), Some(resource));
    }
    let schema = serde_json::to_value(schema()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    // The check can fail.
    let mut wrong = answer(Resource::Node, "");
    wrong["cpus"] = "two".into();
    assert!(!jsonschema::is_valid(&schema, &json!({ "node": wrong })));
}

#[test]
fn the_documented_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api-v1.schema.json");
    let now = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("SNUG_BLESS").is_some() {
        fs::write(&path, &now).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap_or_default(), now, "SNUG_BLESS=1 writes it");
}

#[test]
fn containers_are_chosen_and_paged() {
    let ids = |answer: &Value| -> Vec<String> {
        let rows = answer["containers"].as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = answer(Resource::Containers, "");
    assert_eq!((ids(&all).len(), &all["next"]), (4, &Value::Null), "no pods and slices");
    let mut paged = Vec::new();
    let mut after = String::new();
    loop {
        let query = serde_urlencoded::to_string([("limit", "1"), ("after", &after)]).unwrap();
        let page = answer(Resource::Containers, &query);
        paged.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(paged, ids(&all));
    let chosen = answer(Resource::Containers, "namespace=default&container=app");
    let [row] = chosen["containers"].as_array().unwrap().as_slice() else { panic!("{chosen}") };
    assert_eq!((&row["container_id"], &row["cpu_seconds"]), (&json!("aaaa"), &json!(1.5)));
    let of_pod = json!({
        "cpu_request_cores": 0.221, "cpu_limit_cores": 0.222, "memory_request_bytes": 223, "memory_limit_bytes": 224,
    });
    assert_eq!((&row["pod_resources"], &row["cpu_limit_cores"]), (&of_pod, &Value::Null));
    assert_eq!(ids(&answer(Resource::Containers, "namespace=none")), [""; 0]);
    let workloads = answer(Resource::Workloads, "workload=web&limit=1");
    assert_eq!(workloads["workloads"][0]["id"], "default/StatefulSet/web/app");
}

#[test]
fn a_container_outside_of_pods_has_the_workload_and_the_name_of_its_engine() {
    let mut view = fixture::view();
    view.at = std::time::Instant::now();
    let mut row = fixture::cgroup("/docker/0123", model::Level::Container, "0123", None);
    let of_path = model::PathIdentity { pod_uid: None, ..row.identity.of_path.clone() };
    let identity = Identity { of_path, engine_name: Some("web".into()), ..(*row.identity).clone() };
    row.identity = Arc::new(identity);
    view.cgroups = vec![row];
    for (query, rows) in [(None, 1), (Some("workload=0123"), 1), (Some("workload=other"), 0)] {
        let mut text = Vec::new();
        Query::parse(Resource::Containers, query).unwrap().write(&view, &mut text).unwrap();
        let answer: Value = serde_json::from_slice(&text).unwrap();
        let containers = answer["containers"].as_array().unwrap();
        assert_eq!(containers.len(), rows, "{query:?}");
        let age = crate::clock::unix_now() - answer["at"].as_f64().unwrap();
        assert!((0.0..60.0).contains(&age), "{age}");
        for row in containers {
            let named = (&row["name"], &row["workload_kind"], &row["workload"], &row["container"]);
            assert_eq!(named, (&json!("web"), &json!("Container"), &json!("0123"), &json!("")));
        }
    }
}

#[test]
fn events_are_followed_by_their_numbers() {
    let numbers = |answer: &Value| -> Vec<u64> {
        answer["events"].as_array().unwrap().iter().map(|row| row["sequence"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(&answer(Resource::Events, "")), [1, 2, 3, 4, 5, 6]);
    let page = answer(Resource::Events, "after=1&limit=2");
    assert_eq!((numbers(&page), &page["next"]), (vec![2, 3], &json!(3)));
    let rest = answer(Resource::Events, "after=3");
    assert_eq!((numbers(&rest), &rest["next"]), (vec![4, 5, 6], &Value::Null));
    let evicted = answer(Resource::Events, "kind=eviction&namespace=shop&pod=web-1");
    assert_eq!((numbers(&evicted), &evicted["events"][0]["reason"]), (vec![5], &json!("Evicted")));
}

#[test]
fn a_wrong_query_is_refused_by_name() {
    let all = |resource, query, parts: &[&str]| {
        let message = refusal(resource, query);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    all(Resource::Containers, "name=web", &["/api/v1/containers", "`name`", "`namespace`", "`limit`"]);
    all(Resource::Containers, "limit=0", &["limit must be from 1 to 10000, not 0"]);
    all(Resource::Containers, "limit=many", &["invalid digit"]);
    all(Resource::Workloads, "pod=web-1", &["workloads have no pod"]);
    all(Resource::Events, "kind=oom", &["unknown kind of events \"oom\"", "oom_kill, termination"]);
    all(Resource::Events, "after=-1", &["/api/v1/events", "invalid digit"]);
    all(Resource::Node, "a=b", &["/api/v1/node", "`a`"]);
}

#[test]
fn unknown_values_are_null() {
    let mut view = fixture::view();
    for row in &mut view.cgroups {
        row.values = crate::values::Values::default();
        let nameless = Identity { names: None, ..(*row.identity).clone() };
        row.identity = Arc::new(nameless);
    }
    let mut text = Vec::new();
    Query::parse(Resource::Containers, None).unwrap().write(&view, &mut text).unwrap();
    let answer: Value = serde_json::from_slice(&text).unwrap();
    let row = &answer["containers"][0];
    assert_eq!((&row["pod"], &row["cpu_seconds"], &row["network"]), (&json!(""), &Value::Null, &Value::Null));
}
