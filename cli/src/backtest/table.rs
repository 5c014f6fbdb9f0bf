//! The report as text and as a page.

use super::report::Report;

/// Columns of a table, all but the first to the right.
struct Table {
    heading: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

fn tables(report: &Report) -> [Table; 3] {
    let memory = report.open.iter().map(|it| {
        let figures = &it.memory;
        vec![
            it.policy.clone(),
            figures.pod_days.to_string(),
            format!("{:.3}", figures.violation_pod_days_pct),
            format!("{:.4}", figures.footprint_ratio),
            format!("{:.2}", figures.slack_pct),
            format!("{:.4}", figures.changes_per_day),
        ]
    });
    let cpu = report.open.iter().map(|it| {
        let figures = &it.cpu;
        vec![
            it.policy.clone(),
            figures.pod_days.to_string(),
            format!("{:.3}", figures.unserved_work_pct),
            format!("{:.3}", figures.exceeded_samples_pct),
            format!("{:.4}", figures.footprint_ratio),
            format!("{:.2}", figures.slack_pct),
            format!("{:.4}", figures.changes_per_day),
        ]
    });
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
    [
        Table {
            heading: "Memory limits",
            columns: vec!["POLICY", "POD-DAYS", "VIOLATED %", "FOOTPRINT", "SLACK %", "CHANGES/DAY"],
            rows: memory.collect(),
        },
        Table {
            heading: "CPU requests",
            columns: vec![
                "POLICY",
                "POD-DAYS",
                "UNSERVED %",
                "EXCEEDED %",
                "FOOTPRINT",
                "SLACK %",
                "CHANGES/DAY",
            ],
            rows: cpu.collect(),
        },
        Table {
            heading: "Memory limits with feedback from OOM kills",
            columns: vec!["POLICY", "POD-DAYS", "KILLS/POD-DAY", "KILL-FREE QUARTERS %", "FOOTPRINT"],
            rows: closed.collect(),
        },
    ]
}

/// As text.
pub(crate) fn render(report: &Report) -> String {
    let mut text = format!("{}\n", report.title());
    for Table { heading, columns, rows } in tables(report) {
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
        for row in &rows {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
        }
    }
    text
}

/// As a page without scripts and without anything from elsewhere.
pub(crate) fn html(report: &Report) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>snug backtest</title>\n<style>body{font-family:sans-serif}table{border-collapse:collapse}\
         td,th{padding:.2em .8em;text-align:right}td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#eee}</style>\n",
    );
    page.push_str(&format!("<h1>Back-test</h1>\n<p>{}</p>\n", escaped(&report.title())));
    for Table { heading, columns, rows } in tables(report) {
        let row = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
            let cells: String = cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
            format!("<tr>{cells}</tr>\n")
        };
        page.push_str(&format!("<h2>{heading}</h2>\n<table>\n{}", row("th", &mut columns.iter().copied())));
        for cells in &rows {
            page.push_str(&row("td", &mut cells.iter().map(String::as_str)));
        }
        page.push_str("</table>\n");
    }
    page.push_str(&super::plot::memory(&report.curves));
    page.push_str(&super::plot::cpu(&report.curves));
    page.push_str("</html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
