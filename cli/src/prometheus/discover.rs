//! What a server has: clusters, namespaces, the number of containers, and the scrape interval.

use std::collections::{BTreeMap, BTreeSet};

use snug_sizing::evidence::HOUR;

use super::{
    error::PrometheusError,
    matcher::{Comparison, Matcher, Selection},
    query::{Aggregate, At, Function, Labels, Points, Query, own},
    reader::Reader,
};
use crate::advice::CommandRule;

pub(super) const CPU: [&str; 1] = ["container_cpu_usage_seconds_total"];
/// Labels that name a cluster.
pub(super) const CLUSTER: [&str; 11] = [
    "cluster",
    "cluster_name",
    "cluster_id",
    "clusterName",
    "clusterID",
    "k8s_cluster",
    "k8s_cluster_name",
    "kubernetes_cluster",
    "kube_cluster",
    "eks_cluster",
    "tenant_id",
];
/// Labels that may name a cluster: they do where one namespace has several values.
pub(super) const ENVIRONMENT: [&str; 7] =
    ["env", "environment", "stage", "region", "datacenter", "dc", "site"];
/// Points of the overview.
const POINTS: u64 = 24;
/// The period in which there must be containers, and in which the scrape interval is measured.
const RECENT: u64 = 900;
/// Scrape jobs whose interval is measured.
const MAX_JOBS: usize = 4;
/// The interval where it cannot be measured: the default of Prometheus.
const DEFAULT_INTERVAL: u64 = 60;
/// Intervals that people choose, seconds.
const USUAL: [u64; 10] = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300];
/// A measured interval is a usual one if it differs by at most this share.
const NEAR: f64 = 0.1;
/// Clusters that are read one after the other.
const MAX_CLUSTERS: usize = 100;
/// Namespaces in a suggestion, and how similar they are at least.
const MAX_SUGGESTIONS: usize = 3;
const SIMILAR: f64 = 0.75;

/// CPU usage of containers, over all CPUs.
pub(super) fn cpu_series(selection: &Selection) -> Query {
    Query::of_containers(&CPU, selection).matching(Matcher::new("cpu", Comparison::Regex, "|total"))
}

/// What the metrics of containers are like.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Discovered {
    /// Containers at one time, at most.
    pub(super) containers: u64,
    /// The scrape interval, seconds.
    pub(super) interval: u64,
    /// Labels of one series of each scrape job.
    pub(super) examples: Vec<Labels>,
}

/// Looks at the metrics of the last `since` seconds.
///
/// # Errors
/// When a query fails, the selected containers are of several clusters, or there are none.
pub(super) fn discover(
    reader: &Reader<'_>,
    selection: &Selection,
    now: u64,
    since: u64,
) -> Result<Discovered, PrometheusError> {
    let groups = overview(
        reader,
        selection,
        now,
        since,
        &CLUSTER.iter().chain(&ENVIRONMENT).copied().collect::<Vec<_>>(),
    )?;
    one_cluster(groups.iter().map(|(labels, _)| labels)).map_err(|choices| several(reader, choices))?;
    let mut at_once = BTreeMap::<u64, f64>::new();
    for (at, count) in groups.iter().flat_map(|(_, points)| points) {
        *at_once.entry(*at).or_default() += count;
    }
    let containers = at_once.into_values().fold(1.0, f64::max) as u64;
    let (interval, examples) = interval(reader, selection, now)?;
    Ok(Discovered { containers, interval, examples })
}

fn several(reader: &Reader<'_>, choices: Vec<String>) -> PrometheusError {
    PrometheusError::SeveralClusters { base: reader.api().base().to_owned(), choices }
}

/// The selected containers over the last `since` seconds: their number by namespace and by further labels.
///
/// # Errors
/// When the query fails, or a selected namespace does not exist.
fn overview(
    reader: &Reader<'_>,
    selection: &Selection,
    now: u64,
    since: u64,
    labels: &[&str],
) -> Result<Vec<(Labels, Points)>, PrometheusError> {
    reader.begin("clusters and namespaces");
    let anywhere = Selection { namespaces: Vec::new(), ..selection.clone() };
    let step = (since / POINTS).div_ceil(HOUR).max(1) * HOUR;
    let by: Vec<&str> = ["namespace", "exported_namespace"].iter().chain(labels).copied().collect();
    let overview = cpu_series(&anywhere).by(Aggregate::Count, &by);
    // Points at the end, and whole steps before it.
    let from = now - ((since / step + 1) * step).min(now / step * step);
    let mut groups: Vec<(Labels, Points)> = Vec::new();
    reader.steps(&overview, (from, now), step, |series| groups.extend(series))?;
    let namespaces: BTreeSet<&str> = groups.iter().map(|(labels, _)| own(labels, "namespace")).collect();
    if let Some(name) = selection.namespaces.iter().find(|name| !namespaces.contains(name.as_str()))
        && !namespaces.is_empty()
    {
        return Err(PrometheusError::NoNamespace {
            base: reader.api().base().to_owned(),
            name: name.clone(),
            suggestions: similar(name, &namespaces),
        });
    }
    let is_selected = |labels: &Labels| {
        selection.namespaces.is_empty()
            || selection.namespaces.iter().any(|name| name == own(labels, "namespace"))
    };
    Ok(groups.into_iter().filter(|(labels, _)| is_selected(labels)).collect())
}

/// One of several clusters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OneOfSeveral {
    /// The value of the label that names it.
    pub(super) name: String,
    /// Its series, of the selected namespaces that it has.
    pub(super) selection: Selection,
}

/// The clusters of the selected series, if a label tells all of them apart: `by`, or the one of [`CLUSTER`] that does. Empty for
/// one cluster without `by`.
///
/// # Errors
/// When the query fails, or series lack the label.
pub(super) fn clusters(
    reader: &Reader<'_>,
    selection: &Selection,
    (now, since): (u64, u64),
    by: Option<&str>,
) -> Result<Vec<OneOfSeveral>, PrometheusError> {
    if !CommandRule::OneCluster.is_on() {
        return Ok(Vec::new());
    }
    let labels: Vec<&str> = by.map_or_else(|| CLUSTER.to_vec(), |label| vec![label]);
    let groups = overview(reader, selection, now, since, &labels)?;
    let value = |labels: &Labels, name: &str| labels.get(name).cloned().unwrap_or_default();
    let sets: BTreeSet<Vec<String>> =
        groups.iter().map(|(of, _)| labels.iter().map(|name| value(of, name)).collect()).collect();
    if sets.is_empty() || (by.is_none() && sets.len() == 1) {
        return Ok(Vec::new());
    }
    let label = labels.iter().enumerate().find_map(|(at, label)| {
        let values: BTreeSet<&String> = sets.iter().filter_map(|set| set.get(at)).collect();
        let tells = values.len() == sets.len() && !values.iter().any(|value| value.is_empty());
        tells.then_some(*label)
    });
    let Some(label) = label.filter(|_| sets.len() <= MAX_CLUSTERS) else {
        return Err(several(reader, choices(&sets, &labels)));
    };
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for (of, _) in &groups {
        found.entry(value(of, label)).or_default().insert(own(of, "namespace").to_owned());
    }
    let one = |(name, namespaces): (String, BTreeSet<String>)| {
        let mut selection = selection.clone();
        selection.matchers.push(Matcher::new(label, Comparison::Equal, &name));
        selection.namespaces.retain(|name| namespaces.contains(name));
        OneOfSeveral { name, selection }
    };
    Ok(found.into_iter().map(one).collect())
}

/// Namespaces with similar names, the most similar first.
fn similar(name: &str, namespaces: &BTreeSet<&str>) -> Vec<String> {
    let mut all: Vec<(f64, &str)> = namespaces
        .iter()
        .map(|other| (strsim::jaro_winkler(name, other), *other))
        .filter(|(it, _)| *it >= SIMILAR)
        .collect();
    all.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    all.into_iter().take(MAX_SUGGESTIONS).map(|(_, name)| name.to_owned()).collect()
}

/// Whether series are of one cluster, by the labels that name clusters; else a matcher for each cluster.
fn one_cluster<'l>(series: impl Iterator<Item = &'l Labels> + Clone) -> Result<(), Vec<String>> {
    if !CommandRule::OneCluster.is_on() {
        return Ok(());
    }
    let value = |labels: &'l Labels, name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
    let clusters: BTreeSet<[&str; CLUSTER.len()]> =
        series.clone().map(|labels| CLUSTER.map(|name| value(labels, name))).collect();
    if clusters.len() > 1 {
        return Err(choices(&sets(&clusters), &CLUSTER));
    }
    let mut by_namespace = BTreeMap::<&str, BTreeSet<[&str; ENVIRONMENT.len()]>>::new();
    for labels in series {
        let values = ENVIRONMENT.map(|name| value(labels, name));
        by_namespace.entry(own(labels, "namespace")).or_default().insert(values);
    }
    match by_namespace.values().find(|values| values.len() > 1) {
        Some(_) => Err(choices(&sets(&by_namespace.into_values().flatten().collect()), &ENVIRONMENT)),
        None => Ok(()),
    }
}

fn sets<const N: usize>(all: &BTreeSet<[&str; N]>) -> BTreeSet<Vec<String>> {
    all.iter().map(|set| set.iter().map(|value| (*value).to_owned()).collect()).collect()
}

/// A matcher for each set of values: of one label if its values differ in all sets, else of all labels that differ.
fn choices(sets: &BTreeSet<Vec<String>>, names: &[&str]) -> Vec<String> {
    let values = |at: usize| -> BTreeSet<&String> { sets.iter().filter_map(|set| set.get(at)).collect() };
    let alone = (0..names.len()).find(|at| values(*at).len() == sets.len());
    let differing: Vec<usize> =
        alone.map_or_else(|| (0..names.len()).filter(|at| values(*at).len() > 1).collect(), |at| vec![at]);
    let text = |set: &Vec<String>| {
        let matchers = differing.iter().filter_map(|at| {
            Some(Matcher::new(names.get(*at)?, Comparison::Equal, set.get(*at)?).to_string())
        });
        matchers.collect::<Vec<_>>().join(",")
    };
    sets.iter().map(text).collect()
}

/// The scrape interval in seconds, from the times of samples: of several jobs, the longest. And a series of each job.
fn interval(
    reader: &Reader<'_>,
    selection: &Selection,
    now: u64,
) -> Result<(u64, Vec<Labels>), PrometheusError> {
    let most = cpu_series(selection).over(Function::CountOverTime, RECENT).by(Aggregate::Top, &["job"]);
    let examples: Vec<Labels> =
        reader.values(&most, At::Time(now))?.into_iter().map(|(labels, _)| labels).take(MAX_JOBS).collect();
    if examples.is_empty() {
        let (base, metric) = (reader.api().base().to_owned(), CPU[0]);
        return Err(PrometheusError::NoContainers { base, metric, matching: selection.with_matchers() });
    }
    let mut longest = None;
    for labels in &examples {
        let mut query = Query::new(&CPU, &Selection::default()).over(Function::Samples, RECENT);
        for (name, value) in labels.iter().filter(|(name, _)| *name != "__name__") {
            query = query.matching(Matcher::new(name, Comparison::Equal, value));
        }
        for series in reader.query(&query, At::Time(now))? {
            let times: Vec<f64> = series.values.iter().map(|(at, _)| *at).collect();
            longest = longest.max(typical_interval(&times));
        }
    }
    Ok((longest.unwrap_or(DEFAULT_INTERVAL), examples))
}

/// The median of the intervals between times, as a usual number of seconds if it is near one. Of two medians the shorter one:
/// a missing sample makes an interval longer.
fn typical_interval(times: &[f64]) -> Option<u64> {
    let mut between: Vec<f64> = times
        .windows(2)
        .filter_map(|pair| Some(pair.last()? - pair.first()?))
        .filter(|it| *it > 0.0)
        .collect();
    between.sort_by(f64::total_cmp);
    let median = *between.get(between.len().checked_sub(1)? / 2)?;
    let usual = USUAL.into_iter().find(|usual| (median / *usual as f64 - 1.0).abs() <= NEAR);
    // `as` saturates. No longer interval can have been asked for.
    Some(usual.unwrap_or_else(|| (median.round() as u64).clamp(1, RECENT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    }

    #[test]
    fn clusters_are_recognised_by_their_labels() {
        let check = |series: &[&str]| {
            let all: Vec<Labels> = series.iter().map(|text| labels(text)).collect();
            one_cluster(all.iter())
        };
        assert_eq!(check(&["namespace=a", "namespace=b"]), Ok(()));
        assert_eq!(check(&["namespace=a,cluster=prod,env=x", "namespace=b,cluster=prod,env=y"]), Ok(()));
        assert_eq!(
            check(&["namespace=a,cluster=prod", "namespace=b,cluster=dev"]).unwrap_err(),
            ["cluster=\"dev\"", "cluster=\"prod\""]
        );
        assert_eq!(
            check(&["namespace=a,cluster=prod", "namespace=b"]).unwrap_err(),
            ["cluster=\"\"", "cluster=\"prod\""]
        );
        assert_eq!(
            check(&["namespace=a,env=prod", "namespace=a,env=dev"]).unwrap_err(),
            ["env=\"dev\"", "env=\"prod\""],
            "one namespace in two environments"
        );
        assert_eq!(
            check(&["cluster=a,tenant_id=1", "cluster=a,tenant_id=2", "cluster=b,tenant_id=1"]).unwrap_err(),
            [
                "cluster=\"a\",tenant_id=\"1\"",
                "cluster=\"a\",tenant_id=\"2\"",
                "cluster=\"b\",tenant_id=\"1\""
            ]
        );
    }

    #[test]
    fn scrape_intervals_from_times() {
        let regular: Vec<f64> = (0..15).map(|scrape| 7.3 + 60.0 * f64::from(scrape)).collect();
        assert_eq!(typical_interval(&regular), Some(60));
        assert_eq!(
            typical_interval(&[0.0, 14.1, 30.9, 45.2, 75.0]),
            Some(15),
            "jitter, and a missing sample"
        );
        assert_eq!(typical_interval(&[0.0, 41.0, 82.0]), Some(41));
        assert_eq!(typical_interval(&[3.0]), None);
    }

    #[test]
    fn similar_namespaces_are_suggested() {
        let known = BTreeSet::from(["shop", "shop-staging", "monitoring", "kube-system"]);
        assert_eq!(similar("shp", &known)[0], "shop");
        assert_eq!(similar("monitorng", &known), ["monitoring"]);
        assert_eq!(similar("zzz", &known), Vec::<String>::new());
    }
}
