//! The table for people: a line for each container, the worst first, then sums and what else there is to know.

use snug_sizing::workload::Resources;

use super::{
    alike,
    report::{Change, Entry, Issue, Report, Savings, Total},
    skipped, warnings,
};
use crate::{
    cluster::EmptiedNodes,
    columns::{Align, plain},
    table::{self, Column, Fit, Line, Section},
    terminal::{Style, Terminal},
    units::{self, NONE, Unit},
};

/// Rows of sums that are shown, the largest savings first.
const MAX_TOTALS: usize = 20;

/// The table; `wide` keeps all columns and adds all reasons, one per line.
pub(super) fn table(report: &Report, wide: bool, terminal: Terminal) -> String {
    let terminal = if wide { Terminal { width: None, ..terminal } } else { terminal };
    let mut text = head(report);
    if !report.recommendations.is_empty() {
        text += &rows(report, terminal);
        text += &sums(report, terminal);
    }
    let lines =
        if wide { warnings::each(&report.recommendations) } else { warnings::alike(&report.recommendations) };
    text += &alike::section(&terminal.paint(Style::Warning, "Warnings"), "warning", &lines);
    if wide {
        for entry in &report.recommendations {
            text += &format!("\n{} {}\n", plain(&entry.title()), plain(&entry.container));
            entry.reasons.iter().for_each(|reason| text += &format!("  {}\n", plain(&reason.text)));
        }
    }
    if report.recommendations.iter().any(|entry| entry.namespace.is_empty()) {
        text += "\nPlain cgroups and pod sandboxes, which snug top shows, have no requests or limits to recommend.\n";
    }
    let skipped = if wide { skipped::each(&report.skipped) } else { skipped::alike(&report.skipped) };
    text + &alike::section("No recommendation", "container", &skipped)
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
        "{} to {}{nodes}: {:.1} container-days of usage history\nAsked risk, on average over all workloads: OOM kills {} of a pod, {} of CPU time above the request\n{}\n\n",
        time(window.from),
        time(window.to),
        window.container_days,
        units::rate(risk.oom_kills),
        units::percent(risk.cpu_work),
        capital(&report.delivered.to_string()),
    )
}

/// A sentence with a capital letter first.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A current and a recommended value as one cell.
struct Both {
    now: String,
    then: String,
}

/// Cells of a column of current and recommended values: the arrows of a column stand below each other.
fn changes(all: &[Both], terminal: Terminal) -> Vec<String> {
    let is_change = |both: &&Both| both.now != both.then;
    let width = |pick: fn(&Both) -> &String| {
        all.iter().filter(is_change).map(|both| pick(both).len()).max().unwrap_or(0)
    };
    let (now, then) = (width(|both| &both.now), width(|both| &both.then));
    let arrow = terminal.arrow();
    let cell = |both: &Both| {
        if is_change(&both) {
            format!("{:>now$} {arrow} {:>then$}", both.now, both.then)
        } else {
            both.then.clone()
        }
    };
    all.iter().map(cell).collect()
}

type Value = fn(&Resources) -> Option<u64>;

/// Headings, whether the amounts are millicores, their value, and which are left out first.
const VALUES: [(&str, bool, Value, Fit); 4] = [
    ("CPU REQUEST", true, |it| it.cpu_request, Fit::Drop(2)),
    ("CPU LIMIT", true, |it| it.cpu_limit, Fit::Drop(5)),
    ("MEM REQUEST", false, |it| it.memory_request, Fit::Drop(4)),
    ("MEM LIMIT", false, |it| it.memory_limit, Fit::Drop(1)),
];

fn rows(report: &Report, terminal: Terminal) -> String {
    let entries = &report.recommendations;
    let mut columns = vec![
        Column::new("ISSUE", Align::Left, Fit::Keep),
        Column::new("WORKLOAD", Align::Left, Fit::Shrink(14)),
        Column::new("CONTAINER", Align::Left, Fit::Shrink(8)),
        Column::new("PODS", Align::Right, Fit::Drop(7)),
    ];
    let mut cells: Vec<Vec<String>> = vec![
        entries.iter().map(|entry| entry.issue.as_str().to_owned()).collect(),
        entries.iter().map(|entry| plain(&entry.title())).collect(),
        entries.iter().map(|entry| plain(&entry.container)).collect(),
        entries.iter().map(|entry| entry.replicas.to_string()).collect(),
    ];
    for (heading, is_cpu, value, fit) in VALUES {
        let all =
            || entries.iter().flat_map(|entry| [value(&entry.current), value(&entry.recommended)]).flatten();
        let unit = if is_cpu { Unit::Millicores } else { Unit::of_bytes(all()) };
        let amount =
            |resources: &Resources| value(resources).map_or_else(|| NONE.to_owned(), |it| unit.format(it));
        let both = |entry: &Entry| Both { now: amount(&entry.current), then: amount(&entry.recommended) };
        columns.push(Column::new(&format!("{heading} {}", unit.as_str()), Align::Right, fit));
        cells.push(changes(&entries.iter().map(both).collect::<Vec<_>>(), terminal));
    }
    let savings: Vec<Savings> = entries.iter().map(|entry| entry.savings).collect();
    for (heading, unit, value) in savings_columns(&savings) {
        columns.push(Column::new(&format!("{heading} {unit}"), Align::Right, Fit::Drop(8)));
        cells.push(entries.iter().map(|entry| value(&entry.savings)).collect());
    }
    let of = |entry: &Entry, pick: fn(Change) -> Option<f64>| {
        let rate = entry.oom_kills_per_pod_day.and_then(pick);
        rate.map_or_else(|| NONE.to_owned(), units::rate)
    };
    columns.push(Column::new("OOM KILLS NOW", Align::Left, Fit::Drop(0)));
    cells.push(entries.iter().map(|entry| of(entry, |change| change.now)).collect());
    columns.push(Column::new("EXPECTED THEN", Align::Left, Fit::Drop(6)));
    cells.push(entries.iter().map(|entry| of(entry, |change| Some(change.then))).collect());
    // The risk that most workloads have is in the head.
    if entries.iter().any(|entry| entry.asked_risk != report.risk) {
        columns.push(Column::new("ASKED", Align::Left, Fit::Drop(6)));
        cells.push(entries.iter().map(|entry| units::rate(entry.asked_risk.oom_kills)).collect());
    }
    columns.push(Column::new("CONFIDENCE", Align::Left, Fit::Drop(9)));
    cells.push(entries.iter().map(|entry| entry.confidence.as_str().to_owned()).collect());
    columns.push(Column::new("REASON", Align::Left, Fit::ShrinkDrop(24, 10)));
    let reason = |entry: &Entry| entry.reasons.first().map(|reason| plain(&reason.text)).unwrap_or_default();
    cells.push(entries.iter().map(reason).collect());

    let line = |at: usize| Line {
        cells: cells.iter().map(|column| column.get(at).cloned().unwrap_or_default()).collect(),
        style: entries.get(at).map(|entry| entry.issue.style()),
    };
    let mut sections: Vec<Section> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let title = section(report, entry);
        match sections.last_mut().filter(|section| section.title == title) {
            Some(section) => section.lines.push(line(at)),
            None => sections.push(Section { title, lines: vec![line(at)] }),
        }
    }
    // Of one group there is nothing to tell apart.
    if let [only] = sections.as_mut_slice()
        && report.group_by.is_none()
    {
        only.title.clear();
    }
    let rendered = table::render(&columns, &sections, terminal);
    let mut text = rendered.text;
    if !rendered.left_out.is_empty() {
        text += &format!("Not shown, for lack of width: {} (-o wide)\n", rendered.left_out.join(", "));
    }
    if report.left_out > 0 {
        text += &format!("{} not shown (--top, --min-change)\n", units::count(report.left_out, "more row"));
    }
    text
}

/// The title above a row, which those below it share.
fn section(report: &Report, entry: &Entry) -> String {
    match (&report.group_by, &entry.group) {
        _ if entry.is_of_host() => "Units, and containers without a known workload".to_owned(),
        (Some(label), Some(value)) if !value.is_empty() => format!("{}={}", plain(label), plain(value)),
        (Some(label), _) => format!("without {}", plain(label)),
        (None, _) => String::new(),
    }
}

type SavingsColumn = (&'static str, &'static str, Box<dyn Fn(&Savings) -> String>);

/// Columns of what is saved, with their units: CPU, memory, and money where there are prices.
fn savings_columns(all: &[Savings]) -> Vec<SavingsColumn> {
    fn signed(value: i64, unit: Unit) -> String {
        let amount = unit.format(value.unsigned_abs());
        if value < 0 && amount != "0" { format!("-{amount}") } else { amount }
    }
    let bytes = Unit::of_bytes(all.iter().map(|one| one.memory.unsigned_abs()));
    let mut columns: Vec<SavingsColumn> = vec![
        ("CPU SAVED", Unit::Millicores.as_str(), Box::new(|one| signed(one.cpu, Unit::Millicores))),
        ("MEM SAVED", bytes.as_str(), Box::new(move |one| signed(one.memory, bytes))),
    ];
    if all.iter().any(|one| one.month.is_some()) {
        let money = |one: &Savings| one.month.map_or_else(|| NONE.to_owned(), |month| format!("{month:.2}"));
        columns.push(("SAVED", "a month", Box::new(money)));
    }
    columns
}

/// Sums over all pods: requests, cost and nodes, current and recommended.
fn sums(report: &Report, terminal: Terminal) -> String {
    let mut totals: Vec<&Total> = report.totals.iter().filter(|total| !total.name.is_empty()).collect();
    totals.sort_by(|one, other| other.savings().weight().total_cmp(&one.savings().weight()));
    let others = totals.len().saturating_sub(MAX_TOTALS);
    totals.truncate(MAX_TOTALS);
    if totals.len() == 1 && report.totals.len() == 1 && report.group_by.is_none() {
        totals.clear();
    }
    let mut all = totals.clone();
    all.push(&report.total);
    let bytes = Unit::of_bytes(all.iter().flat_map(|total| [total.memory_request_now, total.memory_request]));
    let (cpu, memory) = (Unit::Millicores, bytes);
    let column = |pick: &dyn Fn(&Total) -> (String, String)| {
        let both = |total: &&Total| {
            let (now, then) = pick(total);
            Both { now, then }
        };
        changes(&all.iter().map(both).collect::<Vec<_>>(), terminal)
    };
    let mut columns = vec![
        Column::new("REQUESTS", Align::Left, Fit::Shrink(14)),
        Column::new("CONTAINERS", Align::Right, Fit::Drop(2)),
        Column::new(&format!("CPU {}", cpu.as_str()), Align::Right, Fit::Keep),
        Column::new(&format!("MEMORY {}", memory.as_str()), Align::Right, Fit::Keep),
    ];
    let named = totals.iter().map(|total| plain(&total.name)).chain(["all pods".to_owned()]);
    let mut cells: Vec<Vec<String>> = vec![
        named.collect(),
        all.iter().map(|total| total.containers.to_string()).collect(),
        column(&|total| (cpu.format(total.cpu_request_now), cpu.format(total.cpu_request))),
        column(&|total| (memory.format(total.memory_request_now), memory.format(total.memory_request))),
    ];
    let savings: Vec<Savings> = all.iter().map(|total| total.savings()).collect();
    for (heading, unit, value) in savings_columns(&savings) {
        columns.push(Column::new(&format!("{heading} {unit}"), Align::Right, Fit::Drop(1)));
        cells.push(savings.iter().map(value).collect());
    }
    let line = |at: usize| Line {
        cells: cells.iter().map(|column| column.get(at).cloned().unwrap_or_default()).collect(),
        style: None,
    };
    let section = Section { title: String::new(), lines: (0..all.len()).map(line).collect() };
    let mut text = format!("\n{}", table::render(&columns, &[section], terminal).text);
    if others > 0 {
        text += &format!("{} with smaller savings not shown\n", units::count(others, "more group"));
    }
    if let Some(cost) = report.cost {
        text += &format!(
            "Monthly cost of requests at list prices: {:.2} {} {:.2} (saved only when nodes are removed)\n",
            cost.month_now,
            terminal.arrow(),
            cost.month_then
        );
    }
    if let Some(EmptiedNodes { nodes, now, then }) = report.emptied {
        let number = |count: Option<usize>| count.map_or_else(|| NONE.to_owned(), |count| count.to_string());
        text += &format!(
            "Nodes that packing could empty: {} {} {} of {nodes} (by CPU, memory and number of pods alone)\n",
            number(now),
            terminal.arrow(),
            number(then)
        );
    }
    text + &issues(report, terminal)
}

/// How many rows have which issue.
fn issues(report: &Report, terminal: Terminal) -> String {
    let of = |issue: Issue| report.recommendations.iter().filter(|entry| entry.issue == issue).count();
    let found: Vec<String> = Issue::ALL
        .into_iter()
        .filter(|issue| *issue != Issue::Ok && of(*issue) > 0)
        .map(|issue| terminal.paint(issue.style(), &format!("{} {}", of(issue), issue.as_str())))
        .collect();
    if found.is_empty() { String::new() } else { format!("Issues: {}\n", found.join(", ")) }
}
