//! Outputs that cannot be written: an error that names the cause, and no panic.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

use std::{
    fs::{self, File},
    process::{Command, Output},
};

use snug_sizing::{
    evidence::{Evidence, HOUR, Header, Hour, HourRecord, Peak},
    workload::{Container, Workload, WorkloadKind},
};

const START: u64 = 1_800_000_000;
const DAYS: u32 = 8;

/// A snapshot with one Deployment.
fn snapshot() -> String {
    let workload = Workload {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        owner: "Deployment".to_owned(),
        kind: WorkloadKind::Service,
        replicas: 1,
    };
    let container = Container { name: "app".to_owned(), seen: START, ..Container::default() };
    let mut evidence = Evidence::new(workload, container, 100);
    for hour in 0..DAYS * 24 {
        let mut record = HourRecord { observed: HOUR, ..HourRecord::default() };
        record.cpu.record(0.1, 36_000);
        record.minutes.record(0.1, 60);
        record.unreclaimable.record(1e6, 360);
        let at = START + u64::from(hour) * HOUR;
        record.peak = Some(Peak { bytes: 64 << 20, at, pod: "web-0".to_owned() });
        evidence.hours.insert(Hour((START / HOUR) as u32 + hour), record);
    }
    let header = Header::new("node-1", START + u64::from(DAYS) * 24 * HOUR);
    [serde_json::to_string(&header).unwrap(), serde_json::to_string(&evidence).unwrap()].join("\n")
}

/// Runs a command whose standard output goes to a device that is always full.
fn into_full_device(arguments: &[&str]) -> Output {
    let full = File::options().write(true).open("/dev/full").unwrap();
    Command::new(env!("CARGO_BIN_EXE_snug")).args(arguments).stdout(full).output().unwrap()
}

#[test]
fn a_full_device_is_an_error_of_every_command() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), snapshot()).unwrap();
    let file = file.path().to_str().unwrap();
    let mut commands: Vec<Vec<&str>> =
        ["--help", "--version", "man", "certificates", "help"].map(|one| vec![one]).into();
    commands.push(vec!["recommend", "--help"]);
    commands.extend(["bash", "zsh", "fish", "elvish", "powershell"].map(|shell| vec!["completions", shell]));
    for format in ["table", "wide", "json", "yaml", "csv", "markdown", "patch", "kustomize", "helm"] {
        commands.push(vec!["recommend", "--file", file, "-o", format]);
    }
    commands.push(vec!["explain", "--file", file, "web"]);
    commands.push(vec!["simulate", "--file", file, "web", "--memory-limit", "100Mi"]);
    commands.push(vec!["snapshot", "--file", file]);
    commands.push(vec!["snapshot", "--file", file, "-o", "/dev/full"]);
    commands.push(vec!["backtest", "--history", "--file", file]);
    for command in commands {
        let output = into_full_device(&command);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {message}");
        assert!(message.contains("No space left on device"), "{command:?}: {message}");
        assert!(!message.contains("panicked"), "{command:?}: {message}");
    }
}
