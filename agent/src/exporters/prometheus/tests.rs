use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    config::Pattern,
    exporters::{
        catalogue::families,
        fixture::{self, Exposition, PROGRESS},
        limits::DroppableLabel,
    },
    identity::{Identity, Level},
};

fn encode(published: Published, limits: SeriesLimits, format: Format) -> (String, SeriesCounts) {
    let scrape = Scrape {
        published: Arc::new(published),
        limits: Arc::new(limits),
        now: Instant::now(),
        endpoint: "/metrics",
        others: vec![EndpointSeries { endpoint: "/metrics/cadvisor", counts: SeriesCounts::default() }],
        otlp: Some(PROGRESS),
    };
    let mut out = Vec::new();
    let counts = scrape.encode(&mut out, format).unwrap();
    (String::from_utf8(out).unwrap(), counts)
}

fn text(published: Published, limits: SeriesLimits) -> (Exposition, SeriesCounts) {
    let (text, counts) = encode(published, limits, Format::Text);
    (fixture::parse(&text).unwrap_or_else(|e| panic!("{e}")), counts)
}

#[test]
fn every_family_is_served_under_its_name_and_type() {
    let limits = SeriesLimits { kube_state: true, ..SeriesLimits::default() };
    let (exposition, counts) = text(fixture::published(), limits);
    for family in families() {
        let name = family.series_name();
        assert_eq!(exposition.types.get(&name).map(String::as_str), Some(family.kind.as_str()), "{name}");
        assert_eq!(exposition.helps[&name], family.help);
        let expected: std::collections::BTreeSet<String> =
            family.scope().label_names().iter().chain(family.labels).map(|&l| l.to_owned()).collect();
        assert_eq!(exposition.label_names(&name), expected, "{name}");
    }
    assert_eq!(exposition.types.len(), families().count());
    let own = exposition.samples.keys().filter(|(name, _)| name.starts_with("snug_agent_")).count();
    assert_eq!(counts.written, (exposition.samples.len() - own) as u64);
}

#[test]
fn each_value_is_in_its_own_family_and_in_base_units() {
    let limits = SeriesLimits { kube_state: true, ..SeriesLimits::default() };
    let (e, _) = text(fixture::published(), limits);
    let changing = ["snug_agent_build_info", "snug_agent_sample_age_seconds", "snug_agent_scrapes_total"];
    e.assert_golden("metrics.txt", |name, labels| {
        labels.get("kind").is_none_or(|kind| kind == "app") && !changing.contains(&name)
    });
    let kinds = ["cgroup", "sandbox", "unit", "app"]
        .map(|kind| e.get("snug_container_tasks", &[("kind", kind)]).len());
    assert_eq!(kinds, [1, 1, 1, 1]);
    assert_eq!(e.get("snug_container_tasks", &[]).len(), 4, "neither pods nor slices are containers");
}

#[test]
fn what_is_not_measured_has_no_series() {
    let mut published = fixture::published();
    for row in &mut published.cgroups {
        row.values = crate::values::Values::default();
        row.created_unix = f64::NAN;
    }
    published.workloads = Arc::from([]);
    published.pods = Arc::default();
    let (e, counts) = text(published, SeriesLimits::default());
    let others: Vec<_> = e.types.keys().filter(|name| !name.starts_with("snug_agent_")).collect();
    assert_eq!(others, ["snug_container_info"]);
    assert_eq!(counts.written, 4);
}

#[test]
fn without_a_limit_there_is_no_limit_and_no_throttling() {
    let mut published = fixture::published();
    for row in &mut published.cgroups {
        row.values.throttling =
            Some(crate::values::Throttling { period_ns: 100_000_000, ..Default::default() });
        row.values.memory =
            Some(crate::values::Memory { usage_bytes: 1, peak_bytes: None, limit_bytes: None });
    }
    let (e, _) = text(published, SeriesLimits::default());
    let served = |name: &str| e.types.contains_key(name);
    assert!(!served("snug_container_cpu_limit_cores") && !served("snug_container_cpu_cfs_periods_total"));
    assert!(!served("snug_container_memory_limit_bytes") && !served("snug_container_memory_peak_bytes"));
    assert!(served("snug_container_memory_usage_bytes"));
}

#[test]
fn open_metrics_says_the_same_in_its_own_words() {
    let (open, _) = encode(fixture::published(), SeriesLimits::default(), Format::OpenMetrics);
    let (text, _) = encode(fixture::published(), SeriesLimits::default(), Format::Text);
    assert!(open.ends_with("\n# EOF\n") && !text.contains("# EOF") && !text.contains("# UNIT"));
    let family = "# HELP snug_container_cpu_usage_seconds CPU time used\n\
                  # TYPE snug_container_cpu_usage_seconds counter\n\
                  # UNIT snug_container_cpu_usage_seconds seconds\n\
                  snug_container_cpu_usage_seconds_total{";
    assert!(open.starts_with(family), "{}", &open[..400]);
    let samples = |text: &str| -> Vec<String> {
        let aged = |line: &&str| !line.starts_with('#') && !line.starts_with("snug_agent_sample_age_seconds");
        text.lines().filter(aged).map(str::to_owned).collect()
    };
    assert_eq!(samples(&open), samples(&text));
    assert!(text.starts_with(
        "# HELP snug_container_cpu_usage_seconds_total CPU time used\n# TYPE snug_container_cpu_usage_seconds_total counter\n"
    ));
}

#[test]
fn limits_cut_and_say_so() {
    let limits = SeriesLimits {
        deny_families: vec![Pattern::new("snug_container_*_total")],
        deny_namespaces: vec![Pattern::new("def*")],
        ..SeriesLimits::default()
    };
    let mut published = fixture::published();
    published.cgroups.push(fixture::cgroup("/kubepods/podx/cccc", Level::Container, "cccc", None));
    let (all, _) = text(published.clone(), SeriesLimits::default());
    let (e, counts) = text(published, limits);
    assert!(!e.types.contains_key("snug_container_cpu_usage_seconds_total"));
    assert!(e.types.contains_key("snug_container_memory_usage_bytes"));
    assert_eq!(e.get("snug_container_info", &[("namespace", "default")]), [0.0; 0]);
    assert_eq!(
        e.get("snug_container_info", &[("container_id", "cccc")]),
        [0.0; 0],
        "its namespace is unknown"
    );
    assert_eq!(e.get("snug_container_info", &[("kind", "unit")]), [1.0]);
    assert_eq!(e.get("snug_workload_cpu_usage_seconds_total", &[]), [0.0; 0]);
    let cut = counts.cut().map(|(reason, n)| {
        let labels = [("endpoint", "/metrics"), ("reason", reason)];
        assert_eq!(e.get("snug_agent_series_cut", &labels), [n as f64], "{reason}");
        n
    });
    assert!(cut[0] > 0 && cut[1] > 0 && cut[2] == 0, "{cut:?}");
    assert_eq!(e.get("snug_agent_series", &[("endpoint", "/metrics")]), [counts.written as f64]);
    assert_eq!(all.samples.len() - e.samples.len(), (cut[0] + cut[1]) as usize, "what is gone was counted");
}

#[test]
fn the_cap_leaves_the_agent_alone() {
    let limits = SeriesLimits { max_series: 10, ..SeriesLimits::default() };
    let (all, everything) = text(fixture::published(), SeriesLimits::default());
    let (e, counts) = text(fixture::published(), limits);
    assert_eq!((counts.written, counts.cut_by_cap), (10, everything.written - 10));
    let agents = |e: &Exposition| e.samples.keys().filter(|(n, _)| n.starts_with("snug_agent_")).count();
    assert_eq!(agents(&e), agents(&all));
    assert_eq!(e.samples.len(), 10 + agents(&all));
}

#[test]
fn dropping_every_label_that_can_be_dropped_makes_no_duplicates() {
    let limits = SeriesLimits { drop_labels: DroppableLabel::ALL.to_vec(), ..SeriesLimits::default() };
    let mut published = fixture::published();
    let row = published.workloads[0].clone();
    // Two workloads that differ in their kind only.
    let other = crate::store::published::WorkloadRow { workload_kind: "Deployment".into(), ..row.clone() };
    published.workloads = Arc::from([other, row]);
    let (all, _) = text(published.clone(), SeriesLimits::default());
    // The reader refuses duplicates.
    let (e, _) = text(published, limits);
    assert_eq!(e.samples.len(), all.samples.len());
    let labels = e.label_names("snug_container_info");
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), ["container", "id", "namespace", "pod"]);
    assert!(e.label_names("snug_agent_lost_events_total").contains("kind"), "the agent's own labels stay");
}

proptest! {
    #[test]
    fn hostile_names_stay_inside_their_quotes(name in any::<String>(), path in "[\\PC\n\r\t\"\\\\{}#]{0,20}") {
        let mut published = fixture::published();
        let mut row = fixture::cgroup(&format!("/{path}"), Level::Container, &name, None);
        row.identity = Arc::new(Identity {
            names: Some(Arc::new(fixture::names(&name, &name, &name, None))),
            ..(*row.identity).clone()
        });
        published.cgroups = vec![row];
        for (format, end) in [(Format::Text, ""), (Format::OpenMetrics, "# EOF\n")] {
            let (text, counts) = encode(published.clone(), SeriesLimits::default(), format);
            let samples: BTreeMap<_, _> = if format == Format::Text {
                let e = fixture::parse(&text).map_err(TestCaseError::fail)?;
                let info = e.get("snug_container_info", &[("container", &name), ("image", &name)]);
                prop_assert_eq!(info, [1.0]);
                e.samples
            } else {
                prop_assert!(text.ends_with(end));
                BTreeMap::new()
            };
            prop_assert!(samples.is_empty() || samples.len() as u64 > counts.written);
        }
    }
}
