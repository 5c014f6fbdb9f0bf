//! Without permission for eBPF, the agent measures by files and logs what is missing.

use std::{process::Command, time::Duration};

use anyhow::Result;
use snug_tests::agent::{Agent, binary, eventually, unconfigured};

use crate::{cannot_run, container, has_program, promtool};

/// Starts an agent without some capabilities.
fn start_without(capabilities: &str) -> Result<Agent> {
    let mut command = Command::new("setpriv");
    unconfigured(&mut command)
        .args([&format!("--bounding-set={capabilities}"), "--inh-caps=-all"])
        .arg(binary()?)
        .args(["--listen", "127.0.0.1:0"]);
    Agent::launch(command)
}

#[test]
fn missing_capabilities_are_logged_and_files_are_used() -> Result<()> {
    if !has_program("setpriv") {
        return cannot_run("there is no setpriv");
    }
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    container.be_busy()?;
    for (without, missing, present) in [
        ("-bpf,-perfmon,-sys_admin", &["CAP_BPF", "CAP_PERFMON"][..], &[][..]),
        ("-perfmon,-sys_admin", &["CAP_PERFMON"], &["CAP_BPF"]),
        ("-all", &["CAP_BPF", "CAP_PERFMON"], &[]),
    ] {
        let agent = start_without(without)?;
        let page = agent.scrape("/metrics")?;
        let programs = page.all("snug_agent_program_info", &[]);
        assert_eq!(programs.len(), 16, "{without}");
        for program in programs {
            assert_eq!(program.label("verdict"), "failed", "{without}: {program:?}");
            let reason = program.label("reason");
            assert!(missing.iter().all(|name| reason.contains(name)), "{without}: {reason}");
            assert!(!present.iter().any(|name| reason.contains(name)), "{without}: {reason}");
            assert!(agent.log().contains(reason), "{without}: the log says it, too: {}", agent.log());
        }
        for source in page.all("snug_agent_measurement_source", &[]) {
            assert_ne!(source.label("source"), "kernel", "{without}: {source:?}");
        }
        assert_eq!(page.value("snug_agent_measurement_source", &[("measurement", "cpu")])?, 1.0);
        let usage = |agent: &Agent| {
            agent
                .scrape("/metrics")?
                .value("snug_container_cpu_usage_seconds_total", &[("id", &container.path)])
        };
        let before = usage(&agent)?;
        eventually(Duration::from_secs(5), "CPU time moves on", || {
            Ok((usage(&agent)? > before).then_some(()))
        })?;
        if has_program("promtool") {
            assert_eq!(promtool(&agent.text("/metrics")?)?, [""; 0], "{without}");
        }
    }
    Ok(())
}

#[test]
fn without_net_admin_only_packets_and_round_trips_are_missing() -> Result<()> {
    if !has_program("setpriv") {
        return cannot_run("there is no setpriv");
    }
    let agent = start_without("-net_admin,-sys_admin")?;
    let page = agent.scrape("/metrics")?;
    for program in page.all("snug_agent_program_info", &[]) {
        let (name, reason) = (program.label("program"), program.label("reason"));
        if ["network_receive", "network_transmit", "tcp_round_trip"].contains(&name) {
            assert!(reason.ends_with("the agent lacks CAP_NET_ADMIN"), "{name}: {reason}");
        } else {
            assert_eq!((program.label("verdict"), reason), ("running", ""), "{name}");
        }
    }
    Ok(())
}

#[test]
fn once_programs_are_attached_no_thread_has_net_admin() -> Result<()> {
    let agent = Agent::start([""; 0])?;
    let page = agent.scrape("/metrics")?;
    let mut threads = 0;
    for thread in std::fs::read_dir(format!("/proc/{}/task", agent.id()))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        let of = |set: &str| status.lines().find_map(|line| line.strip_prefix(set));
        for set in ["CapEff:\t", "CapPrm:\t", "CapInh:\t"] {
            let bits = u64::from_str_radix(of(set).unwrap_or_default(), 16)?;
            assert_eq!(bits & (1 << 12), 0, "{set} of {status}");
        }
        threads += 1;
    }
    assert!(threads >= 2, "the sampler is one of them");
    // Where the programs run at all, those that needed the capability to be attached do, too.
    let verdict =
        |name: &str| page.value("snug_agent_program_info", &[("program", name), ("verdict", "running")]);
    if verdict("tcp_connection").is_ok() {
        assert!(verdict("network_receive").is_ok(), "{:?}", page.all("snug_agent_program_info", &[]));
    }
    Ok(())
}
