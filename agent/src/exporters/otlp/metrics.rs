//! The catalogue as OTLP: one resource for each row, one metric for each name.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value},
    metrics::v1::{
        self as proto, AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
        metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message as _;
use snug_sizing::histogram;

use super::{
    convention::{self, Called, Instrument, SCHEMA_URL},
    delta::{Deltas, OfRow, Sum},
    queue::Batch,
    resources::{self, attribute, scope},
};
use crate::{
    config::Temporality,
    exporters::{
        catalogue::{self, AgentView, Entity, Family, MetricRow, Scope, Value},
        limits::SeriesLimits,
        resource::{Attributes, Common},
        series::{EndpointSeries, Progress, SeriesCounts, ServerRow, Signal},
    },
    model::View,
    values::Distribution,
};

/// Resources in one request: a few hundred kilobytes, far below the 4 MiB that gRPC servers accept.
const RESOURCES: usize = 64;

/// The input of an export.
#[derive(Debug)]
pub(super) struct Export<'a> {
    pub(super) view: &'a View,
    /// The time of the export, by both clocks.
    pub(super) now: Instant,
    pub(super) now_unix: Duration,
    /// Series counts of the metric endpoints at their last scrape.
    pub(super) endpoints: Vec<EndpointSeries>,
    /// Progress of the exporter by signal.
    pub(super) progress: Vec<(Signal, Progress)>,
    /// The state of the HTTP server.
    pub(super) server: ServerRow,
}

/// Builds requests. With delta temporality it keeps the values of the previous export.
#[derive(Debug)]
pub(super) struct Builder {
    common: Common,
    limits: Arc<SeriesLimits>,
    deltas: Option<Deltas>,
}

impl Builder {
    /// A builder for an agent that started at `started` since the Unix epoch.
    pub(super) fn new(
        given: Vec<(String, String)>,
        limits: Arc<SeriesLimits>,
        temporality: Temporality,
        started: Duration,
    ) -> Self {
        let deltas = (temporality == Temporality::Delta).then(|| Deltas::since(nanos(started)));
        Self { common: Common { given }, limits, deltas }
    }

    /// Builds batches of all rows. Returns the counts of series, without the agent's own.
    pub(super) fn build(&mut self, export: &Export<'_>, mut take: impl FnMut(Batch)) -> SeriesCounts {
        let view = export.view;
        // Points have the time of the view.
        let age = export.now.saturating_duration_since(view.at);
        let time = nanos(export.now_unix.saturating_sub(age));
        let started = nanos(Duration::try_from_secs_f64(view.agent.started_unix).unwrap_or_default());
        if let Some(deltas) = &mut self.deltas {
            deltas.begin(time);
        }
        let counts = Cell::new(SeriesCounts::default());
        let mut request = Request::default();
        let Self { common, limits, deltas } = self;
        let mut add = |row: &MetricRow<'_>, name: String, start: u64, resource: &dyn Fn() -> Attributes| {
            let mut writer = RowWriter {
                metrics: Vec::new(),
                points: 0,
                deltas: deltas.as_mut().map(|deltas| deltas.row(name, start)),
                start,
                started,
                time,
            };
            // Limits do not apply to the agent's own series.
            let limits = (row.scope != Scope::Agent).then_some(&**limits);
            for family in row.scope.families() {
                let family_admitted =
                    limits.is_none_or(|limits| limits.family(&[family.name, &family.series_name()]));
                row.samples(family, &mut |own, value| {
                    let admitted = |limits: &SeriesLimits| {
                        let mut so_far = counts.get();
                        let admitted = so_far.admit(limits, family_admitted, row.admitted);
                        counts.set(so_far);
                        admitted
                    };
                    let exported = value.is_finite() && limits.is_none_or(admitted);
                    if exported {
                        writer.sample(family, own, value);
                    }
                });
            }
            if !writer.metrics.is_empty() {
                request.add(resources::resource(resource()), writer);
                if request.resources.len() >= RESOURCES {
                    take(std::mem::take(&mut request).into_batch());
                }
            }
        };

        for row in catalogue::rows(view, limits) {
            match row.entity {
                Entity::Cgroup(cgroup) => {
                    let created = Duration::try_from_secs_f64(cgroup.created_unix).unwrap_or_default();
                    let name = format!("{} {}", cgroup.identity.path, created.as_nanos());
                    add(&row, name, nanos(created), &|| common.cgroup(cgroup, view));
                }
                Entity::Workload(workload) => {
                    let name: Vec<&str> = row.labels().map(|(_, value)| value).collect();
                    add(&row, name.join("\n"), started, &|| common.workload(workload, view));
                }
                Entity::Status(pod, container) => {
                    let name = format!("{} {}", pod.uid, container.names.container);
                    add(&row, name, started, &|| common.status(container, &pod.uid, view));
                }
                // Names of kube-state-metrics are for Prometheus only. The agent's row comes last.
                Entity::KubeState(_) | Entity::Agent(_) => {}
            }
        }
        // The agent's row comes last, because it has the counts of this export.
        let mut endpoints = vec![EndpointSeries { endpoint: super::ENDPOINT, counts: counts.get() }];
        endpoints.extend_from_slice(&export.endpoints);
        let agent = AgentView {
            row: &view.agent,
            now: export.now,
            endpoints: &endpoints,
            otlp: &export.progress,
            server: export.server,
        };
        add(&MetricRow::agent(&agent), "agent".to_owned(), started, &|| common.agent(view));
        if !request.resources.is_empty() {
            take(request.into_batch());
        }
        if let Some(deltas) = &mut self.deltas {
            deltas.end();
        }
        counts.get()
    }
}

/// The metrics of one row.
struct RowWriter<'a> {
    metrics: Vec<Metric>,
    points: u64,
    deltas: Option<OfRow<'a>>,
    /// Nanoseconds since the Unix epoch: the start of the row's counters, the start of the agent, and the time of the values.
    start: u64,
    started: u64,
    time: u64,
}

impl RowWriter<'_> {
    fn sample(&mut self, family: &Family, own: &[&str], value: Value<'_>) {
        let called = convention::called(family, own);
        let start = if family.since_agent { self.start.max(self.started) } else { self.start };
        let (value, start) = match (&mut self.deltas, called.instrument) {
            (Some(deltas), Instrument::Counter | Instrument::Histogram) => {
                let name = format!("{}\n{}", family.name, own.join("\n"));
                match deltas.gained(name, value) {
                    Some(gained) => gained,
                    None => return,
                }
            }
            _ => (Sum::from_value(value), start),
        };
        let Called { name, unit, instrument, attributes } = called;
        let attributes = attributes
            .into_iter()
            .map(|(name, value)| attribute(name, any_value::Value::StringValue(value)))
            .collect();
        self.points += 1;
        let is_delta = self.deltas.is_some();
        let there = self.metrics.iter_mut().rfind(|metric| metric.name == name);
        let metric = match there {
            Some(metric) => metric,
            None => {
                self.metrics.push(Metric {
                    name,
                    description: family.help.to_owned(),
                    unit: unit.to_owned(),
                    data: Some(data(instrument, is_delta)),
                    ..Metric::default()
                });
                let Some(metric) = self.metrics.last_mut() else { return };
                metric
            }
        };
        match (&mut metric.data, value) {
            (Some(Data::ExponentialHistogram(histogram)), Sum::Distribution(distribution)) => {
                histogram.data_points.push(distribution_point(&distribution, attributes, start, self.time));
            }
            (
                Some(Data::Sum(proto::Sum { data_points, .. }) | Data::Gauge(Gauge { data_points })),
                value @ (Sum::Int(_) | Sum::Float(_)),
            ) => {
                data_points.push(NumberDataPoint {
                    attributes,
                    start_time_unix_nano: if instrument == Instrument::Gauge { 0 } else { start },
                    time_unix_nano: self.time,
                    value: number(&value),
                    ..NumberDataPoint::default()
                });
            }
            _ => {}
        }
    }
}

fn data(instrument: Instrument, is_delta: bool) -> Data {
    let temporality = |is_delta| {
        if is_delta { AggregationTemporality::Delta } else { AggregationTemporality::Cumulative }.into()
    };
    match instrument {
        Instrument::Gauge => Data::Gauge(Gauge::default()),
        Instrument::Counter => Data::Sum(proto::Sum {
            data_points: Vec::new(),
            aggregation_temporality: temporality(is_delta),
            is_monotonic: true,
        }),
        // Gauges have no delta.
        Instrument::UpDownCounter => Data::Sum(proto::Sum {
            data_points: Vec::new(),
            aggregation_temporality: temporality(false),
            is_monotonic: false,
        }),
        Instrument::Histogram => Data::ExponentialHistogram(proto::ExponentialHistogram {
            data_points: Vec::new(),
            aggregation_temporality: temporality(is_delta),
        }),
    }
}

fn distribution_point(
    distribution: &Distribution,
    attributes: Vec<KeyValue>,
    start: u64,
    time: u64,
) -> proto::ExponentialHistogramDataPoint {
    let (zero_count, offset, counts) = distribution.histogram.exponential();
    proto::ExponentialHistogramDataPoint {
        attributes,
        start_time_unix_nano: start,
        time_unix_nano: time,
        count: distribution.histogram.count(),
        sum: Some(distribution.sum),
        scale: histogram::PER_DOUBLING.ilog2() as i32,
        zero_count,
        zero_threshold: distribution.zero_threshold,
        positive: Some(proto::exponential_histogram_data_point::Buckets {
            offset,
            bucket_counts: counts.collect(),
        }),
        ..Default::default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "only counts beyond 2^63 lose anything")]
fn number(value: &Sum) -> Option<number_data_point::Value> {
    match value {
        Sum::Int(value) => Some(
            i64::try_from(*value)
                .map_or(number_data_point::Value::AsDouble(*value as f64), number_data_point::Value::AsInt),
        ),
        Sum::Float(value) => Some(number_data_point::Value::AsDouble(*value)),
        Sum::Distribution(_) => None,
    }
}

/// A request under construction.
#[derive(Default)]
struct Request {
    resources: Vec<ResourceMetrics>,
    points: u64,
}

impl Request {
    fn add(&mut self, resource: Resource, row: RowWriter<'_>) {
        self.points += row.points;
        let metrics =
            ScopeMetrics { scope: Some(scope()), metrics: row.metrics, schema_url: SCHEMA_URL.to_owned() };
        self.resources.push(ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![metrics],
            schema_url: SCHEMA_URL.to_owned(),
        });
    }

    fn into_batch(self) -> Batch {
        let request = ExportMetricsServiceRequest { resource_metrics: self.resources };
        Batch { bytes: request.encode_to_vec().into(), items: self.points }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
