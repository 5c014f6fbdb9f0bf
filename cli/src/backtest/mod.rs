//! `snug backtest`: replays policies on recorded usage and reports their violations and footprint.

pub mod history;
pub mod plot;
pub mod report;
mod streams;
mod subject;
mod table;
pub mod traces;
mod world_report;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use snug_sizing::{
    backtest::{history::HistoryPolicy, policies::PolicyChoice, world::World},
    engine::Risk,
};

use self::{report::Report, subject::EngineUnderTest};
use crate::{risk, source::EvidenceSource};

/// The name of the engine among policies.
const SNUG: &str = "snug";

/// The options of `snug backtest`.
#[derive(Debug, Args)]
pub struct Options {
    /// Directory with the traces cpu_millicores.csv.gz and memory_kib.csv.gz of one cluster; can be repeated
    #[arg(long, value_name = "DIR", required_unless_present_any = ["history", "world", "streams"])]
    traces: Vec<PathBuf>,
    /// Directories with traces of one cluster and the same time, under one name; can be repeated. They are replayed together
    #[arg(long, value_name = "NAME=DIR,…", value_parser = named_world)]
    world: Vec<NamedWorld>,
    /// Also replay synthetic usage, whose true risk is known
    #[arg(long)]
    streams: bool,
    /// Back-test on the usage history of agents, of more than a day; policies are snug, as-is (current requests and limits)
    /// and oracle
    #[arg(long, conflicts_with_all = ["traces", "world", "streams", "validate"])]
    history: bool,
    #[command(flatten)]
    source: EvidenceSource,
    /// Policies to compare, separated by commas: snug and the algorithms of other tools
    #[arg(long, value_name = "all|NAME,…", default_value = "all", value_delimiter = ',')]
    policy: Vec<String>,
    /// Accepted risk of snug: a profile (critical, standard, batch), or numbers such as oom=0.001,cpu=0.01: OOM kills per pod-day
    /// and share of CPU time above the request
    #[arg(long, value_name = "RISK", default_value = "standard", value_parser = risk::parse)]
    risk: Risk,
    /// Judge the engine with constants fitted on other workloads, in this number of folds, on earlier days, and on other worlds
    #[arg(long, value_name = "FOLDS", value_parser = clap::value_parser!(u64).range(2..=20))]
    validate: Option<u64>,
    /// Also write the plots as SVG files, backtest-*.svg, to this directory
    #[arg(long, value_name = "DIR", conflicts_with = "history")]
    plots: Option<PathBuf>,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Html,
}

/// The policies with these names, with the engine at its risk.
fn choose(names: &[String], engine: &EngineUnderTest) -> Result<Vec<(String, PolicyChoice)>> {
    let snug = (SNUG, engine.choice());
    choose_by_name(names, &std::iter::once(snug).chain(PolicyChoice::BASELINES).collect::<Vec<_>>())
}

/// Selects choices by name.
fn choose_by_name<C: Copy>(names: &[String], all: &[(&str, C)]) -> Result<Vec<(String, C)>> {
    let mut chosen: Vec<(String, C)> = Vec::new();
    for name in names {
        let before = chosen.len();
        let fits = all.iter().filter(|(other, _)| name == "all" || name == other);
        let new: Vec<_> = fits.filter(|(name, _)| chosen.iter().all(|(known, _)| known != name)).collect();
        chosen.extend(new.into_iter().map(|(name, choice)| ((*name).to_owned(), *choice)));
        if chosen.len() == before && !all.iter().any(|(other, _)| name == other) && name != "all" {
            let known: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
            bail!("unknown policy {name:?}; use all, {}", known.join(", "));
        }
    }
    Ok(chosen)
}

/// Runs `snug backtest`.
///
/// # Errors
/// When the traces or the evidence cannot be read, a policy is unknown, or the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let Options { traces, world, streams, history, source, policy, risk, validate, plots, output } = options;
    if *history {
        return run_history(source, policy, *risk, *output, out);
    }
    let engine = EngineUnderTest::new(*risk);
    let chosen = choose(policy, &engine)?;
    let alone = traces.iter().map(|folder| (set_name(folder), vec![folder.clone()]));
    let named = alone.chain(world.iter().map(|world| (world.name.clone(), world.folders.clone())));
    let worlds: Vec<World> =
        named.map(|(name, folders)| read_world(&name, &folders)).collect::<Result<_>>()?;
    let report = Report::make(&worlds, &engine, &chosen, *validate, *streams);
    let drawn = plot::all(&report);
    if let Some(folder) = plots {
        for (id, svg) in &drawn {
            let path = folder.join(format!("backtest-{id}.svg"));
            std::fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let below = || drawn.iter().map(|(_, svg)| svg.as_str()).collect::<String>();
    write(*output, &report, || table::render(&report), || table::html(&report, &below()), out)
}

/// A world of the command line.
#[derive(Clone, Debug)]
struct NamedWorld {
    name: String,
    folders: Vec<PathBuf>,
}

fn named_world(text: &str) -> Result<NamedWorld, String> {
    let parts = text.split_once('=').filter(|(name, folders)| !name.is_empty() && !folders.is_empty());
    let (name, folders) =
        parts.ok_or_else(|| "expected NAME=DIR,DIR, such as prod=traces,more-traces".to_owned())?;
    Ok(NamedWorld { name: name.to_owned(), folders: folders.split(',').map(PathBuf::from).collect() })
}

/// The name of a set: that of its directory.
fn set_name(folder: &Path) -> String {
    folder
        .file_name()
        .map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn read_world(name: &str, folders: &[PathBuf]) -> Result<World> {
    let set = |folder: &PathBuf| Ok((set_name(folder), traces::read(folder)?));
    Ok(World::new(name, folders.iter().map(set).collect::<Result<_>>()?)?)
}

/// Writes a report in an output format.
fn write(
    output: Output,
    report: &impl Serialize,
    text: impl FnOnce() -> String,
    html: impl FnOnce() -> String,
    out: &mut impl Write,
) -> Result<()> {
    let text = match output {
        Output::Table => text(),
        Output::Html => html(),
        Output::Json => {
            serde_json::to_string_pretty(report).context("cannot write the report as JSON")? + "\n"
        }
    };
    out.write_all(text.as_bytes()).context("cannot write the report")
}

/// The back-test on evidence.
fn run_history(
    source: &EvidenceSource,
    policy: &[String],
    risk: Risk,
    output: Output,
    out: &mut impl Write,
) -> Result<()> {
    let chosen =
        choose_by_name(policy, &[&[(SNUG, HistoryPolicy::Snug(risk))][..], &HistoryPolicy::OTHERS].concat())?;
    let report = history::Report::make(&source.read()?, risk, &chosen);
    if report.is_empty() {
        bail!(
            "not enough usage history: none of {} containers over {} hours has a day of history followed by six hours; try again later",
            report.history.containers,
            report.history.hours
        );
    }
    let (title, tables) = (report.title(), table::open(&report.open));
    write(output, &report, || table::text(&title, &tables), || table::page(&title, &tables, ""), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_by_name() {
        let engine = EngineUnderTest::new(snug_sizing::engine::Profile::Standard.risk());
        let names = |text: &str| -> Result<Vec<String>> {
            let asked: Vec<String> = text.split(',').map(str::to_owned).collect();
            Ok(choose(&asked, &engine)?.into_iter().map(|(name, _)| name).collect())
        };
        assert_eq!(names("vpa,snug,vpa").unwrap(), ["vpa", "snug"]);
        assert_eq!(names("all").unwrap().len(), 1 + PolicyChoice::BASELINES.len());
        assert!(
            names("krr")
                .unwrap_err()
                .to_string()
                .starts_with("unknown policy \"krr\"; use all, snug, krr-simple,")
        );
    }
}
