//! `snug top`: usage of the containers of one node between two scrapes.

mod rows;
mod table;
mod usage_history;

use std::{
    io::{self, IsTerminal as _, Write},
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use snug_client::{
    agent::{self, Agent},
    http::RootCertificates,
};

use self::{rows::ContainerRow, usage_history::UsageHistory};

const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
/// Range of `--last`: an agent keeps minutes for a week at most.
const PLOT_RANGE: RangeInclusive<Duration> = Duration::from_secs(120)..=Duration::from_secs(7 * 24 * 3600);
/// Time between two requests for the usage history.
const PLOT_INTERVAL: Duration = Duration::from_secs(30);

/// The options of `snug top`.
#[derive(Debug, Args)]
pub struct Options {
    /// Address of the agent
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9750", value_parser = agent::parse_address)]
    agent: String,
    /// Time between two scrapes, over which rates are computed
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_interval)]
    interval: Duration,
    /// Column to sort by, highest first
    #[arg(long, value_enum, default_value_t = Sort::Cpu)]
    sort: Sort,
    /// Number of tables to print [default: no limit on a terminal, else 1]
    #[arg(short = 'n', long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one table, like -n 1
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Add a plot of CPU usage over this time, such as 1h: mean usage per replica of the workload on this node, as far
    /// back as the agent's history has minutes
    #[arg(long, value_name = "DURATION", value_parser = parse_last)]
    last: Option<Duration>,
    /// Output format; json prints one object per line
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Only containers of this namespace
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// CPU usage
    Cpu,
    /// Memory working set
    Memory,
    /// Share of CFS periods that were throttled
    Throttled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    within(interval, &(MIN_INTERVAL..=MAX_INTERVAL))
}

fn parse_last(text: &str) -> Result<Duration, String> {
    let last = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    within(last, &PLOT_RANGE)
}

fn within(duration: Duration, allowed: &RangeInclusive<Duration>) -> Result<Duration, String> {
    if allowed.contains(&duration) {
        return Ok(duration);
    }
    let [low, high] = [*allowed.start(), *allowed.end()].map(humantime::format_duration);
    Err(format!("must be from {low} to {high}"))
}

/// The object of `-o json`.
#[derive(Serialize)]
struct Report<'a> {
    /// Seconds between the two scrapes.
    interval_seconds: f64,
    containers: &'a [ContainerRow],
}

/// Runs `snug top` until all tables are printed.
///
/// # Errors
/// When the agent does not respond, or the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let Options { agent, interval, sort, count, once, last, output, namespace } = options;
    let live = io::stdout().is_terminal();
    let mut left = match count {
        _ if *once => Some(1),
        None if !live => Some(1),
        count => *count,
    };
    let clear = live && *output == Output::Table && left != Some(1);

    let agent = Agent::new(agent, &RootCertificates::default());
    let mut before = agent.scrape()?;
    let mut usage_history: Option<(UsageHistory, Instant)> = None;
    while left != Some(0) {
        thread::sleep(*interval);
        let after = agent.scrape()?;
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64();
        let all = rows::between(&before.samples, &after.samples, seconds);
        let known = all.len();
        let mut rows: Vec<ContainerRow> = match namespace {
            Some(namespace) => all.into_iter().filter(|row| row.namespace == *namespace).collect(),
            None => all,
        };
        rows::sort(&mut rows, *sort);
        if let Some(last) = last {
            let (usage_history, _) = match usage_history.take() {
                Some(asked) if asked.1.elapsed() < PLOT_INTERVAL => usage_history.insert(asked),
                _ => usage_history.insert((UsageHistory::ask(&agent, *last)?, Instant::now())),
            };
            rows.iter_mut().for_each(|row| row.cpu_history_cores = Some(usage_history.cores(row)));
        }
        write(out, *output, clear, seconds, &rows).context("cannot write the table")?;
        if rows.is_empty() && *output == Output::Table {
            crate::columns::remark(empty_message(namespace.as_deref(), known));
        }
        before = after;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn empty_message(namespace: Option<&str>, known: usize) -> String {
    match namespace {
        Some(name) if known > 0 => {
            format!(
                "none of the agent's {known} containers is in namespace {name:?}; without --namespace all are shown"
            )
        }
        _ => "the agent has no containers; check its options `namespaces-allow`, `namespaces-deny` and `cgroup-root`"
            .to_owned(),
    }
}

fn write(
    out: &mut impl Write,
    output: Output,
    clear: bool,
    seconds: f64,
    rows: &[ContainerRow],
) -> io::Result<()> {
    match output {
        Output::Table => {
            if clear {
                // Cursor home, then clear the screen and the scrollback buffer.
                out.write_all(b"\x1b[H\x1b[2J\x1b[3J")?;
            }
            if !rows.is_empty() {
                out.write_all(table::render(rows).as_bytes())?;
            }
        }
        Output::Json => {
            serde_json::to_writer(&mut *out, &Report { interval_seconds: seconds, containers: rows })?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(parse_interval("2s"), Ok(Duration::from_secs(2)));
        assert!(parse_interval("10ms").unwrap_err().contains("from 100ms to 1h"));
        assert!(parse_interval("2").is_err());
        assert_eq!(parse_last("6h"), Ok(Duration::from_secs(6 * 3600)));
        assert!(parse_last("8d").unwrap_err().contains("from 2m to 7days"));
    }

    #[test]
    fn an_empty_table_names_the_reason() {
        assert!(empty_message(Some("web"), 3).contains("none of the agent's 3 containers"));
        assert!(empty_message(Some("web"), 0).contains("has no containers"));
        assert!(empty_message(None, 0).contains("cgroup-root"));
    }
}
