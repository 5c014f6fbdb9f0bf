//! Turns two scrapes into one row per container.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::Serialize;
use snug_client::exposition::Sample;

use super::Sort;
use crate::renamed;

/// Rates of one container between two scrapes, and its gauges at the second. `None`: not measured, or no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ContainerRow {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) kind: String,
    pub(crate) workload_kind: String,
    pub(crate) workload: String,
    pub(crate) id: String,
    /// Mean cores used over the interval.
    pub(crate) cpu_cores: Option<f64>,
    pub(crate) cpu_limit_cores: Option<f64>,
    /// Throttled CFS periods ÷ periods, 0..=1; `None` if no period ended in the interval.
    pub(crate) throttled_share: Option<f64>,
    pub(crate) memory_working_set_bytes: Option<f64>,
    pub(crate) memory_peak_bytes: Option<f64>,
    pub(crate) memory_limit_bytes: Option<f64>,
    /// Since the container was created, not over the interval.
    pub(crate) oom_kills: Option<f64>,
    /// Mean cores per replica of the workload, in equal parts of the `--last` time; `None` without `--last`.
    #[serde(flatten, serialize_with = "renamed::cpu_history_cores", skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_history_cores: Option<Vec<Option<f64>>>,
}

/// Values of one container in one scrape.
#[derive(Clone, Debug, Default)]
struct RawSample {
    row: ContainerRow,
    cpu_seconds: Option<f64>,
    periods: Option<f64>,
    throttled_periods: Option<f64>,
}

/// Identifies a container: by its id, because names may be added between the scrapes; by names if there is no id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ContainerKey {
    Id(String),
    Names([String; 3]),
}

fn collect(samples: &[Sample]) -> BTreeMap<ContainerKey, RawSample> {
    let mut all: BTreeMap<ContainerKey, RawSample> = BTreeMap::new();
    for sample in samples {
        let Some(subject) = sample.name.strip_prefix("snug_container_") else { continue };
        let label = |name| sample.label(name).to_owned();
        let key = match sample.label("id") {
            "" => ContainerKey::Names([label("namespace"), label("pod"), label("container")]),
            id => ContainerKey::Id(id.to_owned()),
        };
        let value = Some(sample.value).filter(|value| value.is_finite());
        let raw = all.entry(key).or_insert_with(|| RawSample {
            row: ContainerRow {
                namespace: label("namespace"),
                pod: label("pod"),
                container: label("container"),
                kind: label("kind"),
                workload_kind: label("workload_kind"),
                workload: label("workload"),
                id: label("id"),
                ..ContainerRow::default()
            },
            ..RawSample::default()
        });
        match subject {
            "cpu_usage_seconds_total" => raw.cpu_seconds = value,
            "cpu_cfs_periods_total" => raw.periods = value,
            "cpu_cfs_throttled_periods_total" => raw.throttled_periods = value,
            "cpu_limit_cores" => raw.row.cpu_limit_cores = value,
            "memory_working_set_bytes" => raw.row.memory_working_set_bytes = value,
            "memory_peak_bytes" => raw.row.memory_peak_bytes = value,
            "memory_limit_bytes" => raw.row.memory_limit_bytes = value,
            "memory_events_total" if sample.label("event") == "oom_kill" => raw.row.oom_kills = value,
            _ => {}
        }
    }
    all
}

/// The increase of a counter; `None` if it is new, or was reset because the container was recreated.
fn gain(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    let gained = after? - before?;
    (gained >= 0.0).then_some(gained)
}

/// The rows of the second scrape's containers.
pub(crate) fn between(before: &[Sample], after: &[Sample], seconds: f64) -> Vec<ContainerRow> {
    let before = collect(before);
    let rows = collect(after).into_iter().map(|(key, now)| {
        let RawSample { mut row, cpu_seconds, periods, throttled_periods } = now;
        let then = before.get(&key).cloned().unwrap_or_default();
        if seconds > 0.0 {
            row.cpu_cores = gain(then.cpu_seconds, cpu_seconds).map(|gained| gained / seconds);
        }
        let throttled = gain(then.throttled_periods, throttled_periods);
        row.throttled_share = match (throttled, gain(then.periods, periods)) {
            (Some(throttled), Some(periods)) if periods > 0.0 => Some((throttled / periods).min(1.0)),
            _ => None,
        };
        row
    });
    rows.collect()
}

/// Sorts by the highest value; rows without a value come last, equal rows are sorted by name.
pub(crate) fn sort(rows: &mut [ContainerRow], sort: Sort) {
    let value = |row: &ContainerRow| match sort {
        Sort::Cpu => row.cpu_cores,
        Sort::Memory => row.memory_working_set_bytes,
        Sort::Throttled => row.throttled_share,
    };
    let descending = |a: &ContainerRow, b: &ContainerRow| match (value(a), value(b)) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    let names = |a: &ContainerRow, b: &ContainerRow| -> Ordering {
        let key = |row: &ContainerRow| [&row.namespace, &row.pod, &row.container, &row.id].map(String::clone);
        key(a).cmp(&key(b))
    };
    rows.sort_by(|a, b| descending(a, b).then_with(|| names(a, b)));
}

#[cfg(test)]
mod tests {
    use snug_client::exposition::parse;

    use super::*;

    fn page(lines: &[&str]) -> Vec<Sample> {
        parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn rates_are_of_the_interval_and_gauges_of_the_second_scrape() {
        let before = page(&[
            "snug_container_cpu_usage_seconds_total{id=\"a\"} 10",
            "snug_container_cpu_cfs_periods_total{id=\"a\"} 100",
            "snug_container_cpu_cfs_throttled_periods_total{id=\"a\"} 50",
            "snug_container_memory_working_set_bytes{id=\"a\"} 1",
        ]);
        let after = page(&[
            "snug_container_cpu_usage_seconds_total{id=\"a\",namespace=\"web\",pod=\"p\",container=\"c\"} 11",
            "snug_container_cpu_cfs_periods_total{id=\"a\",namespace=\"web\"} 120",
            "snug_container_cpu_cfs_throttled_periods_total{id=\"a\"} 55",
            "snug_container_memory_working_set_bytes{id=\"a\"} 4096",
            "snug_container_memory_events_total{id=\"a\",event=\"oom_kill\"} 3",
            "snug_container_memory_events_total{id=\"a\",event=\"max\"} 9",
            "snug_container_memory_limit_bytes{id=\"a\"} +Inf",
        ]);
        let [row] = between(&before, &after, 2.0).try_into().unwrap();
        assert_eq!((row.namespace.as_str(), row.pod.as_str(), row.container.as_str()), ("web", "p", "c"));
        assert_eq!(row.cpu_cores, Some(0.5));
        assert_eq!(row.throttled_share, Some(0.25));
        assert_eq!(row.memory_working_set_bytes, Some(4096.0));
        assert_eq!(row.oom_kills, Some(3.0));
        assert_eq!((row.memory_limit_bytes, row.cpu_limit_cores), (None, None));
    }

    #[test]
    fn a_new_or_remade_container_has_no_rate_yet() {
        let before = page(&["snug_container_cpu_usage_seconds_total{id=\"a\"} 10"]);
        let after = page(&[
            "snug_container_cpu_usage_seconds_total{id=\"a\"} 1",
            "snug_container_cpu_usage_seconds_total{id=\"b\"} 1",
        ]);
        let rows = between(&before, &after, 2.0);
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row.cpu_cores.is_none()));
    }

    #[test]
    fn a_container_without_periods_has_no_throttled_share() {
        let scrape = page(&[
            "snug_container_cpu_cfs_periods_total{id=\"a\"} 5",
            "snug_container_cpu_cfs_throttled_periods_total{id=\"a\"} 5",
        ]);
        assert_eq!(between(&scrape, &scrape, 2.0)[0].throttled_share, None);
    }

    #[test]
    fn the_highest_comes_first_and_missing_values_last() {
        let row = |id: &str, cpu_cores| ContainerRow { id: id.into(), cpu_cores, ..ContainerRow::default() };
        let mut rows = [row("none", None), row("b", Some(1.0)), row("a", Some(1.0)), row("top", Some(2.0))];
        sort(&mut rows, Sort::Cpu);
        assert_eq!(rows.map(|row| row.id), ["top", "a", "b", "none"]);
    }
}
