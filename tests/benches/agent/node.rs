//! The agent on a node: 250 containers in 110 pods, ten samples per second, a scrape every 15 s.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    cgroups::Tree,
    client::ScrapeFormat,
    interrupt,
    measure::{Budget, Section, mib},
    process::{Agent, Memory, STATISTICS, Workers, layout},
    receiver::Receiver,
};

const CONTAINERS: usize = 250;
const PODS: usize = 110;
/// Containers with a worker.
const BUSY: usize = 50;
/// Common scrape interval of Prometheus on Kubernetes.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(15);

const METRICS: &str = "/metrics";
const CADVISOR: &str = "/metrics/cadvisor";

/// Options that are off by default, and collect or export more data.
const SWITCHES: [&str; 4] = ["runqueue", "classic-histograms", "cpu-ladder", "memory-histograms"];

/// Endpoints and format of the scrapes.
#[derive(Clone, Copy)]
struct Scraped {
    name: &'static str,
    endpoints: &'static [&'static str],
    format: ScrapeFormat,
}

impl Scraped {
    const fn by_text(name: &'static str, endpoints: &'static [&'static str]) -> Self {
        Self { name, endpoints, format: ScrapeFormat::PROMETHEUS }
    }
}

const NOT: Scraped = Scraped::by_text("not scraped", &[]);
const BOTH: Scraped = Scraped::by_text("both endpoints", &[METRICS, CADVISOR]);
const NATIVE: Scraped =
    Scraped { name: "both, native histograms", format: ScrapeFormat::WITH_NATIVE, ..BOTH };
const BY_DEFAULT: [Scraped; 5] = [
    NOT,
    BOTH,
    NATIVE,
    Scraped::by_text("`/metrics`", &[METRICS]),
    Scraped::by_text("`/metrics/cadvisor`", &[CADVISOR]),
];
const ALL_ON: [Scraped; 3] = [NOT, BOTH, NATIVE];

/// CPU usage of the agent with one kind of scrapes.
struct Phase {
    scraped: Scraped,
    /// CPU usage of the process, as a share of one core.
    process: f64,
    /// CPU usage of eBPF programs in the context of other processes, as a share of one core.
    elsewhere: f64,
    scrapes: u32,
}

/// Results of one agent, from its start to its end.
struct Life {
    options: &'static str,
    phases: Vec<Phase>,
    after_start: Memory,
    at_end: Memory,
}

/// Measures for `seconds` with each kind of scrapes.
pub(crate) fn run(binary: &Path, seconds: u64) -> Result<Section> {
    let tree = Tree::new("node")?;
    let containers = tree.containers(CONTAINERS, PODS)?;
    let workers = Workers::start(&tree, containers.iter().step_by(CONTAINERS / BUSY))?;
    let time = Duration::from_secs(seconds);
    let agent = Agent::start_with(binary, &tree, &containers, &[STATISTICS.to_owned()])?;
    let by_default = live(agent, "by default", &BY_DEFAULT, time)?;

    let receiver = Receiver::start()?;
    let mut given: Vec<String> = SWITCHES.iter().map(|switch| format!("--{switch}=on")).collect();
    given.extend([
        STATISTICS.to_owned(),
        "--otlp-log=on".to_owned(),
        format!("--otlp-endpoint={}", receiver.url()),
    ]);
    let agent = Agent::start_with(binary, &tree, &containers, &given)?;
    let all_on = live(agent, "all on", &ALL_ON, time)?;
    let pushed = receiver.received();
    ensure!(pushed > 0, "the agent sent nothing by OTLP in {} s", ALL_ON.len() as u64 * seconds);
    Ok(report(&tree, workers.count(), seconds, &[by_default, all_on], pushed))
}

fn live(mut agent: Agent, options: &'static str, ways: &[Scraped], time: Duration) -> Result<Life> {
    interrupt::sleep(Duration::from_secs(12))?;
    let known = agent.client().metrics()?.sum("snug_container_info");
    ensure!(known >= CONTAINERS as f64, "the agent reports {known} of {CONTAINERS} containers");
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
            client.scrape(endpoint, scraped.format)?;
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

/// Run time of the eBPF programs in the context of other processes: all but those that the agent itself runs.
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
        "The release build of the agent, with {CONTAINERS} containers in {PODS} pods ({}; {busy} containers have a \
         process that uses 0.1 % CPU). {seconds} s for each row; scrapes every {} s with the headers of Prometheus, gzip included. \
         CPU time of the agent is from its cgroup, and includes the sampling of cgroups by eBPF. The CPU time of eBPF programs in the context of other \
         processes (creating and removing cgroups, run queue) is from the kernel's statistics.",
        layout(tree.hierarchies()),
        SCRAPE_INTERVAL.as_secs(),
    ));
    section.paragraph(&format!(
        "\"By default\": default options, with `ebpf-stats` on for these figures, and a pods file with the names of the containers. \"All on\": \
         also {}, and metrics, events and the agent's log sent by OTLP over HTTP ({:.1} MiB in total).",
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
    let head = ["options", "scraped", "scrapes", "agent, share of one core", "in other processes", "total"];
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
    section.table(&["options", "memory", "resident", "anonymous", "cgroup, with eBPF maps"], &rows);
    section.budgets = lives.iter().flat_map(budgets).collect();
    section.finish()
}

/// The budgets, which are the same for all options.
fn budgets(life: &Life) -> [Budget; 4] {
    let Life { options, phases, after_start, at_end } = life;
    let cpu = |native: bool| {
        let phases = phases.iter().filter(|phase| native == (phase.scraped.name == NATIVE.name));
        phases.map(|phase| phase.process + phase.elsewhere).fold(0.0, f64::max) * 100.0
    };
    let resident = mib(after_start.resident.max(at_end.resident));
    let charged = mib(after_start.charged.max(at_end.charged));
    [
        Budget::at_most(
            &format!("CPU, {options}, text format, most frequent scrapes"),
            cpu(false),
            1.0,
            "% of a core",
            2,
        ),
        Budget::at_most(&format!("CPU, {options}, native histograms"), cpu(true), 1.0, "% of a core", 2),
        Budget::at_most(&format!("resident memory, {options}"), resident, 40.0, "MiB", 1),
        Budget::at_most(&format!("memory of the cgroup, {options}"), charged, 64.0, "MiB", 1),
    ]
}
