//! Cost of a scrape with 500 containers: CPU time of the agent, and latency of the client.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    cgroups::Tree,
    client::{OPEN_METRICS, ScrapeFormat, TEXT},
    interrupt,
    measure::{Budget, Section, largest, median},
    process::{Agent, Workers},
};

const CONTAINERS: usize = 500;
const PODS: usize = 220;
const BUSY: usize = 50;

/// Rounds; each measures every kind of scrape, and sampling without scrapes.
const ROUNDS: usize = 5;
/// Time without scrapes in each round.
const BASELINE: Duration = Duration::from_secs(4);

const KINDS: [(&str, &str, ScrapeFormat); 6] = [
    ("`/metrics`, OpenMetrics", "/metrics", ScrapeFormat { accept: OPEN_METRICS, gzip: false }),
    ("`/metrics`, OpenMetrics, gzip", "/metrics", ScrapeFormat { accept: OPEN_METRICS, gzip: true }),
    (METRICS_TEXT, "/metrics", ScrapeFormat { accept: TEXT, gzip: false }),
    ("`/metrics`, text 0.0.4, gzip", "/metrics", ScrapeFormat { accept: TEXT, gzip: true }),
    (CADVISOR_PLAIN, "/metrics/cadvisor", ScrapeFormat { accept: OPEN_METRICS, gzip: false }),
    (CADVISOR_GZIP, "/metrics/cadvisor", ScrapeFormat { accept: OPEN_METRICS, gzip: true }),
];
const METRICS_TEXT: &str = "`/metrics`, text 0.0.4";
const CADVISOR_PLAIN: &str = "`/metrics/cadvisor`";
const CADVISOR_GZIP: &str = "`/metrics/cadvisor`, gzip";

#[derive(Clone, Default)]
struct Cost {
    /// Milliseconds of the agent's CPU time per scrape, one value a round.
    cpu: Vec<f64>,
    /// Milliseconds until the client received the last byte.
    took: Vec<f64>,
    bytes: usize,
}

/// Makes `scrapes` of each kind in each round.
pub(crate) fn run(binary: &Path, scrapes: u32) -> Result<Section> {
    let tree = Tree::new("scrape")?;
    let containers = tree.containers(CONTAINERS, PODS)?;
    let _workers = Workers::start(&tree, containers.iter().step_by(CONTAINERS / BUSY))?;
    let mut agent = Agent::start(binary, &tree, &containers)?;
    interrupt::sleep(Duration::from_secs(12))?;
    let client = agent.client();
    let metrics = client.metrics()?;
    let known = metrics.sum("snug_container_info");
    ensure!(known >= CONTAINERS as f64, "the agent reports {known} of {CONTAINERS} containers");
    let series = metrics.sum("snug_agent_series");

    let mut costs = vec![Cost::default(); KINDS.len()];
    let mut baselines = Vec::new();
    for round in 0..ROUNDS {
        eprintln!("bench: scrapes of {CONTAINERS} containers, round {} of {ROUNDS}", round + 1);
        let (begun, before) = (Instant::now(), agent.cpu()?);
        interrupt::sleep(BASELINE)?;
        let baseline = agent.cpu()?.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
        baselines.push(baseline);
        for ((_, path, format), cost) in KINDS.iter().zip(&mut costs) {
            let (begun, before) = (Instant::now(), agent.cpu()?);
            for _ in 0..scrapes {
                interrupt::check()?;
                let scraped = client.scrape(path, *format)?;
                cost.took.push(scraped.took.as_secs_f64() * 1e3);
                cost.bytes = scraped.bytes;
            }
            let sampling = baseline * begun.elapsed().as_secs_f64();
            let cpu = agent.cpu()?.saturating_sub(before).as_secs_f64() - sampling;
            cost.cpu.push(cpu.max(0.0) * 1e3 / f64::from(scrapes));
        }
    }
    Ok(report(&costs, median(baselines), series, scrapes))
}

fn report(costs: &[Cost], baseline: f64, series: f64, scrapes: u32) -> Section {
    let mut section = Section::new("scrape");
    section.paragraph(&format!(
        "{CONTAINERS} containers in {PODS} pods with names; {series:.0} series on both endpoints in total. \"CPU\" is the agent's CPU time \
         per scrape: that of its cgroup during {scrapes} scrapes, minus sampling ({:.2} % of a core here); \
         median of {ROUNDS} rounds. \"Latency\" is the time until the client has received the last byte, on a persistent connection.",
        baseline * 100.0,
    ));
    let rows: Vec<Vec<String>> = KINDS
        .iter()
        .zip(costs)
        .map(|((name, ..), cost)| {
            vec![
                (*name).to_owned(),
                format!("{:.1} ms", median(cost.cpu.clone())),
                format!("{:.1} ms", median(cost.took.clone())),
                format!("{:.1} ms", largest(&cost.took)),
                format!("{:.0} kB", cost.bytes as f64 / 1e3),
            ]
        })
        .collect();
    section.table(&["scrape", "CPU", "latency, median", "maximum", "size"], &rows);
    let cpu_of = |name: &str| {
        KINDS
            .iter()
            .zip(costs)
            .find(|(kind, _)| kind.0 == name)
            .map_or(f64::NAN, |(_, cost)| median(cost.cpu.clone()))
    };
    let both = (cpu_of(METRICS_TEXT) + cpu_of(CADVISOR_PLAIN)) * 1e6 / series;
    section.budgets = vec![
        Budget::at_most("CPU per series, text 0.0.4, both endpoints, without gzip", both, 280.0, "ns", 0),
        Budget::at_most("CPU per scrape of `/metrics/cadvisor`", cpu_of(CADVISOR_PLAIN), 15.0, "ms", 1),
        Budget::at_most("CPU per scrape of `/metrics/cadvisor`, gzip", cpu_of(CADVISOR_GZIP), 60.0, "ms", 1),
    ];
    section.finish()
}
