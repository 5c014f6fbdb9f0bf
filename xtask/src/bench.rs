//! `cargo xtask bench`: measures what the agent costs on this machine.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;

use crate::{
    build, build_ebpf, command,
    setup::{self, Need},
    workspace,
};

/// The document with the tables.
const DOCUMENT: &str = "docs/performance.md";

/// Measure the CPU and memory usage of the agent. Needs root.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Run only these parts: pass, node, scrape, growth, programs, runqueue, history, recommend, top.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Write the tables to docs/performance.md.
    #[arg(long)]
    write: bool,
    /// Fail if a budget is exceeded. Default: report it only, because other work on the machine affects the results.
    #[arg(long)]
    strict: bool,
    /// Further arguments for the bench program (`-- --help` lists them).
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure_all(&[Need::Ebpf, Need::Bench, Need::Terminal])?;
    let programs = build::build()?;
    let bench = build::build_bench("agent", &build_ebpf::build_default()?)?;
    let mut measure = command::new(bench);
    measure.env("SNUG_AGENT_BIN", &programs.agent).env("SNUG_CLI_BIN", &programs.cli);
    if !options.only.is_empty() {
        measure.arg("--only").arg(options.only.join(","));
    }
    if options.strict {
        measure.arg("--strict");
    }
    let (output, succeeded) = run_and_copy(measure.args(&options.arguments))?;
    if options.write {
        let document = workspace::root().join(DOCUMENT);
        let text = fs::read_to_string(&document).with_context(|| format!("cannot read {DOCUMENT}"))?;
        write(&document, &replace_parts(&text, &output)?)?;
        println!("bench: wrote {DOCUMENT}");
    }
    ensure!(succeeded, "`{}` failed", command::line(&measure));
    Ok(())
}

/// Runs the command, prints its standard output, and returns the output and whether the command succeeded.
fn run_and_copy(measure: &mut Command) -> Result<(String, bool)> {
    let spawned = measure.stdout(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("cannot run `{}`", command::line(measure)))?;
    let mut output = String::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            output.push_str(&line);
            output.push('\n');
        }
    }
    Ok((output, child.wait()?.success()))
}

fn write(document: &Path, text: &str) -> Result<()> {
    fs::write(document, text).with_context(|| format!("cannot write {}", document.display()))
}

/// Replaces the parts of the document that the output contains, each from `<!-- bench: name -->` to `<!-- end: name -->`.
fn replace_parts(document: &str, output: &str) -> Result<String> {
    let mut text = document.to_owned();
    let mut rest = output;
    while let Some((_, after)) = rest.split_once("<!-- bench: ") {
        let (name, _) = after.split_once(" -->").context("a marker in the output has no ` -->`")?;
        let (begin, end) = (format!("<!-- bench: {name} -->\n"), format!("<!-- end: {name} -->"));
        let Some((part, next)) = after.split_once(&end) else { bail!("the output has no `{end}`") };
        let part = part.split_once('\n').map_or("", |(_, body)| body);
        let (head, tail) = text
            .split_once(&begin)
            .and_then(|(head, rest)| Some((head, rest.split_once(&end)?.1)))
            .with_context(|| format!("{DOCUMENT} has no `{}` … `{end}`", begin.trim_end()))?;
        text = format!("{head}{begin}{part}{end}{tail}");
        rest = next;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT_TEXT: &str = "# Title\n<!-- bench: a -->\nold a\n<!-- end: a -->\nbetween\n\
         <!-- bench: b -->\nold b\n<!-- end: b -->\nend\n";

    #[test]
    fn a_part_takes_the_place_of_its_own_and_no_other() {
        let output = "<!-- bench: b -->\nnew b\n\n| x |\n<!-- end: b -->\n";
        let expected = DOCUMENT_TEXT.replace("old b\n", "new b\n\n| x |\n");
        assert_eq!(replace_parts(DOCUMENT_TEXT, output).unwrap(), expected);
        assert_eq!(replace_parts(DOCUMENT_TEXT, "").unwrap(), DOCUMENT_TEXT);
        let both = format!("<!-- bench: a -->\nnew a\n<!-- end: a -->\n{output}");
        let expected = expected.replace("old a", "new a");
        assert_eq!(replace_parts(DOCUMENT_TEXT, &both).unwrap(), expected);
    }

    #[test]
    fn a_part_without_a_place_is_an_error() {
        let error = replace_parts(DOCUMENT_TEXT, "<!-- bench: c -->\nx\n<!-- end: c -->\n").unwrap_err();
        assert!(error.to_string().contains("<!-- bench: c -->"), "{error}");
        assert!(replace_parts(DOCUMENT_TEXT, "<!-- bench: a -->\ncut").is_err());
    }
}
