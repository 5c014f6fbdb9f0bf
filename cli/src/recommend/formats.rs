//! The output formats for people, and CSV.

use anyhow::{Context as _, Result};
use snug_sizing::workload::Resources;

use super::report::{Change, Entry, Quantities, Report, Skipped};
use crate::{
    advice::CommandRule,
    cluster::EmptiedNodes,
    columns::{self, Align, plain, visible},
    units::{self, NONE},
};

/// Headings and alignments of the table.
const HEADINGS: [(&str, Align); 10] = [
    ("WORKLOAD", Align::Left),
    ("CONTAINER", Align::Left),
    ("PODS", Align::Right),
    ("CPU REQUEST", Align::Right),
    ("CPU LIMIT", Align::Right),
    ("MEM REQUEST", Align::Right),
    ("MEM LIMIT", Align::Right),
    ("OOM KILLS/POD-DAY", Align::Right),
    ("CONFIDENCE", Align::Left),
    ("REASON", Align::Left),
];

fn cells(entry: &Entry) -> [String; 10] {
    let (now, then) = (Quantities::from(entry.current), &entry.quantities);
    [
        plain(&entry.title()),
        plain(&entry.container),
        entry.replicas.to_string(),
        change(now.requests.cpu.as_deref(), then.requests.cpu.as_deref()),
        change(now.limits.cpu.as_deref(), then.limits.cpu.as_deref()),
        change(now.requests.memory.as_deref(), then.requests.memory.as_deref()),
        change(now.limits.memory.as_deref(), then.limits.memory.as_deref()),
        entry.oom_kills_per_pod_day.map_or_else(|| NONE.to_owned(), risk),
        entry.confidence.as_str().to_owned(),
        entry.reasons.first().map(|reason| plain(&reason.text)).unwrap_or_default(),
    ]
}

/// `current → recommended`, or one value if both are equal.
fn change(now: Option<&str>, then: Option<&str>) -> String {
    let [now, then] = [now, then].map(|value| value.unwrap_or(NONE));
    if now == then { now.to_owned() } else { format!("{now} → {then}") }
}

fn risk(change: Change) -> String {
    let then = rate(change.then);
    change.now.map_or_else(|| then.clone(), |now| format!("{} → {then}", rate(now)))
}

/// A rate with about two significant digits.
fn rate(rate: f64) -> String {
    if rate >= 0.0995 { format!("{rate:.1}") } else { format!("{rate:.4}") }
}

/// The period, the nodes and the accepted risk.
fn head(report: &Report) -> String {
    let window = &report.window;
    let time = |seconds: Option<u64>| units::time(seconds.unwrap_or(0));
    let nodes = match window.nodes.len() {
        0 => String::new(),
        1 => format!(" on {}", plain(window.nodes.first().map_or("", String::as_str))),
        count => format!(" on {count} nodes"),
    };
    let risk = report.risk;
    format!(
        "{} to {}{nodes}: {:.1} container-days of usage history\nAsked risk, on average over all workloads: one OOM kill in {:.0} pod-days, {} of CPU time above the request\n{}\n\n",
        time(window.from),
        time(window.to),
        window.container_days,
        1.0 / risk.oom_kills,
        units::percent(risk.cpu_work),
        capital(&report.delivered.to_string()),
    )
}

/// A sentence with a capital letter first.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Sums over all pods: requests, cost and nodes, current and recommended.
fn sum(report: &Report) -> String {
    let [cpu, memory] = report.requested();
    let mut text = String::new();
    if cpu.0 > 0 {
        text += &format!(
            "\nCPU requests of all pods: {} → {}\n",
            units::cores(cpu.0 as f64 / 1000.0),
            units::cores(cpu.1 as f64 / 1000.0)
        );
    }
    if memory.0 > 0 {
        text += &format!(
            "Memory requests of all pods: {} → {}\n",
            units::bytes(memory.0 as f64),
            units::bytes(memory.1 as f64)
        );
    }
    if let Some(cost) = report.cost {
        text += &format!(
            "Monthly cost of requests at list prices: {:.2} → {:.2} (saved only when nodes are removed)\n",
            cost.month_now, cost.month_then
        );
    }
    if let Some(EmptiedNodes { nodes, now, then }) = report.emptied {
        let number = |count: Option<usize>| count.map_or_else(|| NONE.to_owned(), |count| count.to_string());
        text += &format!(
            "Nodes that packing could empty: {} → {} of {nodes} (by CPU, memory and number of pods alone)\n",
            number(now),
            number(then)
        );
    }
    text
}

fn title(skipped: &Skipped) -> String {
    let parts = [&skipped.namespace, &skipped.workload, &skipped.container];
    let parts: Vec<String> =
        parts.into_iter().filter(|part| !part.is_empty()).map(|part| plain(part)).collect();
    parts.join("/")
}

/// The table; `wide` adds all reasons, one per line.
pub(super) fn table(report: &Report, wide: bool) -> String {
    let mut text = head(report);
    if !report.recommendations.is_empty() {
        let rows: Vec<_> = report.recommendations.iter().map(cells).collect();
        text += &columns::render(&HEADINGS, &rows);
        text += &sum(report);
    }
    let warnings: Vec<(&Entry, &str)> = report
        .recommendations
        .iter()
        .flat_map(|entry| entry.warnings.iter().map(move |warning| (entry, warning.text.as_str())))
        .collect();
    if !warnings.is_empty() {
        text += "\nWarnings:\n";
        for (entry, warning) in warnings {
            text += &format!("  {} {}: {}\n", plain(&entry.title()), plain(&entry.container), plain(warning));
        }
    }
    if wide {
        for entry in &report.recommendations {
            text += &format!("\n{} {}\n", plain(&entry.title()), plain(&entry.container));
            entry.reasons.iter().for_each(|reason| text += &format!("  {}\n", plain(&reason.text)));
        }
    }
    if report.recommendations.iter().any(|entry| entry.namespace.is_empty()) {
        text += "\nPlain cgroups and pod sandboxes, which snug top shows, have no requests or limits to recommend.\n";
    }
    if !report.skipped.is_empty() {
        text += "\nNo recommendation:\n";
        for skipped in &report.skipped {
            text += &format!("  {}: {}\n", title(skipped), plain(&skipped.why));
        }
    }
    text
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
        ];
        writer.write_record(has_clusters.then(|| text(&entry.cluster)).into_iter().chain(cells))?;
    }
    let bytes = writer.into_inner().context("cannot write CSV")?;
    Ok(String::from_utf8(bytes)?)
}
