//! `snug explain`: the usage history behind a recommendation and its reasons, so that it can be checked by hand.

mod pictures;
mod sentences;
mod text;

use std::io::Write;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

pub(crate) use self::{sentences::percent, text::title};
use crate::{
    columns::plain,
    recommend::{
        Outcome, ReportRequest, SizingOptions, WorkloadSelector,
        detail::{Detail, Details},
        report::Entry,
        report_of,
    },
    terminal::Terminal,
};

/// Schema of the JSON output. Within the number after the slash, fields are only added.
const SCHEMA: &str = "snug.explanation/1";

/// Below the help of the command.
pub const EXAMPLES: &str = "Examples:
  snug explain shop/web                       all containers of a workload
  snug explain deployment/web -n shop         as kubectl names it
  snug explain web --container app --risk critical
  snug explain nginx.service --source agent   a systemd unit of this host
  snug explain shop/web -o json | jq '.explanations[].history.memory.highest'";

/// The options of `snug explain`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    #[command(flatten)]
    selected: WorkloadSelector,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten, next_help_heading = "Method")]
    sizing: SizingOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Words and pictures
    Text,
    /// The same numbers as JSON
    Json,
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Explanations {
    schema: &'static str,
    explanations: Vec<Explanation>,
    /// Containers without a recommendation, and why.
    skipped: Vec<SkippedContainer>,
}

/// The explanation of one recommendation. The text is made of these numbers alone.
#[derive(Debug, Serialize)]
struct Explanation {
    recommendation: Entry,
    history: Detail,
}

#[derive(Debug, Serialize)]
struct SkippedContainer {
    title: String,
    why: String,
}

/// Runs `snug explain`.
///
/// # Errors
/// When the evidence cannot be read, or the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Outcome> {
    let Options { selected, sizing, output } = options;
    let mut all = Explanations { schema: SCHEMA, explanations: Vec::new(), skipped: Vec::new() };
    let sources = selected.source.open(sizing.likes())?;
    let select = selected.resolve(sources.iter().map(|source| &source.snapshot));
    for source in &sources {
        let policies = sizing.policies(source.cluster.as_ref())?;
        let request = ReportRequest { policies: &policies, price: None, group_by: None };
        let mut report = report_of(&request, source, |evidence| select.is(evidence))?;
        let details = Details::new(&source.snapshot, &source.pools, &policies);
        let of_cluster =
            if source.name.is_empty() { String::new() } else { format!("Cluster {}: ", plain(&source.name)) };
        for mut entry in std::mem::take(&mut report.recommendations) {
            entry.cluster.clone_from(&source.name);
            if let Some(history) = details.of(&entry) {
                all.explanations.push(Explanation { recommendation: entry, history });
            }
        }
        all.skipped.extend(report.skipped.into_iter().map(|skipped| {
            let title = format!("{of_cluster}{}", plain(&skipped.title()));
            SkippedContainer { title, why: skipped.reason.to_string() }
        }));
    }
    let text = match output {
        Output::Json => serde_json::to_string_pretty(&all).context("cannot write JSON")? + "\n",
        Output::Text => all.text(Terminal::detect()),
    };
    crate::progress::clear();
    out.write_all(text.as_bytes()).context("cannot write the explanation")?;
    if all.explanations.is_empty() {
        let why = select.hint().unwrap_or_else(|| "it has not enough usage history".to_owned());
        crate::remark!("nothing to explain for {:?}: {why}", selected.workload);
        return Ok(Outcome::NotEnoughData);
    }
    Ok(Outcome::Success)
}

impl Explanations {
    fn text(&self, terminal: Terminal) -> String {
        let explained = self.explanations.iter().map(|one| one.text(terminal));
        let skipped = self.skipped.iter().map(|one| format!("{}\n  {}\n", one.title, plain(&one.why)));
        explained.chain(skipped).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests;
