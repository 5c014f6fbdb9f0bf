//! A small shop with usage history: what the tests of the command ask about.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output},
};

use snug_sizing::{
    cpu_quota::TokenBuckets,
    evidence::{Evidence, HOUR, Header, Hour, HourRecord, OomKill, Peak, PodTotals, Stalled},
    workload::{Container, Resources, Workload, WorkloadKind},
};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const START: u64 = 1_800_000_000;

pub(crate) fn evidence(
    name: &str,
    container: &str,
    owner: &str,
    current: Resources,
    hours: u32,
    record: impl Fn(u32) -> HourRecord,
) -> Evidence {
    let namespace = if owner == "Unit" { "" } else { "shop" };
    let workload = Workload {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        owner: owner.to_owned(),
        kind: WorkloadKind::Service,
        replicas: 2,
    };
    let container = Container { name: container.to_owned(), seen: START, current, ..Container::default() };
    let mut evidence = Evidence::new(workload, container, 100);
    for hour in 0..hours {
        evidence.hours.insert(Hour((START / HOUR) as u32 + hour), record(hour));
    }
    let totals = PodTotals { observed: u64::from(hours) * HOUR, ..PodTotals::default() };
    evidence.pods.insert(format!("{name}-0"), totals);
    evidence.pods.insert(format!("{name}-1"), PodTotals::default());
    evidence
}

/// An hour of windows, given as CPU time in milliseconds and number of windows, and a peak.
pub(crate) fn hour(pod: &str, windows: &[(u64, u64)], mib: u64, at: u32) -> HourRecord {
    let mut record = HourRecord { observed: HOUR, ..HourRecord::default() };
    let mut quota_what_if = TokenBuckets::default();
    for (used, times) in windows {
        record.cpu.record(*used as f64 / 100.0, *times);
        (0..(*times).min(1000)).for_each(|_| quota_what_if.feed(*used * 1_000_000, 100_000_000));
    }
    // Minutes are near the mean of their windows.
    let (all, used) = windows.iter().fold((0, 0), |sum, (used, times)| (sum.0 + times, sum.1 + used * times));
    let mean = used as f64 / all as f64 / 100.0;
    for (part, times) in [(0.8, 20), (1.0, 34), (1.4, 5), (2.0, 1)] {
        record.minutes.record(mean * part, times);
    }
    record.quota_what_if = quota_what_if.take();
    record.waits.record(0.0001, 900);
    record.waits.record(0.02, 5);
    record.stalled = Stalled { cpu_millis: 3600, memory_millis: 1, io_millis: 0, refaults: 2 };
    record.unreclaimable.record((mib * MIB / 2) as f64, 360);
    record.exits.insert(137, 1);
    record.peak = Some(Peak { bytes: mib * MIB, at: START + u64::from(at) * HOUR, pod: pod.to_owned() });
    record
}

/// An oversized service, one with an OOM kill, one with little history, and a systemd unit without usage.
pub(crate) fn shop() -> Vec<Evidence> {
    let set = |cpu_request, cpu_limit, memory_request: u64, memory_limit: u64| Resources {
        cpu_request: Some(cpu_request),
        cpu_limit,
        memory_request: Some(memory_request * MIB),
        memory_limit: Some(memory_limit * MIB),
    };
    let web = evidence("web", "app", "Deployment", set(1000, Some(2000), 1024, 1024), 8 * 24, |at| {
        hour("web-0", &[(2, 30_000), (8, 5000), (35, 900), (80, 100)], 180 + u64::from(at % 24), at)
    });
    let proxy = evidence("web", "proxy", "Deployment", set(100, None, 64, 64), 8 * 24, |at| {
        hour("web-0", &[(0, 20_000), (1, 16_000)], 22, at)
    });
    let ledger = evidence("ledger", "db", "StatefulSet", set(250, Some(250), 128, 128), 30, |at| {
        let mut record = hour("ledger-0", &[(10, 36_000)], 127, at);
        if at == 20 {
            let kill = OomKill { at: START + 20 * HOUR + 7, limit: 128 * MIB, pod: "ledger-0".to_owned() };
            record.kills = vec![kill];
        }
        record
    });
    let young = evidence("young", "app", "Deployment", Resources::default(), 1, |at| HourRecord {
        observed: 90,
        ..hour("young-0", &[(5, 900)], 12, at)
    });
    let unit = evidence("cron", "", "Unit", Resources::default(), 1, |_| HourRecord {
        observed: 5,
        ..HourRecord::default()
    });
    vec![web, proxy, ledger, young, unit]
}

pub(crate) fn snapshot(all: &[Evidence]) -> String {
    let header = Header::new("node-1", START + 8 * 24 * HOUR);
    let mut text = serde_json::to_string(&header).unwrap() + "\n";
    for evidence in all {
        text += &(serde_json::to_string(evidence).unwrap() + "\n");
    }
    text
}

pub(crate) fn written(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

pub(crate) fn snug(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snug")).args(arguments).output().unwrap()
}

pub(crate) fn on(file: &Path, arguments: &[&str]) -> Output {
    let (command, rest) = arguments.split_first().unwrap();
    snug(&[&[*command, "--file", file.to_str().unwrap()], rest].concat())
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
