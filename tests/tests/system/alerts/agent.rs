//! The alerts about an agent that answers and does not measure everything.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use snug_agent::cgroupfs::mounts::{Hierarchies, Version};
use snug_ebpf::abi::{
    events::RING_BYTES,
    lifecycle::{FinalRecord, LifecycleEvent},
};
use snug_tests::agent::{Agent, Signal, binary, unconfigured};

use super::{SOON, alert, await_firing, is_of_this_test, prometheus};
use crate::{cannot_run, container, has_program};

/// An agent on whose host the memory controller is not mounted.
fn without_memory() -> Result<Result<Agent, &'static str>> {
    let hierarchies = Hierarchies::find("/proc".as_ref(), None)?;
    let memory = hierarchies.v1.iter().find(|one| one.version == Version::V1 && one.has("memory"));
    let Some(memory) = memory else {
        return Ok(Err("memory is a controller of cgroup v2 here, which cannot be hidden from one process"));
    };
    let mut command = Command::new("unshare");
    unconfigured(&mut command)
        .args(["--mount", "sh", "-c", "umount \"$1\" && shift && exec \"$@\"", "sh"])
        .arg(&memory.mount)
        .arg(binary()?)
        .args(["--listen", "127.0.0.1:0"]);
    Ok(Ok(Agent::launch(command)?))
}

#[test]
fn an_agent_without_a_source_of_memory_is_blind() -> Result<()> {
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus");
    }
    let agent = match without_memory()? {
        Ok(agent) => agent,
        Err(why) => return cannot_run(why),
    };
    let blind = [alert("SnugAgentBlind", "")];
    await_firing(&prometheus(&agent)?, SOON, &blind, is_of_this_test)
}

#[test]
fn an_agent_that_gets_no_cpu_time_loses_samples() -> Result<()> {
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus");
    }
    let container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    let agent = Agent::start::<&str>([])?;
    let programs = [("program", "cgroup_made"), ("verdict", "running")];
    if agent.scrape("/metrics")?.all("snug_agent_program_info", &programs).is_empty() {
        return cannot_run("without eBPF programs no events are lost");
    }
    let prometheus = prometheus(&agent)?;
    // More cgroups come and go than the ring buffer has room for.
    let events = size_of::<LifecycleEvent>() + size_of::<FinalRecord>();
    let procs = container.file("cgroup.procs")?;
    let cgroup = procs.parent().context("no cgroup")?.with_file_name("f".repeat(64));
    agent.signal(Signal::STOP)?;
    for _ in 0..=RING_BYTES as usize / events {
        fs::create_dir(&cgroup)?;
        fs::remove_dir(&cgroup)?;
    }
    agent.signal(Signal::CONT)?;
    // It did not answer meanwhile, which is another alert.
    let expected = [alert("SnugAgentLosesSamples", "")];
    await_firing(&prometheus, SOON, &expected, |(name, _)| name == "SnugAgentBlind")
}
