//! `cargo xtask backtest`: replays usage traces under each sizing policy, and writes the results to a document.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use crate::{command, toolchain, workspace};

/// The document with the tables.
const DOCUMENT: &str = "docs/backtest.md";
const PLOTS: [&str; 2] = ["docs/backtest-memory.svg", "docs/backtest-cpu.svg"];
/// The tables are between these markers.
const BEGIN: &str = "<!-- backtest -->\n";
const END: &str = "<!-- end: backtest -->";
const FOLDS: &str = "5";

/// Replay usage traces under each sizing policy, with 5-fold cross-validation of the constants in the algorithm.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Folder with the usage traces, cpu_millicores.csv.gz and memory_kib.csv.gz.
    #[arg(long, env = "SNUG_TRACES", value_name = "DIR")]
    traces: PathBuf,
    /// Write the tables to docs/backtest.md, and the plots to docs/backtest-*.svg.
    #[arg(long)]
    write: bool,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { traces, write } = options;
    command::run(command::cargo().args(["build", "--release", "--package", "snug"]))?;
    let snug = workspace::target_dir().join(toolchain::host_target()).join("release/snug");
    let report = |form: &str| {
        let mut replay = command::new(&snug);
        replay.args(["backtest", "--validate", FOLDS, "--output", form, "--traces"]).arg(traces);
        command::capture(&mut replay)
    };
    let table = report("table")?;
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
    let page = report("html")?;
    for (plot, path) in plots(&page).zip(PLOTS) {
        fs::write(workspace::root().join(path), plot).with_context(|| format!("cannot write {path}"))?;
    }
    println!("backtest: wrote {DOCUMENT}");
    Ok(())
}

/// The SVG plots in an HTML page.
fn plots(page: &str) -> impl Iterator<Item = String> + '_ {
    const CLOSE: &str = "</svg>";
    page.split("<svg").skip(1).filter_map(|part| Some(format!("<svg{}{CLOSE}\n", part.split_once(CLOSE)?.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_extracted_from_the_page() {
        let found: Vec<String> = plots("<p><svg a>1</svg></p><svg b>2</svg>").collect();
        assert_eq!(found, ["<svg a>1</svg>\n", "<svg b>2</svg>\n"]);
    }
}
