//! `snug top`: usage of the containers of a node or of a cluster, as a live view or printed.

mod api;
mod details;
mod fleet;
mod frame;
mod grid;
mod live;
mod look;
mod names;
mod rows;
pub mod screen;
mod severity;
mod state;
mod table;
mod text;
mod usage_history;

use std::{
    env,
    io::{self, IsTerminal as _, Write},
    ops::RangeInclusive,
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use snug_client::{
    agent,
    http::{self, RootCertificates},
};

use self::{
    fleet::{Fleet, Selection},
    look::Theme,
    rows::ContainerRow,
    state::{Picture, View},
};
use crate::cluster::{Cluster, KubeContext};

const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
/// The default `--interval` for agents, and for a cluster.
const INTERVALS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// Range of `--last`: an agent keeps minutes for a week at most.
const PLOT_RANGE: RangeInclusive<Duration> = Duration::from_secs(120)..=Duration::from_secs(7 * 24 * 3600);
/// Address of the agent on this host.
const LOCAL: &str = "http://127.0.0.1:9750";

/// The options of `snug top`.
#[derive(Debug, Args)]
pub struct Options {
    /// Agents without --agent [default: cluster with a kubeconfig or service account, else agent]
    #[arg(long, value_name = "SOURCE", value_enum)]
    source: Option<DefaultSource>,
    /// Kubeconfig file [default: $KUBECONFIG, else ~/.kube/config, else the pod's service account]
    #[arg(long, value_name = "FILE", conflicts_with = "agent")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current context]
    #[arg(long, value_name = "NAME", conflicts_with = "agent")]
    context: Option<String>,
    /// Address of an agent, such as http://127.0.0.1:9750; can be repeated
    #[arg(long, value_name = "URL", value_parser = agent::parse_address)]
    agent: Vec<String>,
    /// Root certificates (PEM) for https:// addresses [default: the system's trust store]
    #[arg(long, value_name = "FILE", value_parser = http::parse_root_certificates)]
    certificate_authority: Option<RootCertificates>,
    /// Only these namespaces, separated by commas [default: all]
    #[arg(short = 'n', long, value_name = "NAMESPACE,…", value_delimiter = ',', value_parser = parse_namespace)]
    namespace: Vec<String>,
    /// All namespaces (default)
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only pods that match this label selector; needs a cluster
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "agent")]
    selector: Option<String>,
    /// Time between two measurements, over which rates are computed [default: 2s; 5s for a cluster]
    #[arg(long, value_name = "DURATION", value_parser = parse_interval)]
    interval: Option<Duration>,
    /// Column to sort by, highest first
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// One line for each node, namespace or workload in the live view; Enter lists its containers
    #[arg(long, value_enum, default_value_t)]
    group: Group,
    /// Print this number of tables instead of the live view
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one table instead of the live view, as without a terminal
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Add a plot of CPU usage over this time, such as 1h: mean usage per replica of the workload on its node, as far
    /// back as the agent's history has minutes
    #[arg(long, value_name = "DURATION", value_parser = parse_last)]
    last: Option<Duration>,
    /// Format of what is printed; json prints one object per line
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Output,
}

/// Values of `--source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DefaultSource {
    /// The agents of the cluster
    Cluster,
    /// The agent on this host
    Agent,
}

/// Values of `--sort`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// CPU usage
    #[default]
    Cpu,
    /// Memory working set
    Memory,
    /// Share of the memory limit that is used
    Limit,
    /// Share of CFS periods that were throttled
    Throttled,
    /// OOM kills
    Oom,
    /// Namespace and name
    Name,
}

impl Sort {
    fn next(self) -> Self {
        next(self)
    }

    fn word(self) -> String {
        word(&self)
    }
}

/// Values of `--group`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Group {
    /// One line for each container
    #[default]
    None,
    Node,
    Namespace,
    Workload,
}

impl Group {
    fn next(self) -> Self {
        next(self)
    }

    fn word(self) -> String {
        word(&self)
    }
}

/// The value behind this one, in a circle.
fn next<V: ValueEnum + PartialEq + Copy>(value: V) -> V {
    let all = V::value_variants();
    let behind = all.iter().skip_while(|other| **other != value).nth(1);
    behind.or(all.first()).copied().unwrap_or(value)
}

fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
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

/// `-n` was the number of tables.
fn parse_namespace(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("-n selects a namespace; the number of tables is --count {text}"));
    }
    Ok(text.to_owned())
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
    /// Seconds between the two measurements; with several agents the most.
    interval_seconds: f64,
    containers: &'a [ContainerRow],
}

impl Options {
    /// The agents, and whether they are a cluster's.
    fn fleet(&self) -> Result<(Fleet, bool)> {
        let context = KubeContext::new(self.kubeconfig.clone(), self.context.clone());
        let is_cluster = match self.source {
            Some(source) => source == DefaultSource::Cluster,
            None => context.is_named() || (self.agent.is_empty() && KubeContext::is_available()),
        };
        let selection = Selection { namespaces: self.namespace.clone(), labels: self.selector.clone() };
        let fleet = if is_cluster {
            Fleet::of_cluster(Cluster::connect(&context)?, selection)?
        } else if self.selector.is_some() {
            bail!("--selector needs a cluster, and there is no kubeconfig; set --kubeconfig");
        } else {
            let local = [LOCAL.to_owned()];
            let addresses = if self.agent.is_empty() { &local } else { self.agent.as_slice() };
            let trust = self.certificate_authority.clone().unwrap_or_default();
            Fleet::of_agents(addresses, &trust, selection)
        };
        Ok((fleet.with_history(self.last), is_cluster))
    }

    fn is_live(&self) -> bool {
        let is_printed = self.once || self.count.is_some() || self.output == Output::Json;
        !is_printed && io::stdout().is_terminal() && has_screen(env::var("TERM").ok().as_deref())
    }
}

/// Whether the terminal can move its cursor. Windows has no such variable.
fn has_screen(term: Option<&str>) -> bool {
    match term {
        Some(term) => !matches!(term, "" | "dumb"),
        None => cfg!(windows),
    }
}

/// Runs `snug top` until the user quits, or all tables are printed.
///
/// # Errors
/// When no agent responds, or the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let (fleet, is_cluster) = options.fleet()?;
    let interval = options.interval.unwrap_or(INTERVALS[usize::from(is_cluster)]);
    if options.is_live() {
        let has_color = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        return live::run(fleet, interval, View::new(options.sort, options.group), Theme { has_color });
    }
    print(fleet, interval, options, out)
}

fn print(mut fleet: Fleet, interval: Duration, options: &Options, out: &mut impl Write) -> Result<()> {
    fleet.poll()?;
    for _ in 0..options.count.unwrap_or(1) {
        thread::sleep(interval);
        let Picture { mut rows, agents, interval_seconds } = fleet.poll()?;
        for (agent, why) in agents.iter().filter_map(|agent| Some((agent, &agent.away.as_ref()?.1))) {
            crate::remark!("{}: {why}; its containers are not as they are now", agent.name);
        }
        rows.sort_by(|a, b| rows::order(options.sort, a, b));
        let report = Report { interval_seconds, containers: &rows };
        write(out, options.output, &report, agents.len() > 1).context("cannot write the table")?;
        if rows.is_empty() && options.output == Output::Table {
            crate::columns::remark(empty_message(options, fleet.known()));
        }
    }
    Ok(())
}

fn empty_message(options: &Options, known: usize) -> String {
    match (options.namespace.as_slice(), &options.selector) {
        ([], None) => {
            "the agent has no containers; check its options `namespaces-allow`, `namespaces-deny` and \
                       `cgroup-root`"
                .to_owned()
        }
        ([], Some(labels)) => format!("none of {known} containers is in a pod with the labels {labels:?}"),
        // With one namespace the agents leave others out.
        (names, _) => format!(
            "no container is in the namespace {:?}; without --namespace all are shown",
            names.join(",")
        ),
    }
}

fn write(out: &mut impl Write, output: Output, report: &Report<'_>, has_nodes: bool) -> io::Result<()> {
    match output {
        Output::Table if report.containers.is_empty() => {}
        Output::Table => {
            let size = if io::stdout().is_terminal() { crossterm::terminal::size().ok() } else { None };
            let text = match size {
                Some((width, _)) if width > 0 => table::fitted(report.containers, width.into(), has_nodes),
                _ => table::render(report.containers, has_nodes),
            };
            out.write_all(text.as_bytes())?;
        }
        Output::Json => {
            serde_json::to_writer(&mut *out, report)?;
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
    fn a_number_is_no_namespace() {
        assert_eq!(parse_namespace("shop"), Ok("shop".to_owned()));
        assert_eq!(parse_namespace("1st"), Ok("1st".to_owned()));
        assert!(parse_namespace("20").unwrap_err().contains("--count 20"));
    }

    #[test]
    fn a_dumb_terminal_has_no_screen() {
        assert!(has_screen(Some("xterm-256color")) && !has_screen(Some("dumb")) && !has_screen(Some("")));
        assert_eq!(has_screen(None), cfg!(windows));
    }

    #[test]
    fn keys_go_round() {
        let all: Vec<String> = std::iter::successors(Some(Group::None), |group| Some(group.next()))
            .take(5)
            .map(Group::word)
            .collect();
        assert_eq!(all, ["none", "node", "namespace", "workload", "none"]);
    }
}
