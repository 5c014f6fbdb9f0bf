//! The report as text and as HTML.

use std::borrow::Cow;

use snug_sizing::{
    backtest::{
        bootstrap::Interval,
        calibration::{Calibration, Verdict},
        leaderboard::Entry,
        score,
        streams::LawSet,
        validate::{Figures, LeftOut, Split},
    },
    engine::Rule,
};

use super::{
    report::Report,
    streams::StreamsReport,
    world_report::{Closed, Leaderboard, SetReport, WorldReport},
};

/// A table; all columns but the first are aligned to the right.
pub(super) struct Table {
    heading: Cow<'static, str>,
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

const MEMORY: [&str; 6] = ["POLICY", "POD-DAYS", "VIOLATED %", "FOOTPRINT", "SLACK %", "CHANGES/DAY"];
const CPU: [&str; 7] =
    ["POLICY", "POD-DAYS", "UNSERVED %", "EXCEEDED %", "FOOTPRINT", "SLACK %", "CHANGES/DAY"];
const SET: [&str; 9] = [
    "POLICY",
    "VIOLATED %",
    "FOOTPRINT",
    "BARE VIOLATED %",
    "BARE FOOTPRINT",
    "UNSERVED %",
    "FOOTPRINT",
    "BARE UNSERVED %",
    "BARE FOOTPRINT",
];
const BOARD: [&str; 9] = [
    "POLICY",
    "FAILED %",
    "FOOTPRINT",
    "SNUG AT IT",
    "SCALED",
    "LOSS %",
    "LOSS - SNUG'S, 95 %",
    "WITHIN %",
    "CHANGES",
];
const CALIBRATION: [&str; 9] = [
    "ASKED %",
    "MEMORY %",
    "95 %",
    "VIOLATIONS",
    "FAMILIES",
    "VERDICT",
    "CPU MEAN %",
    "CPU WITHIN %",
    "CPU VERDICT",
];
const CLOSED: [&str; 6] =
    ["POLICY", "POD-DAYS", "KILLS/POD-DAY", "KILL-FREE QUARTERS %", "FOOTPRINT", "RAISED IN 6 H %"];
const LEFT_OUT: [&str; 7] =
    ["LEFT OUT", "ABSOLUTE", "EXCESS", "VIOLATED %", "FOOTPRINT", "UNSERVED %", "FOOTPRINT"];
const STREAMS: [&str; 12] = [
    "KIND",
    "ASKED %",
    "MEMORY %",
    "RATIO",
    "± ERROR",
    "COUNTED %",
    "FIRST DAYS %",
    "FOOTPRINT",
    "CPU MEAN %",
    "RATIO",
    "± ERROR",
    "CPU TOTAL %",
];
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
            heading: "Memory limits".into(),
            columns: &MEMORY,
            rows: figures.iter().map(|it| memory(&it.policy, &it.memory)).collect(),
        },
        Table {
            heading: "CPU requests".into(),
            columns: &CPU,
            rows: figures.iter().map(|it| cpu(&it.policy, &it.cpu)).collect(),
        },
    ]
}

fn tables(report: &Report) -> Vec<Table> {
    let mut tables = Vec::new();
    tables.extend(report.worlds.iter().flat_map(|world| world.sets.iter().map(|set| of_set(world, set))));
    for world in &report.worlds {
        tables.extend(boards(&world.name, "as shipped", &world.shipped));
        tables.extend(boards(&world.name, "bare", &world.without_floors));
        tables.push(closed(
            &format!("{}: memory limits with feedback from OOM kills", world.name),
            &world.closed,
        ));
    }
    for world in &report.worlds {
        if let Some(calibrations) = &world.calibration {
            tables.push(calibration(
                &format!("{}: asked and delivered, bare", world.name),
                &calibrations.without_floors,
            ));
            tables.push(calibration(
                &format!("{}: asked and delivered, as shipped", world.name),
                &calibrations.shipped,
            ));
        }
    }
    if !report.left_out.is_empty() {
        tables.push(left_out(&report.left_out));
        tables.extend(report.left_out.iter().map(|it| {
            calibration(
                &format!("{}: asked and delivered, bare, {}", it.world, without(it.split)),
                &it.calibration,
            )
        }));
    }
    if let Some(streams) = &report.streams {
        tables.extend(of_streams(streams));
    }
    tables
}

const fn without(split: Split) -> &'static str {
    match split {
        Split::Families => "fitted without the judged families",
        Split::Days => "fitted without the judged families, on earlier days",
        Split::World => "fitted on the other worlds",
    }
}

/// One set: each policy as it is shipped, and bare.
fn of_set(world: &WorldReport, set: &SetReport) -> Table {
    let row = |it: &Figures| {
        let bare = set.without_floors.iter().find(|bare| bare.policy == it.policy);
        let of_bare = |pick: fn(&Figures) -> String| bare.map_or_else(|| "-".to_owned(), pick);
        vec![
            it.policy.clone(),
            format!("{:.3}", it.memory.violation_pod_days_pct),
            format!("{:.4}", it.memory.footprint_ratio),
            of_bare(|it| format!("{:.3}", it.memory.violation_pod_days_pct)),
            of_bare(|it| format!("{:.4}", it.memory.footprint_ratio)),
            format!("{:.3}", it.cpu.unserved_work_pct),
            format!("{:.4}", it.cpu.footprint_ratio),
            of_bare(|it| format!("{:.3}", it.cpu.unserved_work_pct)),
            of_bare(|it| format!("{:.4}", it.cpu.footprint_ratio)),
        ]
    };
    let SetReport { name, containers, workloads, minutes, shipped, .. } = set;
    let days = *minutes as f64 / 1440.0;
    let pod_days = shipped.iter().map(|it| it.memory.pod_days).max().unwrap_or(0);
    Table {
        heading: format!(
            "{name} (world {}): {containers} containers of {workloads} workloads over {days:.1} days, {pod_days} pod-days; memory, then CPU",
            world.name
        )
        .into(),
        columns: &SET,
        rows: shipped.iter().map(row).collect(),
    }
}

fn boards(world: &str, form: &str, board: &Leaderboard) -> [Table; 2] {
    let ratio = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let row = |it: &Entry| {
        vec![
            it.policy.clone(),
            format!("{:.3}", it.failed_pct),
            format!("{:.4}", it.footprint_ratio),
            ratio(it.curve_ratio),
            ratio(it.scaled_ratio),
            format!("{:.3}", it.loss_pct),
            it.difference.map_or_else(|| "-".to_owned(), interval_of_difference),
            format!("{:.1}", it.within_pct),
            ratio(it.changes_ratio),
        ]
    };
    [("memory limits", &board.memory), ("CPU requests", &board.cpu)].map(|(resource, entries)| Table {
        heading: format!("{world}: leaderboard of {resource}, {form}").into(),
        columns: &BOARD,
        rows: entries.iter().map(row).collect(),
    })
}

fn interval_of_difference(difference: Interval) -> String {
    let Interval { value, low, high } = difference;
    format!("{value:+.3} [{low:+.3}, {high:+.3}]")
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Kept => "kept",
        Verdict::Below => "below",
        Verdict::Above => "above",
        Verdict::TooFew => "too few",
    }
}

fn calibration(heading: &str, all: &[Calibration]) -> Table {
    let row = |it: &Calibration| {
        vec![
            format!("{:.2}", it.asked_pct),
            format!("{:.3}", it.memory_pct.value),
            format!("[{:.3}, {:.3}]", it.memory_pct.low, it.memory_pct.high),
            it.violations.to_string(),
            it.families.to_string(),
            verdict(it.memory).to_owned(),
            format!("{:.3}", it.cpu_mean_pct),
            format!("{:.1}", it.cpu_within_pct),
            verdict(it.cpu).to_owned(),
        ]
    };
    let pod_days = all.first().map_or(0, |it| it.pod_days);
    Table {
        heading: format!("{heading}; {pod_days} pod-days").into(),
        columns: &CALIBRATION,
        rows: all.iter().map(row).collect(),
    }
}

fn closed(heading: &str, all: &[Closed]) -> Table {
    let row = |it: &Closed| {
        let figures = &it.memory;
        vec![
            it.policy.clone(),
            format!("{:.0}", figures.pod_days),
            format!("{:.4}", figures.oom_kills_per_pod_day),
            format!("{:.3}", figures.oom_free_quarters_pct),
            format!("{:.4}", figures.footprint_ratio),
            figures.raised_in_time_pct.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}")),
        ]
    };
    Table { heading: heading.to_owned().into(), columns: &CLOSED, rows: all.iter().map(row).collect() }
}

fn left_out(all: &[LeftOut]) -> Table {
    let span = |values: Vec<f64>, decimals: usize| {
        let ends = values
            .iter()
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(*value), high.max(*value)));
        let (low, high) = ends;
        if low == high {
            format!("{low:.decimals$}")
        } else {
            format!("{low:.decimals$} to {high:.decimals$}")
        }
    };
    let row = |it: &LeftOut| {
        let of = |pick: fn(&Rule) -> f64| it.rules.iter().map(pick).collect::<Vec<f64>>();
        let figures = &it.shipped;
        vec![
            format!("{}: {}", it.world, without(it.split)),
            format!("{} MiB", span(of(|rule| rule.absolute / MIB), 0)),
            span(of(|rule| rule.excess), 2),
            format!("{:.3}", figures.memory.violation_pod_days_pct),
            format!("{:.4}", figures.memory.footprint_ratio),
            format!("{:.3}", figures.cpu.unserved_work_pct),
            format!("{:.4}", figures.cpu.footprint_ratio),
        ]
    };
    Table {
        heading: "Snug as shipped, with constants fitted without what is judged; memory, then CPU".into(),
        columns: &LEFT_OUT,
        rows: all.iter().map(row).collect(),
    }
}

fn of_streams(streams: &StreamsReport) -> Vec<Table> {
    let of_laws = |laws: LawSet| {
        let calibration = || streams.calibration.iter().filter(|it| it.laws == laws);
        let rows = calibration().map(|it| {
            let error = |error: Option<f64>| {
                error.map_or("-".to_owned(), |it_pct| format!("{:.2}", it_pct / it.asked_pct))
            };
            vec![
                it.kind.clone(),
                format!("{:.2}", it.asked_pct),
                format!("{:.3}", it.memory_pct.1),
                format!("{:.2}", it.memory_pct.1 / it.asked_pct),
                error(it.memory_error_pct),
                format!("{:.3}", it.counted_pct),
                format!("{:.3}", it.memory_pct.0),
                format!("{:.3}", it.memory_footprint),
                format!("{:.3}", it.cpu_mean_pct),
                format!("{:.2}", it.cpu_mean_pct / it.asked_pct),
                error(it.cpu_error_pct),
                format!("{:.3}", it.cpu_pct.1),
            ]
        });
        let worlds = calibration().map(|it| it.worlds).max().unwrap_or_default();
        let heading = format!(
            "Synthetic usage, {} set of laws, mean of {worlds} worlds of each kind: asked, and delivered by the true probability once \
             20 ÷ risk pod-days are known, bare",
            laws.as_str()
        );
        Table { heading: heading.into(), columns: &STREAMS, rows: rows.collect() }
    };
    let mut tables: Vec<Table> = LawSet::ALL.map(of_laws).into();
    tables.push(closed(
        "Synthetic usage that the current limit cuts off: memory limits with feedback",
        &streams.closed,
    ));
    tables
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

/// The report as one HTML page without scripts and external resources, with plots below the tables.
pub(crate) fn html(report: &Report, plots: &str) -> String {
    page(&report.title(), &tables(report), plots)
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
        page.push_str(&format!(
            "<h2>{}</h2>\n<table>\n{}",
            escaped(heading),
            row("th", &mut columns.iter().copied())
        ));
        for cells in rows {
            page.push_str(&row("td", &mut cells.iter().map(String::as_str)));
        }
        page.push_str("</table>\n");
    }
    page.push_str(below);
    page.push_str("</html>\n");
    page
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
