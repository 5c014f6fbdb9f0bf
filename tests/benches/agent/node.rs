//! The agent as it runs on a node: 250 containers in 110 pods, ten samples a second, a scrape every 15 s.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    cgroups::Tree,
    client::Wish,
    interrupt,
    measure::{Budget, Section, mib},
    process::{Agent, Memory, Workers, layout},
};

const CONTAINERS: usize = 250;
const PODS: usize = 110;
/// Containers with a worker.
const BUSY: usize = 50;
/// As Prometheus does it by default in Kubernetes set-ups.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(15);

const METRICS: &str = "/metrics";
const CADVISOR: &str = "/metrics/cadvisor";

/// One way to be scraped.
struct Phase {
    name: &'static str,
    endpoints: &'static [&'static str],
    /// Shares of one core.
    process: f64,
    elsewhere: f64,
    scrapes: u32,
}

/// Measures for `seconds` in each way of being scraped.
pub(crate) fn run(binary: &Path, seconds: u64) -> Result<Section> {
    let tree = Tree::new("node")?;
    let containers = tree.containers(CONTAINERS, PODS)?;
    let workers = Workers::start(&tree, containers.iter().step_by(CONTAINERS / BUSY))?;
    let mut agent = Agent::start(binary, &tree, &containers)?;
    interrupt::sleep(Duration::from_secs(12))?;
    let known = agent.client().sum("snug_container_info")?;
    ensure!(known >= CONTAINERS as f64, "the agent knows {known} of {CONTAINERS} containers");
    let after_start = agent.memory()?;

    let both: &[&str] = &[METRICS, CADVISOR];
    let mut phases = Vec::new();
    for (name, endpoints) in [
        ("not scraped", &[][..]),
        ("both endpoints", both),
        ("`/metrics`", &[METRICS][..]),
        ("`/metrics/cadvisor`", &[CADVISOR][..]),
    ] {
        eprintln!("bench: {CONTAINERS} containers, {name}, {seconds} s");
        phases.push(phase(&mut agent, name, endpoints, Duration::from_secs(seconds))?);
    }
    let at_end = agent.memory()?;
    Ok(report(&tree, workers.count(), seconds, &phases, after_start, at_end))
}

fn phase(
    agent: &mut Agent,
    name: &'static str,
    endpoints: &'static [&'static str],
    time: Duration,
) -> Result<Phase> {
    let client = agent.client();
    let elsewhere_before = lifecycle_seconds(agent)?;
    let (begun, cpu_before) = (Instant::now(), agent.cpu()?);
    let mut next = begun + SCRAPE_INTERVAL / 2;
    let mut scrapes = 0;
    while next < begun + time {
        interrupt::sleep_until(next)?;
        for endpoint in endpoints {
            client.scrape(endpoint, Wish::PROMETHEUS)?;
            scrapes += 1;
        }
        next += SCRAPE_INTERVAL;
    }
    interrupt::sleep_until(begun + time)?;
    let (cpu, elapsed) = (agent.cpu()?.saturating_sub(cpu_before), begun.elapsed().as_secs_f64());
    let elsewhere = lifecycle_seconds(agent)? - elsewhere_before;
    let process = cpu.as_secs_f64() / elapsed;
    Ok(Phase { name, endpoints, process, elsewhere: elsewhere / elapsed, scrapes })
}

/// Run time of the programs that run in others' time; the snapshot runs in the agent's own.
fn lifecycle_seconds(agent: &Agent) -> Result<f64> {
    let client = agent.client();
    let all = client.sum("snug_agent_program_run_seconds_total")?;
    Ok(all - client.sum("snug_agent_program_run_seconds_total{program=\"snapshot\"}")?)
}

fn report(tree: &Tree, busy: usize, seconds: u64, phases: &[Phase], start: Memory, end: Memory) -> Section {
    let mut section = Section::new("node");
    section.paragraph(&format!(
        "The agent's own program, as released, beside {CONTAINERS} containers in {PODS} pods ({}; {busy} of them with a \
         process that works 0.1 % of the time), every option at its default but the pods file that names them. {seconds} s \
         each; a scrape every {} s as Prometheus makes it, gzip included. CPU time is what the agent's own cgroup counts: \
         it includes the snapshot, which runs in the agent's time. Programs that run in the time of others (making and \
         removing cgroups) are counted by the kernel.",
        layout(tree.hierarchies()),
        SCRAPE_INTERVAL.as_secs(),
    ));
    let rows: Vec<Vec<String>> = phases
        .iter()
        .map(|phase| {
            let per_cent = |share: f64| format!("{:.3} %", share * 100.0);
            vec![
                phase.name.to_owned(),
                phase.scrapes.to_string(),
                per_cent(phase.process),
                per_cent(phase.elsewhere),
                per_cent(phase.process + phase.elsewhere),
            ]
        })
        .collect();
    section.table(&["scraped", "scrapes", "agent, of one core", "programs elsewhere", "together"], &rows);
    let row = |name: &str, memory: Memory| {
        let cell = |bytes| format!("{:.1} MiB", mib(bytes));
        vec![name.to_owned(), cell(memory.resident), cell(memory.anonymous), cell(memory.charged)]
    };
    section.table(
        &["memory", "resident", "of this anonymous", "own cgroup, with eBPF maps"],
        &[row("12 s after the start", start), row("at the end", end)],
    );
    let worst = phases.iter().filter(|phase| phase.endpoints.len() == 1).chain(phases.iter());
    let cpu = worst.map(|phase| phase.process + phase.elsewhere).fold(0.0, f64::max);
    section.budgets = vec![
        Budget::at_most("CPU, of one core (scraped most)", cpu * 100.0, 1.0, "%", 2),
        Budget::at_most("resident memory", mib(start.resident.max(end.resident)), 40.0, "MiB", 1),
        Budget::at_most("memory of its own cgroup", mib(start.charged.max(end.charged)), 64.0, "MiB", 1),
    ];
    section.finish()
}
