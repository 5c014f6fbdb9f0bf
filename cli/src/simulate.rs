//! `snug simulate`: what would have come of other values, by what was seen.

use std::{fmt::Write as _, io::Write, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use snug_sizing::{
    evidence::Evidence,
    quantity::Quantity,
    simulate::{self, CpuLimit, CpuRequest, MemoryLimit, Throttled},
};

use crate::{
    columns::plain,
    explain,
    recommend::{Outcome, WorkloadSelector},
    units,
};

/// Form of the report. Within the number after the slash fields are only added.
const SCHEMA: &str = "snug.simulation/1";

/// The options of `snug simulate`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    chosen: WorkloadSelector,
    #[command(flatten)]
    values: Values,
    /// Form of the output.
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What is tried.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Values {
    /// A CPU limit, such as 500m.
    #[arg(long, value_name = "QUANTITY", value_parser = cpu)]
    cpu_limit: Option<u64>,
    /// A CPU request.
    #[arg(long, value_name = "QUANTITY", value_parser = cpu)]
    cpu_request: Option<u64>,
    /// A memory limit, such as 256Mi.
    #[arg(long, value_name = "QUANTITY", value_parser = memory)]
    memory_limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Millicores.
fn cpu(text: &str) -> Result<u64, String> {
    positive(text, Quantity::millis)
}

/// Bytes.
fn memory(text: &str) -> Result<u64, String> {
    positive(text, |quantity| quantity.value().into())
}

fn positive(text: &str, amount: impl Fn(Quantity) -> i128) -> Result<u64, String> {
    let quantity: Quantity = text.parse().map_err(|error| format!("{error}"))?;
    let amount = u64::try_from(amount(quantity)).unwrap_or(0);
    if amount > 0 { Ok(amount) } else { Err("it has to be more than nothing".to_owned()) }
}

/// All that was simulated.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    simulations: Vec<Simulation>,
}

/// One container. What cannot be told is `null`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
struct Simulation {
    namespace: String,
    workload: String,
    container: String,
    /// Days of watched containers.
    container_days: f64,
    cpu_limit: Option<CpuLimit>,
    cpu_request: Option<CpuRequest>,
    memory_limit: Option<MemoryLimit>,
}

/// Runs `snug simulate`.
///
/// # Errors
/// When there is no evidence to be had, or nobody takes the output.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Outcome> {
    let Options { chosen, values, output } = options;
    let snapshot = chosen.source.read()?;
    let all: Vec<&Evidence> = snapshot.evidence().filter(|evidence| chosen.is(evidence)).collect();
    let simulations: Vec<Simulation> = all.iter().map(|evidence| simulation(evidence, values)).collect();
    let text = match output {
        Output::Json => {
            let report = Report { schema: SCHEMA, simulations };
            serde_json::to_string_pretty(&report).context("cannot write JSON")? + "\n"
        }
        Output::Text => {
            let texts: Vec<String> =
                all.iter().zip(&simulations).map(|(evidence, one)| text(evidence, one, values)).collect();
            texts.join("\n")
        }
    };
    out.write_all(text.as_bytes()).context("cannot write the simulation")?;
    if all.is_empty() {
        let (known, workload) = (snapshot.evidence().count(), &chosen.workload);
        eprintln!("snug: none of {known} containers is of a workload {workload:?}");
        return Ok(Outcome::NotEnoughData);
    }
    Ok(Outcome::Success)
}

fn simulation(evidence: &Evidence, values: &Values) -> Simulation {
    Simulation {
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
    let mut text = format!("{}: {:.1} days of containers\n", explain::title(evidence), found.container_days);
    if let Some(limit) = values.cpu_limit {
        let _ = write!(text, "  CPU limit {}: ", Quantity::from_millicores(limit));
        text += &found.cpu_limit.as_ref().map_or_else(
            || {
                "nobody watched what quotas would have done; it takes an agent with its kernel half\n"
                    .to_owned()
            },
            throttling,
        );
    }
    if let Some(request) = values.cpu_request {
        let _ = write!(text, "  CPU request {}: ", Quantity::from_millicores(request));
        text += &found.cpu_request.map_or_else(
            || "no CPU use was seen\n".to_owned(),
            |found| {
                format!(
                    "use would have been above it {} of the time, with {} of the work\n",
                    explain::percent(found.time_above),
                    explain::percent(found.work_above)
                )
            },
        );
    }
    if let Some(limit) = values.memory_limit {
        let _ = write!(text, "  memory limit {}: ", Quantity::from_bytes(limit));
        text += &found.memory_limit.as_ref().map_or_else(|| "no memory use was seen\n".to_owned(), kills);
    }
    text
}

fn throttling(found: &CpuLimit) -> String {
    let one = |at: &Throttled| {
        let delayed = humantime::format_duration(Duration::from_millis(at.delayed_millis));
        format!("{} of the CFS periods throttled, {delayed} of work put off", explain::percent(at.periods))
    };
    let quota = |at: &Throttled| Quantity::from_millicores(at.quota);
    match (&found.at_most, &found.at_least) {
        (Some(most), Some(least)) if most.quota == least.quota => format!("{}\n", one(most)),
        (Some(most), Some(least)) => format!(
            "between\n    {} (at {})\n    {} (at {})\n",
            one(least),
            quota(least),
            one(most),
            quota(most)
        ),
        (Some(most), None) => format!("at most {} (at {})\n", one(most), quota(most)),
        (None, Some(least)) => format!("at least {} (at {})\n", one(least), quota(least)),
        (None, None) => "nothing was watched\n".to_owned(),
    }
}

fn kills(found: &MemoryLimit) -> String {
    let seen = match found.kills_seen {
        0 => String::new(),
        seen => format!("; {seen} OOM kills were seen at limits that were not lower"),
    };
    let highest = found.highest.as_ref().map_or(0, |peak| peak.bytes);
    let highest = units::bytes(highest as f64);
    match &found.first {
        None => format!("no use above it in {} hours, the highest was {highest}{seen}\n", found.hours),
        Some(first) => format!(
            "at least {} OOM kills, in so many of {} hours; the first at {} in {}; the highest use was {highest}{seen}\n",
            found.hours_above,
            found.hours,
            units::time(first.at),
            plain(&first.pod)
        ),
    }
}
