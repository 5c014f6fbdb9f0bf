//! The report as text and as HTML.

use snug_sizing::{
    backtest::{
        score,
        validate::{Figures, Fold, Validation},
    },
    engine::Rule,
};

use super::report::Report;

/// A table; all columns but the first are aligned to the right.
pub(super) struct Table {
    heading: &'static str,
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

const MEMORY: [&str; 6] = ["POLICY", "POD-DAYS", "VIOLATED %", "FOOTPRINT", "SLACK %", "CHANGES/DAY"];
const CPU: [&str; 7] =
    ["POLICY", "POD-DAYS", "UNSERVED %", "EXCEEDED %", "FOOTPRINT", "SLACK %", "CHANGES/DAY"];
const CLOSED: [&str; 5] = ["POLICY", "POD-DAYS", "KILLS/POD-DAY", "KILL-FREE QUARTERS %", "FOOTPRINT"];
const FOLDS: [&str; 10] = [
    "FOLD",
    "WORKLOADS",
    "RELATIVE",
    "ABSOLUTE",
    "EXCESS",
    "POLICY",
    "VIOLATED %",
    "FOOTPRINT",
    "UNSERVED %",
    "FOOTPRINT",
];
/// Policies shown for each fold.
const RIVALS: [&str; 3] = ["snug", "krr-simple", "vpa"];
const MIB: f64 = 1024.0 * 1024.0;

fn memory(policy: &str, figures: &score::Memory) -> Vec<String> {
    vec![
        policy.to_owned(),
        figures.pod_days.to_string(),
        format!("{:.3}", figures.violation_pod_days_pct),
        format!("{:.4}", figures.footprint_ratio),
        format!("{:.2}", figures.slack_pct),
        format!("{:.4}", figures.changes_per_day),
    ]
}

fn cpu(policy: &str, figures: &score::Cpu) -> Vec<String> {
    vec![
        policy.to_owned(),
        figures.pod_days.to_string(),
        format!("{:.3}", figures.unserved_work_pct),
        format!("{:.3}", figures.exceeded_samples_pct),
        format!("{:.4}", figures.footprint_ratio),
        format!("{:.2}", figures.slack_pct),
        format!("{:.4}", figures.changes_per_day),
    ]
}

/// The tables of the open loop.
pub(super) fn open(figures: &[Figures]) -> Vec<Table> {
    vec![
        Table {
            heading: "Memory limits",
            columns: &MEMORY,
            rows: figures.iter().map(|it| memory(&it.policy, &it.memory)).collect(),
        },
        Table {
            heading: "CPU requests",
            columns: &CPU,
            rows: figures.iter().map(|it| cpu(&it.policy, &it.cpu)).collect(),
        },
    ]
}

fn tables(report: &Report) -> Vec<Table> {
    let closed = report.closed.iter().map(|it| {
        let figures = &it.memory;
        vec![
            it.policy.clone(),
            format!("{:.0}", figures.pod_days),
            format!("{:.4}", figures.oom_kills_per_pod_day),
            format!("{:.3}", figures.oom_free_quarters_pct),
            format!("{:.4}", figures.footprint_ratio),
        ]
    });
    let mut tables = open(&report.open);
    tables.push(Table {
        heading: "Memory limits with feedback from OOM kills",
        columns: &CLOSED,
        rows: closed.collect(),
    });
    if let Some(validation) = &report.validation {
        tables.extend(held_out(validation));
    }
    tables
}

fn held_out(validation: &Validation) -> [Table; 3] {
    let fold = |(number, fold): (usize, &Fold)| {
        let Rule { relative, absolute, excess } = fold.rule;
        let shown = fold.figures.iter().filter(|it| RIVALS.contains(&it.policy.as_str()));
        let row = |it: &Figures| {
            vec![
                (number + 1).to_string(),
                fold.workloads.to_string(),
                format!("{relative:.3}"),
                format!("{:.0} MiB", absolute / MIB),
                format!("{excess:.2}"),
                it.policy.clone(),
                format!("{:.3}", it.memory.violation_pod_days_pct),
                format!("{:.4}", it.memory.footprint_ratio),
                format!("{:.3}", it.cpu.unserved_work_pct),
                format!("{:.4}", it.cpu.footprint_ratio),
            ]
        };
        shown.map(row).collect::<Vec<_>>()
    };
    let all = &validation.held_out;
    [
        Table {
            heading: "Memory limits, held out: each workload judged with constants fitted without it",
            columns: &MEMORY,
            rows: all.iter().map(|it| memory(&it.policy, &it.memory)).collect(),
        },
        Table {
            heading: "CPU requests, held out",
            columns: &CPU,
            rows: all.iter().map(|it| cpu(&it.policy, &it.cpu)).collect(),
        },
        Table {
            heading: "By fold: constants fitted on the other folds, then memory, then CPU",
            columns: &FOLDS,
            rows: validation.folds.iter().enumerate().flat_map(fold).collect(),
        },
    ]
}

/// The report as text.
pub(crate) fn render(report: &Report) -> String {
    text(&report.title(), &tables(report))
}

/// Tables under a title, as text.
pub(super) fn text(title: &str, tables: &[Table]) -> String {
    let mut text = format!("{title}\n");
    for Table { heading, columns, rows } in tables {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(columns.get(column).map(|name| name.len())).max().unwrap_or(0)
        };
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded = cells.enumerate().map(|(column, cell)| {
                let width = width(column);
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
        };
        text.push_str(&format!("\n{heading}\n"));
        text.push_str(&line(&mut columns.iter().copied()));
        for row in rows {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
        }
    }
    text
}

/// The report as one HTML page without scripts and external resources.
pub(crate) fn html(report: &Report) -> String {
    let plots = super::plot::memory(&report.curves) + &super::plot::cpu(&report.curves);
    page(&report.title(), &tables(report), &plots)
}

/// Tables under a title as HTML, followed by `below`.
pub(super) fn page(title: &str, tables: &[Table], below: &str) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>snug backtest</title>\n<style>body{font-family:sans-serif}table{border-collapse:collapse}\
         td,th{padding:.2em .8em;text-align:right}td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#eee}</style>\n",
    );
    page.push_str(&format!("<h1>Back-test</h1>\n<p>{}</p>\n", escaped(title)));
    for Table { heading, columns, rows } in tables {
        let row = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
            let cells: String = cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
            format!("<tr>{cells}</tr>\n")
        };
        page.push_str(&format!("<h2>{heading}</h2>\n<table>\n{}", row("th", &mut columns.iter().copied())));
        for cells in rows {
            page.push_str(&row("td", &mut cells.iter().map(String::as_str)));
        }
        page.push_str("</table>\n");
    }
    page.push_str(below);
    page.push_str("</html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
