//! Tests of the Grafana dashboards: the files are those of their source, and each query gives a known value in Prometheus' engine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::{Value, json};
use snug_tests::{
    cannot_run,
    dashboards::{self, Query},
    manifests::deploy,
};

/// Folders with the same files: for kustomize and for people, and for the chart.
const COPIES: [&str; 2] = ["components/grafana-dashboards", "helm/snug-agent/dashboards"];

fn queries() -> Vec<Query> {
    let all = dashboards::source().unwrap();
    all.iter().flat_map(|dashboard| dashboards::queries(dashboard).unwrap()).collect()
}

fn series() -> Value {
    let file = deploy().join("monitoring/dashboards-tests.yaml");
    serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// `SNUG_BLESS=1` writes the files.
#[test]
fn files_are_those_of_the_source() {
    let all = dashboards::source().unwrap();
    assert_eq!(all.len(), 4);
    for folder in COPIES {
        let folder = deploy().join(folder);
        let mut names = BTreeSet::new();
        for dashboard in &all {
            let name = format!("{}.json", dashboard["uid"].as_str().unwrap());
            let (path, expected) = (folder.join(&name), dashboards::grafana(dashboard).unwrap());
            if std::env::var_os("SNUG_BLESS").is_some_and(|bless| bless == "1") {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, &expected).unwrap();
            }
            let current = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(current, expected, "{}: run with SNUG_BLESS=1", path.display());
            names.insert(name);
        }
        let there =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let there: BTreeSet<String> = there.filter(|name| name.ends_with(".json")).collect();
        assert_eq!(there, names, "{}", folder.display());
    }
}

#[test]
fn panels_fill_the_grid_and_have_units() {
    for dashboard in dashboards::source().unwrap() {
        let made: Value = serde_json::from_str(&dashboards::grafana(&dashboard).unwrap()).unwrap();
        let mut places = BTreeSet::new();
        for panel in made["panels"].as_array().unwrap() {
            assert!(places.insert(panel["gridPos"].to_string()), "{panel}: two panels in one place");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
            assert!(["none", "bytes", "Bps", "percentunit", "s"].contains(&unit), "{unit}");
        }
        let variables = made["templating"]["list"].as_array().unwrap();
        for query in dashboards::queries(&dashboard).unwrap() {
            let used = query
                .expr
                .split('$')
                .skip(1)
                .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap());
            for name in used.filter(|name| !name.starts_with("__")) {
                assert!(variables.iter().any(|variable| variable["name"] == name), "{}: {name}", query.title);
            }
        }
    }
}

/// A file for `promtool test rules` in which each query must have its value.
fn tests_of(queries: &[Query], series: &Value) -> Value {
    let tests: Vec<Value> = queries
        .iter()
        .filter_map(|query| {
            let (labels, value) = query.expected.as_ref()?.rsplit_once(' ').unwrap();
            Some(json!({
                "expr": dashboards::substituted(&query.expr, &series["variables"]).unwrap(),
                "eval_time": "120m",
                "exp_samples": [{ "labels": labels, "value": value.parse::<f64>().unwrap() }],
            }))
        })
        .collect();
    json!({
        "rule_files": [deploy().join("monitoring/rules.yaml")],
        "evaluation_interval": "1m",
        "tests": [{ "interval": "1m", "input_series": series["input_series"], "promql_expr_test": tests }],
    })
}

#[test]
fn every_query_gives_the_known_value() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return cannot_run("there is no promtool");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tests.yaml");
    let promtool = |tests: &Value| {
        fs::write(&file, tests.to_string()).unwrap();
        let output = Command::new("promtool").args(["test", "rules"]).arg(&file).output().unwrap();
        let printed =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), printed)
    };
    let (queries, series) = (queries(), series());
    assert!(queries.len() > 40, "{}", queries.len());
    let (passes, printed) = promtool(&tests_of(&queries, &series));
    assert!(passes, "{printed}");
    // Each query can fail: without the series of its panels it has no value.
    let mut without = series.clone();
    without["input_series"] = json!([]);
    let (passes, printed) = promtool(&tests_of(&queries, &without));
    let failed = printed.matches("    expr: ").count();
    assert!(
        !passes && failed == queries.iter().filter(|query| query.expected.is_some()).count(),
        "{printed}"
    );
}
