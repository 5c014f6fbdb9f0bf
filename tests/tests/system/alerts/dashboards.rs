//! The queries of the dashboards, while the workloads are in trouble: each has the value that the workloads give it.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use serde_json::json;
use snug_tests::{
    agent::{Agent, eventually},
    dashboards,
};

use super::{HELD, LARGE, RESTARTS, SMALL, SOON};
use crate::prometheus::Prometheus;

const MIB: f64 = 1_048_576.0;

/// What a query must return.
enum Expected {
    /// A series with this label has a value in this range.
    Between(&'static str, &'static str, f64, f64),
    /// No series.
    Nothing,
}

use Expected::{Between, Nothing};

/// The values, by panel and legend. For the panels of one workload: its name.
fn expected(title: &str, legend: &str, agent: &Agent) -> Result<(&'static str, Expected)> {
    let (held, small, large) = (HELD as f64, SMALL as f64, LARGE as f64);
    let (requested, memory) = (0.75 * 4.0 + 2.0 + 0.1, (64.0 * 5.0 + 2048.0) * MIB);
    let resident = resident(agent)?;
    let of_all = |expected| (".+", expected);
    Ok(match (title, legend) {
        ("Snug / Node: CPU usage by namespace", _) => of_all(Between("namespace", "shop", 0.6, 2.2)),
        ("Snug / Node: CPU usage and requests", "used") => of_all(Between("", "", 0.6, 2.2)),
        ("Snug / Node: CPU usage and requests", _) => of_all(Between("", "", requested, requested)),
        ("Snug / Node: Memory by namespace", _) => of_all(Between("namespace", "shop", held, 1.3 * held)),
        ("Snug / Node: Memory usage and requests", "used") => of_all(Between("", "", held, 1e12)),
        ("Snug / Node: Memory usage and requests", _) => of_all(Between("", "", memory, memory)),
        ("Snug / Node: Throttled share of CFS periods", _) => of_all(Between("workload", "slow", 0.8, 1.0)),
        ("Snug / Node: Memory as a share of the limit", _) => {
            of_all(Between("pod", "full-5d4f8c7b9c-x7k2p", held / large, 1.2 * held / large))
        }
        ("Snug / Node: OOM kills", _) => of_all(Between("workload", "greedy", 2.5, 200.0)),
        ("Snug / Node: Time stalled on memory", _) => {
            of_all(Between("pod", "idle-5d4f8c7b9c-x7k2p", 0.0, 0.0))
        }
        ("Snug / Node: Network, received", _) => of_all(Between("namespace", "shop", 50.0, 50_000.0)),
        ("Snug / Node: Network, sent", _) => of_all(Between("namespace", "shop", 50.0, 50_000.0)),

        ("Snug / Workload: CPU usage", "{{container}}") => ("slow", Between("container", "app", 0.08, 0.12)),
        ("Snug / Workload: CPU usage", "{{container}}, request") => {
            ("slow", Between("container", "app", 0.75, 0.75))
        }
        ("Snug / Workload: CPU usage", _) => ("slow", Between("container", "app", 2.0, 2.0)),
        ("Snug / Workload: CPU usage in windows of 100 ms", _) => {
            ("slow", Between("container", "app", 0.05, 0.4))
        }
        ("Snug / Workload: Throttled share of CFS periods", _) => {
            ("slow", Between("container", "app", 0.8, 1.0))
        }
        ("Snug / Workload: Memory of the largest pod", "{{container}}") => {
            ("full", Between("container", "app", held, 1.1 * held))
        }
        ("Snug / Workload: Memory of the largest pod", "{{container}}, peak") => {
            ("greedy", Between("container", "app", 0.9 * small, small))
        }
        ("Snug / Workload: Memory of the largest pod", "{{container}}, request") => {
            ("full", Between("container", "app", 64.0 * MIB, 64.0 * MIB))
        }
        ("Snug / Workload: Memory of the largest pod", _) => {
            ("full", Between("container", "app", large, large))
        }
        // It is known after ten minutes.
        ("Snug / Workload: Memory growth", _) => ("full", Nothing),
        ("Snug / Workload: OOM kills by the limit that was hit", _) => {
            ("greedy", Between("limit", "container", 2.5, 200.0))
        }
        ("Snug / Workload: Terminations by reason and exit code", _) => {
            ("restarting", Between("exit_code", "137", 1.0, f64::from(2 * RESTARTS)))
        }
        ("Snug / Workload: Run queue wait", _) => ("busy", Between("container", "app", 0.0, 1.0)),
        ("Snug / Workload: Network", _) => ("talker", Between("container", "app", 50.0, 50_000.0)),
        ("Snug / Workload: TCP connections that failed", _) => {
            ("talker", Between("outcome", "refused", 0.3, 2.2))
        }

        ("Snug / Right-sizing: CPU, requested and used", "requested") => {
            of_all(Between("", "", requested, requested))
        }
        ("Snug / Right-sizing: CPU, requested and used", _) => of_all(Between("", "", 0.6, 2.2)),
        ("Snug / Right-sizing: Memory, requested and used", "requested") => {
            of_all(Between("", "", memory, memory))
        }
        ("Snug / Right-sizing: Memory, requested and used", _) => of_all(Between("", "", held, 1.3 * held)),
        ("Snug / Right-sizing: CPU requests above usage", _) => of_all(Between("workload", "idle", 1.9, 2.0)),
        ("Snug / Right-sizing: Memory requests above usage", _) => {
            of_all(Between("workload", "idle", 2000.0 * MIB, 2048.0 * MIB))
        }
        ("Snug / Right-sizing: CPU usage as a share of the request", _) => {
            of_all(Between("workload", "slow", 0.08 / 0.75, 0.12 / 0.75))
        }
        ("Snug / Right-sizing: Memory usage as a share of the request", _) => {
            of_all(Between("workload", "full", held / (64.0 * MIB), 1.1 * held / (64.0 * MIB)))
        }
        ("Snug / Right-sizing: CPU usage without a request", _) => {
            of_all(Between("workload", "talker", 0.0001, 0.5))
        }

        ("Snug / Agent: Agents by version", _) => of_all(Between("arch", std::env::consts::ARCH, 1.0, 1.0)),
        ("Snug / Agent: CPU usage", "{{instance}}") => of_all(Between("", "", 0.001, 2.0)),
        ("Snug / Agent: CPU usage", _) => of_all(Between("", "", 0.0, 0.5)),
        ("Snug / Agent: Memory", "{{instance}}") => of_all(Between("", "", 0.8 * resident, 1.2 * resident)),
        ("Snug / Agent: Memory", _) => of_all(Between("", "", MIB, 64.0 * MIB)),
        ("Snug / Agent: Age of the oldest values", _) => of_all(Between("measurement", "memory", 0.0, 5.0)),
        ("Snug / Agent: Measurements by source", _) => of_all(Between("measurement", "memory", 1.0, 1.0)),
        // They all run, except on old kernels.
        ("Snug / Agent: Programs that do not run", _) => of_all(Nothing),
        ("Snug / Agent: Lost events and records", "{{instance}} {{kind}}") => {
            of_all(Between("kind", "oom_kill", 0.0, 0.0))
        }
        ("Snug / Agent: Lost events and records", _) => of_all(Between("", "", 0.0, 0.0)),
        ("Snug / Agent: Time of a pass over all cgroups", _) => of_all(Between("", "", 1e-6, 0.5)),
        ("Snug / Agent: Series in the last scrape", "{{instance}} {{endpoint}}") => {
            of_all(Between("endpoint", "/metrics", 100.0, 200_000.0))
        }
        ("Snug / Agent: Series in the last scrape", _) => of_all(Between("endpoint", "/metrics", 0.0, 0.0)),
        // There is no API server.
        ("Snug / Agent: Pods and containers without names", "{{instance}}, connected") => of_all(Nothing),
        ("Snug / Agent: Pods and containers without names", _) => of_all(Between("", "", 1.0, 1000.0)),
        ("Snug / Agent: Usage history on disk", _) => of_all(Between("", "", 0.0, 1e9)),
        (title, legend) => anyhow::bail!("{title}, {legend}: which value has it?"),
    })
}

/// Resident memory of the agent by its `/proc/PID/status`, bytes.
fn resident(agent: &Agent) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
    let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    Ok(row.context("no VmRSS")?.trim().parse::<f64>()? * 1024.0)
}

impl Expected {
    fn holds(&self, found: &[(BTreeMap<String, String>, f64)]) -> bool {
        match self {
            Nothing => found.is_empty(),
            Between(name, value, low, high) => found.iter().any(|(labels, found)| {
                let is_this = name.is_empty() || labels.get(*name).is_some_and(|label| label == value);
                is_this && (low..=high).contains(&found)
            }),
        }
    }
}

/// Waits until every query has its known value.
pub(super) fn show(prometheus: &Prometheus, agent: &Agent) -> Result<()> {
    let mut wrong = Vec::new();
    // A busy host misses scrapes.
    eventually(SOON, "the dashboards have values", || {
        wrong.clear();
        for dashboard in dashboards::source()? {
            for query in dashboards::queries(&dashboard)? {
                let (workload, expected) = expected(&query.title, &query.legend, agent)?;
                let variables = json!({
                    "instance": agent.address().to_string(), "namespace": "shop", "workload": workload,
                    "__rate_interval": "20s", "__range": "1m",
                });
                let expr = dashboards::substituted(&query.expr, &variables)?;
                let found = prometheus.query(&expr, None).with_context(|| query.title.clone())?;
                if !expected.holds(&found) {
                    wrong.push(format!("{}, {}: {expr}: {found:?}", query.title, query.legend));
                }
            }
        }
        Ok(wrong.is_empty().then_some(()))
    })
    .with_context(|| wrong.join("\n"))
}
