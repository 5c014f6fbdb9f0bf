//! Snug's own series, if Prometheus scrapes the agents: CPU usage in windows of 100 ms, and the quota simulation. The kubelets
//! have neither.

use std::collections::BTreeMap;

use snug_sizing::{
    cpu_quota::{QuotaOutcome, QuotaWhatIf},
    histogram::Histogram,
};

use super::{BY, ContainerKey, NativeHistogram, Prometheus, PrometheusError, container_key};

const WINDOWS: &str = "snug_container_cpu_window_cores";
/// Counters by quota, in the order of the fields of [`QuotaOutcome`].
const QUOTAS: [&str; 3] = [
    "snug_container_cpu_quota_periods_total",
    "snug_container_cpu_quota_throttled_periods_total",
    "snug_container_cpu_quota_delayed_seconds_total",
];
const MILLIS: f64 = 1000.0;

/// Snug's series over a period.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// CPU usage per window.
    pub(super) windows: BTreeMap<ContainerKey, Histogram>,
    /// The quota simulation, if the agents export it.
    pub(super) quota_what_ifs: BTreeMap<ContainerKey, QuotaWhatIf>,
}

impl Prometheus {
    /// Whether Prometheus has windows as native histograms. Without them there are only sums, which add nothing to rates.
    pub(super) fn has_windows(&self, selector: &str) -> Result<bool, PrometheusError> {
        Ok(!self.instant(&format!("count({WINDOWS}{{{selector}}})"))?.is_empty())
    }

    /// The increase over a number of seconds before a time.
    pub(super) fn windows(&self, selector: &str, at: u64, seconds: u64) -> Result<Windows, PrometheusError> {
        let increase = |metric: &str, by: &str| {
            format!("sum by ({BY}{by}) (increase({metric}{{{selector}}}[{seconds}s]))")
        };
        let mut all = Windows::default();
        for series in self.instant_at(&increase(WINDOWS, ""), at)? {
            if let Some((_, native)) = &series.histogram {
                all.windows.insert(container_key(&series.metric), native.to_histogram());
            }
        }
        for (number, metric) in QUOTAS.into_iter().enumerate() {
            for series in self.instant_at(&increase(metric, ", quota"), at)? {
                let quota = series.metric.get("quota").and_then(|quota| quota.parse::<f64>().ok());
                let (Some(cores), Some(value)) =
                    (quota, series.value.as_ref().and_then(|it| super::number(&it.1)))
                else {
                    continue;
                };
                let QuotaWhatIf(outcomes) =
                    all.quota_what_ifs.entry(container_key(&series.metric)).or_default();
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
}

impl NativeHistogram {
    /// Converts to whole counts: extrapolated increases are rounded. A bucket of a coarser histogram is counted at its geometric
    /// middle.
    fn to_histogram(&self) -> Histogram {
        let mut histogram = Histogram::default();
        for (_, lower, upper, count) in &self.buckets {
            let parsed = [lower, upper, count].map(|text| super::number(text));
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
