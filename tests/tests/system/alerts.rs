//! The alerts and dashboards with a real Prometheus that scrapes a real agent, which measures containers in trouble.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use snug_tests::{
    agent::{Agent, Signal, eventually},
    dashboards::{self, Query},
    manifests::deploy,
};

use crate::{cannot_run, container, container::pod_list, has_program, prometheus::Prometheus};

const LIMIT: u64 = 16 << 20;
/// Times of `deploy/monitoring/rules.yaml` and shorter ones.
const SHORTER: [(&str, &str); 3] = [("[1h]", "[1m]"), ("[5m]", "[20s]"), ("[15m]", "[20s]")];

/// The rules with short times.
fn rules() -> Result<String> {
    let mut rules = fs::read_to_string(deploy().join("monitoring/rules.yaml"))?;
    for (long, short) in SHORTER {
        rules = rules.replace(long, short);
    }
    let lines = rules.lines().map(|line| match line.split_once("for: ") {
        // Conditions that take a day to be true are not short here.
        Some((before, time)) if time.ends_with('m') => format!("{before}for: 2s\n"),
        _ => format!("{line}\n"),
    });
    Ok(lines.collect())
}

/// The alerts that fire.
fn firing(prometheus: &Prometheus) -> Result<BTreeSet<String>> {
    let alerts = prometheus.query("ALERTS{alertstate='firing'}", None)?;
    Ok(alerts.into_iter().filter_map(|(labels, _)| labels.get("alertname").cloned()).collect())
}

/// Waits until these alerts fire.
fn await_firing(prometheus: &Prometheus, expected: &[&str]) -> Result<()> {
    let mut last = BTreeSet::new();
    eventually(Duration::from_secs(45), "the alerts fire", || {
        last = firing(prometheus)?;
        Ok(expected.iter().all(|name| last.contains(*name)).then_some(()))
    })
    .with_context(|| format!("{last:?} fire, not all of {expected:?}"))
}

/// Whether a query has the value that is known here; true for others.
fn is_known(query: &Query, found: &[(BTreeMap<String, String>, f64)]) -> bool {
    let values = || found.iter().map(|(_, value)| *value).collect::<Vec<_>>();
    match query.title.as_str() {
        "Snug / Workload: Memory of the largest pod" if query.expr.contains("memory_limit") => {
            values() == [LIMIT as f64]
        }
        "Snug / Right-sizing: CPU, requested and used" if query.expr.contains("request") => values() == [1.5],
        "Snug / Workload: OOM kills by the limit that was hit" => {
            found.iter().any(|(labels, value)| labels["limit"] == "container" && *value > 2.5)
        }
        _ => true,
    }
}

/// Every panel's query runs, most have a value, and those of a workload in trouble have its values.
fn dashboards_show(prometheus: &Prometheus, instance: &str) -> Result<()> {
    let variables = json!({
        "instance": instance, "namespace": "shop", "workload": "greedy", "__rate_interval": "20s", "__range": "1m",
    });
    let mut missing = Vec::new();
    // A busy host misses scrapes.
    eventually(Duration::from_secs(45), "the dashboards have values", || {
        let (mut empty, mut wrong) = (Vec::new(), Vec::new());
        for dashboard in dashboards::source()? {
            for query in dashboards::queries(&dashboard)? {
                let expr = dashboards::substituted(&query.expr, &variables)?;
                let found = prometheus.query(&expr, None).with_context(|| query.title.clone())?;
                if !is_known(&query, &found) {
                    wrong.push(format!("{} {expr}: {found:?}", query.title));
                } else if found.is_empty() {
                    empty.push(format!("{} {expr}", query.title));
                }
            }
        }
        // Growth is known after ten minutes. There is no API server, no tracing of the run queue, and no container that has terminated
        // or has failed to connect; on old kernels some programs do not run.
        let is_complete = empty.len() <= 8 && wrong.is_empty();
        missing = [wrong, empty].concat();
        Ok(is_complete.then_some(()))
    })
    .with_context(|| missing.join("\n"))
}

#[test]
fn alerts_fire_for_containers_in_trouble_and_for_an_agent_that_is_gone() -> Result<()> {
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus");
    }
    let (mut greedy, mut throttled, unknown) = match (container(), container(), container()) {
        (Ok(greedy), Ok(throttled), Ok(unknown)) => (greedy, throttled, unknown),
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let (pods, file) = (folder.path().join("pods.json"), folder.path().join("rules.yaml"));
    let mut listed = [greedy.pod("shop", "greedy", "app"), throttled.pod("shop", "slow", "app")];
    for pod in &mut listed {
        pod["spec"]["containers"][0]["resources"] = json!({
            "requests": { "cpu": "750m", "memory": "64Mi" }, "limits": { "cpu": "2", "memory": "128Mi" },
        });
    }
    fs::write(&pods, pod_list(&listed))?;
    fs::write(&file, rules()?)?;
    greedy.set(("memory.max", &LIMIT.to_string()), ("memory.limit_in_bytes", &LIMIT.to_string()))?;
    throttled.set(("cpu.max", "10000 100000"), ("cpu.cfs_quota_us", "10000"))?;
    let agent = Agent::start(["--pods-file", &pods.to_string_lossy()])?;
    let prometheus =
        Prometheus::with_rules(&["--enable-feature=native-histograms"], agent.address(), &[], Some(&file))?;
    // The kernel kills the largest process, which is not the shell that starts the next one.
    greedy.run("exec 2> /dev/null; while :; do tail /dev/zero; sleep 0.5; done")?;
    throttled.run("while :; do :; done")?;

    // The third container has no pod.
    await_firing(&prometheus, &["SnugOOMLoop", "SnugThrottlingHurts", "SnugAgentWithoutNames"])?;
    let silent = firing(&prometheus)?;
    for name in ["SnugAgentDown", "SnugAgentAbsent", "SnugAgentBlind", "SnugMemoryLeak"] {
        assert!(!silent.contains(name), "{silent:?}");
    }
    let of =
        |alert: &str| prometheus.query(&format!("ALERTS{{alertname='{alert}',alertstate='firing'}}"), None);
    for (alert, workload) in [("SnugOOMLoop", "greedy"), ("SnugThrottlingHurts", "slow")] {
        let found = of(alert)?;
        assert!(
            found.iter().any(|(labels, _)| labels.get("workload").is_some_and(|it| it == workload)),
            "{found:?}"
        );
    }
    dashboards_show(&prometheus, &agent.address().to_string())?;

    agent.end_by(Signal::KILL)?;
    await_firing(&prometheus, &["SnugAgentDown", "SnugAgentAbsent"])?;
    drop(unknown);
    Ok(())
}
