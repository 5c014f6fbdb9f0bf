//! Memory growth and lost events while containers are created and removed.

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

/// Containers that exist during the whole run.
const PERMANENT: usize = 50;
/// Additional containers that exist at the same time.
const AT_ONCE: usize = 20;
/// Containers created and removed before the first measurement, to fill the agent's buffers for the last 4096 terminated containers
/// and the last 1024 events.
const WARM_UP: usize = 5_000;
/// Maximum growth of resident memory, for memory that the allocator keeps.
const MAX_GROWTH_MIB: f64 = 1.0;

/// Creates and removes `count` containers while the agent runs.
pub(crate) fn run(binary: &Path, count: usize) -> Result<Section> {
    let tree = Tree::new("growth")?;
    let permanent = tree.containers(PERMANENT, 10)?;
    let mut agent = Agent::start(binary, &tree, &permanent)?;
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
        "{count} containers created and removed while the agent runs, {:.0} per second in every hierarchy of this host. Before, \
         {WARM_UP} containers filled the agent's buffers for terminated containers. The agent used {:.1} % of one core.",
        count as f64 / elapsed.as_secs_f64(),
        100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
    ));
    let row = |name: &str, memory: Memory| {
        let cell = |bytes| format!("{:.2} MiB", mib(bytes));
        vec![name.to_owned(), cell(memory.resident), cell(memory.anonymous), cell(memory.charged)]
    };
    section.table(
        &["", "resident", "anonymous", "cgroup"],
        &[row("at the start", at_start), row("before", before), row("after", after)],
    );
    let growth = mib(after.resident) - mib(before.resident);
    section.budgets = vec![
        Budget::at_most("growth of resident memory", growth, MAX_GROWTH_MIB, "MiB", 2),
        Budget::at_most("events lost", lost, 0.0, "", 0),
        Budget::at_least("terminations counted", ended - ended_before, count as f64, ""),
    ];
    Ok(section.finish())
}

/// Memory, and the number of terminated containers, after the agent has processed all events.
fn settled(agent: &mut Agent) -> Result<(Memory, f64)> {
    interrupt::sleep(Duration::from_secs(3))?;
    let ended = agent.client().metrics()?.sum("snug_workload_containers_ended_total");
    // Wait until the agent has freed the buffers of the scrape.
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
