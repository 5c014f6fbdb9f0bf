use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    exporters::fixture::{self, Exposition},
    model::{ContainerKind, Identity},
    patterns::{DroppableLabel, Pattern},
};

const SAMPLES: [(&str, &str); 3] = [
    (
        "1.36-cgroup-v2",
        include_str!("../../../../tests/fixtures/kubelet-1.36-cgroup-v2/metrics-cadvisor.txt"),
    ),
    ("1.36", include_str!("../../../../tests/fixtures/kubelet-1.36/metrics-cadvisor.txt")),
    ("1.20", include_str!("../../../../tests/fixtures/kubelet-1.20/metrics-cadvisor.txt")),
];

fn encode(view: &View, limits: &SeriesLimits) -> (Exposition, SeriesCounts) {
    let mut out = Vec::new();
    let counts = Scrape::now(view, limits).encode(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    (fixture::parse(&text).unwrap_or_else(|e| panic!("{e}")), counts)
}

/// Families that some of the samples lack: newer than the kubelet, or not offered by its host.
fn may_be_missing(version: &str, family: &str) -> bool {
    let newer_than_1_36 = [
        "container_creation_time_seconds",
        "container_memory_events_high_total",
        "container_memory_events_max_total",
        "container_memory_file_dirty_bytes",
        "container_memory_file_writeback_bytes",
        "container_memory_pgscan_total",
        "container_memory_pgsteal_total",
        "container_memory_workingset_refault_file_total",
        "container_memory_workingset_refault_anon_total",
    ];
    let newer_than_1_20 = [
        "machine_swap_bytes",
        "container_cpu_cfs_burst_periods_total",
        "container_cpu_cfs_burst_seconds_total",
        "container_memory_kernel_usage",
        "container_memory_total_active_file_bytes",
        "container_memory_total_inactive_file_bytes",
        "container_oom_events_total",
        "container_blkio_device_usage_total",
    ];
    // Disk I/O by cgroup: the hybrid hosts counted none.
    let on_v2 = [
        "container_blkio_device_usage_total",
        "container_fs_reads_bytes_total",
        "container_fs_writes_bytes_total",
    ];
    newer_than_1_36.contains(&family)
        || (version != "1.36-cgroup-v2"
            && (family.starts_with("container_pressure_") || on_v2.contains(&family)))
        || (version == "1.20" && newer_than_1_20.contains(&family))
}

#[test]
fn names_types_and_labels_are_those_of_real_kubelets() {
    let (ours, _) = encode(&fixture::view(), &SeriesLimits::default());
    for (version, sample) in SAMPLES {
        let theirs = fixture::parse(sample).unwrap_or_else(|e| panic!("{version}: {e}"));
        for (family, kind) in &ours.types {
            if may_be_missing(version, family) {
                assert!(!theirs.types.contains_key(family), "{version} has {family} after all");
                continue;
            }
            assert_eq!(theirs.types.get(family), Some(kind), "{version} {family}");
            assert_eq!(theirs.label_names(family), ours.label_names(family), "{version} {family}");
        }
    }
}

/// Name, type and labels of every family that a kubelet enables of its cAdvisor.
const CADVISOR: &str = include_str!("../../../../tests/fixtures/cadvisor-families.txt");

fn assert_served_or_left_out(whose: &str, family: &str) {
    let served = families().filter(|f| f.name == family).count();
    let left_out: Vec<_> = LEFT_OUT.iter().filter(|(p, _)| Pattern::new(p).matches(family)).collect();
    assert_eq!(
        served + left_out.len(),
        1,
        "{whose} {family}: served {served} times, left out by {left_out:?}"
    );
}

#[test]
fn every_family_of_cadvisor_is_served_or_left_out_for_a_reason() {
    let (ours, _) = encode(&fixture::view(), &SeriesLimits::default());
    let mut names = BTreeSet::new();
    for line in CADVISOR.lines() {
        let mut words = line.split(' ');
        let (name, kind) = (words.next().unwrap(), words.next().unwrap());
        assert!(names.insert(name), "{name} is listed twice");
        assert_served_or_left_out("cAdvisor", name);
        if ours.types.contains_key(name) {
            assert_eq!(ours.types[name], kind, "{name}");
            assert_eq!(ours.label_names(name), words.map(str::to_owned).collect(), "{name}");
        }
    }
    for family in families() {
        assert!(names.contains(family.name), "{} is none of cAdvisor's", family.name);
        assert!(ours.types.contains_key(family.name), "{} is not served", family.name);
    }
    for (pattern, why) in LEFT_OUT {
        let pattern = Pattern::new(pattern);
        assert!(names.iter().any(|name| pattern.matches(name)), "{pattern:?} leaves nothing out");
        assert!(!why.is_empty());
    }
}

#[test]
fn families_that_only_a_kubelet_has_are_left_out_for_a_reason() {
    for (version, sample) in SAMPLES {
        let theirs = fixture::parse(sample).unwrap();
        for family in theirs.types.keys() {
            assert_served_or_left_out(version, family);
        }
    }
}

#[test]
fn levels_have_the_labels_that_queries_tell_them_apart_by() {
    let real = fixture::parse(SAMPLES[0].1).unwrap();
    let mut view = fixture::view();
    let pod = "/kubepods/burstable/pod5ab13527-1e13-487f-b057-71e702b5f80e";
    let mut docker = fixture::cgroup(
        &format!("{pod}/dddd"),
        Level::Sandbox,
        "dddd",
        Some(fixture::names("default", "", "example/pause:1", Some(ContainerKind::Sandbox))),
    );
    let mut identity = (*docker.identity).clone();
    identity.of_path.runtime = Runtime::Docker;
    docker.identity = Arc::new(identity);
    view.cgroups.push(docker);
    let (ours, _) = encode(&view, &SeriesLimits::default());
    let usage = "container_memory_usage_bytes";
    let labels = |e: &Exposition, id: &str| -> [String; 5] {
        let (_, labels) = e.samples.keys().find(|(name, l)| name == usage && l["id"] == id).unwrap();
        ["container", "image", "name", "namespace", "pod"].map(|label| labels[label].clone())
    };
    assert_eq!(labels(&ours, "/"), ["", "", "", "", ""]);
    assert_eq!(labels(&real, "/"), labels(&ours, "/"));
    assert_eq!(labels(&real, "/kubepods"), labels(&ours, "/kubepods"));
    assert_eq!(labels(&ours, pod), ["", "", "", "default", "web-0"]);
    assert_eq!(labels(&ours, &format!("{pod}/aaaa")), ["app", "example/app:1", "aaaa", "default", "web-0"]);
    assert_eq!(labels(&ours, &format!("{pod}/bbbb")), ["", "example/pause:1", "bbbb", "default", "web-0"]);
    assert_eq!(labels(&ours, &format!("{pod}/dddd"))[0], "POD");
    assert_eq!(labels(&ours, "/system.slice/cron.service"), ["", "", "", "", ""]);
    assert!(!ours.samples.keys().any(|(_, l)| l.get("id").is_some_and(|id| id == "/plain")));
    // The same shape in the sample: pod cgroups have names and no image, sandboxes an image and no container.
    let shape = |e: &Exposition| -> BTreeSet<[bool; 3]> {
        let of = |l: &std::collections::BTreeMap<String, String>| {
            ["container", "image", "pod"].map(|k| !l[k].is_empty())
        };
        let rows = e.samples.keys().filter(|(name, l)| name == usage && l["container"] != "POD");
        rows.map(|(_, l)| of(l)).collect()
    };
    assert_eq!(shape(&ours), shape(&real));
}

#[test]
fn each_value_is_in_its_own_family_and_has_the_kubelets_units() {
    let (e, _) = encode(&fixture::view(), &SeriesLimits::default());
    e.assert_golden("cadvisor.txt", |name, labels| {
        labels.get("container").is_none_or(|name| name == "app") && name != "container_last_seen"
    });
    assert_eq!(e.get("container_spec_memory_limit_bytes", &[("id", "/")]), [1_073_741_824.0]);
}

#[test]
fn no_limit_is_zero_for_memory_and_nothing_for_cpu() {
    let mut view = fixture::view();
    for row in &mut view.cgroups {
        if let Some(throttling) = &mut row.values.throttling {
            throttling.quota_ns = None;
        }
        row.values.memory = Some(crate::values::Memory { usage_bytes: 1, ..Default::default() });
        row.values.pids = Some(crate::values::Pids { current: 1, limit: None });
    }
    let (e, _) = encode(&view, &SeriesLimits::default());
    assert!(!e.types.keys().any(|name| name.contains("_cfs_") || name.ends_with("_cpu_quota")));
    assert!(e.types.contains_key("container_spec_cpu_period"));
    assert_eq!(e.get("container_spec_memory_limit_bytes", &[("container", "app")]), [0.0]);
    assert_eq!(e.get("container_threads_max", &[("container", "app")]), [0.0]);
    assert!(!e.types.contains_key("container_memory_max_usage_bytes"));
}

#[test]
fn old_values_are_an_error() {
    let view = fixture::view();
    let limits = SeriesLimits::default();
    for (age, error) in [(STALE_AFTER, "0"), (STALE_AFTER + Duration::from_millis(1), "1")] {
        let scrape = Scrape { now: view.at + age, ..Scrape::now(&view, &limits) };
        let mut out = Vec::new();
        scrape.encode(&mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().ends_with(&format!("\ncontainer_scrape_error {error}\n")));
    }
}

#[test]
fn limits_cut_and_count() {
    let view = fixture::view();
    let (all, everything) = encode(&view, &SeriesLimits::default());
    // Limits do not apply to the two series about the scrape itself.
    assert_eq!(everything.written as usize, all.samples.len() - 2);
    let limits = SeriesLimits {
        deny_families: vec![Pattern::new("container_pressure_*")],
        allow_namespaces: vec![Pattern::new("kube-*")],
        drop_labels: DroppableLabel::ALL.to_vec(),
        max_series: 100,
        ..SeriesLimits::default()
    };
    let (e, counts) = encode(&view, &limits);
    assert_eq!(counts.written, 100);
    assert_eq!(e.samples.len(), 102);
    assert_eq!(everything.written, counts.written + counts.cut().iter().map(|(_, n)| n).sum::<u64>());
    assert!(counts.cut().iter().all(|(_, n)| *n > 0), "{counts:?}");
    assert!(e.get("container_memory_rss", &[("namespace", "default")]).is_empty());
    assert_eq!(e.get("container_memory_rss", &[("id", "/")]), [41.0]);
    let labels: Vec<_> = e.label_names("container_memory_rss").into_iter().collect();
    assert_eq!(labels, ["container", "id", "namespace", "pod"]);
}

proptest! {
    #[test]
    fn hostile_names_stay_inside_their_quotes(name in any::<String>(), path in "[\\PC\n\r\t\"\\\\{}#=, ]{0,20}") {
        let mut view = fixture::view();
        let path = format!("/{path}");
        let mut row = fixture::cgroup(&path, Level::Container, &name, None);
        let names = fixture::names(&name, &name, &name, None);
        row.identity = Arc::new(Identity { names: Some(Arc::new(names)), ..(*row.identity).clone() });
        view.cgroups = vec![row];
        let mut out = Vec::new();
        let counts = Scrape::now(&view, &SeriesLimits::default()).encode(&mut out).unwrap();
        let e = fixture::parse(&String::from_utf8(out).unwrap()).map_err(TestCaseError::fail)?;
        prop_assert_eq!(e.samples.len() as u64, counts.written + 2);
        let labels = [("id", &*path), ("name", &name), ("image", &name), ("namespace", &name), ("container", &name)];
        prop_assert_eq!(e.get("container_memory_rss", &labels), [41.0]);
    }
}
