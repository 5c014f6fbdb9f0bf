//! Whether the agent grows, or loses events, while containers come and go.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    cgroups::{Tree, pod_uid},
    interrupt,
    measure::{Budget, Section, mib},
    process::{Agent, Memory},
};

/// Containers that are there all the time.
const STANDING: usize = 50;
/// Containers that are there at a time, on top.
const AT_ONCE: usize = 20;
/// Containers made and removed before the first look, so that what the agent remembers of the last ones, at most 4096 of them and 1024
/// events, has the size it needs.
const WARM_UP: usize = 5_000;
/// The most that resident memory may differ: an allocator's pools are not a leak.
const SLACK_MIB: f64 = 1.0;

/// Makes and removes `count` containers beside a running agent.
pub(crate) fn run(binary: &Path, count: usize) -> Result<Section> {
    let tree = Tree::new("growth")?;
    let standing = tree.containers(STANDING, 10)?;
    let mut agent = Agent::start(binary, &tree, &standing)?;
    interrupt::sleep(Duration::from_secs(5))?;
    let (at_start, _) = settled(&mut agent)?;
    churn(&tree, 0, WARM_UP)?;
    let (before, ended_before) = settled(&mut agent)?;
    let begun = Instant::now();
    let cpu_before = agent.cpu()?;
    churn(&tree, WARM_UP, count)?;
    let (elapsed, cpu) = (begun.elapsed(), agent.cpu()?.saturating_sub(cpu_before));
    let (after, ended) = settled(&mut agent)?;
    let lost = agent.client().metrics()?.sum("snug_agent_lost_events_total");

    let mut section = Section::new("growth");
    section.paragraph(&format!(
        "{count} containers made and removed beside a running agent, {:.0} a second in every hierarchy of this host, after \
         {WARM_UP} that filled what it remembers of the last ones. The agent took {:.1} % of one core meanwhile.",
        count as f64 / elapsed.as_secs_f64(),
        100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
    ));
    let row = |name: &str, memory: Memory| {
        let cell = |bytes| format!("{:.2} MiB", mib(bytes));
        vec![name.to_owned(), cell(memory.resident), cell(memory.anonymous), cell(memory.charged)]
    };
    section.table(
        &["", "resident", "of this anonymous", "own cgroup"],
        &[row("at the start", at_start), row("before", before), row("after", after)],
    );
    let growth = mib(after.resident) - mib(before.resident);
    section.budgets = vec![
        Budget::at_most("growth of resident memory", growth, SLACK_MIB, "MiB", 2),
        Budget::at_most("events lost", lost, 0.0, "", 0),
        Budget::at_least("containers seen to end", ended - ended_before, count as f64, ""),
    ];
    Ok(section.finish())
}

/// Memory, and containers that were seen to end, once the agent has counted what happened.
fn settled(agent: &mut Agent) -> Result<(Memory, f64)> {
    interrupt::sleep(Duration::from_secs(3))?;
    let ended = agent.client().metrics()?.sum("snug_workload_containers_ended_total");
    // The scrape's own buffers are given back first.
    interrupt::sleep(Duration::from_secs(1))?;
    Ok((agent.memory()?, ended))
}

fn churn(tree: &Tree, first: usize, count: usize) -> Result<()> {
    let pod = format!("kubepods/burstable/pod{}", pod_uid(0));
    let name = |index: usize| format!("{pod}/{:064x}", 0xabcd_0000_0000_u64 + index as u64);
    let mut begin = first;
    while begin < first + count {
        interrupt::check()?;
        let end = (begin + AT_ONCE).min(first + count);
        for index in begin..end {
            tree.make(&name(index))?;
        }
        for index in begin..end {
            tree.remove(&name(index))?;
        }
        begin = end;
    }
    Ok(())
}
