//! The same question twice: `snug recommend` on snapshots that were taken soon after each other, and with other selections.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

use std::{io::Write as _, process::Command};

use snug_sizing::{
    evidence::{Evidence, HOUR, Header, Hour, Peak},
    workload::{Container, Resources, Workload},
};

/// 2027-01-15 00:00 UTC, and the hours that ended since.
const START: u64 = 1_799_971_200;
const WHOLE_HOURS: u64 = 50;

/// A number from 0 to 1, always the same for a time and a workload.
fn noise(at: u64, number: u64) -> f64 {
    let mixed = (at / 10 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 31)) >> 40) as f64 / (1_u64 << 24) as f64
}

/// The history of a container until a time in seconds, with usage every ten seconds.
fn evidence(number: u64, now: u64) -> Evidence {
    let namespace = if number.is_multiple_of(2) { "shop" } else { "ops" }.to_owned();
    let workload = Workload {
        namespace,
        name: format!("web-{number}"),
        owner: "Deployment".to_owned(),
        replicas: 1,
        ..Workload::default()
    };
    let current = Resources { cpu_request: Some(500), memory_limit: Some(4 << 30), ..Resources::default() };
    let container = Container { name: "app".to_owned(), seen: now, current, ..Container::default() };
    let mut evidence = Evidence::new(workload, container, 100);
    for at in (START..now).step_by(10) {
        let share = 1.0 + noise(at, number);
        let record = evidence.hour(Hour::from_seconds(at));
        record.observed += 10;
        record.cpu.record(0.1 * share, 100);
        if at.is_multiple_of(60) {
            record.minutes.record(0.1 * share, 1);
        }
        let bytes = (f64::from(100 << number) * share) as u64 * 1024;
        record.peak =
            record.peak.take().max(Some(Peak { bytes: bytes * 10, at, pod: format!("web-{number}-1") }));
    }
    evidence
}

/// The recommendations as JSON, of a snapshot that was taken at a time in seconds.
fn recommended(now: u64, arguments: &[&str]) -> serde_json::Value {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{}", serde_json::to_string(&Header::new("node-1", now)).unwrap()).unwrap();
    for number in 0..8 {
        writeln!(file, "{}", serde_json::to_string(&evidence(number, now)).unwrap()).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_snug"))
        .args(["recommend", "-o", "json", "--file", file.path().to_str().unwrap()])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn answers_within_an_hour_are_equal_in_every_field() {
    let now = START + WHOLE_HOURS * HOUR + 900;
    for arguments in [&[][..], &["--since", "1d"]] {
        let first = recommended(now, arguments);
        assert_eq!(first["recommendations"].as_array().unwrap().len(), 8);
        for later in [10, 600] {
            assert_eq!(recommended(now + later, arguments), first, "{later} s later");
        }
    }
}

#[test]
fn an_answer_does_not_depend_on_the_selected_namespaces() {
    let now = START + WHOLE_HOURS * HOUR + 900;
    let entries = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let report = recommended(now, arguments);
        let all = report["recommendations"].as_array().unwrap().iter();
        all.filter(|entry| entry["namespace"] == "shop").cloned().collect()
    };
    let (all, some) = (entries(&[]), entries(&["-n", "shop"]));
    assert_eq!((all.len(), some == all), (4, true));
}
