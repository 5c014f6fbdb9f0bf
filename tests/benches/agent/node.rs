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
    receiver::Receiver,
};

const CONTAINERS: usize = 250;
const PODS: usize = 110;
/// Containers with a worker.
const BUSY: usize = 50;
/// As Prometheus does it by default in Kubernetes set-ups.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(15);

const METRICS: &str = "/metrics";
const CADVISOR: &str = "/metrics/cadvisor";

/// What is off by default and collects or exports evidence.
const SWITCHES: [&str; 4] = ["runqueue", "classic-histograms", "cpu-ladder", "memory-histograms"];

/// A way to be scraped.
#[derive(Clone, Copy)]
struct Scraped {
    name: &'static str,
    endpoints: &'static [&'static str],
    wish: Wish,
}

impl Scraped {
    const fn by_text(name: &'static str, endpoints: &'static [&'static str]) -> Self {
        Self { name, endpoints, wish: Wish::PROMETHEUS }
    }
}

const NOT: Scraped = Scraped::by_text("not scraped", &[]);
const BOTH: Scraped = Scraped::by_text("both endpoints", &[METRICS, CADVISOR]);
const NATIVE: Scraped = Scraped { name: "both, native histograms", wish: Wish::WITH_NATIVE, ..BOTH };
const BY_DEFAULT: [Scraped; 5] = [
    NOT,
    BOTH,
    NATIVE,
    Scraped::by_text("`/metrics`", &[METRICS]),
    Scraped::by_text("`/metrics/cadvisor`", &[CADVISOR]),
];
const ALL_ON: [Scraped; 3] = [NOT, BOTH, NATIVE];

/// What an agent took while it was scraped in one way.
struct Phase {
    scraped: Scraped,
    /// Shares of one core.
    process: f64,
    elsewhere: f64,
    scrapes: u32,
}

/// One agent, from its start to its end.
struct Life {
    options: &'static str,
    phases: Vec<Phase>,
    after_start: Memory,
    at_end: Memory,
}

/// Measures for `seconds` in each way of being scraped.
pub(crate) fn run(binary: &Path, seconds: u64) -> Result<Section> {
    let tree = Tree::new("node")?;
    let containers = tree.containers(CONTAINERS, PODS)?;
    let workers = Workers::start(&tree, containers.iter().step_by(CONTAINERS / BUSY))?;
    let time = Duration::from_secs(seconds);
    let by_default = live(Agent::start(binary, &tree, &containers)?, "by default", &BY_DEFAULT, time)?;

    let receiver = Receiver::start()?;
    let mut given: Vec<String> = SWITCHES.iter().map(|switch| format!("--{switch}=on")).collect();
    given.extend(["--otlp-log=on".to_owned(), format!("--otlp-endpoint={}", receiver.url())]);
    let agent = Agent::start_with(binary, &tree, &containers, &given)?;
    let all_on = live(agent, "all on", &ALL_ON, time)?;
    let pushed = receiver.received();
    ensure!(pushed > 0, "the agent pushed nothing by OTLP in {} s", ALL_ON.len() as u64 * seconds);
    Ok(report(&tree, workers.count(), seconds, &[by_default, all_on], pushed))
}

fn live(mut agent: Agent, options: &'static str, ways: &[Scraped], time: Duration) -> Result<Life> {
    interrupt::sleep(Duration::from_secs(12))?;
    let known = agent.client().metrics()?.sum("snug_container_info");
    ensure!(known >= CONTAINERS as f64, "the agent knows {known} of {CONTAINERS} containers");
    let after_start = agent.memory()?;
    let mut phases = Vec::new();
    for way in ways {
        eprintln!("bench: {CONTAINERS} containers, {options}, {}, {} s", way.name, time.as_secs());
        phases.push(phase(&mut agent, *way, time)?);
    }
    Ok(Life { options, phases, after_start, at_end: agent.memory()? })
}

fn phase(agent: &mut Agent, scraped: Scraped, time: Duration) -> Result<Phase> {
    let client = agent.client();
    let elsewhere_before = seconds_elsewhere(agent)?;
    let (begun, cpu_before) = (Instant::now(), agent.cpu()?);
    let mut next = begun + SCRAPE_INTERVAL / 2;
    let mut scrapes = 0;
    while next < begun + time {
        interrupt::sleep_until(next)?;
        for endpoint in scraped.endpoints {
            client.scrape(endpoint, scraped.wish)?;
            scrapes += 1;
        }
        next += SCRAPE_INTERVAL;
    }
    interrupt::sleep_until(begun + time)?;
    let (cpu, elapsed) = (agent.cpu()?.saturating_sub(cpu_before), begun.elapsed().as_secs_f64());
    let elsewhere = seconds_elsewhere(agent)? - elsewhere_before;
    let process = cpu.as_secs_f64() / elapsed;
    Ok(Phase { scraped, process, elsewhere: elsewhere / elapsed, scrapes })
}

/// Run time of the programs that run in others' time; these run in the agent's own.
fn seconds_elsewhere(agent: &Agent) -> Result<f64> {
    let metrics = agent.client().metrics()?;
    let of = |series: &str| metrics.sum(&format!("snug_agent_program_run_seconds_total{series}"));
    let own: f64 = ["snapshot", "sample_active", "resample"]
        .map(|name| of(&format!("{{program=\"{name}\"}}")))
        .iter()
        .sum();
    Ok(of("") - own)
}

fn report(tree: &Tree, busy: usize, seconds: u64, lives: &[Life], pushed: u64) -> Section {
    let mut section = Section::new("node");
    section.paragraph(&format!(
        "The agent's own program, as released, beside {CONTAINERS} containers in {PODS} pods ({}; {busy} of them with a \
         process that works 0.1 % of the time). {seconds} s each; a scrape every {} s as Prometheus makes it, gzip included. \
         CPU time is what the agent's own cgroup counts: it includes walks and looks, which run in the agent's time. Programs \
         that run in the time of others (making and removing cgroups, the run queue) are counted by the kernel.",
        layout(tree.hierarchies()),
        SCRAPE_INTERVAL.as_secs(),
    ));
    section.paragraph(&format!(
        "By default: every option as it is without a configuration, but the pods file that names the containers. All on: \
         the same with {}, and with metrics, events and the agent's log pushed by OTLP over HTTP ({:.1} MiB meanwhile).",
        SWITCHES.map(|switch| format!("`{switch}`")).join(", "),
        mib(pushed),
    ));
    let per_cent = |share: f64| format!("{:.3} %", share * 100.0);
    let phases = lives.iter().flat_map(|life| life.phases.iter().map(|phase| (life.options, phase)));
    let rows: Vec<Vec<String>> = phases
        .map(|(options, phase)| {
            vec![
                options.to_owned(),
                phase.scraped.name.to_owned(),
                phase.scrapes.to_string(),
                per_cent(phase.process),
                per_cent(phase.elsewhere),
                per_cent(phase.process + phase.elsewhere),
            ]
        })
        .collect();
    let head = ["options", "scraped", "scrapes", "agent, of one core", "programs elsewhere", "together"];
    section.table(&head, &rows);
    let row = |options: &str, when: &str, memory: Memory| {
        let cell = |bytes| format!("{:.1} MiB", mib(bytes));
        vec![
            options.to_owned(),
            when.to_owned(),
            cell(memory.resident),
            cell(memory.anonymous),
            cell(memory.charged),
        ]
    };
    let rows: Vec<Vec<String>> = lives
        .iter()
        .flat_map(|life| {
            [
                row(life.options, "12 s after the start", life.after_start),
                row(life.options, "at the end", life.at_end),
            ]
        })
        .collect();
    section
        .table(&["options", "memory", "resident", "of this anonymous", "own cgroup, with eBPF maps"], &rows);
    section.budgets = lives.iter().flat_map(budgets).collect();
    section.finish()
}

/// The same for whatever is switched on.
fn budgets(life: &Life) -> [Budget; 4] {
    let Life { options, phases, after_start, at_end } = life;
    let cpu = |native: bool| {
        let phases = phases.iter().filter(|phase| native == (phase.scraped.name == NATIVE.name));
        phases.map(|phase| phase.process + phase.elsewhere).fold(0.0, f64::max) * 100.0
    };
    let resident = mib(after_start.resident.max(at_end.resident));
    let charged = mib(after_start.charged.max(at_end.charged));
    [
        Budget::at_most(&format!("CPU, {options}, scraped most, by text"), cpu(false), 1.0, "% of a core", 2),
        Budget::at_most(&format!("CPU, {options}, native histograms"), cpu(true), 1.0, "% of a core", 2),
        Budget::at_most(&format!("resident memory, {options}"), resident, 40.0, "MiB", 1),
        Budget::at_most(&format!("memory of its own cgroup, {options}"), charged, 64.0, "MiB", 1),
    ]
}
