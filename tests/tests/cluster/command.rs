//! `snug` with a kubeconfig and no other options.

use std::{env, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use snug_tests::agent::eventually;

use crate::node::{container, node, spec};

/// Agents write their usage history once in half a minute.
const SEEN: Duration = Duration::from_secs(90);

/// Runs the command. Returns the exit code, standard output and standard error.
fn snug(kubeconfig: &str, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let cli = env::var("SNUG_CLI_BIN").context("SNUG_CLI_BIN")?;
    let output = Command::new(cli).args(arguments).env("KUBECONFIG", kubeconfig).output()?;
    let error = String::from_utf8(output.stderr)?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, error))
}

#[test]
fn recommend_reads_all_agents_and_respects_the_constraints_of_the_cluster() {
    let Some(node) = node() else { return };
    let admin = env::var("SNUG_TEST_KUBECONFIG").unwrap();
    let mut main = container("main", "while :; do sleep 1; done");
    main["resources"] = json!({ "requests": { "cpu": "200m", "memory": "256Mi" } });
    let mut pod = spec(&[main]);
    pod["terminationGracePeriodSeconds"] = json!(0);
    let metadata = |name: &str| json!({ "name": name, "namespace": "sized" });
    let _objects = node
        .apply(&[
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "sized" } }),
            json!({
                "apiVersion": "v1", "kind": "LimitRange", "metadata": metadata("least"),
                "spec": { "limits": [{ "type": "Container", "min": { "memory": "200Mi" } }] },
            }),
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("idle"),
                "spec": {
                    "replicas": 2, "selector": { "matchLabels": { "app": "sized" } },
                    "template": {
                        "metadata": {
                            "labels": { "app": "sized" },
                            "annotations": { "snug/policy": "{max: {memory: 150Mi}}" },
                        },
                        "spec": pod,
                    },
                },
            }),
        ])
        .unwrap();
    let output = eventually(SEEN, "a recommendation", || {
        let (code, output, error) = snug(&admin, &["recommend", "-n", "sized", "-o", "json"])?;
        assert!(matches!(code, Some(0 | 3)), "{error}");
        let output: Value = serde_json::from_str(&output)?;
        let of_both = output["recommendations"][0]["replicas"] == 2;
        Ok(of_both.then_some((output, error)))
    });
    let (output, error) = output.unwrap();
    assert_eq!(error, "", "nothing is missing");
    assert_eq!(output["window"]["nodes"], json!(["node1"]));
    let idle = &output["recommendations"][0];
    assert_eq!(
        (&idle["owner"], &idle["workload"], &idle["container"]),
        (&json!("Deployment"), &json!("idle"), &json!("main"))
    );
    assert_eq!(idle["current"]["memory_request"], 256 << 20);
    assert_eq!(
        idle["recommended"]["memory_request"],
        200 << 20,
        "the min of the LimitRange is above that of the annotation: {idle}"
    );
    let warnings: Vec<&str> =
        idle["warnings"].as_array().unwrap().iter().filter_map(|warning| warning["text"].as_str()).collect();
    assert!(
        warnings.iter().any(|text| text.starts_with("memory 150Mi is below the LimitRange min 200Mi")),
        "{warnings:?}"
    );

    let (_, output, error) =
        snug(&admin, &["recommend", "-n", "sized", "--price", "cpu=0.03,memory=0.004", "-o", "json"])
            .unwrap();
    let priced: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(priced["emptied"], json!({ "nodes": 1, "now": 0, "then": 0 }), "{error}");

    let labelled = |labels: &str| snug(&admin, &["recommend", "-l", labels, "-o", "json"]).unwrap();
    let (code, output, _) = labelled("app=sized");
    let output: Value = serde_json::from_str(&output).unwrap();
    let workloads: Vec<&Value> =
        output["recommendations"].as_array().unwrap().iter().map(|entry| &entry["workload"]).collect();
    assert_eq!((code, workloads), (Some(0), vec![&json!("idle")]));
    assert_eq!(labelled("app=none").0, Some(3));

    let (code, patch, _) = snug(&admin, &["recommend", "sized/idle", "-o", "patch"]).unwrap();
    assert_eq!((code, patch.lines().count()), (Some(0), 1), "{patch}");
    let (code, _, error) = snug(&admin.replace("admin.conf", "node.conf"), &["recommend"]).unwrap();
    assert_eq!(code, Some(1));
    assert!(
        error.contains("no permission to get and create pods/portforward in the namespace snug"),
        "{error}"
    );
    let (code, _, error) = snug(&admin, &["recommend", "--context", "elsewhere"]).unwrap();
    assert_eq!(code, Some(1));
    assert!(error.contains("cannot use the kubeconfig") && error.contains("elsewhere"), "{error}");
}
