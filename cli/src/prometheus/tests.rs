//! Random clusters, as a kubelet and kube-state-metrics show them, and what is read of them.

mod clusters;
mod facts;
mod short_runs;

use std::collections::BTreeMap;

use proptest::prelude::*;
use snug_sizing::evidence::Evidence;

use super::{
    error::PrometheusError,
    fake::SeriesInMemory,
    gather::{self, PrometheusHistory},
    matcher::{Selection, parse_matchers},
    reader::Reader,
};

/// A time at ten minutes past an hour.
const NOW: u64 = 1_700_000_000 / 3600 * 3600 + 600;
const HOUR: u64 = 3600;
const INTERVAL: u64 = 60;
const MIB: f64 = 1_048_576.0;

/// A container of a pod of one replica.
#[derive(Clone, Debug)]
struct Model {
    namespace: &'static str,
    /// Number of the workload.
    workload: u8,
    cores: f64,
    /// MiB.
    memory: f64,
    /// MiB; the kubelet shows it, too.
    limit: f64,
}

impl Model {
    /// The hash of a pod template, and the suffix of a pod: symbols that controllers use.
    fn pod(&self) -> String {
        format!("web{0}-5d4f8c7b9c-x7k2{0}", self.workload)
    }

    fn replica_set(&self) -> String {
        format!("web{}-5d4f8c7b9c", self.workload)
    }

    fn key(&self) -> (&'static str, u8) {
        (self.namespace, self.workload)
    }

    fn title(&self) -> String {
        format!("{}/web{}/app", self.namespace, self.workload)
    }
}

fn model() -> impl Strategy<Value = Model> {
    let namespace = prop::sample::select(vec!["shop", "data"]);
    (namespace, 0..4_u8, 0.01..2.0_f64, 10.0..900.0_f64, 20.0..2000.0_f64).prop_map(
        |(namespace, workload, cores, memory, limit)| Model { namespace, workload, cores, memory, limit },
    )
}

/// One or two containers of different names.
fn models() -> impl Strategy<Value = Vec<Model>> {
    prop::collection::vec(model(), 1..3).prop_map(|mut all| {
        all.sort_by_key(Model::key);
        all.dedup_by_key(|model| model.key());
        all
    })
}

/// How a scrape labels its series.
#[derive(Clone, Debug, Default)]
struct Scrape {
    /// Further labels, as `name=value,…`.
    labels: String,
    /// Whether the labels of the target replace those of the series, which are kept in `exported_…`.
    is_overwritten: bool,
    /// Seconds after the minute.
    phase: u64,
    /// Differs between clusters: the path of the cgroup; `None` if the label was dropped.
    id: Option<&'static str>,
}

impl Scrape {
    fn new(labels: &str) -> Self {
        Self { labels: labels.to_owned(), id: Some("pod1"), ..Self::default() }
    }

    fn labelled(&self, model: &Model, more: &str) -> String {
        let own = format!("namespace={},pod={},container=app", model.namespace, model.pod());
        let own = if self.is_overwritten {
            let kept: Vec<String> = own.split(',').map(|pair| format!("exported_{pair}")).collect();
            format!("{},namespace=monitoring,pod=scraped-x,container=scraped", kept.join(","))
        } else {
            own
        };
        format!("{own},{more},{}", self.labels)
    }
}

/// Adds what kubelets show of containers in the last `seconds`.
fn kubelet(series: &mut SeriesInMemory, models: &[Model], scrape: &Scrape, seconds: u64) {
    let times = || (NOW - seconds - HOUR + scrape.phase..NOW + HOUR).step_by(INTERVAL as usize);
    for model in models {
        let id = scrape.id.map(|id| format!("id=/kubepods/{id}/{}/app", model.pod())).unwrap_or_default();
        let labels = scrape.labelled(model, &id);
        let used = |at: u64| (at - (NOW - 30 * HOUR)) as f64 * model.cores;
        series.add(
            "container_cpu_usage_seconds_total",
            &format!("{labels},cpu=total"),
            times().map(|at| (at, used(at))),
        );
        series.add("container_memory_working_set_bytes", &labels, times().map(|at| (at, model.memory * MIB)));
        series.add("container_oom_events_total", &labels, times().map(|at| (at, 0.0)));
        let started = (NOW - 30 * HOUR) as f64;
        series.add("container_start_time_seconds", &labels, times().map(|at| (at, started)));
    }
}

/// Adds what kube-state-metrics shows of them.
fn state(series: &mut SeriesInMemory, models: &[Model], scrape: &Scrape, seconds: u64) {
    let span = (NOW - seconds - HOUR, NOW + HOUR);
    for model in models {
        let labels = scrape.labelled(model, "node=n1");
        series.constant(
            "kube_pod_container_resource_limits",
            &format!("{labels},resource=memory"),
            span,
            model.limit * MIB,
        );
        series.constant("kube_pod_container_resource_requests", &format!("{labels},resource=cpu"), span, 0.5);
        let owner =
            format!("owner_kind=ReplicaSet,owner_name={},owner_is_controller=true", model.replica_set());
        series.constant("kube_pod_owner", &format!("{labels},{owner}"), span, 1.0);
        let set = format!(
            "replicaset={},owner_kind=Deployment,owner_name=web{},owner_is_controller=true",
            model.replica_set(),
            model.workload
        );
        series.constant("kube_replicaset_owner", &format!("{labels},{set}"), span, 1.0);
    }
}

/// A cluster that is scraped once.
fn cluster(models: &[Model], labels: &str, seconds: u64) -> SeriesInMemory {
    let mut series = SeriesInMemory::at(NOW);
    add_cluster(&mut series, models, &Scrape::new(labels), seconds);
    series
}

fn add_cluster(series: &mut SeriesInMemory, models: &[Model], scrape: &Scrape, seconds: u64) {
    kubelet(series, models, scrape, seconds);
    state(series, models, scrape, seconds);
}

/// Reads the last `seconds`, of series that a matcher selects.
fn read(series: &SeriesInMemory, matcher: &str, seconds: u64) -> Result<PrometheusHistory, PrometheusError> {
    let matchers = if matcher.is_empty() { Vec::new() } else { parse_matchers(matcher).unwrap().0 };
    let selection = Selection { matchers, namespaces: Vec::new() };
    gather::read(&Reader::new(series), &selection, seconds)
}

/// The evidence by title.
fn evidence(history: &PrometheusHistory) -> BTreeMap<String, Evidence> {
    history.snapshot.evidence().map(|evidence| (evidence.title(), evidence.clone())).collect()
}

/// Reads an hour and compares it with a reading that is right.
fn compare(series: &SeriesInMemory, right: &SeriesInMemory) -> Result<(), String> {
    let read =
        |series| read(series, "", HOUR).map(|history| evidence(&history)).map_err(|error| error.to_string());
    same(&read(series)?, &read(right)?)
}

/// Whether two readings are the same, up to the times of samples.
fn same(one: &BTreeMap<String, Evidence>, right: &BTreeMap<String, Evidence>) -> Result<(), String> {
    if one.keys().ne(right.keys()) {
        return Err(format!("{:?} in place of {:?}", one.keys(), right.keys()));
    }
    for (title, right) in right {
        let one = &one[title];
        let used =
            |evidence: &Evidence| -> f64 { evidence.pods.values().map(|pod| pod.cpu_millis as f64).sum() };
        let peak = |evidence: &Evidence| {
            evidence.hours.values().filter_map(|hour| Some(hour.highest()?.bytes)).max()
        };
        let facts = |it: &Evidence| (it.workload.clone(), it.container.current, it.container.role, peak(it));
        if facts(one) != facts(right) || (used(one) / used(right) - 1.0).abs() > 0.2 {
            return Err(format!(
                "{:?} {} in place of {:?} {}",
                facts(one),
                used(one),
                facts(right),
                used(right)
            ));
        }
    }
    Ok(())
}

#[test]
fn a_cluster_is_read_as_it_is() {
    let models: Vec<Model> = (0..3)
        .map(|workload| Model { namespace: "shop", workload, cores: 0.5, memory: 100.0, limit: 256.0 })
        .collect();
    let series = cluster(&models, "", 2 * HOUR);
    let history = read(&series, "", 2 * HOUR).unwrap();
    let all = evidence(&history);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["shop/web0/app", "shop/web1/app", "shop/web2/app"]);
    for one in all.values() {
        let (observed, millis) =
            one.pods.values().fold((0, 0), |sum, it| (sum.0 + it.observed, sum.1 + it.cpu_millis));
        assert!((2 * HOUR..3 * HOUR).contains(&observed), "{observed}");
        assert!((millis as f64 / 500.0 / observed as f64 - 1.0).abs() < 0.01, "{millis} in {observed}");
        assert_eq!(one.window_millis, 4 * INTERVAL * 1000);
        assert_eq!((one.workload.owner.as_str(), one.workload.replicas), ("Deployment", 1));
        assert_eq!(one.container.current.memory_limit, Some(256 << 20));
    }
    assert_eq!(history.missing, Vec::<String>::new());
    // Queries are bounded in number, and none is of a longer period than it says.
    let queries = series.queries.borrow();
    assert!(queries.len() <= 30, "{}", queries.len());
}

#[test]
fn metrics_that_began_a_moment_ago_are_read() {
    let models = [Model { namespace: "shop", workload: 1, cores: 0.5, memory: 100.0, limit: 256.0 }];
    let mut series = cluster(&models, "", HOUR);
    series.series.iter_mut().for_each(|(_, samples)| samples.retain(|it| it.0 > (NOW - 130) as f64));
    // In the middle of a window.
    let all = evidence(&read(&series, "", HOUR).unwrap());
    let one = &all["shop/web1/app"];
    let peak = one.hours.values().filter_map(|hour| Some(hour.highest()?.bytes)).max();
    assert_eq!((one.workload.replicas, peak), (1, Some(100 << 20)));
    assert!(one.pods.values().any(|pod| pod.observed > 0 && pod.cpu_millis > 0));
}

#[test]
fn without_kube_state_metrics_that_is_reported() {
    let mut series = SeriesInMemory::at(NOW);
    let models = [Model { namespace: "shop", workload: 1, cores: 0.5, memory: 100.0, limit: 256.0 }];
    kubelet(&mut series, &models, &Scrape::new(""), HOUR);
    let history = read(&series, "", HOUR).unwrap();
    assert!(history.missing[0].contains("kube-state-metrics"), "{:?}", history.missing);
    assert_eq!(evidence(&history).len(), 1);
}

#[test]
fn a_namespace_without_containers_is_an_error_that_names_similar_ones() {
    let models = [Model { namespace: "shop", workload: 1, cores: 0.5, memory: 100.0, limit: 256.0 }];
    let series = cluster(&models, "", HOUR);
    let namespaces = |name: &str| Selection { matchers: Vec::new(), namespaces: vec![name.to_owned()] };
    let error = gather::read(&Reader::new(&series), &namespaces("shp"), HOUR).unwrap_err().to_string();
    assert!(error.contains("\"shp\"") && error.contains("did you mean shop?"), "{error}");
    assert!(gather::read(&Reader::new(&series), &namespaces("shop"), HOUR).is_ok());
    let error = read(&series, "cluster=prod", HOUR).unwrap_err().to_string();
    assert!(error.contains("with cluster=\"prod\"") && error.contains("/metrics/cadvisor"), "{error}");
}
