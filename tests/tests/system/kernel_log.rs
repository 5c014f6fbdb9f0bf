//! Messages of the kernel programs.

use std::{thread, time::Duration};

use anyhow::Result;
use snug_tests::agent::{Agent, eventually};

use crate::{cannot_run, container};

/// What a program says of each event.
const MESSAGE: &str = "cgroup event";

fn programs_run(agent: &Agent) -> Result<bool> {
    let page = agent.scrape("/metrics")?;
    Ok(!page.all("snug_agent_program_info", &[("program", "cgroup_made"), ("verdict", "running")]).is_empty())
}

#[test]
fn the_programs_speak_when_asked_and_only_then() -> Result<()> {
    let silent = Agent::start::<&str>([])?;
    let speaking = Agent::start(["--ebpf-log", "debug"])?;
    let warning = Agent::start(["--ebpf-log", "warn"])?;
    if !programs_run(&silent)? {
        return cannot_run(format!("no kernel program runs: {}", silent.log()));
    }
    match container() {
        Ok(container) => container.remove().map(drop)?,
        Err(why) => return cannot_run(why),
    }
    eventually(Duration::from_secs(5), "a message of the programs is logged", || {
        let log = speaking.log();
        let said = |event: &str| {
            log.lines().any(|l| l.contains("DEBUG snug_ebpf") && l.contains(&format!("{MESSAGE} {event} ")))
        };
        // Made and removed.
        Ok((said("1") && said("3")).then_some(()))
    })
    .map_err(|error| error.context(speaking.log()))?;
    thread::sleep(Duration::from_millis(300));
    for quiet in [&silent, &warning] {
        assert!(!quiet.log().contains(MESSAGE), "{}", quiet.log());
    }
    Ok(())
}
