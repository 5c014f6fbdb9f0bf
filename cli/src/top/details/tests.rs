use std::collections::BTreeMap;

use serde_json::json;
use snug_sizing::{
    evidence::{Header, Hour},
    workload::{self, Container},
};

use super::*;

const NOW: u64 = 1_800_000_000;

fn row() -> ContainerRow {
    ContainerRow {
        node: "n".to_owned(),
        name: "web-x2x".to_owned(),
        namespace: "shop".to_owned(),
        pod: "web-7c9f-x2x".to_owned(),
        container: "web".to_owned(),
        workload_kind: "Deployment".to_owned(),
        workload: "web".to_owned(),
        cpu_cores: Some(0.25),
        cpu_limit_cores: Some(0.5),
        cpu_request_cores: Some(0.1),
        throttled_share: Some(0.1),
        memory_working_set_bytes: Some(64.0 * 1024.0 * 1024.0),
        memory_peak_bytes: Some(96.0 * 1024.0 * 1024.0),
        memory_limit_bytes: Some(128.0 * 1024.0 * 1024.0),
        oom_kills: Some(2.0),
        network_receive_bytes_per_second: Some(2048.0),
        ..ContainerRow::default()
    }
}

fn evidence() -> Vec<u8> {
    let workload = workload::Workload {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        owner: "Deployment".to_owned(),
        ..workload::Workload::default()
    };
    let container = Container { name: "web".to_owned(), ..Container::default() };
    let mut evidence = Evidence::new(workload, container, 100);
    let hour = evidence.hour(Hour::from_seconds(NOW));
    hour.cpu.record(0.1, 90);
    hour.cpu.record(0.3, 10);
    hour.waits.record(0.001, 5);
    (hour.periods, hour.throttled) = (200, 10);
    evidence.pods.entry("web-7c9f-x2x".to_owned()).or_default().observed = 60;
    let minute = MinuteRecord { observed_millis: 60_000, cpu_millis: 6_000, ..MinuteRecord::default() };
    evidence.minutes.insert(Minute::from_seconds(NOW), minute);
    let header = serde_json::to_string(&Header::new("n", NOW)).unwrap();
    format!("{header}\n{}\n", serde_json::to_string(&evidence).unwrap()).into_bytes()
}

fn answer(path: &str) -> Result<Vec<u8>, String> {
    let at = NOW as f64;
    Ok(match path.split('?').next() {
        Some("/api/v1/evidence") => evidence(),
        Some("/api/v1/workloads") => json!({"workloads": [
            {"workload_kind": "StatefulSet", "container": "web", "restarts": 9},
            {"workload_kind": "Deployment", "container": "web", "restarts": 3, "oom_kills": {"container": 2, "node": 0}},
        ]}).to_string().into_bytes(),
        Some("/api/v1/terminations") => json!({"terminations": [
            {"namespace": "shop", "pod": "other", "container": "x", "removed": at},
            {"namespace": "shop", "pod": "web-7c9f-x2x", "container": "web", "workload_kind": "Deployment", "workload": "web",
             "removed": at - 180.0, "process": {"exit_code": 137, "reason": "OOMKilled"}},
        ]}).to_string().into_bytes(),
        Some("/api/v1/events") => json!({"events": [
            {"at": at - 200.0, "kind": "termination", "severity": "WARN", "message": "ended", "container": "web"},
            {"at": at - 180.0, "kind": "oom_kill", "severity": "ERROR", "message": "killed \u{1b}[2J", "container": "web"},
            {"at": at - 10.0, "kind": "oom_kill", "severity": "ERROR", "message": "of another", "container": "proxy"},
        ]}).to_string().into_bytes(),
        _ => return Err(format!("no {path}")),
    })
}

fn text(lines: &[Spans]) -> String {
    lines.iter().map(|line| line.text() + "\n").collect()
}

#[test]
fn a_container_is_shown_in_full() {
    let mut paths = Vec::new();
    let details = request(&row(), NOW, |path| {
        paths.push(path.to_owned());
        answer(path)
    });
    assert_eq!(paths[0], "/api/v1/evidence?since=1799996400&minutes=true&namespace=shop&workload=web");
    assert!(paths.contains(&"/api/v1/events?namespace=shop&pod=web%2D7c9f%2Dx2x".to_owned()), "{paths:?}");
    let text = text(&lines(&row(), Some(&details), 120, 24));
    for part in [
        "web-x2x  namespace shop  workload Deployment/web  pod web-7c9f-x2x  node n",
        "CPU       250m of limit 500m, request 100m  [█",
        "throttled 10.0% of CFS periods now, 5.0% since the hour before",
        "cores by the minute, mean of 1 pod of the workload on this node; highest 100m",
        "up to   125m  250m  500m",
        "share   90.0% -     10.0%",
        "Memory    64Mi (50.0%) of limit 128Mi, request -, peak 96Mi",
        "waits for a CPU: half up to",
        "Restarts  3 restarts of the workload on this node; last termination: OOMKilled, exit code 137, 3 min ago",
        "OOM kills 2 of this container; of the workload: 2 at the limit of the container",
        "Network   received 2Ki/s, sent -",
        " 3 min ago  oom_kill  killed �[2J",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("of another"), "{text}");
    let (newer, older) = (text.find("oom_kill").unwrap(), text.find("termination  ended").unwrap());
    assert!(newer < older, "newest first:\n{text}");
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_shown() {
    let details = request(&row(), NOW, |path| {
        if path.contains("evidence") { Err("no history".to_owned()) } else { answer(path) }
    });
    let shown = text(&lines(&row(), Some(&details), 100, 24));
    assert!(
        shown.contains("not shown: usage history: no history") && shown.contains("3 restarts"),
        "{shown}"
    );
    let all_failed = request(&row(), NOW, |_| Err("gone".to_owned()));
    let shown = text(&lines(&row(), Some(&all_failed), 100, 24));
    assert_eq!(shown.matches("gone").count(), 4, "{shown}");
    assert!(shown.contains("restarts unknown"), "{shown}");
}

#[test]
fn a_unit_without_a_workload_has_what_is_known_of_it() {
    let unit = ContainerRow {
        id: "/demo/busy".to_owned(),
        name: "/demo/busy".to_owned(),
        ..ContainerRow::default()
    };
    let details = request(&unit, NOW, answer);
    assert!(details.events.is_empty(), "events of pods: {details:?}");
    let shown = text(&lines(&unit, Some(&details), 80, 24));
    assert!(shown.contains("cgroup /demo/busy") && shown.contains("workload is not known"), "{shown}");
}

#[test]
fn garbage_is_an_error_that_is_shown() {
    let details = request(&row(), NOW, |_| Ok(b"<html>".to_vec()));
    assert_eq!(details.missing.len(), 4, "{details:?}");
    let workload = Workload { oom_kills: Some(BTreeMap::new()), ..Workload::default() };
    let shown = text(&lines(&row(), Some(&Details { workload: Some(workload), ..details }), 80, 24));
    assert!(shown.contains("0 restarts"), "{shown}");
}
