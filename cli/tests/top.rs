//! `snug top` as a process, against a small HTTP server.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

mod api_server;
#[path = "../../tests/src/http.rs"]
pub mod http;
mod server;

use std::{
    net::TcpListener,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use server::Server;

/// The answer for all containers at a time, after these CPU seconds and CFS periods.
fn page(at: f64, cpu_web: f64, cpu_db: f64, periods: u64, throttled: u64) -> String {
    json!({
        "version": "v1", "node": "node-1", "at": at, "next": null,
        "containers": [
            {
                "id": "/kubepods/a", "level": "container", "kind": "app", "namespace": "shop", "pod": "web-7c9f-x2x",
                "container": "web", "workload_kind": "Deployment", "workload": "web", "container_id": "aa",
                "cpu_seconds": cpu_web, "cpu_quota_cores": 0.5, "cpu_request_cores": 0.1, "cfs_periods": periods,
                "cfs_throttled_periods": throttled, "memory_working_set_bytes": 67_108_864,
                "memory_peak_bytes": 134_217_728, "memory_limit_bytes": 268_435_456, "oom_kills": 2,
                "network": { "receive_bytes": (at * 2048.0) as u64, "transmit_bytes": 7 },
            },
            {
                "id": "/kubepods/b", "level": "container", "kind": "app", "namespace": "data", "pod": "db-0",
                "container": "db", "workload_kind": "StatefulSet", "workload": "db", "container_id": "bb",
                "cpu_seconds": cpu_db, "memory_working_set_bytes": 134_217_728, "network": null,
            },
        ],
    })
    .to_string()
}

fn two_pages() -> Server {
    Server::start("200 OK", vec![page(1000.0, 10.0, 5.0, 100, 10), page(1000.25, 10.05, 5.4, 110, 15)])
}

fn snug(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snug")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_table_of_two_scrapes() {
    let server = two_pages();
    let output =
        snug(&["top", "--agent", &server.url(), "--interval", "100ms", "--once", "--sort", "memory"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[1][..3], ["data", "db-0", "db"], "the larger working set comes first:\n{text}");
    assert_eq!(lines[2][..3], ["shop", "web-7c9f-x2x", "web"]);
    assert_eq!(lines[2][4..], ["500m", "50.0%", "64Mi", "128Mi", "256Mi", "2", "Deployment/web"], "{text}");
    assert_eq!(lines[1][4..], ["-", "-", "128Mi", "-", "-", "-", "StatefulSet/db"], "{text}");
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert!(request.starts_with("GET /api/v1/containers?limit=10000 HTTP/1.1\r\n"), "{request}");
    }
}

#[test]
fn json_has_the_rate_over_the_interval_measured() {
    let server = two_pages();
    let output = snug(&[
        "top",
        "--agent",
        &server.url(),
        "--interval",
        "200ms",
        "--count",
        "1",
        "-o",
        "json",
        "-n",
        "data",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let seconds = report["interval_seconds"].as_f64().unwrap();
    assert_eq!(seconds, 0.25, "by the clock of the agent");
    assert!(server.requests().iter().all(|request| request.contains("&namespace=data")));
    let [row] = report["containers"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&row["pod"], &row["workload_kind"]), (&"db-0".into(), &"StatefulSet".into()));
    let cores = row["cpu_cores"].as_f64().unwrap();
    assert!((cores * seconds - 0.4).abs() < 1e-6, "{cores} over {seconds}");
    assert_eq!(
        (&row["memory_limit_bytes"], &row["name"], &row["node"]),
        (&Value::Null, &"db-0".into(), &"node-1".into())
    );
}

#[test]
fn count_limits_the_number_of_tables() {
    let server = two_pages();
    let output =
        snug(&["top", "--agent", &server.url(), "--interval", "100ms", "--count", "3", "-o", "json"]);
    assert_eq!(stdout(&output).lines().count(), 3);
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn the_number_of_tables_is_no_namespace() {
    let output = snug(&["top", "-n", "20"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("-n selects a namespace; the number of tables is --count 20"), "{text}");
}

#[test]
fn several_agents_are_one_table_and_a_silent_one_is_named() {
    let (one, other) = (two_pages(), two_pages());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = format!("http://{free}");
    let (a, b) = (one.url(), other.url());
    let args = ["top", "--agent", &a, "--agent", &b, "--agent", &silent, "--interval", "100ms"];
    let output = snug(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!((text.lines().count(), text.matches("node-1").count()), (5, 4), "{text}");
    assert!(
        stderr(&output).contains(&format!("snug: {silent}: cannot reach the agent")),
        "{}",
        stderr(&output)
    );
}

/// A kubeconfig for an API server with two agents and the pods of a Deployment. The second agent stops listening after this number of
/// requests.
fn cluster(stays: usize) -> tempfile::NamedTempFile {
    let requests = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    api_server::start(answer, move |head| {
        let number = usize::from(head.contains("/agent-2/"));
        let count = requests[number].fetch_add(1, Ordering::Relaxed);
        let (at, cpu) = (1000.0 + count as f64 * 0.25, count as f64 * 0.05);
        let page = page(at, cpu, cpu, 0, 0).replace("node-1", &format!("node-{}", number + 1));
        (number == 0 || count < stays).then_some(page)
    })
}

fn answer(head: &str) -> (&'static str, String) {
    let agent = |number: u8| {
        json!({
            "metadata": { "name": format!("agent-{number}"), "namespace": "snug" },
            "spec": { "nodeName": format!("node-{number}"), "containers": [] },
            "status": { "phase": "Running" },
        })
    };
    let (version, kind, items) = if head.contains("snug-agent") {
        ("v1", "PodList", json!([agent(1), agent(2)]))
    } else {
        // Those with the label app=web.
        assert!(head.contains("labelSelector=app%3Dweb"), "{head}");
        let pods = json!([{ "metadata": { "name": "web-7c9f-x2x", "namespace": "shop" } }]);
        ("meta.k8s.io/v1", "PartialObjectMetadataList", pods)
    };
    let body = json!({ "kind": kind, "apiVersion": version, "metadata": { "resourceVersion": "1" }, "items": items });
    ("200 OK", body.to_string())
}

#[test]
fn all_agents_of_a_cluster_are_one_table() {
    let file = cluster(usize::MAX);
    let path = file.path().to_str().unwrap();
    let output = snug(&["top", "--kubeconfig", path, "--interval", "100ms", "-l", "app=web", "-o", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<_> = report["containers"].as_array().unwrap().iter().collect();
    let names: Vec<_> =
        rows.iter().map(|row| (row["node"].as_str().unwrap(), row["pod"].as_str().unwrap())).collect();
    assert_eq!(names, [("node-1", "web-7c9f-x2x"), ("node-2", "web-7c9f-x2x")]);
    assert!(rows.iter().all(|row| (row["cpu_cores"].as_f64().unwrap() - 0.2).abs() < 1e-9), "{rows:?}");
}

#[test]
fn an_agent_of_a_cluster_that_goes_away_keeps_its_rows_and_is_named() {
    let file = cluster(1);
    let path = file.path().to_str().unwrap();
    let output = snug(&["top", "--kubeconfig", path, "--interval", "100ms", "-o", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["containers"].as_array().unwrap();
    let stale = rows.iter().filter(|row| row["is_stale"] == true && row["node"] == "node-2").count();
    assert_eq!((rows.len(), stale), (4, 2), "{rows:?}");
    assert!(stderr(&output).contains("snug: node-2: "), "{}", stderr(&output));
    assert!(stderr(&output).contains("connection refused"), "{}", stderr(&output));
}

#[test]
fn an_empty_table_is_success_with_a_reason() {
    let server = two_pages();
    let output =
        snug(&["top", "--agent", &server.url(), "--interval", "100ms", "--once", "--namespace", "none"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("no container is in the namespace \"none\""), "{}", stderr(&output));
}

#[test]
fn an_unreachable_agent_is_an_error_with_a_remedy() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = snug(&["top", "--agent", &format!("http://{free}"), "--once"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains(&free.to_string()) && text.contains("is snug-agent running there"), "{text}");
}

#[test]
fn other_servers_are_errors() {
    for (status, body, expected) in [
        ("404 Not Found", "no", "does not exist: is the server a snug-agent"),
        ("200 OK", "<html></html>", "is no list of containers; is the server a snug-agent?"),
        ("500 Oops", "{}", "responds with status 500"),
    ] {
        let server = Server::start(status, vec![body.to_owned()]);
        let output = snug(&["top", "--agent", &server.url(), "--once"]);
        assert_eq!(output.status.code(), Some(1), "{body}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn a_wrong_command_line_is_an_error() {
    for args in [
        &["top", "--agent", "node:9750"][..],
        &["top", "--interval", "0s"],
        &["top", "--count", "0"],
        &["top", "--once", "--count", "2"],
        &["top", "--sort", "nothing"],
        &["top", "-l", "app=web", "--agent", "http://127.0.0.1:1"],
        &["pot"],
        &[],
    ] {
        assert_eq!(snug(args).status.code(), Some(1), "{args:?}");
    }
}

#[test]
fn a_closed_pipe_is_success() {
    let server = two_pages();
    let mut child = Command::new(env!("CARGO_BIN_EXE_snug"))
        .args(["top", "--agent", &server.url(), "--interval", "100ms", "--count", "1000", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}
