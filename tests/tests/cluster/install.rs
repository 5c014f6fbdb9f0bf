//! The documented installation.

use std::{fs, path::Path};

use crate::node::node;

/// BPF and PERFMON.
const CAPABILITIES: u64 = 1 << 39 | 1 << 38;
/// Only to attach programs to cgroups, at start.
const NET_ADMIN: u64 = 1 << 12;

#[test]
fn every_program_runs_with_three_capabilities_of_which_two_are_kept() {
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
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let of = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        let set = |field: &str| u64::from_str_radix(&of(field), 16).unwrap();
        assert_eq!((set("CapEff"), set("CapPrm")), (CAPABILITIES, CAPABILITIES), "{status}");
        assert_eq!(set("CapBnd"), CAPABILITIES | NET_ADMIN);
        assert_eq!((of("Seccomp").as_str(), of("NoNewPrivs").as_str()), ("2", "1"), "a filter is active");
        threads += 1;
    }
    assert!(threads >= 2, "the sampler is one of them");
}

#[test]
fn applied_again_nothing_changes() {
    let Some(node) = node() else { return };
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base");
    let printed = node.kubectl(&["apply", "-k", &base.display().to_string()]).unwrap();
    let changed: Vec<&str> = printed.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    assert!(changed.is_empty() && printed.lines().count() >= 6, "{printed}");
}
