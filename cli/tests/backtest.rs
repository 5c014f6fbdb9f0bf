//! Back-test on traces of real containers: compares the figures with those of an independent scorer, and the engine with the other
//! policies. Needs the traces in the directory `SNUG_TRACES`; without them the test prints that it is skipped.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use snug::backtest::traces;
use snug_sizing::{
    backtest::{
        open::{Decisions, Outcome, Replay},
        policies::{PolicyChoice, Run},
        trace::Trace,
        world::World,
    },
    engine::{Profile, Rule},
};

/// Pod-days; violations %, footprint, slack %, changes per day.
const MEMORY: [(&str, u64, &str); 4] = [
    ("krr-simple", 6118, "0.262 1.6115 56.46 0.0261"),
    ("krr-simple-nofloor", 6118, "0.360 1.5163 29.44 0.0381"),
    ("vpa", 6118, "0.425 1.9004 72.34 0.0301"),
    ("vpa-nofloor", 6118, "0.621 1.5200 34.63 0.0582"),
];

/// Pod-days; unserved %, exceeded %, footprint, slack %, changes per day.
const CPU: [(&str, u64, &str); 4] = [
    ("krr-simple", 6120, "0.903 0.575 3.7391 73.42 0.0522"),
    ("krr-simple-nofloor", 6120, "0.911 0.750 3.5419 52.54 0.0863"),
    ("vpa", 6120, "2.125 0.514 3.0303 79.07 0.0884"),
    ("vpa-nofloor", 6120, "2.153 0.680 2.6381 73.46 0.1185"),
];

/// The traces that the figures belong to.
fn traces() -> Option<Trace> {
    let Some(folder) = std::env::var_os("SNUG_TRACES").map(PathBuf::from) else {
        eprintln!("SKIPPED: set SNUG_TRACES to the directory of the traces that docs/backtest.md names");
        return None;
    };
    Some(traces::read(&folder).unwrap())
}

fn baseline(name: &str) -> PolicyChoice {
    PolicyChoice::BASELINES.into_iter().find(|(other, _)| *other == name).unwrap().1
}

fn outcomes(trace: &Trace, choices: &[PolicyChoice]) -> Vec<Outcome> {
    let runs: Vec<Run> = choices.iter().map(|choice| Run::from(*choice)).collect();
    let world = World::of_trace("traces", trace.clone());
    Replay::new(&world, Profile::Standard.risk()).open(&runs).iter().map(Decisions::total).collect()
}

#[test]
fn figures_are_those_of_the_reference_scorer_and_the_engine_is_better() {
    let Some(trace) = traces() else { return };
    let containers: usize = trace.groups.iter().map(|group| group.rows.len()).sum();
    if (containers, trace.minutes) != (740, 6301) {
        eprintln!(
            "SKIPPED: {containers} containers over {} minutes are not the traces that the figures belong to",
            trace.minutes
        );
        return;
    }
    let snug = PolicyChoice::Snug(Profile::Standard.risk(), Rule::FITTED);
    let choices: Vec<PolicyChoice> = MEMORY.iter().map(|(name, ..)| baseline(name)).chain([snug]).collect();
    let sums = outcomes(&trace, &choices);
    for ((name, pod_days, wanted), sum) in MEMORY.iter().zip(&sums) {
        let it = sum.memory.memory();
        let found = format!(
            "{:.3} {:.4} {:.2} {:.4}",
            it.violation_pod_days_pct, it.footprint_ratio, it.slack_pct, it.changes_per_day
        );
        assert_eq!((it.pod_days, found.as_str()), (*pod_days, *wanted), "memory, {name}");
    }
    for ((name, pod_days, wanted), _) in CPU.iter().zip(&sums) {
        let place = MEMORY.iter().position(|(other, ..)| other == name).unwrap();
        let it = sums[place].cpu.cpu();
        let found = format!(
            "{:.3} {:.3} {:.4} {:.2} {:.4}",
            it.unserved_work_pct,
            it.exceeded_samples_pct,
            it.footprint_ratio,
            it.slack_pct,
            it.changes_per_day
        );
        assert_eq!((it.pod_days, found.as_str()), (*pod_days, *wanted), "CPU, {name}");
    }

    // Fewer violations than both tools with their defaults, with a footprint 10 % below the smaller one.
    let snug = sums.last().unwrap();
    let shipped =
        |name: &str| sums.get(MEMORY.iter().position(|(other, ..)| *other == name).unwrap()).unwrap();
    let (krr, vpa) = (shipped("krr-simple"), shipped("vpa"));
    let (mine, krr_memory, vpa_memory) = (snug.memory.memory(), krr.memory.memory(), vpa.memory.memory());
    assert!(
        mine.violation_pod_days_pct
            <= krr_memory.violation_pod_days_pct.min(vpa_memory.violation_pod_days_pct)
    );
    assert!(mine.footprint_ratio <= 0.9 * krr_memory.footprint_ratio.min(vpa_memory.footprint_ratio));
    // A smaller CPU footprint than the cheaper of both, with less than half of its unserved CPU time.
    let (mine, vpa) = (snug.cpu.cpu(), vpa.cpu.cpu());
    assert!(
        mine.footprint_ratio < vpa.footprint_ratio && mine.unserved_work_pct < 0.5 * vpa.unserved_work_pct
    );
    assert!(mine.changes_per_day <= 0.5 * vpa.changes_per_day);
}
