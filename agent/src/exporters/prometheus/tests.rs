mod reference;

use std::collections::BTreeMap;

use proptest::prelude::*;

use prost::Message as _;
use snug_sizing::workload::Resources;

use super::{protobuf::MetricFamily, *};
use crate::{
    exporters::{
        catalogue::families,
        fixture::{self, Exposition, PROGRESS},
    },
    model::{Identity, Level},
    patterns::{DroppableLabel, Pattern},
};

fn scrape(view: View, limits: SeriesLimits) -> Scrape {
    Scrape {
        view: Arc::new(view),
        limits: Arc::new(limits),
        now: Instant::now(),
        endpoint: "/metrics",
        others: vec![EndpointSeries { endpoint: "/metrics/cadvisor", counts: SeriesCounts::default() }],
        otlp: PROGRESS.to_vec(),
        server: fixture::server(),
        classic_histograms: false,
    }
}

fn encode(view: View, limits: SeriesLimits, format: Format) -> (String, SeriesCounts) {
    let mut out = Vec::new();
    let counts = scrape(view, limits).encode(&mut out, format).unwrap();
    (String::from_utf8(out).unwrap(), counts)
}

fn text(view: View, limits: SeriesLimits) -> (Exposition, SeriesCounts) {
    let (text, counts) = encode(view, limits, Format::Text);
    (fixture::parse(&text).unwrap_or_else(|e| panic!("{e}")), counts)
}

#[test]
fn every_family_is_served_under_its_name_and_type() {
    let limits = SeriesLimits { kube_state: true, ..SeriesLimits::default() };
    let (exposition, counts) = text(fixture::view(), limits);
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
    let (e, _) = text(fixture::view(), limits);
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
fn values_that_are_not_measured_have_no_series() {
    let mut view = fixture::view();
    for row in &mut view.cgroups {
        row.values = crate::values::Values::default();
        row.created_unix = f64::NAN;
        if let Some(names) = &mut Arc::make_mut(&mut row.identity).names {
            Arc::make_mut(names).resources = Resources::default();
        }
    }
    view.workloads = Arc::from([]);
    view.pods = Arc::default();
    let (e, counts) = text(view, SeriesLimits::default());
    let others: Vec<_> = e.types.keys().filter(|name| !name.starts_with("snug_agent_")).collect();
    assert_eq!(others, ["snug_container_info"]);
    assert_eq!(counts.written, 4);
}

#[test]
fn without_a_limit_there_is_no_limit_and_no_throttling() {
    let mut view = fixture::view();
    for row in &mut view.cgroups {
        row.values.throttling =
            Some(crate::values::Throttling { period_ns: 100_000_000, ..Default::default() });
        row.values.memory = Some(crate::values::Memory { usage_bytes: 1, ..Default::default() });
    }
    let (e, _) = text(view, SeriesLimits::default());
    let served = |name: &str| e.types.contains_key(name);
    assert!(!served("snug_container_cpu_limit_cores") && !served("snug_container_cpu_cfs_periods_total"));
    assert!(!served("snug_container_memory_limit_bytes") && !served("snug_container_memory_peak_bytes"));
    assert!(served("snug_container_memory_usage_bytes"));
}

#[test]
fn open_metrics_says_the_same_in_its_own_words() {
    let (open, _) = encode(fixture::view(), SeriesLimits::default(), Format::OpenMetrics);
    let (text, _) = encode(fixture::view(), SeriesLimits::default(), Format::Text);
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

/// Messages one after the other.
fn messages(scrape: Scrape) -> BTreeMap<String, MetricFamily> {
    let mut out = Vec::new();
    scrape.encode(&mut out, Format::Protobuf).unwrap();
    let mut rest = out.as_slice();
    let mut families = BTreeMap::new();
    while !rest.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut rest).unwrap();
        assert!(families.insert(family.name.clone(), family).is_none(), "a family twice");
    }
    families
}

#[test]
fn protobuf_says_the_same() {
    let limits = SeriesLimits { kube_state: true, ..SeriesLimits::default() };
    let (exposition, _) = text(fixture::view(), limits.clone());
    let families = messages(scrape(fixture::view(), limits));
    assert!(families.keys().eq(exposition.types.keys()));
    let mut series = 0;
    for (name, family) in &families {
        assert_eq!(family.help, exposition.helps[name]);
        assert_eq!(format!("{:?}", family.r#type()).to_lowercase(), exposition.types[name]);
        for metric in &family.metric {
            let labels: BTreeMap<&str, &str> =
                metric.label.iter().map(|pair| (&*pair.name, &*pair.value)).collect();
            let found = exposition.samples.iter().find(|((of, all), _)| {
                let filled = all.iter().filter(|(_, value)| !value.is_empty());
                of == name && filled.map(|(name, value)| (&**name, &**value)).eq(labels.clone())
            });
            let value = match (&metric.counter, &metric.gauge, &metric.histogram) {
                (Some(number), None, None) | (None, Some(number), None) => number.value,
                (None, None, Some(histogram)) => histogram.sample_count as f64,
                other => panic!("{name}: {other:?}"),
            };
            // The age of samples goes on.
            let (_, expected) = found.unwrap_or_else(|| panic!("{name} {labels:?}"));
            assert!(
                *expected == value || name == "snug_agent_sample_age_seconds",
                "{name}: {expected} {value}"
            );
            series += 1;
        }
    }
    assert_eq!(series, exposition.samples.len());
}

#[test]
fn histograms_are_complete_in_protobuf_and_optionally_in_classic_buckets() {
    const NAME: &str = "snug_container_cpu_window_cores";
    let families = messages(scrape(fixture::view(), SeriesLimits::default()));
    let histogram = families[NAME].metric[0].histogram.clone().unwrap();
    assert_eq!((histogram.schema, histogram.zero_count, histogram.sample_count), (3, 100, 125));
    assert!((histogram.sample_sum - 12.0).abs() < 1e-9);
    // Prometheus: bucket i ends at 2^(i/8). 0.1 lies in (2^(-27/8), 2^(-26/8)], 2 in (2^(7/8), 2].
    let span = &histogram.positive_span[0];
    assert_eq!((histogram.positive_span.len(), span.offset, span.length), (1, -26, 8 + 26 + 1));
    let mut counts = Vec::new();
    for delta in &histogram.positive_delta {
        counts.push(counts.last().unwrap_or(&0) + delta);
    }
    assert_eq!((counts[0], counts[34], counts.iter().sum::<i64>()), (20, 5, 25));
    assert!(histogram.bucket.is_empty());

    let (plain, _) = text(fixture::view(), SeriesLimits::default());
    let buckets = |e: &Exposition| -> Vec<(f64, f64)> {
        let of = |((name, labels), count): (&fixture::Series, &f64)| {
            let ours = name == "snug_container_cpu_window_cores_bucket" && labels["kind"] == "app";
            ours.then(|| (labels["le"].parse().unwrap(), *count))
        };
        let mut all: Vec<(f64, f64)> = e.parts.iter().filter_map(of).collect();
        all.sort_by(|one, other| one.0.total_cmp(&other.0));
        all
    };
    assert_eq!(buckets(&plain), [(f64::INFINITY, 125.0)]);

    let mut classic = scrape(fixture::view(), SeriesLimits::default());
    classic.classic_histograms = true;
    let mut out = Vec::new();
    classic.encode(&mut out, Format::Text).unwrap();
    let exposition = fixture::parse(std::str::from_utf8(&out).unwrap()).unwrap();
    let buckets = buckets(&exposition);
    assert_eq!(buckets.len(), 20);
    let at = |bound: f64| buckets.iter().find(|(le, _)| *le == bound).unwrap().1;
    assert_eq!((at(0.0625), at(0.125), at(1.0), at(2.0), at(256.0)), (100.0, 120.0, 120.0, 125.0, 125.0));

    let mut classic = scrape(fixture::view(), SeriesLimits::default());
    classic.classic_histograms = true;
    let histogram = messages(classic)[NAME].metric[0].histogram.clone().unwrap();
    let cumulative: Vec<(f64, u64)> =
        histogram.bucket.iter().map(|bucket| (bucket.upper_bound, bucket.cumulative_count)).collect();
    assert!(cumulative.iter().map(|(le, count)| (*le, *count as f64)).eq(buckets), "{cumulative:?}");
}

#[test]
fn limits_cut_and_say_so() {
    let limits = SeriesLimits {
        deny_families: vec![Pattern::new("snug_container_*_total")],
        deny_namespaces: vec![Pattern::new("def*")],
        ..SeriesLimits::default()
    };
    let mut view = fixture::view();
    view.cgroups.push(fixture::cgroup("/kubepods/podx/cccc", Level::Container, "cccc", None));
    let (all, _) = text(view.clone(), SeriesLimits::default());
    let (e, counts) = text(view, limits);
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
    assert_eq!(all.samples.len() - e.samples.len(), (cut[0] + cut[1]) as usize, "omitted series are counted");
}

#[test]
fn the_cap_leaves_the_agent_alone() {
    let limits = SeriesLimits { max_series: 10, ..SeriesLimits::default() };
    let (all, everything) = text(fixture::view(), SeriesLimits::default());
    let (e, counts) = text(fixture::view(), limits);
    assert_eq!((counts.written, counts.cut_by_cap), (10, everything.written - 10));
    let agents = |e: &Exposition| e.samples.keys().filter(|(n, _)| n.starts_with("snug_agent_")).count();
    assert_eq!(agents(&e), agents(&all));
    assert_eq!(e.samples.len(), 10 + agents(&all));
}

#[test]
fn dropping_every_label_that_can_be_dropped_makes_no_duplicates() {
    let limits = SeriesLimits { drop_labels: DroppableLabel::ALL.to_vec(), ..SeriesLimits::default() };
    let mut view = fixture::view();
    let row = view.workloads[0].clone();
    // Two workloads that differ in their kind only.
    let other = crate::model::WorkloadRow { workload_kind: "Deployment".into(), ..row.clone() };
    view.workloads = Arc::from([other, row]);
    let (all, _) = text(view.clone(), SeriesLimits::default());
    // The reader refuses duplicates.
    let (e, _) = text(view, limits);
    assert_eq!(e.samples.len(), all.samples.len());
    let labels = e.label_names("snug_container_info");
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), ["container", "id", "namespace", "pod"]);
    assert!(e.label_names("snug_agent_lost_events_total").contains("kind"), "the agent's own labels stay");
}

proptest! {
    #[test]
    fn hostile_names_stay_inside_their_quotes(name in any::<String>(), path in "[\\PC\n\r\t\"\\\\{}#]{0,20}") {
        let mut view = fixture::view();
        let mut row = fixture::cgroup(&format!("/{path}"), Level::Container, &name, None);
        row.identity = Arc::new(Identity {
            names: Some(Arc::new(fixture::names(&name, &name, &name, None))),
            ..(*row.identity).clone()
        });
        view.cgroups = vec![row];
        for (format, end) in [(Format::Text, ""), (Format::OpenMetrics, "# EOF\n")] {
            let (text, counts) = encode(view.clone(), SeriesLimits::default(), format);
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
