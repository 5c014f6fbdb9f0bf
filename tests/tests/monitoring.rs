//! Tests of `deploy/monitoring`: alerts fire and stay silent in a real Prometheus' rule engine, have runbooks, and name metrics and
//! labels of the agent's catalogue; so do the queries of the pages for people.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use snug_tests::{cannot_run, manifests::deploy, pages};

/// Where the runbook of an alert is found.
const RUNBOOKS: &str = "https://github.com/snug-rs/snug/blob/main/docs/runbooks/";
/// Labels that Prometheus adds to every target.
const OF_TARGETS: [&str; 2] = ["job", "instance"];

fn folder() -> PathBuf {
    deploy().join("monitoring")
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(folder().join(file)).unwrap()).unwrap()
}

/// The rules of all groups.
fn rules() -> Vec<Value> {
    let groups = yaml("rules.yaml")["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn promtool(folder: &Path) -> Result<(), String> {
    let output =
        Command::new("promtool").args(["test", "rules"]).arg(folder.join("tests.yaml")).output().unwrap();
    let printed =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(printed) }
}

#[test]
fn every_alert_fires_and_is_silent_when_it_should() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return cannot_run("there is no promtool");
    }
    promtool(&folder()).unwrap();
    // Without any one of its conditions, or with one that always or never holds, a test fails.
    let copy = tempfile::tempdir().unwrap();
    fs::copy(folder().join("tests.yaml"), copy.path().join("tests.yaml")).unwrap();
    let original = yaml("rules.yaml");
    let mut changed = 0;
    for (at, group) in original["groups"].as_array().unwrap().iter().enumerate() {
        for (number, rule) in group["rules"].as_array().unwrap().iter().enumerate() {
            let expr = text(&rule["expr"]);
            let mut mutants = vec!["vector(1)".to_owned(), "vector(1) > 1".to_owned()];
            for operator in [" and ", " or "] {
                let parts: Vec<&str> = expr.split(operator).collect();
                let without = |left_out: usize| {
                    let kept = parts.iter().enumerate().filter(|(part, _)| *part != left_out);
                    kept.map(|(_, part)| *part).collect::<Vec<_>>().join(operator)
                };
                mutants.extend((0..parts.len()).filter(|_| parts.len() > 1).map(without));
            }
            for mutant in mutants {
                let mut rules = original.clone();
                rules["groups"][at]["rules"][number]["expr"] = mutant.clone().into();
                fs::write(copy.path().join("rules.yaml"), rules.to_string()).unwrap();
                let outcome = promtool(copy.path());
                assert!(outcome.is_err(), "no test notices that {expr:?} became {mutant:?}");
                changed += 1;
            }
        }
    }
    assert!(changed > 40, "{changed}");
}

#[test]
fn every_alert_has_a_test_a_runbook_and_a_severity() {
    let tests = yaml("tests.yaml");
    let mut tested: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for test in tests["tests"].as_array().unwrap() {
        for case in test["alert_rule_test"].as_array().unwrap() {
            let fires = !case["exp_alerts"].as_array().unwrap().is_empty();
            tested.entry(text(&case["alertname"]).to_owned()).or_default().insert(fires);
        }
    }
    let mut alerts = BTreeSet::new();
    for rule in rules().iter().filter(|rule| !rule["alert"].is_null()) {
        let name = text(&rule["alert"]);
        assert!(["info", "warning", "critical"].contains(&text(&rule["labels"]["severity"])), "{name}");
        let annotations = &rule["annotations"];
        assert!(
            !text(&annotations["summary"]).is_empty() && !text(&annotations["description"]).is_empty(),
            "{name}"
        );
        assert_eq!(text(&annotations["runbook_url"]), format!("{RUNBOOKS}{name}.md"));
        assert_eq!(tested[name], [false, true].into(), "{name} must fire in a test and not in another");
        alerts.insert(format!("{name}.md"));
    }
    let runbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let index = fs::read_to_string(runbooks.join("README.md")).unwrap();
    let mut pages = BTreeSet::new();
    for page in fs::read_dir(runbooks).unwrap() {
        let page = page.unwrap();
        if page.file_name() == "README.md" {
            continue;
        }
        let content = fs::read_to_string(page.path()).unwrap();
        for heading in ["## What it means", "## How to see it", "## What to do"] {
            assert!(content.contains(heading), "{}: {heading}", page.path().display());
        }
        let name = page.file_name().into_string().unwrap();
        assert!(index.contains(&format!("]({name})")), "{name} is not in the index");
        pages.insert(name);
    }
    assert_eq!(pages, alerts);
}

/// The labels of each metric in docs/metrics.md, which a test writes from the agent's catalogue.
fn catalogue() -> BTreeMap<String, BTreeSet<String>> {
    let quoted =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    let (mut all, mut common) = (BTreeMap::new(), Vec::new());
    for line in page.lines() {
        if line.starts_with('#') {
            common.clear();
        } else if let Some(labels) = line.strip_prefix("Labels of every series: ") {
            common = quoted(labels);
        } else if let Some(row) = line.strip_prefix("| `snug_") {
            let cells: Vec<&str> = row.split('|').collect();
            let name = format!("snug_{}", cells[0].trim().trim_end_matches('`'));
            all.insert(name, common.iter().cloned().chain(quoted(cells[2])).collect());
        }
    }
    all
}

/// Words of an expression: metrics, labels, functions and keywords. Texts in quotes, numbers and durations are none.
fn words(expr: &str) -> BTreeSet<&str> {
    let outside = expr.split('"').step_by(2);
    let words =
        outside.flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':'));
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())).collect()
}

/// Words of an expression that are neither of PromQL, nor a metric, nor a label of a metric in it.
fn unknown(expr: &str, metrics: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    const PROMQL: [&str; 13] = [
        "absent",
        "and",
        "by",
        "clamp_min",
        "histogram_fraction",
        "histogram_quantile",
        "Inf",
        "increase",
        "or",
        "quantile_over_time",
        "rate",
        "sum",
        "up",
    ];
    let words = words(expr);
    let labels: BTreeSet<&str> = words
        .iter()
        .filter_map(|word| metrics.get(*word))
        .flatten()
        .map(String::as_str)
        .chain(OF_TARGETS)
        .collect();
    let is_known =
        |word: &&str| PROMQL.contains(word) || metrics.contains_key(*word) || labels.contains(word);
    words.into_iter().filter(|word| !is_known(word)).map(str::to_owned).collect()
}

#[test]
fn rules_name_metrics_and_labels_of_the_catalogue() {
    let mut metrics = catalogue();
    assert!(metrics.len() > 100, "{}", metrics.len());
    // Recorded series have the labels by which their rule sums.
    for rule in rules().iter().filter(|rule| !rule["record"].is_null()) {
        let labels = ["namespace", "workload_kind", "workload", "container"].map(str::to_owned);
        assert!(text(&rule["expr"]).contains(&format!("by ({})", labels.join(", "))));
        metrics.insert(text(&rule["record"]).to_owned(), labels.into());
    }
    for rule in rules() {
        assert_eq!(unknown(text(&rule["expr"]), &metrics), BTreeSet::new(), "{rule}");
    }
    // The check must be able to fail.
    let wrong = "sum by (workloads, job) (rate(snug_workload_oom_kill_total{limit=\"pods\"}[5m]))";
    assert_eq!(
        unknown(wrong, &metrics),
        ["limit", "snug_workload_oom_kill_total", "workloads"].map(str::to_owned).into()
    );
}

/// `SNUG_BLESS=1` writes the copies.
#[test]
fn operator_and_chart_have_the_same_rules() {
    let rules = fs::read_to_string(folder().join("rules.yaml")).unwrap();
    let indented: String = rules
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect();
    let object = format!(
        "# Made from deploy/monitoring/rules.yaml by a test: do not edit. SNUG_BLESS=1 rewrites it.\n\
         # If your Prometheus selects rules by a label, add the label here.\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: snug-agent\n  namespace: snug\n  \
         labels:\n    app.kubernetes.io/name: snug-agent\nspec:\n{indented}"
    );
    for (file, expected) in
        [("components/prometheus-rule/prometheus-rule.yaml", object), ("helm/snug-agent/rules.yaml", rules)]
    {
        let path = deploy().join(file);
        if std::env::var_os("SNUG_BLESS").is_some_and(|bless| bless == "1") {
            fs::write(&path, &expected).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), expected, "{file}: run with SNUG_BLESS=1");
    }
}

/// The queries in the pages for people: one on each line that is no comment.
fn queries_of_pages() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for page in pages::all() {
        for block in page.blocks().unwrap().iter().filter(|block| block.language == "promql") {
            for (number, line) in block.text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
                all.push((format!("{}:{}", page.path, block.line + number), line.to_owned()));
            }
        }
    }
    all
}

#[test]
fn queries_of_the_pages_are_valid_and_name_metrics_of_the_catalogue() {
    let mut metrics = catalogue();
    let labels = ["namespace", "workload_kind", "workload", "container"].map(str::to_owned);
    for rule in rules().iter().filter(|rule| !rule["record"].is_null()) {
        metrics.insert(text(&rule["record"]).to_owned(), labels.clone().into());
    }
    let queries = queries_of_pages();
    assert!(queries.len() > 30, "{}", queries.len());
    for (place, query) in &queries {
        assert_eq!(unknown(query, &metrics), BTreeSet::new(), "{place}: {query}");
    }
    if Command::new("promtool").arg("--version").output().is_err() {
        return cannot_run("there is no promtool");
    }
    let rules: Vec<Value> =
        queries.iter().map(|(_, query)| serde_json::json!({ "record": "query", "expr": query })).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.yaml");
    fs::write(&file, serde_json::json!({ "groups": [{ "name": "pages", "rules": rules }] }).to_string())
        .unwrap();
    let checked =
        Command::new("promtool").args(["check", "rules", "--lint=none"]).arg(&file).output().unwrap();
    let printed = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{printed}");
}
