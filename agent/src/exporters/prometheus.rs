//! `/metrics`: the catalogue in OpenMetrics 1.0 text, and in Prometheus text 0.0.4 for clients that want that.
//!
//! prometheus-client encodes OpenMetrics; text 0.0.4 is the same stream with its header lines rewritten on the way.
//! There is no protobuf: Prometheus asks for it only when it scrapes native histograms, and no family here is one.

use std::{
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit as ClientUnit},
};

use super::{
    catalogue::{
        self, AgentView, CONTAINER_LABELS, EndpointSeries, Family, KUBE_STATE_LABELS, Kind, POD_LABELS,
        STATUS_LABELS, Samples, Scope, Unit, Value, WORKLOAD_LABELS,
    },
    limits::{SeriesCounts, SeriesLimits},
    otlp::Progress,
};
use crate::store::published::Published;

/// Bytes collected before they are passed on.
const BUFFER: usize = 8 * 1024;

/// The text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
}

impl Format {
    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// One scrape.
#[derive(Debug)]
pub struct Scrape {
    /// What to export.
    pub published: Arc<Published>,
    /// What to leave out.
    pub limits: Arc<SeriesLimits>,
    /// The moment of the scrape.
    pub now: Instant,
    /// The path under which this is served, in the `endpoint` label.
    pub endpoint: &'static str,
    /// What the other endpoints held when last scraped.
    pub others: Vec<EndpointSeries>,
    /// How the push by OTLP fares; `None` where there is none.
    pub otlp: Option<Progress>,
}

impl Scrape {
    /// Writes the whole exposition and says what was in it.
    pub fn encode(self, out: &mut dyn Write, format: Format) -> io::Result<SeriesCounts> {
        let counts = Arc::new(Mutex::new(SeriesCounts::default()));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Catalogue { scrape: self, counts: Arc::clone(&counts) }));
        let mut sink = IoSink { out, buffer: Vec::with_capacity(2 * BUFFER), error: None };
        let encoded = match format {
            Format::OpenMetrics => text::encode(&mut sink, &registry),
            Format::Text => text::encode(&mut ToText::new(&mut sink), &registry),
        };
        encoded
            .and_then(|()| sink.send())
            .map_err(|_| sink.error.take().unwrap_or_else(|| io::Error::other("encoding failed")))?;
        Ok(*counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct Catalogue {
    scrape: Scrape,
    counts: Arc<Mutex<SeriesCounts>>,
}

impl Collector for Catalogue {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Scrape { published, limits, now, endpoint, others, otlp } = &self.scrape;
        let mut counts = SeriesCounts::default();
        let cgroups_admitted: Vec<bool> = published.cgroups.iter().map(|row| limits.cgroup(row)).collect();

        let scopes = [Scope::Container, Scope::Pod, Scope::Workload, Scope::Status, Scope::KubeState];
        for scope in scopes.into_iter().filter(|scope| *scope != Scope::KubeState || limits.kube_state) {
            for family in scope.families() {
                let mut writer = FamilyWriter::new(family, &mut encoder, limits, &mut counts);
                match family.samples {
                    Samples::Container(samples) => {
                        for (row, admitted) in published.cgroups.iter().zip(&cgroups_admitted) {
                            if catalogue::in_scope(row, scope) {
                                let values = catalogue::container_labels(row);
                                writer.row(*admitted, &CONTAINER_LABELS, &values, |emit| samples(row, emit));
                            }
                        }
                    }
                    Samples::Pod(samples) => {
                        for (row, admitted) in published.cgroups.iter().zip(&cgroups_admitted) {
                            if catalogue::in_scope(row, scope) {
                                let values = catalogue::pod_labels(row);
                                writer.row(*admitted, &POD_LABELS, &values, |emit| samples(row, emit));
                            }
                        }
                    }
                    Samples::Workload(samples) => {
                        for row in published.workloads.iter() {
                            let values = catalogue::workload_labels(row);
                            writer.row(limits.workload(row), &WORKLOAD_LABELS, &values, |emit| {
                                samples(row, emit);
                            });
                        }
                    }
                    Samples::Status(samples) => {
                        for pod in published.pods.iter() {
                            let admitted = limits.namespace(&pod.names.namespace);
                            for container in &pod.containers {
                                let values = catalogue::status_labels(container);
                                writer.row(admitted, &STATUS_LABELS, &values, |emit| {
                                    samples(container, emit);
                                });
                            }
                        }
                    }
                    Samples::KubeState(samples) => {
                        for pod in published.pods.iter() {
                            let admitted = limits.namespace(&pod.names.namespace);
                            let values = catalogue::kube_state_labels(pod);
                            writer.row(admitted, &KUBE_STATE_LABELS, &values, |emit| samples(pod, emit));
                        }
                    }
                    Samples::Agent(_) => {}
                }
                writer.result?;
            }
        }

        // The agent comes last, so that it can say what this very scrape left out.
        let mut endpoints = vec![EndpointSeries { endpoint, counts }];
        endpoints.extend_from_slice(others);
        let view = AgentView { row: &published.agent, now: *now, endpoints: &endpoints, otlp: *otlp };
        let unlimited = SeriesLimits::default();
        let mut uncounted = SeriesCounts::default();
        for family in Scope::Agent.families() {
            let mut writer = FamilyWriter::new(family, &mut encoder, &unlimited, &mut uncounted);
            if let Samples::Agent(samples) = family.samples {
                writer.row(true, &[], &[], |emit| samples(&view, emit));
            }
            writer.result?;
        }
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        Ok(())
    }
}

/// Writes one family: its header before the first sample, so that an empty family leaves no trace.
struct FamilyWriter<'a, 'e> {
    family: &'static Family,
    family_admitted: bool,
    unit: Option<&'static ClientUnit>,
    encoder: Option<&'a mut DescriptorEncoder<'e>>,
    metric: Option<MetricEncoder<'a>>,
    limits: &'a SeriesLimits,
    counts: &'a mut SeriesCounts,
    result: fmt::Result,
}

impl<'a, 'e> FamilyWriter<'a, 'e> {
    fn new(
        family: &'static Family,
        encoder: &'a mut DescriptorEncoder<'e>,
        limits: &'a SeriesLimits,
        counts: &'a mut SeriesCounts,
    ) -> Self {
        let family_admitted = limits.family(&[family.name, &family.series_name()]);
        Self {
            family,
            family_admitted,
            unit: client_unit(family.unit),
            encoder: Some(encoder),
            metric: None,
            limits,
            counts,
            result: Ok(()),
        }
    }

    fn row(
        &mut self,
        admitted: bool,
        names: &[&'static str],
        values: &[&str],
        samples: impl FnOnce(&mut catalogue::Emit<'_>),
    ) {
        samples(&mut |own, value| {
            if self.result.is_ok() && !matches!(value, Value::Float(v) if !v.is_finite()) {
                self.result = self.sample(admitted, names, values, own, value);
            }
        });
    }

    fn sample(
        &mut self,
        admitted: bool,
        names: &[&'static str],
        values: &[&str],
        own: &[&str],
        value: Value,
    ) -> fmt::Result {
        if !self.counts.admit(self.limits, self.family_admitted, admitted) {
            return Ok(());
        }
        if let Some(encoder) = self.encoder.take() {
            let kind = match self.family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            self.metric =
                Some(encoder.encode_descriptor(self.family.stem(), self.family.help, self.unit, kind)?);
        }
        let Some(metric) = &mut self.metric else { return Err(fmt::Error) };
        // A workload is told apart by the very labels that may be dropped elsewhere.
        let droppable = self.family.scope() != Scope::Workload;
        let limits = droppable.then_some(self.limits);
        let labels = Labels { names, values, own_names: self.family.labels, own_values: own, limits };
        if names.is_empty() && own.is_empty() {
            encode_value(metric, self.family.kind, value)
        } else {
            encode_value(&mut metric.encode_family(&labels)?, self.family.kind, value)
        }
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Int(v)) => metric.encode_counter::<NoLabelSet, _, u64>(&v, None),
        (Kind::Counter, Value::Float(v)) => metric.encode_counter::<NoLabelSet, _, f64>(&v, None),
        (Kind::Gauge, Value::Int(v)) => metric.encode_gauge(&v),
        (Kind::Gauge, Value::Float(v)) => metric.encode_gauge(&v),
    }
}

fn client_unit(unit: Unit) -> Option<&'static ClientUnit> {
    static CORES: std::sync::LazyLock<ClientUnit> =
        std::sync::LazyLock::new(|| ClientUnit::Other("cores".into()));
    match unit {
        Unit::None => None,
        Unit::Seconds => Some(&ClientUnit::Seconds),
        Unit::Bytes => Some(&ClientUnit::Bytes),
        Unit::Cores => Some(&CORES),
    }
}

struct Labels<'a> {
    names: &'a [&'static str],
    values: &'a [&'a str],
    own_names: &'static [&'static str],
    own_values: &'a [&'a str],
    limits: Option<&'a SeriesLimits>,
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        use fmt::Write as _;

        let of_row = self.names.iter().zip(self.values);
        for (name, value) in of_row.chain(self.own_names.iter().zip(self.own_values)) {
            if self.limits.is_some_and(|limits| limits.drops(name)) {
                continue;
            }
            let mut label = encoder.encode_label();
            let mut key = label.encode_label_key()?;
            key.write_str(name)?;
            let mut text = key.encode_label_value()?;
            text.write_str(value)?;
            text.finish()?;
        }
        Ok(())
    }
}

/// Lets prometheus-client write bytes, a few at a time as it does, and keeps the error that `fmt` cannot carry.
struct IoSink<'a> {
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    error: Option<io::Error>,
}

impl IoSink<'_> {
    fn send(&mut self) -> fmt::Result {
        let sent = self.out.write_all(&self.buffer);
        self.buffer.clear();
        sent.map_err(|error| {
            self.error = Some(error);
            fmt::Error
        })
    }
}

impl fmt::Write for IoSink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() >= BUFFER { self.send() } else { Ok(()) }
    }
}

/// Turns OpenMetrics text into text 0.0.4 on the way: in that format `# HELP` and `# TYPE` of a counter name its
/// series, `_total` included, and there is no `# UNIT` and no `# EOF`.
struct ToText<W> {
    out: W,
    line_start: bool,
    header: String,
    in_header: bool,
    help: String,
}

impl<W: fmt::Write> ToText<W> {
    fn new(out: W) -> Self {
        Self { out, line_start: true, header: String::new(), in_header: false, help: String::new() }
    }

    fn header_line(&mut self) -> fmt::Result {
        let mut parts = self.header.trim_end().splitn(4, ' ').skip(1);
        match (parts.next(), parts.next(), parts.next()) {
            // HELP comes first, but only TYPE tells the name: the text waits for it.
            (Some("HELP"), Some(_), help) => {
                self.help.clear();
                self.help.push_str(help.unwrap_or_default());
                Ok(())
            }
            (Some("TYPE"), Some(name), Some(kind)) => {
                let suffix = if kind == "counter" { "_total" } else { "" };
                writeln!(self.out, "# HELP {name}{suffix} {}", self.help)?;
                writeln!(self.out, "# TYPE {name}{suffix} {kind}")
            }
            _ => Ok(()),
        }
    }
}

impl<W: fmt::Write> fmt::Write for ToText<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The many small writes within a sample; the encoder writes line ends by themselves.
        if !self.line_start && !self.in_header {
            self.line_start = text.ends_with('\n');
            return self.out.write_str(text);
        }
        for piece in text.split_inclusive('\n') {
            if self.line_start {
                self.in_header = piece.starts_with('#');
            }
            self.line_start = piece.ends_with('\n');
            if self.in_header {
                self.header.push_str(piece);
                if self.line_start {
                    self.header_line()?;
                    self.header.clear();
                }
            } else {
                self.out.write_str(piece)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
