//! The metrics of a small cluster, as kubelets and kube-state-metrics show them, and what its containers really did.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use snug_sizing::workload::Role;

const HOUR: u64 = 3600;
const INTERVAL: u64 = 60;
const MIB: u64 = 1 << 20;
/// Metrics begin this many seconds before now, and end after it.
const BEFORE: u64 = 10 * HOUR;
const AFTER: u64 = HOUR;

/// What is true of a container of a workload.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    pub(super) cores: f64,
    /// Relative error of the mean: short runs are seen by few scrapes.
    pub(super) tolerance: f64,
    /// Highest memory usage, bytes.
    pub(super) peak: u64,
    pub(super) limit: Option<u64>,
    pub(super) kills: usize,
    pub(super) owner: &'static str,
    pub(super) role: Role,
    pub(super) pods: usize,
    /// Share of CFS periods.
    pub(super) throttled: f64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// Lines of OpenMetrics by family.
    families: BTreeMap<&'static str, Vec<String>>,
    /// Metrics that were read from a file.
    file: Option<String>,
    truth: BTreeMap<String, Truth>,
    now: u64,
    /// Labels of the cluster, and of each scrape.
    scrapes: Vec<String>,
    /// By how much all usage is multiplied.
    size: f64,
}

/// A pod of a container.
struct Pod<'p> {
    namespace: &'p str,
    name: String,
    container: &'p str,
    from: u64,
    to: u64,
}

impl Cluster {
    /// A cluster with a label, if it has a name, that is scraped by several replicas of a Prometheus.
    pub(super) fn new(name: &str, replicas: &[&str]) -> Self {
        Self::of_size(name, replicas, 1.0)
    }

    /// A cluster with the same names, and less usage.
    pub(super) fn smaller(name: &str, replicas: &[&str]) -> Self {
        Self::of_size(name, replicas, 0.25)
    }

    /// Metrics from a file in the format of OpenMetrics.
    pub(super) fn from_open_metrics(text: String) -> Self {
        Self { file: Some(text), ..Self::default() }
    }

    fn of_size(name: &str, replicas: &[&str], size: f64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let label = if name.is_empty() { String::new() } else { format!(",cluster=\"{name}\"") };
        let scrapes =
            replicas.iter().map(|replica| format!("{label},prometheus_replica=\"{replica}\"")).collect();
        let mut cluster = Self { now, scrapes, size, ..Self::default() };
        cluster.fill();
        cluster
    }

    /// This cluster and another one in one server.
    pub(super) fn beside(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (family, lines) in &other.families {
            both.families.entry(family).or_default().extend(lines.iter().cloned());
        }
        both
    }

    pub(super) fn truth(&self) -> BTreeMap<String, Truth> {
        self.truth.clone()
    }

    /// All metrics in the format of OpenMetrics.
    pub(super) fn open_metrics(&self) -> String {
        if let Some(file) = &self.file {
            return file.clone();
        }
        let mut text = String::new();
        for (family, lines) in &self.families {
            let kind = if family.ends_with("_total") { "counter" } else { "gauge" };
            // Writing to a text does not fail.
            let _ = writeln!(text, "# TYPE {} {kind}", family.trim_end_matches("_total"));
            text.extend(lines.iter().flat_map(|line| [line, "\n"]));
        }
        text + "# EOF\n"
    }

    /// The same in Prometheus' text format, with times in milliseconds.
    pub(super) fn text_format(&self) -> String {
        let all = self.open_metrics();
        all.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "000\n"]).collect()
    }

    fn add(&mut self, family: &'static str, labels: &str, from: u64, to: u64, value: impl Fn(u64) -> f64) {
        let lines = self.families.entry(family).or_default();
        for scrape in &self.scrapes {
            for at in (from.div_ceil(INTERVAL) * INTERVAL..to).step_by(INTERVAL as usize) {
                lines.push(format!("{family}{{{labels}{scrape}}} {} {at}", value(at)));
            }
        }
    }

    fn fill(&mut self) {
        let (begin, end) = (self.now - BEFORE, self.now + AFTER);
        let pod = |name: &str, container: &'static str| Pod {
            namespace: "shop",
            name: name.to_owned(),
            container,
            from: begin,
            to: end,
        };
        for suffix in ["x7k2p", "b9n4q"] {
            let pod = pod(&format!("web-5d4f8c7b9c-{suffix}"), "app");
            self.usage(&pod, 0.4, 300 * MIB, 0.25);
            self.limits(&pod, "", 512 * MIB);
            self.owner(&pod, "ReplicaSet", "web-5d4f8c7b9c");
        }
        let set = "namespace=\"shop\",replicaset=\"web-5d4f8c7b9c\",owner_kind=\"Deployment\",owner_name=\"web\",owner_is_controller=\"true\"";
        self.add("kube_replicaset_owner", set, begin, end, |_| 1.0);
        let scaled = "namespace=\"shop\",horizontalpodautoscaler=\"web\"";
        let target = format!("{scaled},scaletargetref_kind=\"Deployment\",scaletargetref_name=\"web\"");
        self.add("kube_horizontalpodautoscaler_info", &target, begin, end, |_| 1.0);
        let metric = format!("{scaled},metric_name=\"cpu\",metric_target_type=\"utilization\"");
        self.add("kube_horizontalpodautoscaler_spec_target_metric", &metric, begin, end, |_| 60.0);
        self.is(
            "shop/web/app",
            0.4,
            300 * MIB,
            Truth { pods: 2, throttled: 0.25, ..truth(512 * MIB, "Deployment") },
        );

        // Init containers: one that goes on, and one that ended within the hours that are read.
        let (sidecar, init) = (pod("web-5d4f8c7b9c-x7k2p", "proxy"), pod("web-5d4f8c7b9c-x7k2p", "migrate"));
        let init = Pod { from: self.now - 4 * HOUR, to: self.now - 3 * HOUR, ..init };
        for (pod, policy, cores) in [(&sidecar, "Always", 0.05), (&init, "", 0.9)] {
            self.usage(pod, cores, 60 * MIB, 0.0);
            self.limits(pod, "init_", 128 * MIB);
            let info = format!("{},restart_policy=\"{policy}\"", labels(pod));
            self.add("kube_pod_init_container_info", &info, begin, end, |_| 1.0);
        }
        self.is(
            "shop/web/proxy",
            0.05,
            60 * MIB,
            Truth { role: Role::Sidecar, ..truth(128 * MIB, "Deployment") },
        );
        let short = Truth { role: Role::Init, tolerance: 0.1, ..truth(128 * MIB, "Deployment") };
        self.is("shop/web/migrate", 0.9, 60 * MIB, short);

        // OOM-killed every two hours; the counter of the kubelet goes with the container.
        let leaky = pod("leaky-0", "app");
        self.usage(&leaky, 0.1, 180 * MIB, 0.0);
        self.limits(&leaky, "", 256 * MIB);
        self.owner(&leaky, "StatefulSet", "leaky");
        let first = self.now - 7 * HOUR - 600;
        let restarts = move |at: u64| if at < first { 0.0 } else { ((at - first) / (2 * HOUR) + 1) as f64 };
        self.add("kube_pod_container_status_restarts_total", &labels(&leaky), begin, end, restarts);
        let reason = format!("{},reason=\"OOMKilled\"", labels(&leaky));
        self.add("kube_pod_container_status_last_terminated_reason", &reason, first, end, |_| 1.0);
        self.is("shop/leaky/app", 0.1, 180 * MIB, Truth { kills: 4, ..truth(256 * MIB, "StatefulSet") });

        // Runs of a CronJob, half an hour each.
        let mut runs = 0;
        for hour in (begin / HOUR + 3)..(self.now / HOUR - 1) {
            let job = format!("report-{}", hour * 60);
            let pod = Pod {
                namespace: "data",
                name: format!("{job}-x7k2p"),
                container: "job",
                from: hour * HOUR,
                to: hour * HOUR + HOUR / 2,
            };
            self.usage(&pod, 0.8, 200 * MIB, 0.0);
            self.limits(&pod, "", 256 * MIB);
            self.owner(&pod, "Job", &job);
            let owner = format!(
                "namespace=\"data\",job_name=\"{job}\",owner_kind=\"CronJob\",owner_name=\"report\",owner_is_controller=\"true\""
            );
            self.add("kube_job_owner", &owner, pod.from, pod.to, |_| 1.0);
            runs += 1;
        }
        let short = Truth { pods: runs, tolerance: 0.2, ..truth(256 * MIB, "CronJob") };
        self.is("data/report/job", 0.8, 200 * MIB, short);
        // Its pods write "no limit" as the largest number of pages.
        let free = Pod { namespace: "data", ..pod("free-0", "app") };
        self.usage(&free, 0.2, 100 * MIB, 0.0);
        self.owner(&free, "StatefulSet", "free");
        self.add("container_spec_memory_limit_bytes", &labels(&free), begin, end, |_| {
            9_223_372_036_854_771_712.0
        });
        self.is("data/free/app", 0.2, 100 * MIB, Truth { limit: None, ..truth(0, "StatefulSet") });
    }

    fn usage(&mut self, pod: &Pod<'_>, cores: f64, bytes: u64, throttled: f64) {
        let (size, from) = (self.size, pod.from);
        let cgroup = format!("{},id=\"/kubepods/{}/{}\"", labels(pod), pod.name, pod.container);
        let since = move |at: u64| (at - from) as f64;
        let cpu = format!("{cgroup},cpu=\"total\"");
        self.add("container_cpu_usage_seconds_total", &cpu, from, pod.to, |at| since(at) * cores * size);
        let bytes = (bytes as f64 * size).round();
        self.add("container_memory_working_set_bytes", &cgroup, from, pod.to, |_| bytes);
        self.add("container_oom_events_total", &cgroup, from, pod.to, |_| 0.0);
        if throttled > 0.0 {
            self.add("container_cpu_cfs_periods_total", &cgroup, from, pod.to, |at| since(at) * 10.0);
            let count = |at| (since(at) * 10.0 * throttled).floor();
            self.add("container_cpu_cfs_throttled_periods_total", &cgroup, from, pod.to, count);
        }
    }

    fn limits(&mut self, pod: &Pod<'_>, init: &str, bytes: u64) {
        let family = if init.is_empty() {
            "kube_pod_container_resource_limits"
        } else {
            "kube_pod_init_container_resource_limits"
        };
        let memory = format!("{},resource=\"memory\"", labels(pod));
        self.add(family, &memory, pod.from, pod.to, |_| bytes as f64);
        if init.is_empty() {
            let cpu = format!("{},resource=\"cpu\"", labels(pod));
            self.add("kube_pod_container_resource_requests", &cpu, pod.from, pod.to, |_| 1.0);
        }
    }

    fn owner(&mut self, pod: &Pod<'_>, kind: &str, name: &str) {
        let owner = format!(
            "namespace=\"{}\",pod=\"{}\",owner_kind=\"{kind}\",owner_name=\"{name}\",owner_is_controller=\"true\"",
            pod.namespace, pod.name
        );
        self.add("kube_pod_owner", &owner, pod.from, pod.to, |_| 1.0);
    }

    fn is(&mut self, title: &str, cores: f64, bytes: u64, mut truth: Truth) {
        truth.cores = cores * self.size;
        truth.peak = (bytes as f64 * self.size).round() as u64;
        self.truth.insert(title.to_owned(), truth);
    }
}

fn truth(limit: u64, owner: &'static str) -> Truth {
    Truth {
        cores: 0.0,
        tolerance: 0.02,
        peak: 0,
        limit: Some(limit),
        kills: 0,
        owner,
        role: Role::App,
        pods: 1,
        throttled: 0.0,
    }
}

fn labels(pod: &Pod<'_>) -> String {
    format!("namespace=\"{}\",pod=\"{}\",container=\"{}\"", pod.namespace, pod.name, pod.container)
}
