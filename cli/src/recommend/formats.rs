//! The table as Markdown and as CSV.

use anyhow::{Context as _, Result};
use snug_sizing::workload::Resources;

use super::report::{Entry, Quantities, Report};
use crate::{
    advice::CommandRule,
    columns::{Align, plain, visible},
    units::{self, NONE},
};

/// Headings and alignments of the table.
const HEADINGS: [(&str, Align); 12] = [
    ("ISSUE", Align::Left),
    ("WORKLOAD", Align::Left),
    ("CONTAINER", Align::Left),
    ("PODS", Align::Right),
    ("CPU REQUEST", Align::Right),
    ("CPU LIMIT", Align::Right),
    ("MEM REQUEST", Align::Right),
    ("MEM LIMIT", Align::Right),
    ("OOM KILLS NOW", Align::Left),
    ("EXPECTED THEN", Align::Left),
    ("CONFIDENCE", Align::Left),
    ("REASON", Align::Left),
];

fn cells(entry: &Entry) -> [String; 12] {
    let (now, then) = (Quantities::from(entry.current), &entry.quantities);
    [
        entry.issue.as_str().to_owned(),
        plain(&entry.title()),
        plain(&entry.container),
        entry.replicas.to_string(),
        change(now.requests.cpu.as_deref(), then.requests.cpu.as_deref()),
        change(now.limits.cpu.as_deref(), then.limits.cpu.as_deref()),
        change(now.requests.memory.as_deref(), then.requests.memory.as_deref()),
        change(now.limits.memory.as_deref(), then.limits.memory.as_deref()),
        rate(entry.oom_kills_per_pod_day.and_then(|change| change.now)),
        rate(entry.oom_kills_per_pod_day.map(|change| change.then)),
        entry.confidence.as_str().to_owned(),
        entry.reasons.first().map(|reason| plain(&reason.text)).unwrap_or_default(),
    ]
}

/// `current → recommended`, or one value if both are equal.
fn change(now: Option<&str>, then: Option<&str>) -> String {
    let [now, then] = [now, then].map(|value| value.unwrap_or(NONE));
    if now == then { now.to_owned() } else { format!("{now} → {then}") }
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| NONE.to_owned(), units::rate)
}

/// The table as Markdown.
pub(super) fn markdown(report: &Report) -> String {
    // What would end a cell, or be read as HTML, a link or code.
    let cell = |text: &str| {
        let special = |c| matches!(c, '\\' | '|' | '<' | '[' | '`' | '*');
        let is_on = CommandRule::PlainNames.is_on();
        text.chars()
            .flat_map(|c| (is_on && special(c)).then_some('\\').into_iter().chain([c]))
            .collect::<String>()
    };
    // The cluster is the first column, if there are several.
    let has_clusters = !report.clusters.is_empty();
    let line = |cluster: &str, cells: &[String]| {
        let cluster = has_clusters.then(|| cluster.to_owned()).into_iter();
        let all: Vec<String> = cluster.chain(cells.iter().cloned()).collect();
        format!("| {} |\n", all.join(" | "))
    };
    let mut text = line("cluster", &HEADINGS.map(|(heading, _)| heading.to_lowercase()));
    let ruler = HEADINGS.map(|(_, align)| if align == Align::Right { "---:" } else { "---" }.to_owned());
    text += &line("---", &ruler);
    for entry in &report.recommendations {
        text += &line(&cell(&plain(&entry.cluster)), &cells(entry).map(|text| cell(&text)));
    }
    text
}

/// A text as a cell of a CSV file. Spreadsheets take some first characters for a formula; an apostrophe before them makes it a
/// text (OWASP, "CSV Injection").
fn text(text: &str) -> String {
    let text = visible(text);
    let is_formula = text.starts_with(['=', '+', '-', '@', '\'']) && CommandRule::PlainNames.is_on();
    if is_formula { format!("'{text}") } else { text }
}

/// One line per container, in millicores and bytes.
pub(super) fn csv(report: &Report) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // The cluster is the first column, if there are several.
    let has_clusters = !report.clusters.is_empty();
    let headings = [
        "namespace",
        "owner",
        "workload",
        "container",
        "replicas",
        "cpu_request_now",
        "cpu_request",
        "cpu_limit_now",
        "cpu_limit",
        "memory_request_now",
        "memory_request",
        "memory_limit_now",
        "memory_limit",
        "oom_kills_per_pod_day",
        "confidence",
        "why",
        "issue",
        "oom_kills_per_pod_day_now",
        "cpu_saved",
        "memory_saved",
        "month_saved",
    ];
    writer.write_record(has_clusters.then_some("cluster").into_iter().chain(headings))?;
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    for entry in &report.recommendations {
        let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = entry.recommended;
        let now = entry.current;
        let cells = [
            text(&entry.namespace),
            text(&entry.owner),
            text(&entry.workload),
            text(&entry.container),
            entry.replicas.to_string(),
            number(now.cpu_request),
            number(cpu_request),
            number(now.cpu_limit),
            number(cpu_limit),
            number(now.memory_request),
            number(memory_request),
            number(now.memory_limit),
            number(memory_limit),
            entry.oom_kills_per_pod_day.map(|it| it.then.to_string()).unwrap_or_default(),
            entry.confidence.as_str().to_owned(),
            entry.reasons.first().map(|reason| text(&reason.text)).unwrap_or_default(),
            entry.issue.as_str().to_owned(),
            entry.oom_kills_per_pod_day.and_then(|it| it.now).map(|it| it.to_string()).unwrap_or_default(),
            entry.savings.cpu.to_string(),
            entry.savings.memory.to_string(),
            entry.savings.month.map(|month| month.to_string()).unwrap_or_default(),
        ];
        writer.write_record(has_clusters.then(|| text(&entry.cluster)).into_iter().chain(cells))?;
    }
    let bytes = writer.into_inner().context("cannot write CSV")?;
    Ok(String::from_utf8(bytes)?)
}
