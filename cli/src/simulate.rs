//! `snug simulate`: simulates other requests and limits against recorded usage.

use std::{fmt::Write as _, io::Write, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use snug_sizing::{
    engine::LikesScope,
    evidence::Evidence,
    quantity::Quantity,
    simulate::{self, CpuLimit, CpuRequest, MemoryLimit, Throttled},
};

use crate::{
    columns::plain,
    explain,
    recommend::{Outcome, WorkloadSelector},
    source::OpenedSource,
    units,
};

/// Schema of the JSON output. Within the number after the slash, fields are only added.
const SCHEMA: &str = "snug.simulation/1";

/// The options of `snug simulate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    #[command(flatten)]
    values: Values,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    selected: WorkloadSelector,
}

/// Below the help of the command.
const EXAMPLES: &str = "Examples:
  snug simulate shop/web --memory-limit 256Mi         the least number of OOM kills at this limit
  snug simulate deployment/web --cpu-limit 500m       how much a CPU limit would have throttled
  snug simulate web --container app --cpu-request 100m -o json";

/// The values to simulate.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Values {
    /// CPU limit to simulate, such as 500m
    #[arg(long, value_name = "QUANTITY", value_parser = cpu)]
    cpu_limit: Option<u64>,
    /// CPU request to simulate
    #[arg(long, value_name = "QUANTITY", value_parser = cpu)]
    cpu_request: Option<u64>,
    /// Memory limit to simulate, such as 256Mi
    #[arg(long, value_name = "QUANTITY", value_parser = memory)]
    memory_limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn cpu(text: &str) -> Result<u64, String> {
    positive(text, Quantity::millis)
}

fn memory(text: &str) -> Result<u64, String> {
    positive(text, |quantity| quantity.value().into())
}

fn positive(text: &str, amount: impl Fn(Quantity) -> i128) -> Result<u64, String> {
    let quantity: Quantity = text.parse().map_err(|error| format!("{error}"))?;
    let amount = u64::try_from(amount(quantity)).unwrap_or(0);
    if amount > 0 { Ok(amount) } else { Err("the quantity must be above zero".to_owned()) }
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    simulations: Vec<Simulation>,
}

/// Simulations of one container; `null` without the necessary usage history.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
struct Simulation {
    /// The cluster, if the source has several.
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster: String,
    namespace: String,
    workload: String,
    container: String,
    /// Container-days observed.
    container_days: f64,
    cpu_limit: Option<CpuLimit>,
    cpu_request: Option<CpuRequest>,
    memory_limit: Option<MemoryLimit>,
}

/// Runs `snug simulate`.
///
/// # Errors
/// When the evidence cannot be read, or the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Outcome> {
    let Options { selected, values, output } = options;
    let sources = selected.source.open(LikesScope::default())?;
    let select = selected.resolve(sources.iter().map(|source| &source.snapshot));
    let mut all: Vec<(&str, &Evidence)> = Vec::new();
    for OpenedSource { name, snapshot, .. } in &sources {
        all.extend(snapshot.evidence().filter(|it| select.is(it)).map(|it| (name.as_str(), it)));
    }
    let simulations: Vec<Simulation> =
        all.iter().map(|(cluster, evidence)| simulation(cluster, evidence, values)).collect();
    let text = match output {
        Output::Json => {
            let report = Report { schema: SCHEMA, simulations };
            serde_json::to_string_pretty(&report).context("cannot write JSON")? + "\n"
        }
        Output::Text => {
            let texts: Vec<String> = all
                .iter()
                .zip(&simulations)
                .map(|((_, evidence), one)| text(evidence, one, values))
                .collect();
            texts.join("\n")
        }
    };
    crate::progress::clear();
    out.write_all(text.as_bytes()).context("cannot write the simulation")?;
    if all.is_empty() {
        crate::remark!("{}", select.hint().unwrap_or_else(|| "no containers found".to_owned()));
        return Ok(Outcome::NotEnoughData);
    }
    Ok(Outcome::Success)
}

fn simulation(cluster: &str, evidence: &Evidence, values: &Values) -> Simulation {
    Simulation {
        cluster: cluster.to_owned(),
        namespace: evidence.workload.namespace.clone(),
        workload: evidence.workload.name.clone(),
        container: evidence.container.name.clone(),
        container_days: evidence.pod_days(),
        cpu_limit: values.cpu_limit.and_then(|limit| simulate::cpu_limit(evidence, limit)),
        cpu_request: values.cpu_request.and_then(|request| simulate::cpu_request(evidence, request)),
        memory_limit: values.memory_limit.and_then(|limit| simulate::memory_limit(evidence, limit)),
    }
}

fn text(evidence: &Evidence, found: &Simulation, values: &Values) -> String {
    let cluster = &found.cluster;
    let of_cluster = if cluster.is_empty() { String::new() } else { format!("Cluster {}: ", plain(cluster)) };
    let mut text = format!(
        "{of_cluster}{}: {:.1} container-days of usage history\n",
        explain::title(evidence),
        found.container_days
    );
    if let Some(limit) = values.cpu_limit {
        let _ = write!(text, "  CPU limit {}: ", Quantity::from_millicores(limit));
        text += &found.cpu_limit.as_ref().map_or_else(
            || "no throttling data: quota simulation needs an agent with eBPF\n".to_owned(),
            throttling,
        );
    }
    if let Some(request) = values.cpu_request {
        let _ = write!(text, "  CPU request {}: ", Quantity::from_millicores(request));
        text += &found.cpu_request.map_or_else(
            || "no CPU usage observed\n".to_owned(),
            |found| {
                format!(
                    "exceeded {} of the time, by {} of all CPU time\n",
                    explain::percent(found.time_above),
                    explain::percent(found.work_above)
                )
            },
        );
    }
    if let Some(limit) = values.memory_limit {
        let _ = write!(text, "  memory limit {}: ", Quantity::from_bytes(limit));
        text += &found.memory_limit.as_ref().map_or_else(|| "no memory usage observed\n".to_owned(), kills);
    }
    text
}

fn throttling(found: &CpuLimit) -> String {
    let one = |at: &Throttled| {
        let delayed = humantime::format_duration(Duration::from_millis(at.delayed_millis));
        format!("{} of CFS periods throttled, {delayed} of CPU time delayed", explain::percent(at.periods))
    };
    let quota = |at: &Throttled| Quantity::from_millicores(at.quota);
    let simulated = match (&found.at_most, &found.at_least) {
        (Some(upper), Some(lower)) if upper.quota == lower.quota => format!("{}\n", one(upper)),
        (Some(upper), Some(lower)) => format!(
            "between two simulated limits\n    {}: {}\n    {}: {}\n",
            quota(upper),
            one(upper),
            quota(lower),
            one(lower)
        ),
        (Some(upper), None) => format!("at most {}, as simulated at {}\n", one(upper), quota(upper)),
        (None, Some(lower)) => format!("at least {}, as simulated at {}\n", one(lower), quota(lower)),
        (None, None) => "no quota was simulated\n".to_owned(),
    };
    // Below the current limit the simulation knows all CPU time.
    let current = found.current.filter(|current| current.periods > 0.0 && found.limit >= current.limit);
    let current = current.map_or_else(String::new, |current| {
        format!(
            "    the current limit {} throttled {} of CFS periods: CPU time that it delayed is not in the simulation\n",
            Quantity::from_millicores(current.limit),
            explain::percent(current.periods)
        )
    });
    simulated + &current
}

fn kills(found: &MemoryLimit) -> String {
    let seen = match found.kills_seen {
        0 => String::new(),
        seen => format!("; {} recorded at this limit or a higher one", units::count(seen, "OOM kill")),
    };
    let highest = found.highest.as_ref().map_or(0, |peak| peak.bytes);
    let highest = units::bytes(highest as f64);
    match &found.first {
        None => format!("usage never above it in {} hours; highest usage {highest}{seen}\n", found.hours),
        Some(first) => format!(
            "at least {}: usage above it in {} of {} hours, first at {} in {}; highest usage {highest}{seen}\n",
            units::count(found.hours_above, "OOM kill"),
            found.hours_above,
            found.hours,
            units::time(first.at),
            plain(&first.pod)
        ),
    }
}
