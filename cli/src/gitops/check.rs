//! `snug check`: compares requests and limits of manifests with the usage history, for CI.

use std::{collections::BTreeMap, io::Write};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use super::{
    ManifestOptions, assess,
    findings::{CheckReport, Checked, Finding},
    history::History,
    matching::{self, Match},
    outputs,
    shown::{title, unplaced},
};
use crate::{
    manifests::{Field, Location, Manifests, Target},
    policy::Problem,
    recommend::{Outcome, SizingOptions},
    source::EvidenceSource,
};

/// The options of `snug check`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    manifests: ManifestOptions,
    #[command(flatten)]
    source: EvidenceSource,
    #[command(flatten)]
    sizing: SizingOptions,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// The least serious problem that fails the check
    #[arg(long, value_enum, value_name = "PROBLEM", default_value_t = Problem::Waste)]
    fail_on: Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Table for people
    Table,
    /// Everything as JSON
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// JUnit XML, a test for each container
    Junit,
    /// Table for the text of a pull request
    Markdown,
}

/// Runs `snug check`.
///
/// # Errors
/// When the manifests or the usage history cannot be read, or the policy is wrong.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Outcome> {
    let manifests = options.manifests.read()?;
    let history = History::open(&options.source, &options.sizing)?;
    history.policies.check(&history.names(&manifests))?;
    let mut report = compare(&manifests, &history);
    report.notes.extend(manifests.unplaced.iter().map(unplaced));
    let text = match options.output {
        Output::Table => outputs::table(&report),
        Output::Json => outputs::json(&report)?,
        Output::Sarif => outputs::sarif(&report)?,
        Output::Junit => outputs::junit(&report)?,
        Output::Markdown => outputs::markdown(&report),
    };
    out.write_all(text.as_bytes()).context("cannot write the result")?;
    if !matches!(options.output, Output::Json | Output::Markdown) {
        report.notes.iter().for_each(crate::columns::remark);
    }
    if report.containers.iter().all(|one| one.unknown.is_some()) {
        crate::remark!("no container of the manifests has enough usage history");
        return Ok(Outcome::NotEnoughData);
    }
    Ok(match report.worst() {
        Some(worst) if worst >= options.fail_on => Outcome::Problem(worst),
        _ => Outcome::Success,
    })
}

/// Compares all containers of the manifests. A value that several of them share is reported for each.
fn compare<'m>(manifests: &'m Manifests, history: &History) -> CheckReport<'m> {
    let mut report = CheckReport { containers: Vec::new(), notes: Vec::new() };
    let mut lines: BTreeMap<Location, usize> = BTreeMap::new();
    for target in &manifests.targets {
        let first = target.layers.iter().find_map(|layer| layer.resources.as_ref());
        let file = first.map(|at| at.file.display().to_string()).unwrap_or_default();
        let mut checked =
            Checked { target, title: title(target), file: file.clone(), findings: Vec::new(), unknown: None };
        match matching::find(&history.report, target) {
            Match::Entry(entry) => {
                let evidence = history.evidence(entry.subject());
                let found = evidence.map(|evidence| {
                    let thresholds = history.policies.thresholds(evidence);
                    assess::assess(history, evidence, target.resources(), &entry.recommended, &thresholds)
                });
                for assessed in found.unwrap_or_default() {
                    let at = place(target, assessed.field);
                    let line = at
                        .map_or(1, |at| *lines.entry(at.clone()).or_insert_with(|| manifests.files.line(at)));
                    let file = at.map_or_else(|| file.clone(), |at| at.file.display().to_string());
                    checked.findings.push(Finding { assessed, file, line });
                }
            }
            Match::Nothing(why) => checked.unknown = Some(why),
            Match::Ambiguous(why) => checked.unknown = Some(format!("ambiguous: {why}")),
        }
        report.containers.push(checked);
    }
    report
}

/// Where a value is set, or could be.
fn place(target: &Target, field: Field) -> Option<&Location> {
    let decided = Target::decided(&target.layers, field).map(|(_, at, _)| at);
    decided.or_else(|| target.layers.iter().rev().find_map(|layer| layer.resources.as_ref()))
}
