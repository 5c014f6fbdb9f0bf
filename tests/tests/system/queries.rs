//! Queries of dashboards, alerts and recommenders, with a Prometheus that scrapes `/metrics/cadvisor` of the agent instead of
//! the kubelet's: each query returns one series per container or pod, with the required labels and the kernel's values.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use snug_tests::agent::{Agent, eventually};

use crate::{
    cannot_run,
    container::{Container, pod_list},
    has_program,
    kubelet::{DiskUser, QUICK, disk_io, net_dev, pod_with_network},
    prometheus::{Prometheus, WINDOW, watch},
};

/// Memory that the container allocates, in bytes.
const HELD: f64 = 33_554_432.0;
/// The maximum memory of its helper processes, in bytes.
const SLACK: f64 = 6_291_456.0;

/// A script that allocates memory, then uses as much CPU as allowed, and sends packets.
const WORK: &str = "x=$(head -c 33554432 /dev/zero | tr \"\\0\" x); \
    while :; do echo hello > /dev/udp/10.9.9.2/9; i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; done";

/// Serves a constant exposition while the test runs.
fn serve(exposition: String) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = BufReader::new(&stream).lines().map_while(Result::ok);
            while head.next().is_some_and(|line| !line.is_empty()) {}
            let length = exposition.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{exposition}"
            );
        }
    });
    Ok(address)
}

/// The series of kube-state-metrics for the pod.
fn state_of(pod: &str) -> String {
    format!(
        "# TYPE kube_pod_info gauge\n\
         kube_pod_info{{namespace=\"shop\",pod=\"{pod}\",node=\"here\",host_ip=\"10.0.0.1\",uid=\"1\"}} 1\n\
         # TYPE kube_pod_container_resource_limits gauge\n\
         kube_pod_container_resource_limits{{namespace=\"shop\",pod=\"{pod}\",container=\"app\",resource=\"cpu\",\
         unit=\"core\"}} 0.3\n"
    )
}

fn limit_cpu(container: &Container, quota_us: u64) -> Result<()> {
    match container.file("cpu.max") {
        Ok(file) => fs::write(file, format!("{quota_us} 100000"))?,
        Err(_) => fs::write(container.file("cpu.cfs_quota_us")?, quota_us.to_string())?,
    }
    Ok(())
}

/// A row of a flat-keyed file.
fn row(text: &str, name: &str) -> Result<f64> {
    let row = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(row.with_context(|| format!("no {name} in {text}"))?.parse()?)
}

/// A row of memory.stat, by its name in v2 and in v1.
fn memory_stat(container: &Container, v2: &str, v1: &str) -> Result<f64> {
    let text = container.read("memory.stat", "memory.stat")?;
    row(&text, v1).or_else(|_| row(&text, v2))
}

#[test]
fn known_queries_return_one_series_each_with_the_kernels_values() -> Result<()> {
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus");
    }
    let (mut container, _) = match pod_with_network(WORK) {
        Ok(made) => made,
        Err(why) => return cannot_run(why),
    };
    let used = DiskUser::of(&mut container);
    limit_cpu(&container, 30_000)?;
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    let pod = container.pod("shop", "web", "app");
    let name = pod["metadata"]["name"].as_str().context("the pod has no name")?.to_owned();
    fs::write(&pods, pod_list(&[pod]))?;
    let agent = Agent::start(QUICK.into_iter().chain(["--pods-file", &pods.to_string_lossy()]))?;
    let prometheus =
        Prometheus::scraping(agent.address(), &[("kube-state-metrics", serve(state_of(&name))?)])?;
    let asked = TestQuery { prometheus, container, pod: name };
    let (cores, end) = watch(&asked.prometheus, &asked.container)?;
    asked.cpu(cores, end)?;
    asked.throttling()?;
    asked.memory()?;
    asked.network()?;
    asked.every_series_of_a_recommender_has_its_names()?;
    match used {
        Ok(used) => asked.disks(&used),
        Err(why) => cannot_run(format!("{why:#}")),
    }
}

struct TestQuery {
    prometheus: Prometheus,
    container: Container,
    pod: String,
}

impl TestQuery {
    /// The value of the only series that a query returns. The series must have exactly these labels. A query that groups by
    /// container also returns a group without a container name for the sandbox, as with a kubelet.
    fn one(&self, query: &str, labels: &[(&str, &str)], at: Option<f64>) -> Result<f64> {
        let mut found = self.prometheus.query(query, at)?;
        if labels.iter().any(|(name, _)| *name == "container") {
            found.retain(|(labels, _)| labels.contains_key("container"));
        }
        let [(found, value)] = found.as_slice() else { anyhow::bail!("{query} returns {found:?}") };
        let expected: BTreeMap<_, _> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(*found, expected, "{query}");
        Ok(*value)
    }

    fn names(&self) -> [(&str, &str); 3] {
        [("namespace", "shop"), ("pod", &self.pod), ("container", "app")]
    }

    /// The containers of a pod, as kubernetes-mixin's rules select them, joined with the pod's node.
    fn with_node(selected: &str) -> String {
        format!(
            "{selected} * on (cluster, namespace, pod) group_left(node) \
             topk by (cluster, namespace, pod) (1, max by (cluster, namespace, pod, node) (kube_pod_info{{node!=''}}))"
        )
    }

    fn cpu(&self, cores: f64, end: f64) -> Result<()> {
        assert!((0.2..0.4).contains(&cores), "the container got {cores} cores of 0.3");
        // When measuring by files, a scrape may lag behind the kernel by one sample interval.
        let behind = 0.5 / WINDOW.as_secs_f64();
        let near = |value: f64, what: &str| {
            assert!((value - cores).abs() < (0.05 + behind) * cores, "{what} is {value}, really {cores}");
        };
        let window = WINDOW.as_secs();
        let mut with_node = self.names().to_vec();
        with_node.push(("node", "here"));
        let usage = "container_cpu_usage_seconds_total";
        // kubernetes-mixin, rules/apps.libsonnet.
        for (rate, window) in [("rate", window), ("irate", 300)] {
            let query = Self::with_node(&format!(
                "sum by (cluster, namespace, pod, container) ({rate}({usage}{{job='cadvisor',image!=''}}[{window}s]))"
            ));
            let value = self.one(&query, &with_node, Some(end))?;
            if rate == "rate" {
                near(value, &query);
            } else {
                // Between two scrapes, each of which may lag by that much.
                assert!((0.1..0.5).contains(&value), "{query} is {value}");
            }
        }
        // The pod dashboard of the same package, and the share of a limit from another job.
        let query = format!(
            "sum by (container) (rate({usage}{{namespace='shop',pod='{}',container!=''}}[{window}s]))",
            self.pod
        );
        near(self.one(&query, &[("container", "app")], Some(end))?, &query);
        let query = format!(
            "sum by (container) (rate({usage}{{namespace='shop',container!=''}}[{window}s])) / \
             sum by (container) (kube_pod_container_resource_limits{{namespace='shop',resource='cpu'}})"
        );
        near(0.3 * self.one(&query, &[("container", "app")], Some(end))?, &query);
        // krr, metrics/cpu.py.
        let query = format!(
            "max(rate({usage}{{namespace='shop',pod=~'{}',container='app'}}[{window}s])) by (container, pod, job)",
            self.pod
        );
        let labels = [("container", "app"), ("pod", &*self.pod), ("job", "cadvisor")];
        near(self.one(&query, &labels, Some(end))?, &query);
        Ok(())
    }

    /// The alert CPUThrottlingHigh of kubernetes-mixin, and the ratio behind it.
    fn throttling(&self) -> Result<()> {
        let periods = |what: &str| format!("container_cpu_cfs_{what}_total{{container!='',job='cadvisor'}}");
        let (throttled, all) = (periods("throttled_periods"), periods("periods"));
        let by = "by (cluster, container, pod, namespace)";
        let alert = format!("sum(increase({throttled}[5m])) {by} / sum(increase({all}[5m])) {by} > 25 / 100");
        let ratio = self.one(&alert, &self.names(), None)?;
        assert!((0.5..=1.05).contains(&ratio), "{alert} is {ratio}");
        let stat = self.container.read_first_with("cpu.stat", "nr_periods ")?;
        let really = row(&stat, "nr_throttled")? / row(&stat, "nr_periods")?;
        let ratio = self.one(&format!("sum({throttled}) {by} / sum({all}) {by}"), &self.names(), None)?;
        assert!((ratio - really).abs() < 0.05, "the ratio is {ratio}, really {really}");
        Ok(())
    }

    fn memory(&self) -> Result<()> {
        let usage: f64 = self.container.read("memory.current", "memory.usage_in_bytes")?.trim().parse()?;
        let inactive = memory_stat(&self.container, "inactive_file", "total_inactive_file")?;
        let anon = memory_stat(&self.container, "anon", "total_rss")?;
        let file = memory_stat(&self.container, "file", "total_cache")?;
        assert!(anon > HELD, "the container holds {anon}");
        self.prometheus.catch_up()?;
        let mut with_node = self.names().to_vec();
        with_node.push(("node", "here"));
        for (family, really) in
            [("working_set_bytes", usage - inactive), ("rss", anon), ("cache", file), ("swap", 0.0)]
        {
            let family = format!("container_memory_{family}");
            let joined = Self::with_node(&format!(
                "sum by (cluster, namespace, pod, container) ({family}{{job='cadvisor',image!=''}})"
            ));
            let of_pod = format!("sum by (container) ({family}{{namespace='shop',container!='',image!=''}})");
            for (query, labels) in [(joined, &with_node[..]), (of_pod, &[("container", "app")])] {
                let value = self.one(&query, labels, None)?;
                assert!((value - really).abs() < SLACK, "{query} is {value}, really {really}");
            }
        }
        // krr, metrics/memory.py.
        let query = format!(
            "max_over_time(max(container_memory_working_set_bytes{{namespace='shop',pod=~'{}',container='app'}}) \
             by (container, pod, job)[1m:5s])",
            self.pod
        );
        let labels = [("container", "app"), ("pod", &*self.pod), ("job", "cadvisor")];
        assert!(self.one(&query, &labels, None)? > HELD);
        Ok(())
    }

    /// The pod dashboard sums without selecting a container, so the traffic of a pod must be exported once.
    fn network(&self) -> Result<()> {
        let of_pod = [("namespace", "shop"), ("pod", &*self.pod)];
        let procs = fs::read_to_string(self.container.file("cgroup.procs")?)?;
        let pid = procs.lines().next().context("the container has no process")?;
        for (family, column) in [
            ("receive_bytes", 0),
            ("receive_packets", 1),
            ("receive_packets_dropped", 3),
            ("transmit_bytes", 4),
            ("transmit_packets", 5),
            ("transmit_packets_dropped", 7),
        ] {
            let sum = || -> Result<f64> {
                let all = net_dev(pid)?;
                let of_others =
                    all.iter().filter(|(name, _)| *name != "lo").map(|(_, numbers)| numbers[column]);
                Ok(of_others.sum::<u64>() as f64)
            };
            let family = format!("container_network_{family}_total{{job='cadvisor',namespace='shop'}}");
            let query = format!("sum by (namespace, pod) ({family})");
            let before = sum()?;
            let value = eventually(Duration::from_secs(20), "what was sent is in Prometheus", || {
                let value = self.one(&query, &of_pod, None)?;
                Ok((value >= before).then_some(value))
            })?;
            assert!(value <= sum()?, "{query} is {value}, really {}", sum()?);
            let rate = self.one(&format!("sum by (namespace, pod) (irate({family}[5m]))"), &of_pod, None)?;
            assert!(rate > 0.0 || family.contains("dropped"), "{family} stands still");
        }
        Ok(())
    }

    fn disks(&self, used: &DiskUser) -> Result<()> {
        let io = disk_io(&self.container, &used.numbers)?.context("nothing is counted any more")?;
        for (family, really) in ["reads_bytes", "writes_bytes", "reads", "writes"].into_iter().zip(io) {
            let family =
                format!("container_fs_{family}_total{{job='cadvisor',container!='',namespace='shop'}}");
            let by = "by (namespace, pod, container)";
            assert_eq!(self.one(&format!("sum {by} ({family})"), &self.names(), None)?, really, "{family}");
            // The rate of the dashboard: the traffic was long ago.
            assert_eq!(self.one(&format!("sum {by} (rate({family}[5s]))"), &self.names(), None)?, 0.0);
        }
        Ok(())
    }

    /// The history loader of the vertical pod autoscaler fails at the first series without a name.
    fn every_series_of_a_recommender_has_its_names(&self) -> Result<()> {
        let selector = "{job='cadvisor',pod=~'.+',container!='POD',container!=''}";
        for query in [
            format!("rate(container_cpu_usage_seconds_total{selector}[1m])"),
            format!("container_memory_working_set_bytes{selector}"),
            format!("max_over_time(container_memory_working_set_bytes{selector}[1m])"),
        ] {
            let found = self.prometheus.query(&query, None)?;
            assert!(!found.is_empty(), "{query}");
            let mut containers = Vec::new();
            for (labels, _) in &found {
                let names = ["namespace", "pod", "container"].map(|name| labels.get(name).cloned());
                assert!(
                    names.iter().all(|name| name.as_ref().is_some_and(|name| !name.is_empty())),
                    "{labels:?}"
                );
                containers.push(names);
            }
            assert_eq!(containers.len(), 1, "one container has names here: {containers:?}");
        }
        Ok(())
    }
}
