//! VerticalPodAutoscaler objects have the fields of their API, and bounds around what is recommended.

use proptest::prelude::*;
use serde_json::{Value, json};
use snug_sizing::{quantity::Quantity, start_up::StartUp, workload::Resources};

use super::{entry, holds, recommended, report, resources};
use crate::recommend::{
    apply,
    report::{Entry, Report},
};

/// The fields of the API (`autoscaling.k8s.io/v1`) that the output uses, with their types. `""` is a text, `0` an integer of 32 bits,
/// `[…]` a list, and `{"*": …}` an object with any keys.
fn schema() -> Value {
    json!({
        "apiVersion": ["autoscaling.k8s.io/v1"],
        "kind": ["VerticalPodAutoscaler"],
        "metadata": { "name": "", "namespace": "" },
        "spec": {
            "targetRef": { "apiVersion": ["apps/v1", "batch/v1"], "kind": "", "name": "" },
            "updatePolicy": { "updateMode": ["Off"] },
            "resourcePolicy": { "containerPolicies": [[{
                "containerName": "",
                "controlledResources": [["cpu", "memory"]],
                "controlledValues": ["RequestsOnly", "RequestsAndLimits"],
                "minAllowed": { "cpu": "", "memory": "" },
                "maxAllowed": { "cpu": "", "memory": "" },
                "startupBoost": { "cpu": { "type": ["Factor"], "factor": 0, "durationSeconds": 0 } },
            }]] },
        },
    })
}

/// A list with a list in it is a list of such items; with texts, it is a choice.
fn fits(value: &Value, schema: &Value) -> bool {
    match (value, schema) {
        (Value::Object(value), Value::Object(fields)) => {
            value.iter().all(|(name, one)| fields.get(name).is_some_and(|field| fits(one, field)))
        }
        (Value::Array(items), Value::Array(of)) => match of.first() {
            Some(Value::Array(of)) => {
                items.iter().all(|item| of.iter().any(|field| item == field || fits(item, field)))
            }
            _ => false,
        },
        (value @ Value::String(_), Value::Array(choices)) => choices.contains(value),
        (Value::String(text), Value::String(_)) => !text.is_empty(),
        (value, Value::Number(_)) => value.as_i64().is_some_and(|it| i32::try_from(it).is_ok()),
        _ => false,
    }
}

fn objects(report: &Report) -> Result<Vec<Value>, String> {
    let text = apply::vpa(report).map_err(|error| error.to_string())?;
    if !text.contains("\n---\n") {
        holds(text.lines().all(|line| line.starts_with('#')), || text.clone())?;
        return Ok(Vec::new());
    }
    serde_saphyr::from_multiple(&text).map_err(|error| format!("{error}: {text}"))
}

/// Whether the output is comments and valid objects, whatever the names are.
pub(super) fn is_valid(report: &Report) -> Result<(), String> {
    let mut targets = std::collections::BTreeSet::new();
    for object in objects(report)? {
        holds(fits(&object, &schema()), || format!("{object}"))?;
        let metadata = &object["metadata"];
        holds(targets.insert(format!("{metadata}")), || format!("twice: {metadata}"))?;
    }
    Ok(())
}

fn amount(value: &Value) -> i128 {
    let quantity: Quantity = value.as_str().unwrap().parse().unwrap();
    quantity.millis()
}

#[test]
fn a_start_up_is_a_boost() {
    let then = Resources { cpu_request: Some(100), memory_request: Some(64 << 20), ..Resources::default() };
    let mut one = entry(["shop", "Deployment", "web", "app"], then, then);
    one.start_up = Some(StartUp { seconds: 32, cores: 0.75, factor: 8, observed: 4000 });
    let boosted = objects(&report(vec![one.clone()])).unwrap();
    let policy = &boosted[0]["spec"]["resourcePolicy"]["containerPolicies"][0];
    let expected = json!({ "cpu": { "type": "Factor", "factor": 8, "durationSeconds": 32 } });
    assert_eq!(policy["startupBoost"], expected);
    one.start_up = None;
    let plain = objects(&report(vec![one])).unwrap();
    assert!(plain[0]["spec"]["resourcePolicy"]["containerPolicies"][0].get("startupBoost").is_none());
}

#[test]
fn two_kinds_of_one_name_are_two_objects() {
    let then = Resources { cpu_request: Some(100), ..Resources::default() };
    let all: Vec<Entry> =
        ["Deployment", "StatefulSet"].map(|kind| entry(["shop", kind, "web", "app"], then, then)).to_vec();
    let found = objects(&report(all)).unwrap();
    let names: Vec<&Value> = found.iter().map(|object| &object["metadata"]["name"]).collect();
    assert_eq!(names, ["web-deployment", "web-statefulset"]);
}

proptest! {
    #[test]
    fn bounds_enclose_what_is_recommended(now in resources(), then in recommended(), loose in recommended(), strict in recommended()) {
        let mut one = entry(["shop", "Deployment", "web", "app"], now, then);
        one.bounds = Some([loose, strict]);
        let found = report(vec![one.clone()]);
        prop_assert_eq!(is_valid(&found), Ok(()));
        let objects = objects(&found).unwrap();
        let policy = &objects[0]["spec"]["resourcePolicy"]["containerPolicies"][0];
        for (name, value) in [("cpu", one.quantities.requests.cpu), ("memory", one.quantities.requests.memory)] {
            let (low, high) = (amount(&policy["minAllowed"][name]), amount(&policy["maxAllowed"][name]));
            let recommended = amount(&value.unwrap().into());
            prop_assert!(low <= recommended && recommended <= high, "{}", policy);
        }
    }
}
