//! Clusters as a kubelet and kube-state-metrics show them, each with something that once led to wrong advice. Names and numbers are
//! made up.

use serde_json::Value;
use snug_sizing::engine::{Policy, Pools, Profile};

use super::shell;
use crate::{
    cluster::{ClusterConstraints, WorkloadObjects},
    policy::Policies,
    prometheus::fake::SeriesInMemory,
    recommend::{
        apply,
        report::{Entry, Report},
    },
};

const MIB: f64 = 1_048_576.0;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// A time at ten minutes past an hour.
const NOW: u64 = 1_700_000_000 / HOUR * HOUR + 600;
const START: u64 = NOW - 30 * HOUR;

/// A container: namespace, pod and name.
type Names = [&'static str; 3];

/// A cluster that is scraped once a minute.
struct Case {
    series: SeriesInMemory,
    /// Further labels of all series, as `,name=value`.
    labels: &'static str,
    /// Whether the labels of kube-state-metrics are those of its own pod, and those of its series in `exported_…`.
    is_overwritten: bool,
}

impl Case {
    fn new() -> Self {
        Self { series: SeriesInMemory::at(NOW), labels: "", is_overwritten: false }
    }

    fn times((from, to): (u64, u64)) -> impl Iterator<Item = u64> {
        (from..to).step_by(60)
    }

    /// Usage: cores and MiB.
    fn used(&mut self, names: Names, run: &str, (cores, mib): (f64, f64), span: (u64, u64)) {
        let [namespace, pod, container] = names;
        let labels = format!(
            "namespace={namespace},pod={pod},container={container},id=/kubepods/{pod}/{container}{run},job=kubelet{}",
            self.labels
        );
        let cpu = Self::times(span).map(|at| (at, (at - span.0) as f64 * cores));
        self.series.add("container_cpu_usage_seconds_total", &format!("{labels},cpu=total"), cpu);
        // Up to 2 % more.
        let memory = Self::times(span).map(|at| (at, mib * MIB * (1.0 + 0.02 * (at % 7) as f64 / 6.0)));
        self.series.add("container_memory_working_set_bytes", &labels, memory);
        self.series.add(
            "container_start_time_seconds",
            &labels,
            Self::times(span).map(|at| (at, span.0 as f64)),
        );
    }

    fn always(&mut self, names: Names, usage: (f64, f64)) {
        self.used(names, "", usage, (START, NOW + HOUR));
    }

    /// A series of kube-state-metrics.
    fn state(&mut self, metric: &str, own: &str, more: &str, value: f64) {
        let own = if self.is_overwritten {
            let kept: Vec<String> = own.split(',').map(|pair| format!("exported_{pair}")).collect();
            format!(
                "{},namespace=monitoring,pod=kube-state-metrics-6c8f7d9b5-x7k2p,container=kube-state-metrics",
                kept.join(",")
            )
        } else {
            own.to_owned()
        };
        let labels = format!("{own},{more},job=kube-state-metrics{}", self.labels);
        self.series.add(metric, &labels, Self::times((START, NOW + HOUR)).map(|at| (at, value)));
    }

    /// Requests and limits: cores and MiB, 0 for none.
    fn resources(
        &mut self,
        kind: &str,
        [namespace, pod, container]: Names,
        requests: [f64; 2],
        limits: [f64; 2],
    ) {
        for (what, amounts) in [("requests", requests), ("limits", limits)] {
            for ((resource, unit), amount) in [("cpu", 1.0), ("memory", MIB)].into_iter().zip(amounts) {
                if amount > 0.0 {
                    let own = format!("namespace={namespace},pod={pod},container={container}");
                    let metric = format!("kube_pod_{kind}_resource_{what}");
                    self.state(&metric, &own, &format!("resource={resource}"), amount * unit);
                }
            }
        }
    }

    fn owner(&mut self, [namespace, pod, _]: Names, kind: &str, owner: &str) {
        let own = format!("namespace={namespace},pod={pod}");
        let more = format!("owner_kind={kind},owner_name={owner},owner_is_controller=true");
        self.state("kube_pod_owner", &own, &more, 1.0);
    }

    /// A pod of a StatefulSet with one container.
    fn pod(&mut self, names: Names, owner: &str, usage: (f64, f64), requests: [f64; 2], limits: [f64; 2]) {
        self.always(names, usage);
        self.resources("container", names, requests, limits);
        self.owner(names, "StatefulSet", owner);
    }

    /// A Deployment `web` of two pods and a StatefulSet `db`.
    fn shop(&mut self) {
        for pod in ["web-5d4f8c7b9c-x7k2p", "web-5d4f8c7b9c-b9n4q"] {
            let names = ["shop", pod, "app"];
            self.always(names, (0.2, 300.0));
            self.resources("container", names, [1.0, 1024.0], [0.0, 1024.0]);
            self.owner(names, "ReplicaSet", "web-5d4f8c7b9c");
        }
        self.pod(["shop", "db-0", "db"], "db", (0.1, 150.0), [0.25, 256.0], [0.25, 256.0]);
    }

    fn replica_set(&mut self, namespace: &str, set: &str, deployment: &str) {
        let more = format!(
            "replicaset={set},owner_kind=Deployment,owner_name={deployment},owner_is_controller=true"
        );
        self.state("kube_replicaset_owner", &format!("namespace={namespace}"), &more, 1.0);
    }

    /// The reports of its clusters, with their names.
    fn reports(&self) -> Vec<(String, Report)> {
        let all = self.series.histories(DAY).unwrap().into_iter();
        let report = |history: crate::prometheus::PrometheusHistory| {
            let mut snapshot = history.snapshot.unified();
            snapshot.settle();
            snapshot.last_seen = snapshot.at;
            let policies = Policies::new(Policy::new(Profile::Standard.risk()));
            let mut report = Report::make(&snapshot, &Pools::default(), &policies, |_| true);
            report.place(&snapshot, WorkloadObjects::default());
            report.check(&snapshot, &ClusterConstraints::default());
            report.remark(&snapshot);
            (history.cluster, report)
        };
        all.map(report).collect()
    }

    fn report(&self) -> Report {
        let mut reports = self.reports();
        assert_eq!(reports.len(), 1);
        reports.remove(0).1
    }
}

fn row<'r>(report: &'r Report, workload: &str) -> &'r Entry {
    let row = report.recommendations.iter().find(|entry| entry.workload == workload);
    row.unwrap_or_else(|| panic!("no row {workload}: {:?}", report.skipped))
}

#[test]
fn a_sandboxed_container_whose_series_are_zero_gets_no_advice() {
    let mut case = Case::new();
    case.pod(["shop", "sandboxed-0", "app"], "sandboxed", (0.0, 0.0), [2.0, 4096.0], [2.0, 4096.0]);
    let report = case.report();
    assert!(report.recommendations.is_empty());
    assert!(
        report.skipped[0].reason.to_string().starts_with("no memory in use was observed"),
        "{:?}",
        report.skipped
    );
    assert_eq!(apply::patch(&report), "");
}

#[test]
fn a_tiny_container_gets_what_a_runtime_needs_to_start_it() {
    let mut case = Case::new();
    for (pod, owner, mib) in
        [("pgbouncer-0", "pgbouncer", 1.6), ("nanny-0", "nanny", 0.4), ("sleeper-0", "sleeper", 0.15)]
    {
        case.pod(["shop", pod, "app"], owner, (0.001, mib), [0.01, 32.0], [0.0, 32.0]);
    }
    let report = case.report();
    assert_eq!(report.recommendations.len(), 3);
    for entry in &report.recommendations {
        assert!(entry.recommended.memory_limit >= Some(10 << 20), "{:?}", entry.recommended);
    }
}

#[test]
fn kube_state_metrics_without_honor_labels_is_understood() {
    let mut case = Case { is_overwritten: true, ..Case::new() };
    case.shop();
    case.replica_set("shop", "web-5d4f8c7b9c", "web");
    let own = ["monitoring", "kube-state-metrics-6c8f7d9b5-x7k2p", "kube-state-metrics"];
    case.always(own, (0.01, 40.0));
    case.resources("container", own, [0.01, 32.0], [0.0, 64.0]);
    case.owner(own, "ReplicaSet", "kube-state-metrics-6c8f7d9b5");
    case.replica_set("monitoring", "kube-state-metrics-6c8f7d9b5", "kube-state-metrics");
    let report = case.report();
    let current = |workload: &str| {
        let current = row(&report, workload).current;
        (current.cpu_request, current.memory_request, current.memory_limit)
    };
    assert_eq!(current("kube-state-metrics"), (Some(10), Some(32 << 20), Some(64 << 20)));
    assert_eq!(current("web"), (Some(1000), Some(1 << 30), Some(1 << 30)));
    assert_eq!(current("db"), (Some(250), Some(256 << 20), Some(256 << 20)));
    let patches = shell::patches(&apply::patch(&report)).unwrap();
    let titles: Vec<String> =
        patches.iter().map(|(namespace, object, _)| format!("{namespace} {object}")).collect();
    assert_eq!(
        titles,
        ["monitoring deployment/kube-state-metrics", "shop statefulset/db", "shop deployment/web"]
    );
}

#[test]
fn the_same_names_in_two_clusters_are_two_workloads() {
    let mut case = Case { labels: ",cluster=prod", ..Case::new() };
    case.shop();
    case.labels = ",cluster=dev";
    case.pod(["shop", "db-0", "db"], "db", (0.02, 40.0), [0.05, 64.0], [0.0, 64.0]);
    let mut reports = case.reports();
    reports.iter_mut().for_each(|(_, report)| report.add_up(None));
    let names: Vec<&str> = reports.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["dev", "prod"]);
    let joined = Report::join(reports).unwrap();
    let requests = |cluster: &str| {
        let mut rows =
            joined.recommendations.iter().filter(|row| row.cluster == cluster && row.workload == "db");
        let current = rows.next().unwrap().current;
        assert_eq!(rows.next(), None);
        (current.cpu_request, current.memory_request)
    };
    assert_eq!(requests("prod"), (Some(250), Some(256 << 20)));
    assert_eq!(requests("dev"), (Some(50), Some(64 << 20)));
    // Each workload counts once: two pods of 1 core and both databases.
    assert_eq!(joined.total.cpu_request_now, 2000 + 250 + 50);
    let json: Value = serde_json::to_value(&joined).unwrap();
    let clusters: Vec<&Value> =
        json["recommendations"].as_array().unwrap().iter().map(|row| &row["cluster"]).collect();
    assert_eq!(clusters, ["dev", "prod", "prod"]);
    assert_eq!(json["clusters"][1]["cluster"], "prod");
    let markdown = crate::recommend::formats::markdown(&joined);
    assert!(
        markdown.starts_with("| cluster | issue | workload |")
            && markdown.contains("\n| dev | ok | shop/db |"),
        "{markdown}"
    );
    let csv = crate::recommend::formats::csv(&joined).unwrap();
    assert!(csv.starts_with("cluster,namespace,") && csv.contains("\nprod,shop,StatefulSet,db,"), "{csv}");
}

#[test]
fn kills_that_only_kube_state_metrics_shows_raise_the_limit() {
    let mut case = Case::new();
    let names = ["shop", "batcher-0", "app"];
    // A kill every two hours. The kubelet's counter of each run stays 0.
    for (number, from) in (START..NOW).step_by(2 * HOUR as usize).enumerate() {
        case.used(names, &format!("/{number}"), (0.1, 180.0), (from, (from + 2 * HOUR).min(NOW + HOUR)));
    }
    case.resources("container", names, [0.2, 256.0], [0.0, 256.0]);
    case.owner(names, "StatefulSet", "batcher");
    let labels = "namespace=shop,pod=batcher-0,container=app,job=kube-state-metrics";
    let restarts = Case::times((START, NOW + HOUR)).map(|at| (at, ((at - START) / (2 * HOUR)) as f64));
    case.series.add("kube_pod_container_status_restarts_total", labels, restarts);
    case.state(
        "kube_pod_container_status_last_terminated_reason",
        "namespace=shop,pod=batcher-0,container=app",
        "reason=OOMKilled",
        1.0,
    );
    let report = case.report();
    let entry = row(&report, "batcher");
    assert!(entry.recommended.memory_limit >= Some(300 << 20), "{:?}", entry.recommended);
    assert!(entry.oom_kills_per_pod_day.unwrap().now > Some(0.5), "{:?}", entry.oom_kills_per_pod_day);
    assert!(entry.reasons[0].text.contains("OOM kills"), "{:?}", entry.reasons[0]);
}

#[test]
fn init_containers_and_sidecars_are_patched_in_their_section() {
    let mut case = Case::new();
    case.pod(["shop", "web-0", "app"], "web", (0.2, 300.0), [0.5, 512.0], [0.5, 512.0]);
    case.always(["shop", "web-0", "helper"], (0.05, 60.0));
    case.used(["shop", "web-0", "migrate"], "", (0.8, 90.0), (NOW - 20 * HOUR, NOW - 20 * HOUR + 900));
    for (container, policy) in [("helper", "Always"), ("migrate", "")] {
        let own = format!("namespace=shop,pod=web-0,container={container}");
        case.state("kube_pod_init_container_info", &own, &format!("restart_policy={policy}"), 1.0);
        case.resources("init_container", ["shop", "web-0", container], [0.1, 128.0], [0.2, 256.0]);
    }
    let report = case.report();
    let of_migrate = report.recommendations.iter().find(|entry| entry.container == "migrate").unwrap();
    assert_eq!(
        (of_migrate.current.cpu_request, of_migrate.current.memory_limit),
        (Some(100), Some(256 << 20))
    );
    let patches = shell::patches(&apply::patch(&report)).unwrap();
    let pod = &patches[0].2["spec"]["template"]["spec"];
    let names = |section: &str| -> Vec<&str> {
        pod[section].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect()
    };
    assert_eq!((names("initContainers"), names("containers")), (vec!["helper", "migrate"], vec!["app"]));
}

#[test]
fn a_container_that_is_gone_is_not_patched() {
    let mut case = Case::new();
    case.pod(["shop", "web-0", "app"], "web", (0.2, 300.0), [0.5, 512.0], [0.5, 512.0]);
    case.used(["shop", "web-0", "old-logger"], "", (0.05, 60.0), (START, NOW - 10 * HOUR));
    let report = case.report();
    let patch = apply::patch(&report);
    assert!(patch.contains("statefulset/web") && !patch.contains("old-logger"), "{patch}");
    assert!(
        report
            .skipped
            .iter()
            .any(|it| it.container == "old-logger" && it.reason.to_string().contains("gone"))
    );
}

#[test]
fn the_largest_numbers_are_no_limits() {
    let mut case = Case::new();
    let names = |pod| ["shop", pod, "app"];
    for (pod, owner) in [("free-0", "free"), ("free2-0", "free2"), ("free3-0", "free3")] {
        case.pod(names(pod), owner, (0.2, 300.0), [0.1, 128.0], [0.0; 2]);
    }
    let mut spec = |metric: &str, pod: &str, value: f64| {
        let labels = format!("namespace=shop,pod={pod},container=app,id=/kubepods/{pod}/app,job=kubelet");
        case.series.add(metric, &labels, Case::times((START, NOW + HOUR)).map(|at| (at, value)));
    };
    spec("container_spec_memory_limit_bytes", "free-0", 9_223_372_036_854_771_712.0);
    spec("container_spec_memory_limit_bytes", "free2-0", 18_446_744_073_709_551_615.0);
    for (pod, quota) in [("free2-0", -1.0), ("free3-0", 18_446_744_073_709_551_615.0)] {
        spec("container_spec_cpu_quota", pod, quota);
        spec("container_spec_cpu_period", pod, 100_000.0);
    }
    let report = case.report();
    for owner in ["free", "free2", "free3"] {
        let current = row(&report, owner).current;
        assert_eq!((current.cpu_limit, current.memory_limit), (None, None), "{owner}");
    }
}

#[test]
fn without_owners_of_replica_sets_their_names_say_whose_they_are() {
    let mut case = Case::new();
    case.shop();
    // Gone with the last rollout, and with its owner.
    case.used(["shop", "web-6d94bc8694-zzzzz", "app"], "", (0.2, 300.0), (START, NOW - 8 * HOUR));
    let report = case.report();
    let owners: Vec<[&str; 2]> =
        report.recommendations.iter().map(|entry| [entry.owner.as_str(), entry.workload.as_str()]).collect();
    assert_eq!(owners, [["StatefulSet", "db"], ["Deployment", "web"]], "{:?}", report.skipped);
}
