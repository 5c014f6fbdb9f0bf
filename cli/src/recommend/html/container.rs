//! One container in the page.

use std::fmt::Write as _;

use snug_sizing::simulate::Throttled;

use super::{Shown, charts, escape, tables::table};
use crate::{
    columns::plain,
    recommend::{
        detail::{Detail, MemoryDetail},
        report::{Entry, Issue, Quantities},
    },
    units::{self, NONE},
};

/// Steps of the slider for memory limits.
const STEPS: u32 = 200;
/// OOM kills that are listed, the latest ones.
const LISTED: usize = 20;

/// The class of an issue, which is its name in JSON.
pub(super) const fn class(issue: Issue) -> &'static str {
    match issue {
        Issue::OomRisk => "oom_risk",
        Issue::Throttled => "throttled",
        Issue::CpuShort => "cpu_short",
        Issue::NoRequest => "no_request",
        Issue::Waste => "waste",
        Issue::Ok => "ok",
    }
}

pub(super) fn badge(entry: &Entry) -> String {
    format!("<span class=\"issue {}\">{}</span>", class(entry.issue), entry.issue.as_str())
}

fn name(entry: &Entry) -> String {
    let cluster =
        if entry.cluster.is_empty() { String::new() } else { format!("{}: ", plain(&entry.cluster)) };
    let container =
        if entry.container.is_empty() { String::new() } else { format!(" {}", plain(&entry.container)) };
    format!("{cluster}{}{container}", plain(&entry.title()))
}

pub(super) fn title(entry: &Entry) -> String {
    escape::text(&name(entry))
}

pub(super) fn html(shown: &Shown<'_>) -> String {
    let Shown { number, entry, detail } = shown;
    let is_open = if entry.issue.is_danger() { " open" } else { "" };
    let mut text = format!(
        "<details class=\"container\" id=\"c{number}\" data-name=\"{}\" data-issue=\"{}\"{is_open}>\n\
         <summary><span class=\"title\">{}</span> {} <span class=\"faint\">{}</span></summary>\n<div>\n",
        title(entry),
        class(entry.issue),
        title(entry),
        badge(entry),
        escape::text(&headline(entry)),
    );
    text += &values(entry);
    text += &risks(entry);
    if let Some(detail) = detail {
        text += "<div class=\"charts\">\n";
        if let Some(memory) = &detail.memory {
            let chart = charts::memory(&format!("m{number}"), entry, detail, memory);
            if !chart.is_empty() {
                let _ = writeln!(
                    text,
                    "<figure class=\"memory\"><figcaption>Memory: highest usage, limits, <span aria-hidden=\"true\">✕</span> OOM kills, ticks for starts</figcaption>{chart}</figure>"
                );
            }
        }
        if let Some(cpu) = &detail.cpu {
            let chart = charts::cpu(&format!("p{number}"), entry, cpu);
            let _ = writeln!(
                text,
                "<figure class=\"cpu\"><figcaption>CPU: share of windows of {} ms by usage</figcaption>{chart}</figure>",
                cpu.window_millis
            );
        }
        text += "</div>\n";
        text += &what_if(*number, entry, detail);
        text += &terminations(detail);
    }
    text += &list("Warnings", entry.warnings.iter().map(|warning| warning.text.as_str()));
    text += &list("Reasons", entry.reasons.iter().map(|reason| reason.text.as_str()));
    text + "</div>\n</details>\n"
}

/// What changes, in a line.
fn headline(entry: &Entry) -> String {
    let [now, then] = [entry.current, entry.recommended].map(Quantities::from);
    let change = |now: Option<String>, then: Option<String>| {
        let [now, then] = [now, then].map(|value| value.unwrap_or_else(|| NONE.to_owned()));
        if now == then { then } else { format!("{now} → {then}") }
    };
    format!(
        "CPU {}, memory {}",
        change(now.requests.cpu, then.requests.cpu),
        change(now.limits.memory, then.limits.memory)
    )
}

fn values(entry: &Entry) -> String {
    let [now, then] = [entry.current, entry.recommended].map(Quantities::from);
    let row = |name: &str, now: Option<String>, then: Option<String>| {
        let [now, then] = [now, then].map(|value| value.unwrap_or_else(|| NONE.to_owned()));
        vec![name.to_owned(), escape::text(&now), escape::text(&then)]
    };
    let rows = [
        row("CPU request", now.requests.cpu, then.requests.cpu),
        row("CPU limit", now.limits.cpu, then.limits.cpu),
        row("memory request", now.requests.memory, then.requests.memory),
        row("memory limit", now.limits.memory, then.limits.memory),
    ];
    let caption = format!(
        "{} of {}; {:.1} container-days of history, confidence {}",
        units::count(usize::try_from(entry.replicas).unwrap_or(usize::MAX), "pod"),
        name(entry),
        entry.container_days,
        entry.confidence.as_str()
    );
    table(&escape::text(&caption), &["Value", "current", "recommended"], 1, &rows)
}

/// Asked and expected risk apart.
fn risks(entry: &Entry) -> String {
    let rate = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), units::rate);
    let share = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), units::percent);
    let rows = [
        vec![
            "OOM kills of a pod".to_owned(),
            rate(entry.oom_kills_per_pod_day.and_then(|change| change.now)),
            rate(entry.expected_oom_kills_per_pod_day),
            rate(Some(entry.asked_risk.oom_kills)),
        ],
        vec![
            "CPU time above the request".to_owned(),
            share(entry.cpu_work_above_request.and_then(|change| change.now)),
            share(entry.expected_cpu_work_above),
            share(Some(entry.asked_risk.cpu_work)),
        ],
    ];
    let headings = ["Risk", "now", "expected then", "asked"];
    table(&escape::text(&format!("Risk of {}", name(entry))), &headings, 1, &rows)
}

/// Sliders that try other limits against the history.
fn what_if(number: usize, entry: &Entry, detail: &Detail) -> String {
    let mut text = String::new();
    if let Some(memory) = detail.memory.as_ref().filter(|memory| !memory.peaks.is_empty()) {
        let [low, high] = range(entry, memory);
        let _ = writeln!(
            text,
            "<div class=\"what-if\"><label for=\"tm{number}\">What if the memory limit were …</label>\
             <input type=\"range\" id=\"tm{number}\" min=\"0\" max=\"{STEPS}\" value=\"{}\" data-try=\"memory\" data-container=\"{number}\" \
             data-low=\"{low}\" data-high=\"{high}\"><output id=\"tm{number}-out\" for=\"tm{number}\"></output></div>",
            step(entry.recommended.memory_limit, [low, high])
        );
    }
    if let Some(last) = detail.quotas.len().checked_sub(1) {
        let is_enough = |outcome: &Throttled| outcome.periods <= entry.asked_risk.throttled;
        let first = detail.quotas.iter().position(is_enough).unwrap_or(last);
        let _ = writeln!(
            text,
            "<div class=\"what-if\"><label for=\"tc{number}\">What if the CPU limit were …</label>\
             <input type=\"range\" id=\"tc{number}\" min=\"0\" max=\"{last}\" value=\"{first}\" data-try=\"cpu\" \
             data-container=\"{number}\"><output id=\"tc{number}-out\" for=\"tc{number}\"></output></div>"
        );
    }
    text
}

/// The step of the slider next to a limit, on its logarithmic scale.
fn step(limit: Option<u64>, [low, high]: [u64; 2]) -> u32 {
    let Some(limit) = limit.filter(|limit| *limit > low) else { return STEPS / 2 };
    let share = (limit as f64 / low as f64).ln() / (high as f64 / low as f64).ln();
    // `as` saturates.
    (share * f64::from(STEPS)).round() as u32
}

/// From half of the usual usage to twice of what is set or recommended, bytes.
fn range(entry: &Entry, memory: &MemoryDetail) -> [u64; 2] {
    let peaks = || memory.peaks.iter().map(|peak| peak.bytes).filter(|bytes| *bytes > 0);
    let low = peaks().min().unwrap_or(1 << 20) / 2;
    let limits = [entry.current.memory_limit, entry.recommended.memory_limit, peaks().max()];
    let high = limits.into_iter().flatten().max().unwrap_or(1 << 30).saturating_mul(2);
    [low.max(1 << 16), high.max(1 << 20)]
}

fn terminations(detail: &Detail) -> String {
    let kills = detail.oom_kills.iter().rev().take(LISTED).map(|kill| {
        let limit = kill.limit.map_or_else(|| "unknown".to_owned(), |limit| units::bytes(limit as f64));
        vec![escape::text(&units::time(kill.at)), escape::text(&kill.pod), limit]
    });
    let rows: Vec<Vec<String>> = kills.collect();
    let mut text = String::new();
    if !rows.is_empty() {
        let caption = format!("OOM kills, the latest first: {} of {}", rows.len(), detail.oom_kills.len());
        text += &table(&caption, &["Time", "Pod", "Memory limit"], 2, &rows);
    }
    let starts = detail.started;
    let exits: Vec<String> =
        detail.exits.iter().map(|(code, count)| format!("exit code {code}: {count}")).collect();
    if starts > 0 || !exits.is_empty() {
        let _ = writeln!(
            text,
            "<p>{}{}{}.</p>",
            units::count(usize::try_from(starts).unwrap_or(usize::MAX), "container start"),
            if exits.is_empty() { "" } else { "; terminations by " },
            exits.join(", ")
        );
    }
    text
}

fn list<'t>(heading: &str, texts: impl Iterator<Item = &'t str>) -> String {
    let items: String = texts.map(|text| format!("<li>{}</li>\n", escape::text(text))).collect();
    if items.is_empty() {
        return String::new();
    }
    format!("<h3>{heading}</h3>\n<ul class=\"plain\">\n{items}</ul>\n")
}
