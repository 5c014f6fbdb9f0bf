//! The documented installation.

use std::{fs, path::Path};

use crate::node::node;

/// BPF, PERFMON and NET_ADMIN.
const CAPABILITIES: u64 = 1 << 39 | 1 << 38 | 1 << 12;

#[test]
fn every_program_runs_with_three_capabilities() {
    let Some(node) = node() else { return };
    let page = node.page("/metrics").unwrap();
    let programs = page.all("snug_agent_program_info", &[]);
    assert!(programs.len() >= 10, "{programs:?}");
    for program in programs {
        assert_eq!(program.label("verdict"), "running", "{program:?}");
    }
    assert_eq!(page.value("snug_agent_kubernetes_connected", &[]).unwrap(), 1.0);

    let agent = node.agent().unwrap();
    let id = agent["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    let pid = node.pid_of(id.rsplit('/').next().unwrap()).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!(of("Name"), "snug-agent");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(u64::from_str_radix(&of(set), 16).unwrap(), CAPABILITIES, "{set}");
    }
    assert_eq!(of("Seccomp"), "2", "a filter is active");
}

#[test]
fn applied_again_nothing_changes() {
    let Some(node) = node() else { return };
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base");
    let printed = node.kubectl(&["apply", "-k", &base.display().to_string()]).unwrap();
    let changed: Vec<&str> = printed.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    assert!(changed.is_empty() && printed.lines().count() >= 6, "{printed}");
}

#[test]
fn the_agent_answers_through_the_api_server_proxy_and_to_prometheus() {
    let Some(node) = node() else { return };
    let agent = node.agent().unwrap();
    let name = agent["metadata"]["name"].as_str().unwrap();
    let of_api = ["node", "containers?limit=1", "workloads", "events", "ends", "schema", "evidence"];
    let of_api = of_api.map(|resource| format!("/api/v1/{resource}"));
    let others = ["/readyz", "/healthz", "/metrics", "/metrics/cadvisor", "/metrics/resource"];
    for path in others.into_iter().chain(of_api.iter().map(String::as_str)) {
        let proxied = format!("/api/v1/namespaces/snug/pods/{name}:9750/proxy{path}");
        assert!(!node.kubectl(&["get", "--raw", &proxied]).unwrap().is_empty(), "{path}");
    }
}
