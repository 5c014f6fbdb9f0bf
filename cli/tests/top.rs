//! `snug top` as a process, against a small HTTP server.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

mod server;

use std::{
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use server::Server;

fn page(cpu_web: f64, cpu_db: f64, periods: u64, throttled: u64) -> String {
    let web = "namespace=\"shop\",pod=\"web-1\",container=\"web\",kind=\"app\",workload_kind=\"Deployment\",workload=\"web\",id=\"aa\"";
    let db = "namespace=\"data\",pod=\"db-0\",container=\"db\",kind=\"app\",workload_kind=\"StatefulSet\",workload=\"db\",id=\"bb\"";
    format!(
        "# HELP snug_container_cpu_usage_seconds_total CPU time.\n# TYPE snug_container_cpu_usage_seconds_total counter\n\
         snug_container_cpu_usage_seconds_total{{{web}}} {cpu_web}\n\
         snug_container_cpu_usage_seconds_total{{{db}}} {cpu_db}\n\
         snug_container_cpu_limit_cores{{{web}}} 0.5\n\
         snug_container_cpu_cfs_periods_total{{{web}}} {periods}\n\
         snug_container_cpu_cfs_throttled_periods_total{{{web}}} {throttled}\n\
         snug_container_memory_working_set_bytes{{{web}}} 67108864\n\
         snug_container_memory_working_set_bytes{{{db}}} 134217728\n\
         snug_container_memory_peak_bytes{{{web}}} 1.34217728e+08\n\
         snug_container_memory_limit_bytes{{{web}}} 268435456\n\
         snug_container_memory_events_total{{{web},event=\"oom\"}} 5\n\
         snug_container_memory_events_total{{{web},event=\"oom_kill\"}} 2\n"
    )
}

fn two_pages() -> Server {
    Server::start("200 OK", vec![page(10.0, 5.0, 100, 10), page(10.05, 5.4, 110, 15)])
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
    assert_eq!(lines[2][..3], ["shop", "web-1", "web"]);
    assert_eq!(lines[2][4..], ["500m", "50.0%", "64Mi", "128Mi", "256Mi", "2", "Deployment/web"], "{text}");
    assert_eq!(lines[1][4..], ["-", "-", "128Mi", "-", "-", "-", "StatefulSet/db"], "{text}");
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert!(request.starts_with("GET /metrics HTTP/1.1\r\n"), "{request}");
        assert!(request.to_ascii_lowercase().contains("accept: text/plain;version=0.0.4\r\n"), "{request}");
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
        "-n",
        "1",
        "-o",
        "json",
        "--namespace",
        "data",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let seconds = report["interval_seconds"].as_f64().unwrap();
    assert!(seconds >= 0.2, "{seconds}");
    let [row] = report["containers"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&row["pod"], &row["workload_kind"]), (&"db-0".into(), &"StatefulSet".into()));
    let cores = row["cpu_cores"].as_f64().unwrap();
    assert!((cores * seconds - 0.4).abs() < 1e-6, "{cores} over {seconds}");
    assert_eq!(row["memory_limit_bytes"], serde_json::Value::Null);
}

#[test]
fn count_limits_the_number_of_tables() {
    let server = two_pages();
    let output = snug(&["top", "--agent", &server.url(), "--interval", "100ms", "-n", "3", "-o", "json"]);
    assert_eq!(stdout(&output).lines().count(), 3);
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn an_empty_table_is_success_with_a_reason() {
    let server = two_pages();
    let output =
        snug(&["top", "--agent", &server.url(), "--interval", "100ms", "--once", "--namespace", "none"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).contains("none of the agent's 2 containers is in namespace \"none\""),
        "{}",
        stderr(&output)
    );
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
        ("404 Not Found", "no", "responds with status 404"),
        ("200 OK", "<html></html>", "line 1 is not Prometheus text format"),
        ("200 OK", "up 1\n", "has no snug_"),
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
        &["top", "-n", "0"],
        &["top", "--once", "-n", "2"],
        &["top", "--sort", "name"],
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
        .args(["top", "--agent", &server.url(), "--interval", "100ms", "-n", "1000", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}
