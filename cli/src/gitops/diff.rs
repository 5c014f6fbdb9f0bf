//! `snug diff`: shows or writes the changes of manifests that the recommendations ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use similar::TextDiff;
use snug_sizing::engine::Reason;

use super::{
    ManifestOptions,
    history::History,
    matching::{self, Match},
    plan::{self, NewValue, NewValues, Overlays, Plan},
    shown::{markdown_cell, title, unplaced},
};
use crate::{
    columns::{plain, visible},
    manifests::{Field, Manifests, Target},
    recommend::{Outcome, SizingOptions, report::Entry},
    source::EvidenceSource,
    units,
};

/// The options of `snug diff`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    manifests: ManifestOptions,
    #[command(flatten)]
    source: EvidenceSource,
    #[command(flatten)]
    sizing: SizingOptions,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Diff)]
    output: Output,
    /// Change the files. Comments, order, quotes, anchors and line ends stay
    #[arg(long)]
    write: bool,
    /// What to do where several overlays share a value and need different ones
    #[arg(long, value_enum, default_value_t = Overlays::Patch)]
    overlays: Overlays,
    /// Exit with code 2 if there are changes
    #[arg(long)]
    exit_code: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Unified diff, with the reasons as comments
    Diff,
    /// Table for the text of a pull request
    Markdown,
}

/// A container with its recommendation and what changes.
struct ChangedContainer<'a> {
    target: &'a Target,
    entry: Option<&'a Entry>,
    values: NewValues,
    remark: Option<&'a str>,
}

/// Runs `snug diff`.
///
/// # Errors
/// When the manifests or the usage history cannot be read, or a file cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Outcome> {
    let manifests = options.manifests.read()?;
    let history = History::open(&options.source, &options.sizing)?;
    history.policies.check(&history.names(&manifests))?;
    let mut notes: Vec<String> = manifests.unplaced.iter().map(unplaced).collect();
    let mut wanted: BTreeMap<usize, NewValues> = BTreeMap::new();
    let mut entries: BTreeMap<usize, &Entry> = BTreeMap::new();
    let mut unknown = Vec::new();
    for (number, target) in manifests.targets.iter().enumerate() {
        match matching::find(&history.report, target) {
            Match::Entry(entry) => {
                entries.insert(number, entry);
                let values = wanted_values(target, entry);
                if !values.is_empty() {
                    wanted.insert(number, values);
                }
            }
            Match::Nothing(why) if why == matching::NO_HISTORY => unknown.push(title(target)),
            Match::Nothing(why) => notes.push(format!("{}: {why}", title(target))),
            Match::Ambiguous(why) => notes.push(format!("{}: ambiguous: {why}", title(target))),
        }
    }
    notes.extend(without_history(&unknown));
    let plan = plan::plan(&manifests, &wanted, options.overlays);
    for (number, why) in &plan.failed {
        let target = manifests.targets.get(*number).map(title).unwrap_or_default();
        notes.push(format!("{target}: not changed: {}", visible(why)));
    }
    let rows: Vec<ChangedContainer<'_>> = plan
        .changes
        .iter()
        .filter_map(|(number, values)| {
            let target = manifests.targets.get(*number)?;
            let remark = plan.remarks.get(number).map(String::as_str);
            Some(ChangedContainer {
                target,
                entry: entries.get(number).copied(),
                values: values.clone(),
                remark,
            })
        })
        .collect();
    let text = match options.output {
        Output::Diff => diff(&manifests, &plan, &rows),
        Output::Markdown => markdown(&rows, &notes),
    };
    let is_input = manifests.files.is_own(Path::new(crate::manifests::STANDARD_INPUT));
    if options.write && is_input {
        write_input(&manifests, &plan, out)?;
    } else {
        out.write_all(text.as_bytes()).context("cannot write the differences")?;
    }
    if options.output == Output::Diff {
        notes.iter().for_each(crate::columns::remark);
    }
    if options.write && !is_input {
        for (path, text) in &plan.texts {
            write_file(path, text)?;
        }
        crate::remark!("{}", written(&plan));
    }
    Ok(match (entries.is_empty(), options.exit_code && !plan.texts.is_empty()) {
        (true, _) => {
            crate::remark!("no container of the manifests has a recommendation");
            Outcome::NotEnoughData
        }
        (_, true) => Outcome::AboveThreshold,
        _ => Outcome::Success,
    })
}

/// Containers without usage history: a note on each, or, of many, one for all.
fn without_history(titles: &[String]) -> Vec<String> {
    /// More are counted.
    const NAMED: usize = 5;
    if titles.len() <= NAMED {
        return titles.iter().map(|title| format!("{title}: {}", matching::NO_HISTORY)).collect();
    }
    let named: Vec<&str> = titles.iter().map(String::as_str).take(NAMED).collect();
    let others = titles.len() - NAMED;
    vec![format!("{} of {} and {others} others", matching::NO_HISTORY, named.join(", "))]
}

fn written(plan: &Plan) -> String {
    format!(
        "{} in {} changed",
        units::count(plan.changes.len(), "container"),
        units::count(plan.texts.len(), "file")
    )
}

/// Replaces a file as a whole, so that nobody sees a part of it; links and permissions stay.
fn write_file(path: &Path, text: &str) -> Result<()> {
    let write = || -> io::Result<()> {
        let path = fs::canonicalize(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(fs::metadata(&path)?.permissions())?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}; check its permissions", path.display()))
}

/// Writes the changed standard input.
fn write_input(manifests: &Manifests, plan: &Plan, out: &mut impl Write) -> Result<()> {
    let path = Path::new(crate::manifests::STANDARD_INPUT);
    let old = manifests.files.get(path).map(|file| &file.text);
    let text = plan.texts.get(path).or(old).cloned().unwrap_or_default();
    out.write_all(text.as_bytes()).context("cannot write the manifests")
}

/// The values that a container shall have instead of others.
pub(super) fn wanted_values(target: &Target, entry: &Entry) -> NewValues {
    let mut values = NewValues::new();
    let is_cpu_known = !entry.reasons.iter().any(|it| matches!(it.reason, Reason::NoUse { resource: "cpu" }));
    for field in Field::ALL {
        let current = target.text(field);
        match field.of(&entry.recommended) {
            Some(amount) => {
                let text = field.quantity(amount);
                if !plan::is_equal(field, current, Some(&text)) {
                    values.insert(field, NewValue::Set(text));
                }
            }
            // As in a patch: other values that are not recommended stay.
            None if field == Field::CpuLimit && current.is_some() && is_cpu_known => {
                values.insert(field, NewValue::Remove);
            }
            None => {}
        }
    }
    values
}

/// `CPU request 1 → 250m`.
fn change(target: &Target, field: Field, wanted: &NewValue) -> String {
    let now = target.text(field).unwrap_or("none");
    let then = match wanted {
        NewValue::Set(text) => text.as_str(),
        NewValue::Remove => "none",
    };
    format!("{} {} → {then}", field.name(), plain(now))
}

impl ChangedContainer<'_> {
    /// Why, as far as it is known.
    fn reason(&self) -> String {
        let reason = self.entry.and_then(|entry| entry.reasons.first());
        reason.map_or_else(|| "shares the value of others".to_owned(), |reason| visible(&reason.text))
    }

    /// What to do besides.
    fn warnings(&self) -> impl Iterator<Item = String> {
        let warnings = self.entry.into_iter().flat_map(|entry| &entry.warnings);
        warnings.map(|warning| visible(&warning.text)).chain(self.remark.map(str::to_owned))
    }
}

/// The unified diff of all files, each behind the reasons for its changes.
fn diff(manifests: &Manifests, plan: &Plan, rows: &[ChangedContainer<'_>]) -> String {
    let mut text = String::new();
    let numbers: Vec<usize> = plan.changes.keys().copied().collect();
    for (path, old, new) in plan.files(&manifests.files) {
        for (row, number) in rows.iter().zip(&numbers) {
            if !plan.places.get(number).is_some_and(|places| places.contains(path)) {
                continue;
            }
            let changes: Vec<String> =
                row.values.iter().map(|(field, wanted)| change(row.target, *field, wanted)).collect();
            text += &format!("# {}: {}\n#   {}\n", title(row.target), changes.join(", "), row.reason());
            row.warnings().for_each(|warning| text += &format!("#   warning: {warning}\n"));
        }
        let shown = path.display().to_string();
        let shown = shown.trim_start_matches('/');
        let diff = TextDiff::from_lines(old, new);
        let mut unified = diff.unified_diff();
        text += &unified.header(&format!("a/{shown}"), &format!("b/{shown}")).to_string();
    }
    text
}

/// A table for a pull request.
fn markdown(rows: &[ChangedContainer<'_>], notes: &[String]) -> String {
    let cell = |text: &str| markdown_cell(text);
    let workloads: BTreeSet<(&str, &str, &str)> = rows
        .iter()
        .map(|row| {
            (
                row.target.root.as_str(),
                row.target.namespace.as_deref().unwrap_or_default(),
                row.target.workload.as_str(),
            )
        })
        .collect();
    let mut text = format!(
        "### Requests and limits of {} by their usage\n\n",
        units::count(workloads.len(), "workload")
    );
    if rows.is_empty() {
        text += "Nothing to change.\n";
    } else {
        text += "| container | change | reason |\n| --- | --- | --- |\n";
    }
    for row in rows {
        let changes: Vec<String> =
            row.values.iter().map(|(field, wanted)| cell(&change(row.target, *field, wanted))).collect();
        let reasons: Vec<String> = std::iter::once(row.reason())
            .chain(row.warnings().map(|it| format!("warning: {it}")))
            .map(|it| cell(&it))
            .collect();
        text += &format!(
            "| {} | {} | {} |\n",
            cell(&title(row.target)),
            changes.join("<br>"),
            reasons.join("<br>")
        );
    }
    if !notes.is_empty() {
        text += "\nNot changed:\n\n";
        notes.iter().for_each(|note| text += &format!("- {}\n", cell(note)));
    }
    text
}
