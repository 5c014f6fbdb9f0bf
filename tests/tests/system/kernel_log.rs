//! Log messages of the eBPF programs.

use std::{thread, time::Duration};

use anyhow::Result;
use snug_tests::agent::{Agent, eventually};

use crate::{cannot_run, container};

/// The message that a program logs for each event.
const MESSAGE: &str = "cgroup event";

fn programs_run(agent: &Agent) -> Result<bool> {
    let page = agent.scrape("/metrics")?;
    Ok(!page.all("snug_agent_program_info", &[("program", "cgroup_made"), ("verdict", "running")]).is_empty())
}

#[test]
fn ebpf_programs_log_at_level_debug_only() -> Result<()> {
    let silent = Agent::start::<&str>([])?;
    let speaking = Agent::start(["--ebpf-log", "debug"])?;
    let warning = Agent::start(["--ebpf-log", "warn"])?;
    if !programs_run(&silent)? {
        return cannot_run(format!("no eBPF program runs: {}", silent.log()));
    }
    match container() {
        Ok(container) => container.remove().map(drop)?,
        Err(why) => return cannot_run(why),
    }
    eventually(Duration::from_secs(5), "a message of the programs is logged", || {
        let log = speaking.log();
        let has_logged = |event: &str| {
            log.lines().any(|l| l.contains("DEBUG snug_ebpf") && l.contains(&format!("{MESSAGE} {event} ")))
        };
        // The cgroup was created and removed.
        Ok((has_logged("1") && has_logged("3")).then_some(()))
    })
    .map_err(|error| error.context(speaking.log()))?;
    thread::sleep(Duration::from_millis(300));
    for quiet in [&silent, &warning] {
        assert!(!quiet.log().contains(MESSAGE), "{}", quiet.log());
    }
    Ok(())
}
