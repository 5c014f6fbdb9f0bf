//! Containers with several series at the same time: one container that is scraped several times, or containers of several clusters.

use std::collections::{BTreeMap, BTreeSet};

use snug_sizing::evidence::HOUR;

use super::{
    discover::{CLUSTER, CPU, Discovered, cpu_series},
    error::PrometheusError,
    matcher::{Comparison, Matcher, Selection},
    query::{Aggregate, At, Function, KEY, Labels, Query, RUN, Series, own},
    reader::{Period, Reader},
};
use crate::advice::CommandRule;

/// Labels that say how a series was scraped, or of which run of a container it is.
const SCRAPE: [&str; 26] = [
    "__name__",
    "__replica__",
    "beta_kubernetes_io_instance_type",
    "cpu",
    "endpoint",
    "exported_instance",
    "exported_job",
    "id",
    "image",
    "instance",
    "job",
    "kubernetes_io_hostname",
    "metrics_path",
    "monitor",
    "name",
    "node",
    "exported_node",
    "pod_template_hash",
    "prometheus",
    "prometheus_replica",
    "receive",
    "receive_replica",
    "replica",
    "rule_replica",
    "scrape_job",
    "service",
];
/// Points at which series are compared.
const POINTS: u64 = 8;
/// Containers that are looked at in detail.
const MAX_CONTAINERS: usize = 8;
/// Counters of the same container from two scrapes differ by what it uses between them: this share, and these seconds.
const SAME_COUNTER: f64 = 0.02;
const SAME_SECONDS: f64 = 30.0;

/// Checks that no two containers have the same namespace, pod and name.
///
/// # Errors
/// When a query fails, or there are such containers.
pub(super) fn check(
    reader: &Reader<'_>,
    selection: &Selection,
    period: Period,
    discovered: &Discovered,
) -> Result<(), PrometheusError> {
    if !CommandRule::NothingAmbiguous.is_on() {
        return Ok(());
    }
    reader.begin("labels");
    // Without the path of the cgroup, every label may tell containers apart.
    let has_ids = discovered.examples.iter().all(|labels| labels.contains_key("id"));
    let other: BTreeSet<&str> = discovered
        .examples
        .iter()
        .flat_map(|labels| labels.keys().map(String::as_str))
        .filter(|name| !has_ids || (!SCRAPE.contains(name) && !CLUSTER.contains(name)))
        .filter(|name| !KEY.contains(name) && *name != "__name__")
        .collect();
    let running = cpu_series(selection).over(Function::Rate, period.window).above(0.0);
    // Several cgroups of one name, and one cgroup with several values of a label that says nothing of the scrape.
    let mut queries = vec![running.clone().once_by(&RUN)];
    if !other.is_empty() {
        let by: Vec<&str> = KEY.into_iter().chain(other.iter().copied()).collect();
        queries.push(running.once_by(&by));
    }
    let length = period.end.saturating_sub(period.from);
    let step = (length / POINTS).div_ceil(HOUR).max(1) * HOUR;
    let from = period.end - ((length / step + 1) * step).min(period.end / step * step);
    // Times at which each container has several series.
    let mut found = BTreeMap::<Vec<(String, String)>, Vec<u64>>::new();
    for query in queries {
        let query = query.by(Aggregate::Count, &KEY).several();
        reader.steps(&query, (from, period.end), step, |series| {
            for (labels, points) in series {
                found
                    .entry(labels.into_iter().collect())
                    .or_default()
                    .extend(points.into_iter().map(|(at, _)| at));
            }
        })?;
    }
    // A restart is at one point, another cluster is at many.
    let mut found: Vec<_> =
        found.into_iter().filter_map(|(key, times)| Some((times.len(), *times.last()?, key))).collect();
    found.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.2.cmp(&other.2)));
    for (_, at, key) in found.into_iter().take(MAX_CONTAINERS) {
        let mut query = Query::new(&CPU, selection).over(Function::Samples, period.window);
        query = query.matching(Matcher::new("cpu", Comparison::Regex, "|total"));
        // A label that the group lacks is empty.
        let labels: Labels = key.into_iter().collect();
        for name in KEY {
            let value = labels.get(name).map(String::as_str).unwrap_or_default();
            query = query.matching(Matcher::new(name, Comparison::Equal, value));
        }
        let series: Vec<Running> =
            reader.query(&query, At::Time(at))?.into_iter().filter_map(Running::new).collect();
        if let Some((one, other)) = different(&series, discovered.interval as f64) {
            let values: Vec<&Labels> = series.iter().map(|it| &it.labels).collect();
            let (labels, choices) = differences(one, other, &values);
            let container = ["namespace", "pod", "container"].map(|name| own(one, name)).join("/");
            return Err(PrometheusError::Ambiguous {
                base: reader.api().base().to_owned(),
                container,
                labels,
                choices,
            });
        }
    }
    Ok(())
}

/// A series of a container in a short time, if its counter grew.
#[derive(Debug)]
struct Running {
    labels: Labels,
    /// First sample, and last increase.
    from: f64,
    to: f64,
    /// The counter at its end, in seconds.
    counter: f64,
}

impl Running {
    fn new(series: Series) -> Option<Self> {
        let samples: Vec<(f64, f64)> =
            series.values.iter().filter_map(|(at, value)| Some((*at, value.finite()?))).collect();
        let (from, _) = *samples.first()?;
        let grew = samples.windows(2).rev().find_map(|pair| match pair {
            [(_, before), (at, after)] if after > before => Some(*at),
            _ => None,
        });
        Some(Self { labels: series.metric, from, to: grew?, counter: samples.last()?.1 })
    }

    fn value(&self, name: &str) -> &str {
        self.labels.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Whether both are of the same container, which runs at the same time in both.
    fn is(&self, other: &Self) -> bool {
        if self.value("id") != other.value("id") {
            return false;
        }
        let is_of_scrape = |name: &str| SCRAPE.contains(&name) || KEY.contains(&name);
        let names: BTreeSet<&String> = self.labels.keys().chain(other.labels.keys()).collect();
        let same_labels =
            names.into_iter().all(|name| is_of_scrape(name) || self.value(name) == other.value(name));
        // Without an ID in both, only the counters show that it is the same.
        let apart = (self.counter - other.counter).abs();
        (same_labels && !self.value("id").is_empty())
            || apart <= SAME_SECONDS.max(SAME_COUNTER * self.counter.max(other.counter))
    }
}

/// Two series of different containers that run at the same time.
fn different(series: &[Running], interval: f64) -> Option<(&Labels, &Labels)> {
    let pairs = series
        .iter()
        .enumerate()
        .flat_map(|(at, one)| series.iter().skip(at + 1).map(move |other| (one, other)));
    let mut at_once =
        pairs.filter(|(one, other)| one.to.min(other.to) - one.from.max(other.from) >= interval.max(1.0));
    at_once.find(|(one, other)| !one.is(other)).map(|(one, other)| (&one.labels, &other.labels))
}

/// The labels in which two series differ, and matchers of that which tells best.
fn differences(one: &Labels, other: &Labels, all: &[&Labels]) -> (String, Vec<String>) {
    let names: BTreeSet<&str> = one.keys().chain(other.keys()).map(String::as_str).collect();
    let mut differing: Vec<&str> =
        names.into_iter().filter(|name| one.get(*name) != other.get(*name)).collect();
    // Those that say nothing of a scrape first; those of a run at the end.
    let rank = |name: &&str| {
        (["id", "name", "image"].contains(name), ["instance", "node"].contains(name), SCRAPE.contains(name))
    };
    differing.sort_by_key(rank);
    let choices = differing.first().map(|name| {
        let values: BTreeSet<&str> =
            all.iter().map(|labels| labels.get(*name).map(String::as_str).unwrap_or_default()).collect();
        values.into_iter().map(|value| Matcher::new(name, Comparison::Equal, value).to_string()).collect()
    });
    (differing.join(", "), choices.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(labels: &str, from: f64, to: f64, counter: f64) -> Running {
        let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
        let labels = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Running { labels, from, to, counter }
    }

    #[test]
    fn one_container_is_scraped_twice_or_there_are_two() {
        let is_same = |one: &str, other: &str, counter: f64| {
            let both = [running(one, 0.0, 60.0, 1000.0), running(other, 5.0, 65.0, counter)];
            different(&both, 15.0).is_none()
        };
        assert!(is_same("id=/a,job=x", "id=/a,job=y,replica=2", 5000.0), "the same cgroup");
        assert!(is_same("id=/a,team=x", "id=/a,team=y", 1010.0), "another label, the same counter");
        assert!(!is_same("id=/a,team=x", "id=/a,team=y", 5000.0), "another label and counter");
        assert!(!is_same("id=/a,job=x", "id=/b,job=x", 1000.0), "two cgroups");
        assert!(is_same("job=x", "job=y", 1010.0));
        assert!(!is_same("job=x", "job=y", 5000.0), "no ID, other counters");
        let restart = [running("id=/a", 0.0, 30.0, 1000.0), running("id=/b", 30.0, 60.0, 1.0)];
        assert!(different(&restart, 15.0).is_none(), "one after the other");
    }

    #[test]
    fn the_label_that_tells_best_is_named() {
        let one = running("id=/a,instance=1,tier=x,job=k", 0.0, 1.0, 1.0).labels;
        let other = running("id=/b,instance=2,tier=y,job=k", 0.0, 1.0, 1.0).labels;
        let (labels, choices) = differences(&one, &other, &[&one, &other]);
        assert_eq!(
            (labels.as_str(), choices),
            ("tier, instance, id", vec!["tier=\"x\"".to_owned(), "tier=\"y\"".to_owned()])
        );
    }
}
