//! The kubelet's own numbers beside Snug's, of the same containers at about the same time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use snug_tests::exposition::{self, Page};

use crate::node::{SOON, container, node, pod, spec};

/// Families, and how far a value may be off: by a share of it and by a number, for what changed between two scrapes
/// and for the kubelet's values, which are up to 15 s old.
const FAMILIES: [(&str, f64, f64); 7] = [
    ("container_cpu_usage_seconds_total", 0.05, 0.3),
    ("container_memory_usage_bytes", 0.1, 1e6),
    ("container_memory_working_set_bytes", 0.1, 1e6),
    ("container_memory_rss", 0.1, 1e6),
    ("container_spec_memory_limit_bytes", 0.0, 0.0),
    ("container_spec_cpu_shares", 0.0, 0.0),
    ("container_start_time_seconds", 0.0, 3.0),
];

/// Namespace, pod, container and value of a pod's containers.
fn of_containers(page: &Page, family: &str) -> Vec<(String, f64)> {
    let all = page.all(family, &[("namespace", "default")]);
    let named = all
        .into_iter()
        .filter(|sample| !sample.label("container").is_empty() && sample.label("container") != "POD");
    named
        .map(|sample| {
            let labels = ["namespace", "pod", "container", "image"].map(|label| sample.label(label));
            (labels.join("/"), sample.value)
        })
        .collect()
}

/// Of `/metrics/resource`, whose swap a kubelet tells since 1.31 only.
const RESOURCE_FAMILIES: [(&str, f64, f64); 7] = [
    ("container_cpu_usage_seconds_total", 0.05, 0.3),
    ("container_memory_working_set_bytes", 0.1, 1e6),
    ("node_cpu_usage_seconds_total", 0.05, 30.0),
    ("node_memory_working_set_bytes", 0.2, 3e8),
    ("pod_cpu_usage_seconds_total", 0.05, 0.3),
    ("pod_memory_working_set_bytes", 0.1, 2e6),
    ("resource_scrape_error", 0.0, 0.0),
];

/// The kubelet gives each sample its time, in milliseconds; Snug's have none.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| word.len() == 13 && word.bytes().all(|byte| byte.is_ascii_digit());
    let lines = text.lines().map(|line| match line.rsplit_once(' ') {
        Some((sample, time)) if !line.starts_with('#') && is_time(time) => format!("{sample}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// The time of a sample of `/metrics/resource`, in milliseconds; `None` if the series is not there.
fn time_of(text: &str, series: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit_once(' ')?.1.parse().ok().filter(|time| *time > 1_000_000_000_000)
}

#[test]
fn metrics_server_finds_what_it_finds_at_the_kubelet() {
    let Some(node) = node() else { return };
    let busy = "while true; do i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; sleep 1; done";
    let both = spec(&[container("busy", busy), container("idle", "exec sleep 1000")]);
    let _pod = node.apply(&[pod("topped", &both)]).unwrap();
    node.metrics_until(SOON, "the pod", |page| {
        Ok(page.all("snug_container_memory_usage_bytes", &[("pod", "topped"), ("kind", "app")]).len() == 2)
    })
    .unwrap();
    std::thread::sleep(SOON);
    let of_kubelet = node.kubectl(&["get", "--raw", "/api/v1/nodes/node1/proxy/metrics/resource"]).unwrap();
    let first = node.text("/metrics/resource").unwrap();
    let theirs = exposition::parse(&without_times(&of_kubelet)).unwrap();
    let ours = exposition::parse(&without_times(&first)).unwrap();
    for (family, share, number) in RESOURCE_FAMILIES {
        // Kubernetes 1.29 gave it the name that it has now.
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
            let off = (our - their).abs();
            assert!(off <= share * their + number, "{family} {series}: {our}, and the kubelet has {their}");
        }
    }
    // It drops a node or a pod without CPU time or memory, and makes a rate of two scrapes by their timestamps.
    std::thread::sleep(Duration::from_secs(3));
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
fn the_kubelet_s_families_have_the_kubelet_s_series_and_values() {
    let Some(node) = node() else { return };
    let busy = "while true; do i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; sleep 1; done";
    let holds = "head -c 20000000 /dev/zero > /dev/shm/held; exec sleep 1000";
    let both = spec(&[container("busy", busy), container("holds", holds)]);
    let _pod = node.apply(&[pod("measured", &both)]).unwrap();
    node.metrics_until(SOON, "the pod", |page| {
        Ok(page.all("snug_container_memory_usage_bytes", &[("pod", "measured"), ("kind", "app")]).len() == 2)
    })
    .unwrap();
    // Until the kubelet's housekeeping has met it, and the values have settled.
    std::thread::sleep(SOON);
    let of_kubelet = node.kubectl(&["get", "--raw", "/api/v1/nodes/node1/proxy/metrics/cadvisor"]).unwrap();
    let of_kubelet = exposition::parse(&without_times(&of_kubelet)).unwrap();
    let ours = node.page("/metrics/cadvisor").unwrap();
    for (family, share, number) in FAMILIES {
        let (theirs, ours) = (of_containers(&of_kubelet, family), of_containers(&ours, family));
        let measured = |all: &[(String, f64)]| -> Vec<(String, f64)> {
            let mut all: Vec<_> =
                all.iter().filter(|(labels, _)| labels.contains("/measured/")).cloned().collect();
            all.sort_by(|one, other| one.0.cmp(&other.0));
            all
        };
        let (theirs, ours) = (measured(&theirs), measured(&ours));
        let labels =
            |all: &[(String, f64)]| all.iter().map(|(labels, _)| labels.clone()).collect::<BTreeSet<_>>();
        assert_eq!(labels(&ours), labels(&theirs), "{family}");
        assert_eq!(ours.len(), 2, "{family}: {ours:?}");
        for ((labels, our), (_, their)) in ours.iter().zip(&theirs) {
            let off = (our - their).abs();
            assert!(off <= share * their + number, "{family}{labels}: {our}, and the kubelet has {their}");
        }
    }
}
