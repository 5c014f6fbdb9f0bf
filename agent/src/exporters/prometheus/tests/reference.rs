//! The text against that of prometheus-client, which is written independently.

use std::{collections::BTreeSet, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::{Registry, Unit as ClientUnit},
};
use proptest::prelude::*;

use super::{super::text, encode, scrape};
use crate::{
    exporters::{
        catalogue::{Family, Kind, Unit, Value},
        fixture,
        limits::SeriesLimits,
        prometheus::{
            Format, Scrape,
            walk::{Rows, walk},
        },
    },
    model::{Identity, Level, View},
};

#[derive(Debug)]
struct Catalogue(Scrape);

impl Collector for Catalogue {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        walk(&self.0, |family, rows| write(family, rows, &mut encoder)).map(|_| ())
    }
}

fn write(family: &'static Family, rows: Rows<'_>, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut samples = Vec::new();
    rows(&mut |sample| {
        let own = sample.own_labels().collect::<Vec<_>>();
        let labels = sample.row.labels.iter().copied().chain(own);
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        samples.push((Labels(labels), Parts::from(sample.value)));
    });
    if samples.is_empty() {
        return Ok(());
    }
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let unit = match family.unit {
        Unit::None => None,
        unit => Some(ClientUnit::Other(unit.as_str().to_owned())),
    };
    let mut metric = encoder.encode_descriptor(family.stem(), family.help, unit.as_ref(), kind)?;
    for (labels, parts) in samples {
        if labels.0.is_empty() {
            parts.encode(&mut metric, family.kind)?;
        } else {
            parts.encode(&mut metric.encode_family(&labels)?, family.kind)?;
        }
    }
    Ok(())
}

struct Labels(Vec<(String, String)>);

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| {
            prometheus_client::encoding::EncodeLabel::encode(&(&**name, &**value), encoder.encode_label())
        })
    }
}

enum Parts {
    Int(u64),
    Float(f64),
    Histogram { sum: f64, count: u64, buckets: Vec<(f64, u64)> },
}

impl From<Value<'_>> for Parts {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Int(value) => Self::Int(value),
            Value::Float(value) => Self::Float(value),
            Value::Histogram(of) => Self::Histogram {
                sum: of.sum,
                count: of.histogram.count(),
                buckets: text::classic_buckets(of, Some(&text::classic_bounds(Unit::Seconds))),
            },
        }
    }
}

impl Parts {
    fn encode(&self, metric: &mut MetricEncoder<'_>, kind: Kind) -> fmt::Result {
        match (kind, self) {
            (Kind::Counter, Self::Int(v)) => metric.encode_counter::<NoLabelSet, _, u64>(v, None),
            (Kind::Counter, Self::Float(v)) => metric.encode_counter::<NoLabelSet, _, f64>(v, None),
            (_, Self::Int(v)) => metric.encode_gauge(v),
            (_, Self::Float(v)) => metric.encode_gauge(v),
            (_, Self::Histogram { sum, count, buckets }) => {
                metric.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
            }
        }
    }
}

/// Headers in their order, and samples without that.
fn meaning(text: &str) -> (Vec<&str>, BTreeSet<String>) {
    let (headers, samples): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
    let aged = |line: &&str| !line.starts_with("snug_agent_sample_age_seconds");
    let sample = |line: &str| {
        let (series, value) = fixture::parse_sample(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        format!("{series:?} {value}")
    };
    (headers, samples.into_iter().filter(aged).map(sample).collect())
}

fn compare(view: &View) {
    // Bounds of bytes are others; with the same bounds for all, the reference needs no unit.
    let mut view = view.clone();
    for row in &mut view.cgroups {
        row.values.memory_histograms = None;
    }
    let mut of_reference = scrape(view.clone(), SeriesLimits::default());
    of_reference.classic_histograms = true;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Catalogue(of_reference)));
    let mut expected = String::new();
    prometheus_client::encoding::text::encode(&mut expected, &registry).unwrap();

    let mut of_ours = scrape(view, SeriesLimits::default());
    of_ours.classic_histograms = true;
    let mut ours = Vec::new();
    of_ours.encode(&mut ours, Format::OpenMetrics).unwrap();
    let ours = String::from_utf8(ours).unwrap();
    let ((headers, samples), (other_headers, other_samples)) = (meaning(&ours), meaning(&expected));
    assert_eq!(headers, other_headers);
    assert_eq!(samples.difference(&other_samples).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(samples, other_samples);
    assert!(samples.len() > 10);
}

#[test]
fn the_text_says_what_prometheus_client_says() {
    compare(&fixture::view());
    let (text, _) = encode(fixture::view(), SeriesLimits::default(), Format::OpenMetrics);
    assert_eq!(text.lines().next_back(), Some("# EOF"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn also_with_hostile_names(name in "[\\PC\n\r\t\"\\\\{},=#]{0,20}", path in "[\\PC\n\"\\\\{}]{0,9}") {
        let mut view = fixture::view();
        let mut row = fixture::cgroup(&format!("/{path}"), Level::Container, &name, None);
        row.identity = std::sync::Arc::new(Identity {
            names: Some(std::sync::Arc::new(fixture::names(&name, &name, &name, None))),
            ..(*row.identity).clone()
        });
        view.cgroups.push(row);
        // Lines are split at line ends, which names have escaped.
        compare(&view);
    }
}
