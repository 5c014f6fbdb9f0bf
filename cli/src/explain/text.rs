//! An explanation as text. Its numbers are those of the JSON output.

use std::{fmt::Write as _, time::Duration};

use snug_sizing::{
    engine::{self, Reason},
    evidence::Evidence,
    workload::Resources,
};

use super::{
    Explanation, pictures,
    sentences::{self, memory_amount, percent},
};
use crate::{
    columns::{self, Align, plain},
    recommend::{
        detail::{Contention, Detail},
        report::{Entry, Quantities},
    },
    terminal::{Style, Terminal},
    units,
};

/// What a container is called.
pub(crate) fn title(evidence: &Evidence) -> String {
    let workload = &evidence.workload;
    named([&workload.owner, &workload.namespace, &workload.name, &evidence.container.name])
}

fn named([owner, namespace, name, container]: [&str; 4]) -> String {
    let kind = if owner.is_empty() { String::new() } else { format!("{} ", plain(owner)) };
    let container =
        if container.is_empty() { String::new() } else { format!(", container {}", plain(container)) };
    let namespace = if namespace.is_empty() { String::new() } else { format!("{}/", plain(namespace)) };
    format!("{kind}{namespace}{}{container}", plain(name))
}

impl Explanation {
    pub(super) fn text(&self, terminal: Terminal) -> String {
        let Self { recommendation: entry, history } = self;
        let heading = |text: &str| format!("\n{}\n", terminal.paint(Style::Heading, text));
        let cluster = if entry.cluster.is_empty() {
            String::new()
        } else {
            format!("Cluster {}: ", plain(&entry.cluster))
        };
        let title = named([&entry.owner, &entry.namespace, &entry.workload, &entry.container]);
        let mut text = format!(
            "{}  {}\n",
            terminal.paint(Style::Heading, &format!("{cluster}{title}")),
            terminal.paint(entry.issue.style(), &format!("[{}]", entry.issue.as_str()))
        );
        let _ = writeln!(
            text,
            "  usage history: {} of {}; {} of hours and {} of 7 weekdays observed; confidence {}",
            engine::span(entry.container_days),
            units::count(history.pods, "pod"),
            units::percent(history.coverage),
            history.weekdays,
            entry.confidence.as_str()
        );
        text += &heading("In short");
        sentences::in_short(self).iter().for_each(|line| text += &format!("  {line}\n"));
        for warning in &entry.warnings {
            let _ =
                writeln!(text, "  {} {}", terminal.paint(Style::Warning, "Warning:"), plain(&warning.text));
        }
        text.push('\n');
        text += &values(entry.current, entry.recommended);
        text += &heading("Memory");
        text += &memory(entry, history, terminal);
        text += &heading("CPU");
        text += &cpu(entry, history, terminal);
        let contention = contention(history);
        if !contention.is_empty() {
            text += &heading("Contention and terminations");
            text += &contention;
        }
        text += &heading("Reasons");
        for reason in entry.reasons.iter().filter(|it| !is_shown_above(&it.reason)) {
            let _ = writeln!(text, "  {}", plain(&reason.text));
        }
        text
    }
}

/// Whether the text has it from the recommended values themselves. The reason has the numbers of the value that the method chose,
/// before it was lowered by a part, kept or fitted to the cluster.
const fn is_shown_above(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::MemoryBasis { .. }
            | Reason::MemoryMargin { .. }
            | Reason::CpuQuantile { .. }
            | Reason::ExpectedRisk { .. }
    )
}

/// How the headroom that is needed is calculated. It has an upper bound.
fn headroom(reason: &Reason) -> Option<String> {
    let Reason::MemoryMargin { margin, level, factor, shape, .. } = *reason else { return None };
    let relation = if level * factor * shape > margin * 1.001 { "<" } else { "=" };
    Some(format!(
        "  needed headroom: {} {relation} level {level:.2} x factor {factor:.2} x shape {shape:.3}; the level is the same for all workloads,\n    \
         the factor is by own past and likes, the shape by size and history\n",
        percent(margin)
    ))
}

fn values(now: Resources, then: Resources) -> String {
    let [now, then] = [now, then].map(Quantities::from);
    let row = |name: &str, now: Option<String>, then: Option<String>| {
        [format!("  {name}"), plain(&now.unwrap_or_default()), plain(&then.unwrap_or_default())]
    };
    let rows = [
        row("CPU request", now.requests.cpu, then.requests.cpu),
        row("CPU limit", now.limits.cpu, then.limits.cpu),
        row("memory request", now.requests.memory, then.requests.memory),
        row("memory limit", now.limits.memory, then.limits.memory),
    ];
    let headings = [("", Align::Left), ("CURRENT", Align::Right), ("RECOMMENDED", Align::Right)];
    columns::render(&headings, &rows)
}

fn memory(entry: &Entry, history: &Detail, terminal: Terminal) -> String {
    let Some(memory) = &history.memory else {
        return format!("  no usage observed\n{}", pictures::kills(history));
    };
    let mut text = pictures::memory_bars(entry, memory, terminal);
    text += &pictures::memory_over_time(history, terminal);
    let peak = &memory.highest;
    let _ = write!(
        text,
        "  highest usage {} in {} at {}",
        units::bytes(peak.bytes as f64),
        plain(&peak.pod),
        units::time(peak.at)
    );
    if memory.basis != *peak {
        let basis = &memory.basis;
        let _ = write!(
            text,
            "; {} in {} at {} decides, because older peaks weigh less",
            units::bytes(basis.bytes as f64),
            plain(&basis.pod),
            units::time(basis.at)
        );
    } else if memory.counted < peak.bytes as f64 {
        let _ = write!(text, "; older peaks weigh less: {} counted", units::bytes(memory.counted));
    }
    text.push('\n');
    if let Some((headroom, limit)) = memory.headroom.zip(entry.recommended.memory_limit) {
        let side = if headroom < 0.0 { "below" } else { "above" };
        let _ = writeln!(
            text,
            "  the recommended limit of {} is {} {side} the usage that counts",
            memory_amount(limit),
            units::percent(headroom.abs())
        );
    }
    entry.reasons.iter().filter_map(|it| headroom(&it.reason)).for_each(|line| text += &line);
    text += &pictures::kills(history);
    let rows: Vec<[String; 3]> = memory
        .profiles
        .iter()
        .filter_map(|profile| {
            Some([
                format!("  {}", profile.profile.as_str()),
                units::rate(profile.oom_kills),
                memory_amount(profile.values.memory_limit?),
            ])
        })
        .collect();
    let headings = [
        ("  RISK PROFILE", Align::Left),
        ("OOM KILLS OF A POD", Align::Left),
        ("MEMORY LIMIT", Align::Right),
    ];
    text + &columns::render(&headings, &rows)
}

fn cpu(entry: &Entry, history: &Detail, terminal: Terminal) -> String {
    let Some(cpu) = &history.cpu else { return "  no usage observed\n".to_owned() };
    let during = if cpu.is_start_up { " during the first hour of pods" } else { "" };
    let mut text = format!("  usage in {} windows of {} ms{during}\n", cpu.windows, cpu.window_millis);
    text += &pictures::cpu_distribution(entry, cpu, terminal);
    let quantiles: Vec<String> = cpu
        .quantiles
        .iter()
        .map(|quantile| {
            let cores = units::cores(quantile.cores);
            if quantile.share < 1.0 {
                // 99.9 without the noise of binary fractions.
                let share = format!("{:.1}", quantile.share * 100.0);
                format!("{} % {cores}", share.trim_end_matches(".0"))
            } else {
                format!("highest {cores}")
            }
        })
        .collect();
    let _ = writeln!(text, "  quantiles: {}", quantiles.join(", "));
    for request in &cpu.requests {
        let found = &request.outcome;
        let by = if found.window_millis == cpu.window_millis {
            String::new()
        } else {
            format!(" (usage per {})", length(found.window_millis))
        };
        let _ = writeln!(
            text,
            "  {} request {}: so far exceeded {} of the time, by {} of all CPU time{by}",
            if request.is_recommended { "recommended" } else { "current" },
            sentences::cpu_amount(found.request),
            percent(found.time_above),
            percent(found.work_above)
        );
    }
    if let Some(current) = &history.current_limit {
        let _ = writeln!(
            text,
            "  current limit {}: throttled {} of CFS periods in the last day",
            sentences::cpu_amount(current.limit),
            percent(current.periods)
        );
    }
    text + &pictures::quotas(entry, history, terminal)
}

/// Waits, stalls, unreclaimable memory and terminations, as far as they are known.
fn contention(history: &Detail) -> String {
    let Contention { waits, stalled_cpu, stalled_memory, stalled_io, refaults, .. } = history.contention;
    let mut lines = Vec::new();
    if let Some((most, all)) = history.contention.waits_p99.zip(history.contention.waits_max) {
        let [most, all] = [most, all].map(seconds);
        lines.push(format!(
            "tasks waited for a CPU {waits} times: 99 % of waits up to {most}, all up to {all}"
        ));
    }
    if stalled_cpu + stalled_memory + stalled_io > 0.0 {
        lines.push(format!(
            "some task was stalled (PSI) on CPU {} of the time, on memory {}, on I/O {}",
            percent(stalled_cpu),
            percent(stalled_memory),
            percent(stalled_io)
        ));
    }
    if refaults > 0 {
        lines.push(format!("{refaults} refaults: pages that were needed again soon after reclaim"));
    }
    if let Some((half, all)) = history.contention.unreclaimable_p50.zip(history.contention.unreclaimable_max)
    {
        let [half, all] = [half, all].map(units::bytes);
        lines.push(format!("unreclaimable memory: half of the time up to {half}, always up to {all}"));
    }
    if history.started > 0 {
        lines.push(format!("containers started: {}", history.started));
    }
    let exits: Vec<String> =
        history.exits.iter().map(|(code, count)| format!("{code} ({count} times)")).collect();
    if !exits.is_empty() {
        lines.push(format!("terminations by exit code: {}", exits.join(", ")));
    }
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

/// A short time with about two significant digits.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// The length of a window in words.
fn length(millis: u64) -> String {
    if millis == 60_000 {
        "minute".to_owned()
    } else {
        humantime::format_duration(Duration::from_millis(millis)).to_string()
    }
}
