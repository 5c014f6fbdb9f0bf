//! Prometheus protobuf: the only format in which a native histogram can be scraped.
//!
//! The messages are those of `io/prometheus/client/metrics.proto` (prometheus/client_model), as far as they are used.
//! prometheus-client can write them too, but its build requires `protoc`.

use std::io;

use prost::Message;

use super::{
    Scrape,
    text::{Bounds, classic_bounds, classic_buckets},
    walk::{LabelledRow, Sample, walk},
};
use crate::{
    exporters::{
        catalogue::{Kind, Value},
        series::SeriesCounts,
        stream::Sink,
    },
    values::Distribution,
};

/// log2 of the buckets per doubling.
const SCHEMA: i32 = snug_sizing::histogram::PER_DOUBLING.ilog2() as i32;
/// The key of the field [`MetricFamily::metric`]: its number, and the wire type for a length-delimited value.
const METRIC_KEY: u8 = 4 << 3 | 2;

#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricFamily {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) help: String,
    #[prost(enumeration = "MetricType", tag = "3")]
    pub(super) r#type: i32,
    #[prost(message, repeated, tag = "4")]
    pub(super) metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    pub(super) unit: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(super) label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub(super) gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub(super) counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub(super) histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelPair {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `Gauge` and `Counter`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Number {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub(super) sample_count: u64,
    #[prost(double, tag = "2")]
    pub(super) sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(super) bucket: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    pub(super) schema: i32,
    #[prost(double, tag = "6")]
    pub(super) zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    pub(super) zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    pub(super) positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "true", tag = "13")]
    pub(super) positive_delta: Vec<i64>,
}

/// A classic bucket.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Bucket {
    #[prost(uint64, tag = "1")]
    pub(super) cumulative_count: u64,
    #[prost(double, tag = "2")]
    pub(super) upper_bound: f64,
}

/// Buckets in a row.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BucketSpan {
    #[prost(sint32, tag = "1")]
    pub(super) offset: i32,
    #[prost(uint32, tag = "2")]
    pub(super) length: u32,
}

pub(super) fn encode(scrape: &Scrape, out: &mut dyn Sink) -> io::Result<SeriesCounts> {
    let (mut head, mut metrics) = (Vec::new(), Vec::new());
    walk(scrape, |family, rows| {
        let r#type = type_of(family.kind);
        let bounds = scrape.classic_histograms.then(|| classic_bounds(family.unit));
        metrics.clear();
        let mut written = Ok(());
        rows(&mut |sample| {
            if written.is_ok() {
                written = write_metric(&metric(r#type, &sample, bounds.as_ref()), sample.row, &mut metrics);
            }
        });
        written?;
        if metrics.is_empty() {
            return Ok(());
        }
        let message = MetricFamily {
            name: family.series_name(),
            help: family.help.to_owned(),
            r#type: r#type.into(),
            metric: Vec::new(),
            unit: family.unit.as_str().to_owned(),
        };
        head.clear();
        prost::encode_length_delimiter(message.encoded_len() + metrics.len(), &mut head)?;
        message.encode(&mut head)?;
        out.write_all(&head)?;
        out.write_all(&metrics)
    })
}

/// Writes a metric of a family, beginning with the labels of its row. These are the same for all families, so they are encoded
/// once: a message may be written in parts, and most of an exposition is labels.
fn write_metric(metric: &Metric, row: &LabelledRow<'_>, out: &mut Vec<u8>) -> Result<(), prost::EncodeError> {
    let labels = row.message.get_or_init(|| {
        let label = row.labels.iter().copied().filter_map(label_pair).collect();
        Metric { label, ..Metric::default() }.encode_to_vec()
    });
    out.push(METRIC_KEY);
    prost::encode_length_delimiter(labels.len() + metric.encoded_len(), out)?;
    out.extend_from_slice(labels);
    metric.encode(out)
}

/// Leaves out empty labels. In Prometheus an empty label is the same as an absent one.
fn label_pair((name, value): (&str, &str)) -> Option<LabelPair> {
    (!value.is_empty()).then(|| LabelPair { name: name.to_owned(), value: value.to_owned() })
}

const fn type_of(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    }
}

/// A sample's metric, without the labels of its row.
fn metric(kind: MetricType, sample: &Sample<'_>, classic: Option<&Bounds>) -> Metric {
    let label = sample.own_labels().filter_map(label_pair).collect();
    let mut metric = Metric { label, ..Metric::default() };
    let number = match sample.value {
        #[expect(clippy::cast_precision_loss, reason = "the format has doubles only")]
        Value::Int(value) => value as f64,
        Value::Float(value) => value,
        Value::Histogram(distribution) => {
            metric.histogram = Some(histogram(distribution, classic));
            return metric;
        }
    };
    let number = Some(Number { value: number });
    match kind {
        MetricType::Counter => metric.counter = number,
        _ => metric.gauge = number,
    }
    metric
}

fn histogram(distribution: &Distribution, classic: Option<&Bounds>) -> Histogram {
    let (zero_count, first, counts) = distribution.histogram.exponential();
    let buckets_in_use = counts.len();
    let mut before = 0;
    let positive_delta = counts
        .map(|count| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let delta = count - before;
            before = count;
            delta
        })
        .collect();
    let mut below = 0;
    let buckets = if classic.is_some() { classic_buckets(distribution, classic) } else { Vec::new() };
    Histogram {
        sample_count: distribution.histogram.count(),
        sample_sum: distribution.sum,
        bucket: buckets
            .into_iter()
            .map(|(upper_bound, count)| {
                below += count;
                Bucket { cumulative_count: below, upper_bound }
            })
            .collect(),
        schema: SCHEMA,
        zero_threshold: distribution.zero_threshold,
        zero_count,
        // Prometheus numbers a bucket by its upper bound, OTLP by its lower one.
        positive_span: vec![BucketSpan {
            offset: if buckets_in_use == 0 { 0 } else { first + 1 },
            length: u32::try_from(buckets_in_use).unwrap_or(u32::MAX),
        }],
        positive_delta,
    }
}
