//! The details of one container: what an agent knows of it and of its workload on the node.

mod plot;

use snug_sizing::{
    evidence::{Evidence, HourRecord},
    minutes::{Minute, MinuteRecord},
};

use super::{
    api::{self, Event, Events, Termination, Terminations, Workload, Workloads},
    look::{Look, Spans},
    rows::ContainerRow,
    severity, text,
};
use crate::{
    evidence::Snapshot,
    units::{self, NONE},
};

/// Minutes of the plot.
const MINUTES: u32 = 60;
/// Cells before what belongs to a label.
const INDENT: usize = 10;
/// Cells of a bar.
const BAR: usize = 40;

/// What was requested of a container's agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    /// When it was requested, in seconds since the Unix epoch.
    now: u64,
    history: Option<History>,
    workload: Option<Workload>,
    last_termination: Option<Termination>,
    /// Newest first.
    events: Vec<Event>,
    /// What could not be read, and why.
    missing: Vec<String>,
}

/// The usage history of the workload on the node.
#[derive(Clone, Debug)]
struct History {
    pods: usize,
    window_millis: u64,
    /// The sum of the current hour and the one before.
    recent: HourRecord,
    /// Mean cores per replica in the last minutes.
    minutes: Vec<Option<f64>>,
}

/// Requests the details of a container. `get` gives the body of the response for a path.
pub(crate) fn request(
    row: &ContainerRow,
    now: u64,
    mut get: impl FnMut(&str) -> Result<Vec<u8>, String>,
) -> Details {
    let mut details = Details { now, ..Details::default() };
    let mut missing = Vec::new();
    if row.workload.is_empty() {
        missing.push("there is no usage history of a container whose workload is not known".to_owned());
    } else {
        let since = now.saturating_sub(u64::from(MINUTES) * 60).to_string();
        let of_workload = [("namespace", &*row.namespace), ("workload", &*row.workload)];
        let history = [&[("since", &*since), ("minutes", "true")][..], &of_workload].concat();
        let history = get(&api::path("evidence", &history)).and_then(|body| {
            Snapshot::from_reader("the agent's response", &*body).map_err(|error| error.to_string())
        });
        match history {
            Ok(snapshot) => details.history = find_history(&snapshot, row, now),
            Err(error) => missing.push(format!("usage history: {error}")),
        }
        let workload = [&of_workload[..], &[("container", &*row.container)]].concat();
        match get(&api::path("workloads", &workload)).and_then(|body| parse::<Workloads>(&body)) {
            Ok(all) => {
                let mut all = all.workloads.into_iter();
                details.workload = all.find(|one| one.workload_kind == row.workload_kind);
            }
            Err(error) => missing.push(format!("restarts: {error}")),
        }
        match get(&api::path("terminations", &[])).and_then(|body| parse::<Terminations>(&body)) {
            Ok(all) => details.last_termination = all.terminations.into_iter().find(|one| is_of(one, row)),
            Err(error) => missing.push(format!("terminations: {error}")),
        }
    }
    let of_pod: &[_] = &[("namespace", &*row.namespace), ("pod", &*row.pod)];
    let filters = if row.pod.is_empty() { &[] } else { of_pod };
    match get(&api::path("events", filters)).and_then(|body| parse::<Events>(&body)) {
        Ok(all) => {
            let is_its = |event: &Event| match event.container.as_str() {
                "" => {
                    !row.pod.is_empty()
                        || (event.container_id == row.container_id && !row.container_id.is_empty())
                }
                container => container == row.container,
            };
            details.events = all.events.into_iter().filter(is_its).rev().collect();
        }
        Err(error) => missing.push(format!("events: {error}")),
    }
    details.missing = missing;
    details
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    api::parse(body).map_err(|error| error.to_string())
}

/// Whether a record is of the workload's containers of this name.
fn is_of(one: &Termination, row: &ContainerRow) -> bool {
    one.process.is_some()
        && one.namespace == row.namespace
        && one.container == row.container
        && one.workload == row.workload
        && one.workload_kind == row.workload_kind
}

fn find_history(snapshot: &Snapshot, row: &ContainerRow, now: u64) -> Option<History> {
    let is_its = |evidence: &&Evidence| {
        let (workload, container) = (&evidence.workload, &evidence.container);
        workload.namespace == row.namespace
            && workload.name == row.workload
            && workload.owner == row.workload_kind
            && container.name == row.container
    };
    let evidence = snapshot.evidence().find(is_its)?;
    let mut recent = HourRecord::default();
    evidence.hours.values().for_each(|hour| recent.merge(hour));
    let end = Minute::from_seconds(now).0.saturating_add(1);
    let cores = |minute| evidence.minutes.get(&Minute(minute)).and_then(MinuteRecord::cores);
    Some(History {
        pods: evidence.pods.len(),
        window_millis: evidence.window_millis,
        recent,
        minutes: (end.saturating_sub(MINUTES)..end).map(cores).collect(),
    })
}

/// The lines of the details, for a width and a number of lines that are visible at once.
pub(crate) fn lines(
    row: &ContainerRow,
    details: Option<&Details>,
    width: usize,
    height: usize,
) -> Vec<Spans> {
    let mut lines = title(row).wrapped(width, INDENT);
    let history = details.and_then(|details| details.history.as_ref());
    cpu(row, history, width, height, &mut lines);
    memory(row, &mut lines);
    let Some(details) = details else {
        lines.push(Spans::plain("reading the usage history …"));
        return lines;
    };
    let mut rest = Vec::new();
    contention(row, history, &mut rest);
    terminations(row, details, &mut rest);
    rest.push(label("Network").and(network(row), Look::Plain));
    lines.extend(rest.into_iter().flat_map(|line| line.wrapped(width, INDENT)));
    events(details, width, &mut lines);
    for missing in &details.missing {
        let missing = Spans::default().and(format!("not shown: {}", text::shown(missing)), Look::Dim);
        lines.extend(missing.wrapped(width, INDENT));
    }
    lines
}

fn label(text: &str) -> Spans {
    Spans::strong(format!("{text:<INDENT$}"))
}

fn under(text: &str) -> Spans {
    Spans::plain(" ".repeat(INDENT) + text)
}

fn title(row: &ContainerRow) -> Spans {
    let named = |what: &str, name: &str| {
        if name.is_empty() { String::new() } else { format!("  {what} {}", text::shown(name)) }
    };
    let rest = [
        named("namespace", &row.namespace),
        named("workload", &row.workload_title()),
        named("pod", &row.pod),
        named("node", &row.node),
        if row.pod.is_empty() { named("cgroup", &row.id) } else { String::new() },
    ];
    Spans::strong(text::shown(&row.name)).and(rest.concat(), Look::Dim)
}

fn number(value: Option<f64>, show: fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), show)
}

fn cpu(row: &ContainerRow, history: Option<&History>, width: usize, height: usize, lines: &mut Vec<Spans>) {
    let now = number(row.cpu_cores, units::cores);
    let request = number(row.cpu_request_cores, units::cores);
    let limit = number(row.cpu_limit_cores, units::cores);
    let share = row.cpu_cores.zip(row.cpu_limit_cores.filter(|limit| *limit > 0.0));
    let bar = share.map_or_else(String::new, |(cores, limit)| {
        format!(
            "  [{}] {}",
            plot::bar(cores / limit, None, BAR.min(width / 3)),
            units::percent(cores / limit)
        )
    });
    lines.push(
        label("CPU")
            .and(format!("{now} of limit {limit}, request {request}"), Look::Plain)
            .and(bar, Look::Bar),
    );
    let throttled = number(row.throttled_share, units::percent);
    let recently = history.filter(|history| history.recent.periods > 0).map_or_else(String::new, |history| {
        let share = history.recent.throttled as f64 / history.recent.periods as f64;
        format!(", {} since the hour before", units::percent(share))
    });
    lines.push(
        under("throttled ")
            .and(throttled, severity::throttling(row).into())
            .and(format!(" of CFS periods now{recently}"), Look::Plain),
    );
    let Some(history) = history else { return };
    let highest = history.minutes.iter().flatten().copied().fold(0.0, f64::max);
    // The newest minutes, if not all fit.
    let room = width.saturating_sub(INDENT).max(1);
    let minutes = history.minutes.get(history.minutes.len().saturating_sub(room)..).unwrap_or_default();
    lines.push(label("Last hour").and(text::bars(minutes), Look::Bar));
    let replicas = units::count(history.pods, "pod");
    lines.extend(
        under(&format!(
            "cores by the minute, mean of {replicas} of the workload on this node; highest {}",
            units::cores(highest)
        ))
        .wrapped(width, INDENT),
    );
    let windows = format!("windows of {} ms by cores, since the hour before", history.window_millis);
    lines.push(label("CPU use").and(windows, Look::Plain));
    let rows = if height < 30 { 3 } else { 8 };
    let mut windows = history.recent.cpu.clone();
    windows.merge(&history.recent.cpu_start);
    lines.extend(plot::histogram(&windows, width, rows));
}

fn memory(row: &ContainerRow, lines: &mut Vec<Spans>) {
    let used = number(row.memory_working_set_bytes, units::bytes);
    let limit = number(row.memory_limit_bytes, units::bytes);
    let peak = number(row.memory_peak_bytes, units::bytes);
    let request = number(row.memory_request_bytes, units::bytes);
    let look = severity::memory(row).into();
    let share = row.memory_share().map_or_else(String::new, |share| format!(" ({})", units::percent(share)));
    lines.push(
        label("Memory")
            .and(used, look)
            .and(share, look)
            .and(format!(" of limit {limit}, request {request}, peak {peak}"), Look::Plain),
    );
    // Without a limit the bar ends at the peak.
    let end = row.memory_limit_bytes.or(row.memory_peak_bytes).filter(|end| *end > 0.0);
    if let (Some(used), Some(end)) = (row.memory_working_set_bytes, end) {
        let peak = row.memory_peak_bytes.map(|peak| peak / end);
        let to = if row.memory_limit_bytes.is_some() { "limit" } else { "peak" };
        let bar = plot::bar(used / end, peak, BAR);
        lines.push(
            Spans::plain(" ".repeat(INDENT) + "[")
                .and(bar, Look::Bar)
                .and(format!("] {to}; | is the peak"), Look::Plain),
        );
    }
}

fn contention(row: &ContainerRow, history: Option<&History>, lines: &mut Vec<Spans>) {
    let waits = history.map(|history| &history.recent.waits).filter(|waits| !waits.is_empty());
    let quantile = |share| waits.and_then(|waits| waits.quantile(share)).map(seconds);
    let text = match (quantile(0.5), quantile(0.99), quantile(1.0)) {
        (Some(half), Some(most), Some(all)) => {
            format!("waits for a CPU: half up to {half}, 99 % up to {most}, all up to {all}")
        }
        _ if row.workload.is_empty() => return,
        _ => "waits for a CPU are not measured (the agent's option `runqueue`)".to_owned(),
    };
    lines.push(label("Run queue").and(text, Look::Plain));
}

fn terminations(row: &ContainerRow, details: &Details, lines: &mut Vec<Spans>) {
    let mut text = match &details.workload {
        Some(workload) => units::count(usize::try_from(workload.restarts).unwrap_or(usize::MAX), "restart"),
        None => "restarts unknown".to_owned(),
    };
    text += " of the workload on this node";
    if let Some(last) = &details.last_termination {
        let process = last.process.clone().unwrap_or_default();
        let reason = process.reason.unwrap_or_else(|| "unknown reason".to_owned());
        let code = process.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
        let pod = if last.pod == row.pod { String::new() } else { format!(" in {}", text::shown(&last.pod)) };
        text += &format!(
            "; last termination: {}{code}{pod}, {}",
            text::shown(&reason),
            ago(details.now, last.removed)
        );
    }
    lines.push(label("Restarts").and(text, Look::Plain));
    let kills = number(row.oom_kills, |kills| format!("{kills:.0}"));
    let of_workload: Vec<String> = details
        .workload
        .iter()
        .flat_map(|workload| workload.oom_kills.iter().flatten())
        .filter(|(_, kills)| **kills > 0)
        .map(|(limit, kills)| format!("{kills} at the limit of the {}", text::shown(limit)))
        .collect();
    let of_workload = if of_workload.is_empty() {
        String::new()
    } else {
        format!("; of the workload: {}", of_workload.join(", "))
    };
    lines.push(
        label("OOM kills")
            .and(kills, severity::oom_kills(row).into())
            .and(format!(" of this container{of_workload}"), Look::Plain),
    );
}

fn network(row: &ContainerRow) -> String {
    let rate = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |value| units::bytes(value) + "/s");
    let [received, sent] =
        [row.network_receive_bytes_per_second, row.network_transmit_bytes_per_second].map(rate);
    format!("received {received}, sent {sent}")
}

fn events(details: &Details, width: usize, lines: &mut Vec<Spans>) {
    if details.events.is_empty() {
        lines.push(label("Events").and("none", Look::Plain));
        return;
    }
    lines.push(label("Events").and("newest first", Look::Dim));
    for event in &details.events {
        let look = match event.severity.as_str() {
            "ERROR" => Look::Danger,
            "WARN" => Look::Warning,
            _ => Look::Plain,
        };
        let at = format!("{:>10}  ", ago(details.now, event.at));
        let kind = text::shown(&event.kind);
        let room = width.saturating_sub(at.len() + text::width(&kind) + 2);
        let message = text::head(&text::shown(&event.message), room);
        lines.push(Spans::plain(at).and(kind, look).and(format!("  {message}"), Look::Plain));
    }
}

/// How long ago a time was.
fn ago(now: u64, at: f64) -> String {
    let seconds = (now as f64 - at).max(0.0);
    match seconds {
        s if s < 120.0 => format!("{s:.0} s ago"),
        s if s < 7200.0 => format!("{:.0} min ago", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h ago", s / 3600.0),
        s => format!("{:.0} days ago", s / 86_400.0),
    }
}

/// A short time with about two significant digits.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests;
