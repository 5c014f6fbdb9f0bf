//! Runs of containers that are too short for rates: jobs of a minute, and crash loops. A rate needs two samples and divides by its
//! whole window, so it shows a part of their usage, or nothing. The counter at the last sample, divided by the age of the container
//! then, is the mean of the run, and one sample is enough for it.

use std::collections::BTreeMap;

use super::{
    discover::cpu_series,
    error::PrometheusError,
    matcher::Selection,
    query::{Aggregate, At, ContainerKey, Function, Labels, Query, RUN, containers},
    reader::{Period, Reader},
};
use crate::advice::CommandRule;

const START: [&str; 1] = ["container_start_time_seconds"];
const HOUR: u64 = snug_sizing::evidence::HOUR;
/// A run of at least this many windows has whole windows, whose rates are right.
const WINDOWS: u64 = 3;
/// Hours in which a run shorter than that can be, with windows of up to a quarter of an hour.
const HOURS: usize = 2;

/// A short run of a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ShortRun {
    /// When the container started, and its last sample, seconds.
    pub(super) from: f64,
    pub(super) to: f64,
    /// CPU time until then, seconds.
    pub(super) cpu: f64,
}

/// The short runs of all containers.
#[derive(Clone, Debug, Default)]
pub(super) struct ShortRuns {
    pub(super) by_container: BTreeMap<ContainerKey, Vec<ShortRun>>,
    /// Whether the server knows when containers started. Without that, short runs cannot be told from others.
    pub(super) are_known: bool,
}

/// What is known of a run so far.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    from: f64,
    to: f64,
    cpu: f64,
    hours: usize,
}

/// Reads the short runs of a period.
///
/// # Errors
/// When a query fails.
pub(super) fn read(
    reader: &Reader<'_>,
    selection: &Selection,
    period: Period,
    interval: u64,
) -> Result<ShortRuns, PrometheusError> {
    reader.begin("start times");
    let mut runs = BTreeMap::<(ContainerKey, String), Run>::new();
    let start = |seconds| Query::of_containers(&START, selection).over(Function::MaxOverTime, seconds);
    by_run(reader, start, period, |run, from| {
        let known = runs.entry(run).or_default();
        (known.from, known.hours) = (known.from.max(from), known.hours + 1);
    })?;
    let are_known = !runs.is_empty();
    let shortest = (WINDOWS * period.window) as f64;
    // Those that may be short.
    runs.retain(|_, run| run.from >= period.from as f64 && run.hours <= HOURS);
    if runs.is_empty() || !CommandRule::RunsByCounter.is_on() {
        return Ok(ShortRuns { are_known, ..ShortRuns::default() });
    }
    reader.begin("short runs");
    let step = interval.max(1);
    let last = |seconds| cpu_series(selection).over(Function::LastSampleTime { step }, seconds);
    by_run(reader, last, period, |run, at| {
        runs.entry(run).and_modify(|run| run.to = run.to.max(at));
    })?;
    let counter = |seconds| cpu_series(selection).over(Function::HighestSample { step }, seconds);
    by_run(reader, counter, period, |run, cpu| {
        runs.entry(run).and_modify(|run| run.cpu = run.cpu.max(cpu));
    })?;
    let mut found = ShortRuns { are_known, ..ShortRuns::default() };
    // A run that goes on is no short one.
    let end = period.end.saturating_sub(period.window) as f64;
    for ((key, _), Run { from, to, cpu, .. }) in runs {
        if to > from && to < end && to - from < shortest {
            found.by_container.entry(key).or_default().push(ShortRun { from, to, cpu });
        }
    }
    Ok(found)
}

/// Values by run of a container, for each hour and for the one that is not over.
fn by_run(
    reader: &Reader<'_>,
    query: impl Fn(u64) -> Query,
    period: Period,
    mut each: impl FnMut((ContainerKey, String), f64),
) -> Result<(), PrometheusError> {
    let mut add = |series: Vec<(Labels, f64)>| {
        for (key, labels, value) in containers(series) {
            // Without the path of its cgroup a run cannot be told from the next one.
            if let Some(id) = labels.get("id").filter(|id| !id.is_empty()) {
                each((key, id.clone()), value);
            }
        }
    };
    let query = |seconds| query(seconds).by(Aggregate::Max, &RUN);
    reader.steps(&query(HOUR), (period.from, period.hours_end), HOUR, |series| {
        for (labels, points) in series {
            add(points.into_iter().map(|(_, value)| (labels.clone(), value)).collect());
        }
    })?;
    let rest = period.end - period.hours_end;
    if rest > 0 {
        add(reader.values(&query(rest), At::Time(period.end))?);
    }
    Ok(())
}
