//! `cargo xtask backtest`: replays usage traces and synthetic usage under each sizing policy, and writes the results to a document.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;

use crate::{command, toolchain, workspace};

/// The document with the tables, and the folder of the plots.
const DOCUMENT: &str = "docs/backtest.md";
const PLOTS: &str = "docs";
/// The tables are between these markers.
const BEGIN: &str = "<!-- backtest -->\n";
const END: &str = "<!-- end: backtest -->";
const FOLDS: &str = "5";

/// Replay usage traces and synthetic usage under each sizing policy, also with constants fitted on other workloads.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Folder with usage traces of one cluster, cpu_millicores.csv.gz and memory_kib.csv.gz; can be repeated.
    #[arg(long, value_name = "DIR")]
    traces: Vec<PathBuf>,
    /// Folders with usage traces of one cluster and the same time; can be repeated.
    #[arg(long, value_name = "NAME=DIR,…")]
    world: Vec<String>,
    /// Write the tables to docs/backtest.md, and the plots to docs/backtest-*.svg.
    #[arg(long)]
    write: bool,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { traces, world, write } = options;
    ensure!(!traces.is_empty() || !world.is_empty(), "give --traces DIR or --world NAME=DIR,DIR");
    command::run(command::cargo().args(["build", "--release", "--package", "snug"]))?;
    let snug = workspace::target_dir().join(toolchain::host_target()).join("release/snug");
    let mut replay = command::new(&snug);
    replay.args(["backtest", "--streams", "--validate", FOLDS]);
    for folder in traces {
        replay.arg("--traces").arg(folder);
    }
    for world in world {
        replay.arg("--world").arg(world);
    }
    if *write {
        replay.arg("--plots").arg(workspace::root().join(PLOTS));
    }
    let table = command::capture(&mut replay)?;
    print!("{table}");
    if !*write {
        return Ok(());
    }
    let document = workspace::root().join(DOCUMENT);
    let text = fs::read_to_string(&document).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let (Some((before, _)), Some((_, after))) = (text.split_once(BEGIN), text.split_once(END)) else {
        bail!("{DOCUMENT} lacks the markers {} and {END} around the tables", BEGIN.trim_end());
    };
    fs::write(&document, format!("{before}{BEGIN}```text\n{table}```\n{END}{after}"))
        .with_context(|| format!("cannot write {DOCUMENT}"))?;
    println!("backtest: wrote {DOCUMENT}");
    Ok(())
}
