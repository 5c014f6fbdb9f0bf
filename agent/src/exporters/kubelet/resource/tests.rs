use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::*;
use crate::exporters::{
    fixture::{self, Exposition},
    limits::SeriesLimits,
};

const SAMPLES: [(&str, &str); 3] = [
    (
        "1.36-cgroup-v2",
        include_str!("../../../../../tests/fixtures/kubelet-1.36-cgroup-v2/metrics-resource.txt"),
    ),
    ("1.36", include_str!("../../../../../tests/fixtures/kubelet-1.36/metrics-resource.txt")),
    ("1.20", include_str!("../../../../../tests/fixtures/kubelet-1.20/metrics-resource.txt")),
];

fn text(view: &View, limits: &SeriesLimits) -> String {
    let mut out = Vec::new();
    Scrape::now(view, limits).encode_resource(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn encode(view: &View) -> Exposition {
    fixture::parse(&text(view, &SeriesLimits::default())).unwrap()
}

/// Names of families whose samples have a timestamp, and of those that have none.
fn by_timestamp(text: &str) -> BTreeMap<&str, bool> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let named = samples.map(|line| {
        let name = line.split(['{', ' ']).next().unwrap();
        let after_labels = line.rsplit_once('}').map_or(line, |(_, after)| after.trim_start());
        let words = after_labels.split(' ').filter(|word| !word.starts_with(char::is_alphabetic)).count();
        (name, words == 2)
    });
    named.collect()
}

#[test]
fn names_types_labels_and_timestamps_are_those_of_real_kubelets() {
    let view = fixture::view();
    let ours = encode(&view);
    let timed = text(&view, &SeriesLimits::default());
    for (version, sample) in SAMPLES {
        let theirs = fixture::parse(sample).unwrap_or_else(|e| panic!("{version}: {e}"));
        for (family, kind) in &theirs.types {
            // Kubernetes 1.29 gave it the name that it has now.
            let family = if family == "scrape_error" { "resource_scrape_error" } else { family };
            assert_eq!(ours.types.get(family), Some(kind), "{version} {family}");
            assert_eq!(ours.label_names(family), theirs.label_names(family), "{version} {family}: labels");
        }
        let ours = by_timestamp(&timed);
        for (family, timed) in by_timestamp(sample).into_iter().filter(|(name, _)| *name != "scrape_error") {
            assert_eq!(ours.get(family), Some(&timed), "{version} {family}: whether it has a timestamp");
        }
    }
    // All that we have, some kubelet has.
    let newest = fixture::parse(SAMPLES[1].1).unwrap();
    assert!(ours.types.keys().all(|family| newest.types.contains_key(family)));
}

#[test]
fn each_value_is_in_its_own_family() {
    let e = encode(&fixture::view());
    let app = [("container", "app"), ("namespace", "default"), ("pod", "web-0")];
    for (family, value) in [
        ("container_cpu_usage_seconds_total", 1.5),
        ("container_memory_working_set_bytes", 3072.0),
        ("container_start_time_seconds", 1_795_340_000.25),
        ("container_swap_limit_bytes", 32.0),
        ("container_swap_usage_bytes", 31.0),
    ] {
        assert_eq!(e.get(family, &app), [value], "{family}");
        assert_eq!(e.get(family, &[]).len(), 1, "{family}: no sandbox, no unit, no slice");
    }
    for level in ["node", "pod"] {
        assert_eq!(e.get(&format!("{level}_cpu_usage_seconds_total"), &[]), [1.5]);
        assert_eq!(e.get(&format!("{level}_memory_working_set_bytes"), &[]), [3072.0]);
        assert_eq!(e.get(&format!("{level}_swap_usage_bytes"), &[]), [31.0]);
    }
    assert_eq!(e.get("resource_scrape_error", &[]), [0.0]);
}

#[test]
fn samples_say_when_the_cpu_was_read() {
    let mut view = fixture::view();
    let read = view.at;
    for source in &mut view.agent.sources {
        source.measurement = Measurement::Cpu;
        source.sampled_at = Some(read);
    }
    let limits = SeriesLimits::default();
    let scrape = Scrape {
        now: read + Duration::from_millis(1_500),
        now_unix: Duration::from_millis(1_795_340_010_750),
        ..Scrape::now(&view, &limits)
    };
    let mut out = Vec::new();
    scrape.encode_resource(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\nnode_cpu_usage_seconds_total 1.5 1795340009250\n"), "{text}");
    assert!(text.contains("pod=\"web-0\"} 3072 1795340009250\n"), "{text}");
}

#[test]
fn of_a_container_that_was_restarted_the_newer_counts_and_one_that_ended_does_not() {
    let mut view = fixture::view();
    let app = view.cgroups.iter().position(|row| row.identity.of_path.id == "aaaa").unwrap();
    let again = |seconds: f64, bytes: u64| {
        let mut row = view.cgroups[app].clone();
        row.created_unix += seconds;
        row.values.working_set = row.values.working_set.map(|set| crate::values::WorkingSet { bytes, ..set });
        row
    };
    let (older, newer) = (again(-10.0, 1), again(10.0, 2));
    let mut ended = again(20.0, 0);
    ended.values.pids = ended.values.pids.map(|pids| crate::values::Pids { current: 0, ..pids });
    view.cgroups.extend([older, newer, ended]);
    let e = encode(&view);
    assert_eq!(e.get("container_memory_working_set_bytes", &[("container", "app")]), [2.0]);
}

#[test]
fn containers_without_names_are_left_out_and_limits_apply() {
    let mut view = fixture::view();
    for row in &mut view.cgroups {
        let identity = crate::identity::Identity { names: None, ..(*row.identity).clone() };
        row.identity = Arc::new(identity);
    }
    let e = encode(&view);
    assert_eq!(e.types.len(), 4, "the node's and the error: {:?}", e.types);
    let limits = SeriesLimits {
        deny_namespaces: vec![crate::patterns::Pattern::new("default")],
        deny_families: vec![crate::patterns::Pattern::new("node_swap_*")],
        ..SeriesLimits::default()
    };
    let mut out = Vec::new();
    let view = fixture::view();
    let counts = Scrape::now(&view, &limits).encode_resource(&mut out).unwrap();
    assert_eq!((counts.written, counts.cut_by_namespace, counts.cut_by_family), (2, 8, 1));
}

#[test]
fn old_values_are_an_error() {
    let view = fixture::view();
    let limits = SeriesLimits::default();
    let scrape = Scrape { now: view.at + Duration::from_secs(11), ..Scrape::now(&view, &limits) };
    let mut out = Vec::new();
    scrape.encode_resource(&mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().ends_with("\nresource_scrape_error 1\n"));
}
