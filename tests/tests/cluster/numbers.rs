//! Compares Snug's values with those of the kubelet, for the same containers at about the same time.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use snug_tests::exposition::{self, Page};

use crate::node::{Node, Objects, SOON, container, node, pod, spec};

/// A script that uses a few milliseconds of CPU time per second.
const BUSY: &str = "while true; do i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; sleep 1; done";

/// Creates a pod of two containers, and waits until the agent and the kubelet's housekeeping know it and its values are stable.
fn settled<'a>(node: &'a Node, name: &str, containers: &[Value; 2]) -> Objects<'a> {
    let objects = node.apply(&[pod(name, &spec(containers))]).unwrap();
    node.metrics_until(SOON, "the pod", |page| {
        Ok(page.all("snug_container_memory_usage_bytes", &[("pod", name), ("kind", "app")]).len() == 2)
    })
    .unwrap();
    // The kubelet's housekeeping has read the containers twice by then.
    thread::sleep(Duration::from_secs(30));
    objects
}

/// Whether two values differ by at most a share of the kubelet's plus a constant.
fn is_near(our: f64, their: f64, share: f64, number: f64) -> bool {
    (our - their).abs() <= share * their + number
}

/// How a metric family of the kubelet must compare with Snug's.
enum Rule {
    /// Equal within a share of the value plus a constant, because the scrapes differ in time and the kubelet's values are up
    /// to 15 s old.
    Near(f64, f64),
    /// Like `Near`, if both have the series. The series appears with the first I/O, which may be between the two scrapes, or
    /// never if the files are cached.
    NearOrNone(f64, f64),
    /// The values differ, for this reason.
    Differs(&'static str),
    /// Snug does not serve the family, for this reason.
    Absent(&'static str),
}

const EXACT: Rule = Rule::Near(0.0, 0.0);
const BYTES: Rule = Rule::Near(0.1, 2e6);
const FEW: Rule = Rule::Near(0.2, 200.0);
const OPTIONAL: Rule = Rule::Absent("reads every process: `process-metrics` switches it on");

/// All families that the kubelet of Kubernetes 1.20 has for a pod.
const FAMILIES: [(&str, Rule); 43] = [
    ("container_cpu_cfs_periods_total", FEW),
    ("container_cpu_cfs_throttled_periods_total", FEW),
    ("container_cpu_cfs_throttled_seconds_total", Rule::Near(0.1, 1.0)),
    ("container_cpu_load_average_10s", Rule::Absent("0 at every kubelet")),
    ("container_cpu_system_seconds_total", Rule::Near(0.1, 0.3)),
    ("container_cpu_usage_seconds_total", Rule::Near(0.05, 0.3)),
    ("container_cpu_user_seconds_total", Rule::Near(0.1, 0.3)),
    ("container_file_descriptors", OPTIONAL),
    ("container_fs_reads_bytes_total", Rule::NearOrNone(0.1, 2e6)),
    ("container_fs_reads_total", Rule::NearOrNone(0.2, 200.0)),
    ("container_fs_writes_bytes_total", Rule::NearOrNone(0.1, 2e6)),
    ("container_fs_writes_total", Rule::NearOrNone(0.2, 200.0)),
    ("container_last_seen", Rule::Near(0.0, 30.0)),
    ("container_memory_cache", BYTES),
    ("container_memory_failcnt", FEW),
    (
        "container_memory_failures_total",
        Rule::Differs("this kubelet has 0 for page faults that the kernel counts"),
    ),
    ("container_memory_mapped_file", BYTES),
    ("container_memory_max_usage_bytes", BYTES),
    ("container_memory_rss", BYTES),
    ("container_memory_swap", EXACT),
    ("container_memory_usage_bytes", BYTES),
    ("container_memory_working_set_bytes", BYTES),
    ("container_network_receive_bytes_total", Rule::Near(0.1, 1e5)),
    ("container_network_receive_errors_total", EXACT),
    ("container_network_receive_packets_dropped_total", FEW),
    ("container_network_receive_packets_total", FEW),
    ("container_network_transmit_bytes_total", Rule::Near(0.1, 1e5)),
    ("container_network_transmit_errors_total", EXACT),
    ("container_network_transmit_packets_dropped_total", FEW),
    ("container_network_transmit_packets_total", FEW),
    ("container_processes", OPTIONAL),
    ("container_sockets", OPTIONAL),
    ("container_spec_cpu_period", EXACT),
    ("container_spec_cpu_quota", EXACT),
    ("container_spec_cpu_shares", EXACT),
    ("container_spec_memory_limit_bytes", EXACT),
    ("container_spec_memory_reservation_limit_bytes", EXACT),
    ("container_spec_memory_swap_limit_bytes", EXACT),
    ("container_start_time_seconds", Rule::Near(0.0, 3.0)),
    ("container_tasks_state", Rule::Absent("0 at every kubelet")),
    ("container_threads", Rule::Near(0.0, 3.0)),
    ("container_threads_max", EXACT),
    ("container_ulimits_soft", OPTIONAL),
];

/// The series of a family in the measured pod: all labels and the value. The image of a sandbox is removed, because this
/// containerd does not record it where Snug could read it.
fn of_pod(page: &Page, family: &str) -> BTreeMap<String, f64> {
    let all = page.all(family, &[("namespace", "default"), ("pod", "measured")]);
    all.into_iter()
        .map(|sample| {
            let is_sandbox = sample.label("container").is_empty() && !sample.label("name").is_empty();
            let mut labels = sample.labels.clone();
            if is_sandbox {
                labels.remove("image");
            }
            (format!("{labels:?}"), sample.value)
        })
        .collect()
}

/// The families of `/metrics/resource`, without swap, which kubelets report since 1.31 only.
const RESOURCE_FAMILIES: [(&str, f64, f64); 7] = [
    ("container_cpu_usage_seconds_total", 0.05, 0.3),
    ("container_memory_working_set_bytes", 0.1, 1e6),
    ("node_cpu_usage_seconds_total", 0.05, 30.0),
    ("node_memory_working_set_bytes", 0.2, 3e8),
    ("pod_cpu_usage_seconds_total", 0.05, 0.3),
    ("pod_memory_working_set_bytes", 0.1, 2e6),
    ("resource_scrape_error", 0.0, 0.0),
];

/// Removes the timestamps of the kubelet's samples; Snug's samples have none.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| word.len() == 13 && word.bytes().all(|byte| byte.is_ascii_digit());
    let lines = text.lines().map(|line| match line.rsplit_once(' ') {
        Some((sample, time)) if !line.starts_with('#') && is_time(time) => format!("{sample}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// The timestamp of a sample of `/metrics/resource`, in milliseconds; `None` if there is no such series.
fn time_of(text: &str, series: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit_once(' ')?.1.parse().ok().filter(|time| *time > 1_000_000_000_000)
}

#[test]
fn metrics_server_finds_the_same_series_as_at_the_kubelet() {
    let Some(node) = node() else { return };
    let idle = container("idle", "exec sleep 1000");
    let _pod = settled(&node, "topped", &[container("busy", BUSY), idle]);
    let of_kubelet = node.kubectl(&["get", "--raw", "/api/v1/nodes/node1/proxy/metrics/resource"]).unwrap();
    let first = node.text("/metrics/resource").unwrap();
    let theirs = exposition::parse(&without_times(&of_kubelet)).unwrap();
    let ours = exposition::parse(&without_times(&first)).unwrap();
    for (family, share, number) in RESOURCE_FAMILIES {
        // Kubernetes 1.29 renamed this family.
        let at_kubelet = if family == "resource_scrape_error" { "scrape_error" } else { family };
        let of_pod = |page: &Page, family: &str| -> BTreeMap<String, f64> {
            let all = page.all(family, &[]).into_iter();
            let shown = all.filter(|s| s.label("pod") == "topped" || s.label("pod").is_empty());
            shown
                .map(|s| (["namespace", "pod", "container"].map(|l| s.label(l)).join("/"), s.value))
                .collect()
        };
        let (theirs, ours) = (of_pod(&theirs, at_kubelet), of_pod(&ours, family));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{family}");
        assert!(!ours.is_empty(), "{family}");
        for (series, our) in &ours {
            let their = theirs[series];
            let near = is_near(*our, their, share, number);
            assert!(near, "{family} {series}: {our}, and the kubelet has {their}");
        }
    }
    // metrics-server drops a node or pod without CPU time or memory, and computes rates by the timestamps of two scrapes.
    thread::sleep(Duration::from_secs(3));
    let second = node.text("/metrics/resource").unwrap();
    let busy = r#"container_cpu_usage_seconds_total{container="busy",namespace="default",pod="topped"}"#;
    for series in ["node_cpu_usage_seconds_total", "node_memory_working_set_bytes", busy] {
        let times = [&of_kubelet, &first, &second].map(|text| time_of(text, series));
        let [Some(_), Some(earlier), Some(later)] = times else { panic!("{series}: {times:?}") };
        assert!((1_000..60_000).contains(&(later - earlier)), "{series}: {times:?}");
    }
    let containers = ours.all("container_cpu_usage_seconds_total", &[]);
    for sample in &containers {
        let labels = ["namespace", "pod", "container"].map(|label| (label, sample.label(label)));
        let memory = ours.all("container_memory_working_set_bytes", &labels);
        assert!(sample.value > 0.0 && memory.len() == 1 && memory[0].value > 0.0, "{labels:?}");
        assert_eq!(ours.all("container_start_time_seconds", &labels).len(), 1, "{labels:?}");
    }
}

#[test]
fn every_family_has_the_kubelet_s_series_and_values() {
    let Some(node) = node() else { return };
    let holds = container("holds", "head -c 20000000 /dev/zero > /dev/shm/held; exec sleep 1000");
    let mut limited = container("busy", BUSY);
    limited["resources"] = json!({ "limits": { "cpu": "500m" } });
    let _pod = settled(&node, "measured", &[limited, holds]);
    let of_kubelet = node.kubectl(&["get", "--raw", "/api/v1/nodes/node1/proxy/metrics/cadvisor"]).unwrap();
    let of_kubelet = exposition::parse(&without_times(&of_kubelet)).unwrap();
    let ours = node.page("/metrics/cadvisor").unwrap();
    let families: BTreeSet<&str> = of_kubelet
        .0
        .iter()
        .filter(|sample| sample.label("pod") == "measured")
        .map(|sample| sample.name.as_str())
        .collect();
    let ruled = FAMILIES
        .iter()
        .filter(|(family, rule)| !matches!(rule, Rule::NearOrNone(..)) || families.contains(family));
    assert_eq!(families, ruled.map(|(family, _)| *family).collect(), "each has its rule");
    let mut wrong = Vec::new();
    for (family, rule) in FAMILIES {
        let (theirs, ours) = (of_pod(&of_kubelet, family), of_pod(&ours, family));
        match rule {
            Rule::Absent(why) => {
                assert!(ours.is_empty(), "{family} is served, though {why}");
                continue;
            }
            Rule::Differs(why) => println!("{family} differs: {why}"),
            Rule::Near(..) | Rule::NearOrNone(..) => {}
        }
        let same_series = !matches!(rule, Rule::NearOrNone(..));
        if same_series && !ours.keys().eq(theirs.keys()) {
            wrong.push(format!("{family}: {:?}, and the kubelet has {:?}", ours.keys(), theirs.keys()));
        }
        let (Rule::Near(share, number) | Rule::NearOrNone(share, number)) = rule else { continue };
        for (labels, our) in &ours {
            let Some(their) = theirs.get(labels) else { continue };
            if !is_near(*our, *their, share, number) {
                wrong.push(format!("{family}{labels}: {our}, and the kubelet has {their}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for family in ["cpu_cores", "cpu_physical_cores", "cpu_sockets", "memory_bytes", "scrape_error"] {
        let family = format!("machine_{family}");
        let (theirs, ours) = (of_kubelet.value(&family, &[]), ours.value(&family, &[]));
        assert_eq!(ours.unwrap(), theirs.unwrap(), "{family}");
    }
}
