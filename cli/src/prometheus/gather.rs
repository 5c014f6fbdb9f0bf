//! Reads a history from queries: usage first, then what is known of the containers that were used.

use std::collections::BTreeMap;

use snug_sizing::{evidence::HOUR, minutes::MINUTE};

use super::{
    builder::EvidenceBuilder,
    discover::{self, CPU, OneOfSeveral, cpu_series, discover},
    duplicates,
    error::PrometheusError,
    kube_state::KubeState,
    matcher::Selection,
    oom,
    query::{Aggregate, At, ContainerKey, Function, KEY, Points, Query, by_container},
    reader::{Period, Reader},
    short_runs::{self, ShortRuns},
    windows,
};
use crate::{advice::CommandRule, cluster::Autoscaler, evidence::Snapshot};

const DAY: u64 = 24 * HOUR;
const MEMORY: [&str; 1] = ["container_memory_working_set_bytes"];
const OOM_EVENTS: [&str; 1] = ["container_oom_events_total"];
const PERIODS: [&str; 1] = ["container_cpu_cfs_periods_total"];
const THROTTLED: [&str; 1] = ["container_cpu_cfs_throttled_periods_total"];
/// A rate needs some samples: a window is at least this many scrape intervals.
const SAMPLES: u64 = 4;

/// What a server knows of the containers of one cluster.
#[derive(Debug, Default)]
pub struct PrometheusHistory {
    /// The cluster, if the server has several.
    pub cluster: String,
    /// The evidence of all selected containers.
    pub snapshot: Snapshot,
    /// HorizontalPodAutoscalers, as far as kube-state-metrics has them.
    pub autoscalers: Vec<Autoscaler>,
    /// What the server lacks, as sentences.
    pub missing: Vec<String>,
}

/// Reads the last `since` seconds of each cluster.
///
/// # Errors
/// As [`read`], and when labels do not tell clusters apart.
pub(super) fn read_each(
    reader: &Reader<'_>,
    selection: &Selection,
    since: u64,
    label: Option<&str>,
) -> Result<Vec<PrometheusHistory>, PrometheusError> {
    let clusters = discover::clusters(reader, selection, (reader.api().now()?, since), label)?;
    if clusters.is_empty() {
        return Ok(vec![read(reader, selection, since)?]);
    }
    let (mut histories, mut gone) = (Vec::new(), Vec::new());
    for OneOfSeveral { name, selection } in clusters {
        match read(reader, &selection, since) {
            Ok(history) => histories.push(PrometheusHistory { cluster: name, ..history }),
            Err(PrometheusError::NoContainers { .. }) => gone.push(name),
            Err(error) => return Err(error),
        }
    }
    let Some(first) = histories.first_mut() else {
        return Ok(vec![read(reader, selection, since)?]);
    };
    let why = |name| format!("the cluster {name:?} has no containers in the last 15 minutes; it is left out");
    first.missing.extend(gone.into_iter().map(why));
    Ok(histories)
}

/// Reads the last `since` seconds.
///
/// # Errors
/// When a query fails, or there are no containers, or the containers of several clusters.
pub(super) fn read(
    reader: &Reader<'_>,
    selection: &Selection,
    since: u64,
) -> Result<PrometheusHistory, PrometheusError> {
    let now = reader.api().now()?;
    let discovered = discover(reader, selection, now, since)?;
    reader.set_size(discovered.containers, discovered.interval);
    let has_windows = windows::exist(reader, selection, now)?;
    // With native histograms of windows, rates become the minutes of the evidence.
    let min_window = (SAMPLES * discovered.interval).max(if has_windows { MINUTE } else { 0 });
    let mut period = Period::new(now, since, min_window);
    duplicates::check(reader, selection, period, &discovered)?;
    let runs = short_runs::read(reader, selection, period, discovered.interval)?;
    let mut builder = cpu_usage(reader, selection, period, EvidenceBuilder::new(period, has_windows, runs))?;
    if builder.is_empty() {
        // No window is over yet.
        period = period.of_first_windows(now);
        let runs = ShortRuns::new();
        builder = cpu_usage(reader, selection, period, EvidenceBuilder::new(period, has_windows, runs))?;
    }
    reader.begin("memory usage");
    let memory = |seconds| {
        Query::of_containers(&MEMORY, selection).over(Function::MaxOverTime, seconds).by(Aggregate::Max, &KEY)
    };
    hourly(reader, memory, period, |key, points| builder.memory(key, points))?;
    reader.begin("throttling");
    let increase = |metrics| {
        move |seconds| {
            Query::of_containers(metrics, selection)
                .over(Function::Increase, seconds)
                .once()
                .by(Aggregate::Sum, &KEY)
        }
    };
    hourly(reader, increase(&PERIODS), period, |key, points| builder.periods(key, points))?;
    hourly(reader, increase(&THROTTLED), period, |key, points| builder.throttled(key, points))?;

    let state = KubeState::read(reader, selection, period)?;
    let states = oom::read(reader, selection, period)?;
    reader.begin("OOM events");
    let mut events = BTreeMap::<ContainerKey, Points>::new();
    let more_than_none = |seconds| increase(&OOM_EVENTS)(seconds).above(0.0);
    hourly(reader, more_than_none, period, |key, points| {
        events.entry(key.clone()).or_default().extend(points);
    })?;
    builder.kills(&states, &events, &state);

    let mut missing = Vec::new();
    if !state.is_present {
        missing.push(format!(
            "there are no metrics of kube-state-metrics{}: requests, owners, roles of containers and most OOM kills are unknown",
            selection.with_matchers()
        ));
    }
    let mut snapshot = builder.snapshot(&state);
    if let Some(why) = reader.api().take_partial().filter(|_| CommandRule::PartialRows.is_on()) {
        snapshot.set_partial(&format!("{} says that its result is partial: {why}", reader.api().base()));
    }
    if snapshot.evidence().next().is_none() {
        let (base, metric) = (reader.api().base().to_owned(), CPU[0]);
        return Err(PrometheusError::NoContainers { base, metric, matching: selection.with_matchers() });
    }
    Ok(PrometheusHistory { cluster: String::new(), snapshot, autoscalers: state.autoscalers, missing })
}

/// Reads CPU usage: rates in windows of the period, and Snug's windows if there are any.
fn cpu_usage(
    reader: &Reader<'_>,
    selection: &Selection,
    period: Period,
    mut builder: EvidenceBuilder,
) -> Result<EvidenceBuilder, PrometheusError> {
    reader.begin("CPU usage");
    let rate = cpu_series(selection).over(Function::Rate, period.window).once().by(Aggregate::Sum, &KEY);
    reader.steps(&rate, (period.from, period.end), period.window, |series| {
        for (key, points) in by_container(series) {
            builder.cpu(key, &points);
        }
    })?;
    if builder.has_windows() {
        reader.begin("CPU windows");
        // The hour that is not over counts only if there is little else.
        let end = if period.hours_end >= period.from + DAY { period.hours_end } else { period.end };
        for begin in (period.from..end).step_by(DAY as usize) {
            reader.parts((begin, (begin + DAY).min(end)), HOUR, |begin, end| {
                builder.windows(windows::read(reader, selection, end, end - begin)?, end);
                Ok(())
            })?;
        }
    }
    Ok(builder)
}

/// Reads values by the hour, and for the hour that is not over. `query` makes the query for a number of seconds.
fn hourly(
    reader: &Reader<'_>,
    query: impl Fn(u64) -> Query,
    period: Period,
    mut each: impl FnMut(&ContainerKey, &Points),
) -> Result<(), PrometheusError> {
    reader.steps(&query(HOUR), (period.from, period.hours_end), HOUR, |series| {
        for (key, points) in by_container(series) {
            each(&key, &points);
        }
    })?;
    let rest = period.end - period.hours_end;
    if rest > 0 {
        let series = reader.query(&query(rest), At::Time(period.end))?;
        let series =
            series.into_iter().map(|it| (it.points(), it.metric)).map(|(points, labels)| (labels, points));
        for (key, points) in by_container(series.collect()) {
            each(&key, &points);
        }
    }
    Ok(())
}
