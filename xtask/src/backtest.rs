//! `cargo xtask backtest`: how recommendations do on recorded use, and the document that says so.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use crate::{command, toolchain, workspace};

/// Where the tables are kept, and the plots beside them.
const DOCUMENT: &str = "docs/backtest.md";
const PLOTS: [&str; 2] = ["docs/backtest-memory.svg", "docs/backtest-cpu.svg"];
/// Between these the tables are replaced.
const BEGIN: &str = "<!-- backtest -->\n";
const END: &str = "<!-- end: backtest -->";
const FOLDS: &str = "5";

/// Replay recorded use under each policy, with the engine's constants cross-validated.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Folder with cpu_millicores.csv.gz and memory_kib.csv.gz.
    #[arg(long, env = "SNUG_TRACES", value_name = "DIR")]
    traces: PathBuf,
    /// Put the tables into docs/backtest.md and the plots beside it.
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
        bail!("{DOCUMENT} has no {} and {END} to put the tables between", BEGIN.trim_end());
    };
    fs::write(&document, format!("{before}{BEGIN}```text\n{table}```\n{END}{after}"))
        .with_context(|| format!("cannot write {DOCUMENT}"))?;
    let page = report("html")?;
    for (plot, path) in plots(&page).zip(PLOTS) {
        fs::write(workspace::root().join(path), plot).with_context(|| format!("cannot write {path}"))?;
    }
    println!("backtest: {DOCUMENT} written");
    Ok(())
}

/// The plots of a page.
fn plots(page: &str) -> impl Iterator<Item = String> + '_ {
    const CLOSE: &str = "</svg>";
    page.split("<svg").skip(1).filter_map(|part| Some(format!("<svg{}{CLOSE}\n", part.split_once(CLOSE)?.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_cut_out_of_the_page() {
        let found: Vec<String> = plots("<p><svg a>1</svg></p><svg b>2</svg>").collect();
        assert_eq!(found, ["<svg a>1</svg>\n", "<svg b>2</svg>\n"]);
    }
}
