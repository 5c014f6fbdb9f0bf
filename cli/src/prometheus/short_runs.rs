//! Runs of containers that are too short for rates: jobs of a minute, and crash loops. A rate divides by its whole window, so it
//! shows a part of their usage, or nothing. The counter at the last sample, divided by the age of the container then, is the mean of
//! the run, and one sample is enough for it. Where nothing shows when containers started, it is the increase between the first and
//! the last sample, divided by the time between.

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
    /// When the container started or its first sample was taken, and its last one, seconds.
    pub(super) from: f64,
    pub(super) to: f64,
    /// CPU time between, seconds.
    pub(super) cpu: f64,
}

/// The short runs of all containers.
pub(super) type ShortRuns = BTreeMap<ContainerKey, Vec<ShortRun>>;

/// What is known of a run so far: times, CPU time at these, and hours in which it was seen.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: f64,
    to: f64,
    first: f64,
    last: f64,
    hours: usize,
}

impl Default for Run {
    fn default() -> Self {
        Self { from: f64::INFINITY, to: 0.0, first: f64::INFINITY, last: 0.0, hours: 0 }
    }
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
    if !CommandRule::RunsByCounter.is_on() {
        return Ok(ShortRuns::new());
    }
    reader.begin("start times");
    let mut runs = BTreeMap::<(ContainerKey, String), Run>::new();
    let start = |seconds| Query::of_containers(&START, selection).over(Function::MaxOverTime, seconds);
    by_run(reader, (&start, Aggregate::Max), period, |run, from| {
        let known = runs.entry(run).or_default();
        (known.from, known.first, known.hours) = (from.min(known.from), 0.0, known.hours + 1);
    })?;
    let step = interval.max(1);
    let has_starts = !runs.is_empty();
    if has_starts {
        // Those that may be short.
        runs.retain(|_, run| run.from >= period.from as f64 && run.hours <= HOURS);
        if runs.is_empty() {
            return Ok(ShortRuns::new());
        }
    }
    reader.begin("short runs");
    let of_cpu = |function: Function| move |seconds| cpu_series(selection).over(function, seconds);
    let mut update = |function, aggregate, add: fn(&mut Run, f64)| {
        by_run(reader, (&of_cpu(function), aggregate), period, |run, value| {
            if has_starts {
                runs.entry(run).and_modify(|run| add(run, value));
            } else {
                add(runs.entry(run).or_default(), value);
            }
        })
    };
    update(Function::LastSampleTime { step }, Aggregate::Max, |run, at| run.to = run.to.max(at))?;
    update(Function::HighestSample { step }, Aggregate::Max, |run, cpu| run.last = run.last.max(cpu))?;
    if !has_starts {
        update(Function::FirstSampleTime { step }, Aggregate::Min, |run, at| run.from = run.from.min(at))?;
        update(Function::LowestSample { step }, Aggregate::Min, |run, cpu| run.first = run.first.min(cpu))?;
    }
    let shortest = (WINDOWS * period.window) as f64;
    // What began before the period is cut off by it, and a run that goes on is no short one.
    let (begin, end) = (period.from + 2 * step, period.end.saturating_sub(period.window));
    let mut found = ShortRuns::new();
    for ((key, _), Run { from, to, first, last, .. }) in runs {
        let is_whole = (has_starts || from > begin as f64) && to < end as f64;
        if is_whole && to > from && to - from < shortest {
            found.entry(key).or_default().push(ShortRun { from, to, cpu: (last - first).max(0.0) });
        }
    }
    Ok(found)
}

/// Values by run of a container, for each hour and for the one that is not over.
fn by_run(
    reader: &Reader<'_>,
    (query, aggregate): (&dyn Fn(u64) -> Query, Aggregate),
    period: Period,
    mut each: impl FnMut((ContainerKey, String), f64),
) -> Result<(), PrometheusError> {
    let mut add = |series: Vec<(Labels, f64)>| {
        for (key, labels, value) in containers(series) {
            // Without the path of its cgroup a run cannot be distinguished from the next one.
            if let Some(id) = labels.get("id").filter(|id| !id.is_empty()) {
                each((key, id.clone()), value);
            }
        }
    };
    let query = |seconds| query(seconds).by(aggregate, &RUN);
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
