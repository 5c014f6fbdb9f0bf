//! Back-test on traces of real containers: compares the figures of other tools' algorithms with those of an independent scorer.
//!
//! Needs the traces of `docs/backtest.md` in the directories of `SNUG_TRACES`, which is separated like a search path. Without them the
//! test prints that it is skipped.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use serde_json::Value;
use snug::backtest::traces;
use snug_sizing::{
    backtest::{
        open::{Decisions, Outcome, Replay},
        policies::{PolicyChoice, Run},
        trace::Trace,
        world::World,
    },
    engine::Profile,
};

/// Figures of the independent scorer, by the containers and minutes of the traces that they belong to.
const REFERENCE: [(usize, usize, &str); 3] = [
    (740, 6301, include_str!("reference/traces-740.jsonl")),
    (942, 6301, include_str!("reference/traces-942.jsonl")),
    (126, 14400, include_str!("reference/traces-jobs-126.jsonl")),
];

/// The name of a policy here, by the scorer's name.
fn our_name(name: &str) -> &str {
    if name == "kruize-approx" { "kruize-approx-performance" } else { name }
}

fn outcomes(trace: Trace, names: &[&str]) -> BTreeMap<String, Outcome> {
    let choice =
        |name: &&str| PolicyChoice::BASELINES.into_iter().find(|(other, _)| other == name).unwrap().1;
    let runs: Vec<Run> = names.iter().map(choice).map(Run::from).collect();
    let world = World::of_trace("traces", trace);
    let decisions = Replay::new(&world, Profile::Standard.risk()).open(&runs);
    names.iter().map(|name| (*name).to_owned()).zip(decisions.iter().map(Decisions::total)).collect()
}

/// The same figures, rounded like those of the scorer.
fn ours(resource: &str, outcome: &Outcome) -> Vec<(&'static str, String)> {
    if resource == "memory" {
        let it = outcome.memory.memory();
        return vec![
            ("pod_days", it.pod_days.to_string()),
            ("footprint_ratio", format!("{:.4}", it.footprint_ratio)),
            ("slack_pct", format!("{:.2}", it.slack_pct)),
            ("changes_per_day", format!("{:.4}", it.changes_per_day)),
            ("violation_pod_days_pct", format!("{:.3}", it.violation_pod_days_pct)),
        ];
    }
    let it = outcome.cpu.cpu();
    vec![
        ("pod_days", it.pod_days.to_string()),
        ("footprint_ratio", format!("{:.4}", it.footprint_ratio)),
        ("slack_pct", format!("{:.2}", it.slack_pct)),
        ("changes_per_day", format!("{:.4}", it.changes_per_day)),
        ("unserved_work_pct", format!("{:.3}", it.unserved_work_pct)),
        ("exceeded_samples_pct", format!("{:.3}", it.exceeded_samples_pct)),
    ]
}

/// A figure of the scorer with as many digits as the same figure here.
fn theirs(value: &Value, like: &str) -> String {
    let decimals = like.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    format!("{:.decimals$}", value.as_f64().unwrap())
}

#[test]
fn figures_are_those_of_the_reference_scorer() {
    let Some(folders) = std::env::var_os("SNUG_TRACES") else {
        eprintln!("SKIPPED: set SNUG_TRACES to the directories of the traces that docs/backtest.md names");
        return;
    };
    for folder in std::env::split_paths(&folders) {
        let trace = traces::read(&folder).unwrap();
        let containers: usize = trace.groups.iter().map(|group| group.rows.len()).sum();
        let of = REFERENCE.iter().find(|(rows, minutes, _)| (*rows, *minutes) == (containers, trace.minutes));
        let Some((_, minutes, reference)) = of else {
            eprintln!(
                "SKIPPED: {containers} containers over {} minutes are not traces that figures are known of",
                trace.minutes
            );
            continue;
        };
        let lines: Vec<Value> = reference.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut names: Vec<&str> =
            lines.iter().map(|line| our_name(line["policy"].as_str().unwrap())).collect();
        names.sort_unstable();
        names.dedup();
        let found = outcomes(trace, &names);
        assert_eq!(lines.len(), 15);
        for line in &lines {
            let (resource, policy) = (line["resource"].as_str().unwrap(), line["policy"].as_str().unwrap());
            for (figure, ours) in ours(resource, &found[our_name(policy)]) {
                let theirs = theirs(&line[figure], &ours);
                assert_eq!(
                    ours, theirs,
                    "{containers} containers, {minutes} minutes: {resource}, {policy}, {figure}"
                );
            }
        }
    }
}
