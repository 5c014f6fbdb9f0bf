//! Snug's own series, if Prometheus scrapes the agents: CPU usage in windows of 100 ms, and the quota simulation. The kubelets
//! have neither.

use std::collections::BTreeMap;

use snug_sizing::{cpu_quota::QuotaOutcome, histogram::Histogram};

use super::{
    error::PrometheusError,
    matcher::Selection,
    query::{
        Aggregate, At, ContainerKey, Function, KEY, Labels, NativeHistogram, Query, RUN, Series, containers,
        finite,
    },
    reader::Reader,
};

const WINDOWS: [&str; 1] = ["snug_container_cpu_window_cores"];
/// Counters by quota, in the order of the fields of [`QuotaOutcome`].
const QUOTAS: [[&str; 1]; 3] = [
    ["snug_container_cpu_quota_periods_total"],
    ["snug_container_cpu_quota_throttled_periods_total"],
    ["snug_container_cpu_quota_delayed_seconds_total"],
];
const MILLIS: f64 = 1000.0;

/// Snug's series over a period.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// CPU usage per window.
    pub(super) windows: BTreeMap<ContainerKey, Histogram>,
    /// The quota simulation, if the agents export it.
    pub(super) quota_what_ifs: BTreeMap<ContainerKey, BTreeMap<u64, QuotaOutcome>>,
}

/// Whether there are windows as native histograms. Without them there are only sums, which add nothing to rates.
///
/// # Errors
/// When the query fails.
pub(super) fn exist(reader: &Reader<'_>, selection: &Selection, end: u64) -> Result<bool, PrometheusError> {
    reader.begin("CPU windows");
    let query = Query::of_containers(&WINDOWS, selection).by(Aggregate::Count, &[""; 0]);
    Ok(!reader.query(&query, At::Time(end))?.is_empty())
}

/// The increase over a number of seconds before a time. Of several scrapes of the same container, the highest counts.
///
/// # Errors
/// When a query fails.
pub(super) fn read(
    reader: &Reader<'_>,
    selection: &Selection,
    at: u64,
    seconds: u64,
) -> Result<Windows, PrometheusError> {
    let increase = |metric| Query::of_containers(metric, selection).over(Function::Increase, seconds);
    let series = |query: &Query| -> Result<Vec<(Labels, Series)>, PrometheusError> {
        Ok(reader
            .query(query, At::Time(at))?
            .into_iter()
            .map(|series| (series.metric.clone(), series))
            .collect())
    };
    // By container, then by run: the cgroup.
    let mut runs = BTreeMap::<ContainerKey, BTreeMap<String, Histogram>>::new();
    for (key, labels, series) in containers(series(&increase(&WINDOWS))?) {
        let Some((_, native)) = &series.histogram else { continue };
        let run = labels.get("id").cloned().unwrap_or_default();
        let known = runs.entry(key).or_default().entry(run).or_default();
        let histogram = native.to_histogram();
        if known.count() < histogram.count() {
            *known = histogram;
        }
    }
    let mut all = Windows::default();
    for (key, of_runs) in runs {
        let sum = all.windows.entry(key).or_default();
        of_runs.values().for_each(|histogram| sum.merge(histogram));
    }
    for (number, metric) in QUOTAS.iter().enumerate() {
        let by: Vec<&str> = KEY.into_iter().chain(["quota"]).collect();
        let once: Vec<&str> = RUN.into_iter().chain(["quota"]).collect();
        let query = increase(metric).once_by(&once).by(Aggregate::Sum, &by);
        for (key, labels, series) in containers(series(&query)?) {
            let quota = labels.get("quota").and_then(|quota| quota.parse::<f64>().ok());
            let (Some(cores), Some((_, value))) = (quota, series.points().first().copied()) else { continue };
            let outcomes = all.quota_what_ifs.entry(key).or_default();
            // `as` saturates; negative numbers become 0.
            let QuotaOutcome { periods, throttled, delayed_millis } =
                outcomes.entry((cores * MILLIS).round() as u64).or_default();
            match number {
                0 => *periods = value.round() as u64,
                1 => *throttled = value.round() as u64,
                _ => *delayed_millis = (value * MILLIS).round() as u64,
            }
        }
    }
    Ok(all)
}

impl NativeHistogram {
    /// Converts to whole counts: extrapolated increases are rounded. A bucket of a coarser histogram is counted at its geometric
    /// middle.
    fn to_histogram(&self) -> Histogram {
        let mut histogram = Histogram::default();
        for (_, lower, upper, count) in &self.buckets {
            let parsed = [lower, upper, count].map(|text| finite(text));
            let [Some(lower), Some(upper), Some(count)] = parsed else { continue };
            let middle = if lower > 0.0 { (lower * upper).sqrt() } else { 0.0 };
            histogram.record(middle, count.round() as u64);
        }
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_histograms_keep_their_buckets() {
        let mut seen = Histogram::default();
        for (cores, times) in [(0.0, 100), (0.1, 20), (0.104, 7), (2.0, 5)] {
            seen.record(cores, times);
        }
        let buckets = seen
            .buckets()
            .map(|(count, lower, upper)| {
                // As Prometheus writes it: the first and the last of them are the bounds of what is nothing.
                let lower = if lower <= 0.0 { -upper } else { lower };
                (0, lower.to_string(), upper.to_string(), format!("{}", count as f64 + 0.3))
            })
            .collect();
        assert_eq!(NativeHistogram { buckets }.to_histogram(), seen);
        let broken = vec![(0, "1".to_owned(), "x".to_owned(), "5".to_owned())];
        assert!(NativeHistogram { buckets: broken }.to_histogram().is_empty());
    }
}
