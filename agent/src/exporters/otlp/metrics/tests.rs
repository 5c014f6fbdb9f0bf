use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use proptest::prelude::*;

use super::*;
use crate::{
    exporters::{
        fixture::{self, PROGRESS},
        prometheus::{Format, Scrape},
    },
    model::CgroupRow,
    patterns::Pattern,
};

/// A point with its resource and metric; the value of a histogram is its count.
#[derive(Clone, Debug)]
struct Point {
    resource: BTreeMap<String, String>,
    metric: String,
    unit: String,
    /// Whether it is a sum, whether that only grows, and whether it is a delta.
    sum: Option<(bool, bool)>,
    attributes: BTreeMap<String, String>,
    start: u64,
    time: u64,
    value: f64,
}

fn pairs(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|pair| {
            let text = match pair.value.and_then(|value| value.value) {
                Some(any_value::Value::StringValue(text)) => text,
                other => format!("{other:?}"),
            };
            (pair.key, text)
        })
        .collect()
}

fn points(batches: &[Batch]) -> Vec<Point> {
    let mut all = Vec::new();
    for batch in batches {
        let before = all.len();
        let request = ExportMetricsServiceRequest::decode(batch.bytes.clone()).unwrap();
        for of_resource in request.resource_metrics {
            let resource = pairs(of_resource.resource.unwrap().attributes);
            for metric in of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                let (sum, data_points) = match metric.data.unwrap() {
                    Data::Gauge(gauge) => (None, gauge.data_points),
                    Data::Sum(sum) => {
                        let is_delta = sum.aggregation_temporality() == AggregationTemporality::Delta;
                        (Some((sum.is_monotonic, is_delta)), sum.data_points)
                    }
                    Data::ExponentialHistogram(of) => {
                        let is_delta = of.aggregation_temporality() == AggregationTemporality::Delta;
                        let as_number = |point: proto::ExponentialHistogramDataPoint| {
                            let buckets = point.positive.unwrap();
                            let counted = buckets.bucket_counts.iter().sum::<u64>() + point.zero_count;
                            assert_eq!((point.scale, counted), (3, point.count));
                            NumberDataPoint {
                                attributes: point.attributes,
                                start_time_unix_nano: point.start_time_unix_nano,
                                time_unix_nano: point.time_unix_nano,
                                value: Some(number_data_point::Value::AsInt(point.count as i64)),
                                ..NumberDataPoint::default()
                            }
                        };
                        (Some((true, is_delta)), of.data_points.into_iter().map(as_number).collect())
                    }
                    other => panic!("{other:?}"),
                };
                for point in data_points {
                    let value = match point.value.unwrap() {
                        number_data_point::Value::AsDouble(value) => value,
                        number_data_point::Value::AsInt(value) => value as f64,
                    };
                    all.push(Point {
                        resource: resource.clone(),
                        metric: metric.name.clone(),
                        unit: metric.unit.clone(),
                        sum,
                        attributes: pairs(point.attributes),
                        start: point.start_time_unix_nano,
                        time: point.time_unix_nano,
                        value,
                    });
                }
            }
        }
        assert_eq!(batch.items, (all.len() - before) as u64);
    }
    all
}

fn build(builder: &mut Builder, view: &View, now: Instant, now_unix: u64) -> (Vec<Point>, SeriesCounts) {
    let export = Export {
        view,
        now,
        now_unix: Duration::from_secs(now_unix),
        endpoints: Vec::new(),
        server: fixture::server(),
        progress: PROGRESS.to_vec(),
    };
    let mut batches = Vec::new();
    let counts = builder.build(&export, |batch| batches.push(batch));
    (points(&batches), counts)
}

fn builder(limits: SeriesLimits, temporality: Temporality, started: u64) -> Builder {
    Builder::new(Vec::new(), Arc::new(limits), temporality, Duration::from_secs(started))
}

/// A container with all values.
fn container(view: &View) -> CgroupRow {
    let is_it = |row: &&CgroupRow| row.identity.of_path.level.is_container();
    view.cgroups.iter().find(is_it).unwrap().clone()
}

/// Later than all times in the fixture.
const NOW: u64 = 1_795_350_000;

#[test]
fn values_are_those_of_prometheus() {
    let (view, now) = (fixture::view(), Instant::now());
    let scrape = Scrape {
        view: Arc::new(view.clone()),
        limits: Arc::default(),
        now,
        endpoint: "otlp",
        others: Vec::new(),
        otlp: PROGRESS.to_vec(),
        server: fixture::server(),
        classic_histograms: false,
    };
    let mut text = Vec::new();
    let scraped = scrape.encode(&mut text, Format::Text).unwrap();
    let exposition = fixture::parse(std::str::from_utf8(&text).unwrap()).unwrap();

    let mut builder = builder(SeriesLimits::default(), Temporality::Cumulative, 0);
    let (points, counts) = build(&mut builder, &view, now, NOW);
    assert_eq!(counts, scraped);
    assert_eq!(points.len(), exposition.samples.len());

    for ((series, labels), value) in &exposition.samples {
        let family = catalogue::families().find(|family| family.series_name() == *series).unwrap();
        let own: Vec<&str> = family.labels.iter().map(|label| &*labels[*label]).collect();
        let called = convention::called(family, &own);
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let is_row = |resource: &BTreeMap<String, String>| {
            let get = |name: &str| resource.get(name).cloned().unwrap_or_default();
            let same = |pairs: &[(&str, &str)]| pairs.iter().all(|(of, name)| get(of) == label(name));
            match family.scope() {
                Scope::Container | Scope::Pod => same(&[("snug.cgroup.path", "id")]),
                Scope::Workload => {
                    get("snug.cgroup.path").is_empty()
                        && get("k8s.pod.name").is_empty()
                        && same(&[
                            ("k8s.namespace.name", "namespace"),
                            ("snug.workload.kind", "workload_kind"),
                            ("snug.workload.name", "workload"),
                            ("k8s.container.name", "container"),
                        ])
                }
                Scope::Status => {
                    get("snug.cgroup.path").is_empty()
                        && same(&[
                            ("k8s.namespace.name", "namespace"),
                            ("k8s.pod.name", "pod"),
                            ("k8s.container.name", "container"),
                        ])
                }
                Scope::Agent => get("service.name") == "snug-agent",
                Scope::KubeState => false,
            }
        };
        let attributes: BTreeMap<String, String> = called.attributes.into_iter().collect();
        let found: Vec<&Point> = points
            .iter()
            .filter(|point| {
                point.metric == called.name && point.attributes == attributes && is_row(&point.resource)
            })
            .collect();
        let [point] = found.as_slice() else { panic!("{series} {labels:?}: {found:?}") };
        assert!((point.value - value).abs() <= value.abs() * 1e-12, "{series} {labels:?}: {point:?}");
        assert_eq!(point.unit, called.unit);
        let kind = match called.instrument {
            Instrument::Counter | Instrument::Histogram => Some((true, false)),
            Instrument::UpDownCounter => Some((false, false)),
            Instrument::Gauge => None,
        };
        assert_eq!(point.sum, kind, "{series}");
        assert!(point.start < point.time, "{point:?}");
    }
}

#[test]
fn points_have_the_time_of_the_view_and_the_start_of_their_counter() {
    let mut view = fixture::view();
    let now = Instant::now();
    view.at = now.checked_sub(Duration::from_millis(1_500)).unwrap();
    let row = container(&view);
    view.cgroups = vec![row];
    view.cgroups[0].created_unix = 1_000.0;
    view.agent.started_unix = 2_000.0;
    let (points, _) =
        build(&mut builder(SeriesLimits::default(), Temporality::Cumulative, 2_000), &view, now, 3_000);
    assert!(points.iter().all(|point| point.time == 2_998_500_000_000));
    let start =
        |metric: &str| points.iter().find(|point| point.metric == metric).unwrap().start / 1_000_000_000;
    assert_eq!(start("container.cpu.time"), 1_000);
    // Packets are counted since the agent has seen them.
    assert_eq!(start("container.network.io"), 2_000);
    assert_eq!(start("snug.workload.restarts"), 2_000);
    // A gauge has no start.
    assert_eq!(start("snug.container.tasks"), 0);
}

#[test]
fn deltas_add_up_to_the_sums() {
    let mut view = fixture::view();
    let now = Instant::now();
    let row = container(&view);
    view.cgroups = vec![row];
    let created = view.cgroups[0].created_unix as u64;
    let mut builder = builder(SeriesLimits::default(), Temporality::Delta, created - 1);
    let path = view.cgroups[0].identity.path.to_string();
    let mut gained = 0.0;
    let mut end = 0;
    for step in 0..4 {
        let values = &mut view.cgroups[0].values;
        if let (Some(cpu), Some(windows)) = (&mut values.cpu, &mut values.cpu_windows) {
            cpu.usage_ns += step * 250_000_000;
            Arc::make_mut(windows).record(0.25, 3 * step);
        }
        let (points, _) = build(&mut builder, &view, now, created + 100 + 10 * step);
        let of = |metric: &str| {
            let mut of = points.iter().filter(|point| {
                point.metric == metric && point.resource.get("snug.cgroup.path") == Some(&path)
            });
            of.next().unwrap().clone()
        };
        let cpu = of("container.cpu.time");
        assert_eq!(cpu.sum, Some((true, true)));
        assert!(step == 0 || cpu.start == end, "{cpu:?}");
        gained += cpu.value;
        end = cpu.time;
        let windows = of("snug.container.cpu_window");
        let all = if step == 0 { 125.0 } else { 0.0 };
        assert_eq!((windows.sum, windows.value), (Some((true, true)), all + 3.0 * step as f64));
        assert_eq!(of("container.memory.usage").sum, Some((false, false)), "a size is no gain");
    }
    let usage = view.cgroups[0].values.cpu.unwrap().usage_ns;
    assert!((gained - usage as f64 / 1e9).abs() < 1e-9, "{gained}");
}

proptest! {
    #[test]
    fn limits_are_those_of_prometheus(max in 0_u64..400, deny in prop::sample::select(vec!["snug_*cpu*", "none", "*"])) {
        let limits = SeriesLimits { deny_families: vec![Pattern::new(deny)], max_series: max, ..SeriesLimits::default() };
        let view = fixture::view();
        let mut builder = builder(limits, Temporality::Cumulative, 0);
        let (points, counts) = build(&mut builder, &view, Instant::now(), NOW);
        let own = points.iter().filter(|point| point.resource.contains_key("service.name")).count();
        prop_assert_eq!(counts.written, (points.len() - own) as u64);
        prop_assert!(counts.written <= max);
        prop_assert!(own > 30, "the agent's own are never cut");
    }
}
