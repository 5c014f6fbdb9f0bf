//! Text: prometheus-client encodes OpenMetrics; text 0.0.4 is the same stream with rewritten header lines.

use std::{
    fmt,
    io::{self, Write},
    ops::RangeInclusive,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit as ClientUnit},
};

use super::{
    Format, Scrape,
    walk::{Rows, Sample, walk},
};
use crate::{
    exporters::{
        catalogue::{Family, Kind, Unit, Value},
        series::SeriesCounts,
        stream::PIECE,
        text::label,
    },
    values::Distribution,
};

/// Bounds of classic buckets, as powers of two. Each is also a bound of the native histogram, so counts are exact.
pub(super) type Bounds = RangeInclusive<i32>;

/// The bounds for a unit: 1 MiB to 256 GiB for bytes, 2^-10 to 256 for others.
pub(super) const fn classic_bounds(unit: Unit) -> Bounds {
    match unit {
        Unit::Bytes => 20..=38,
        _ => -10..=8,
    }
}

pub(super) fn encode(scrape: Scrape, out: &mut dyn Write, format: Format) -> io::Result<SeriesCounts> {
    let counts = Arc::new(Mutex::new(SeriesCounts::default()));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Catalogue { scrape, counts: Arc::clone(&counts) }));
    let mut sink = IoSink { out, buffer: Vec::with_capacity(PIECE + 1024), error: None };
    let encoded = match format {
        Format::Text => text::encode(&mut ToText::new(&mut sink), &registry),
        _ => text::encode(&mut sink, &registry),
    };
    encoded
        .and_then(|()| sink.send())
        .map_err(|_| sink.error.take().unwrap_or_else(|| io::Error::other("encoding failed")))?;
    Ok(*counts.lock().unwrap_or_else(PoisonError::into_inner))
}

#[derive(Debug)]
struct Catalogue {
    scrape: Scrape,
    counts: Arc<Mutex<SeriesCounts>>,
}

impl Collector for Catalogue {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let classic = self.scrape.classic_histograms;
        let counts = walk(&self.scrape, |family, rows| write(family, rows, &mut encoder, classic))?;
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        Ok(())
    }
}

/// Writes a family. The header is written before the first sample, so a family without samples writes nothing.
fn write(
    family: &'static Family,
    rows: Rows<'_>,
    encoder: &mut DescriptorEncoder<'_>,
    classic: bool,
) -> fmt::Result {
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let bounds = classic.then(|| classic_bounds(family.unit));
    let mut encoder = Some(encoder);
    let mut metric: Option<MetricEncoder<'_>> = None;
    let mut result = Ok(());
    rows(&mut |sample| {
        if result.is_err() {
            return;
        }
        if let Some(encoder) = encoder.take() {
            match encoder.encode_descriptor(family.stem(), family.help, client_unit(family.unit), kind) {
                Ok(begun) => metric = Some(begun),
                Err(error) => result = Err(error),
            }
        }
        if let Some(metric) = &mut metric {
            result = one(metric, family.kind, &sample, bounds.as_ref());
        }
    });
    result
}

fn one(
    metric: &mut MetricEncoder<'_>,
    kind: Kind,
    sample: &Sample<'_>,
    classic: Option<&Bounds>,
) -> fmt::Result {
    if sample.labels().next().is_none() {
        encode_value(metric, kind, sample.value, classic)
    } else {
        encode_value(&mut metric.encode_family(&Labels(sample))?, kind, sample.value, classic)
    }
}

fn encode_value(
    metric: &mut MetricEncoder<'_>,
    kind: Kind,
    value: Value<'_>,
    classic: Option<&Bounds>,
) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Int(v)) => metric.encode_counter::<NoLabelSet, _, u64>(&v, None),
        (Kind::Counter, Value::Float(v)) => metric.encode_counter::<NoLabelSet, _, f64>(&v, None),
        (_, Value::Int(v)) => metric.encode_gauge(&v),
        (_, Value::Float(v)) => metric.encode_gauge(&v),
        (_, Value::Histogram(v)) => {
            let count = v.histogram.count();
            metric.encode_histogram::<NoLabelSet>(v.sum, count, &classic_buckets(v, classic), None)
        }
    }
}

/// Upper bounds and counts of classic buckets. The last bucket is `+Inf`.
pub(super) fn classic_buckets(distribution: &Distribution, classic: Option<&Bounds>) -> Vec<(f64, u64)> {
    let bounds =
        classic.cloned().into_iter().flatten().map(|power| f64::from(power).exp2()).chain([f64::INFINITY]);
    let mut buckets: Vec<(f64, u64)> = bounds.map(|bound| (bound, 0)).collect();
    for (count, _, upper) in distribution.histogram.buckets() {
        // Bounds that are powers of two are exact; the tolerance is for `exp2` of others.
        if let Some((_, sum)) = buckets.iter_mut().find(|(bound, _)| upper <= *bound * (1.0 + 1e-9)) {
            *sum += count;
        }
    }
    buckets
}

fn client_unit(unit: Unit) -> Option<&'static ClientUnit> {
    static CORES: LazyLock<ClientUnit> = LazyLock::new(|| ClientUnit::Other(Unit::Cores.as_str().into()));
    static BYTES_PER_SECOND: LazyLock<ClientUnit> =
        LazyLock::new(|| ClientUnit::Other(Unit::BytesPerSecond.as_str().into()));
    match unit {
        Unit::None => None,
        Unit::Seconds => Some(&ClientUnit::Seconds),
        Unit::Bytes => Some(&ClientUnit::Bytes),
        Unit::Cores => Some(&CORES),
        Unit::BytesPerSecond => Some(&BYTES_PER_SECOND),
    }
}

struct Labels<'a>(&'a Sample<'a>);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let row = self.0.row;
        if let Some(((last, value), others)) = row.labels.split_last() {
            // All labels before the last are cached as a part of its key: most of an exposition is labels.
            let key = row.key.get_or_init(|| {
                let others: String = others.iter().map(|(name, value)| label(name, value) + ",").collect();
                others + last
            });
            write_label(encoder, key, value)?;
        }
        self.0.own_labels().try_for_each(|(name, value)| write_label(encoder, name, value))
    }
}

fn write_label(encoder: &mut LabelSetEncoder<'_>, name: &str, value: &str) -> fmt::Result {
    use fmt::Write as _;

    let mut label = encoder.encode_label();
    let mut key = label.encode_label_key()?;
    key.write_str(name)?;
    let mut text = key.encode_label_value()?;
    text.write_str(value)?;
    text.finish()
}

/// Adapts `io::Write` to prometheus-client, which writes a few bytes at a time, and keeps the error that `fmt` cannot carry. The
/// buffer has the size of a piece of the response body, so that the body does not buffer again.
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
        if self.buffer.len() >= PIECE { self.send() } else { Ok(()) }
    }
}

/// Rewrites OpenMetrics text to text 0.0.4. In that format `# HELP` and `# TYPE` of a counter have the name of the series with
/// `_total`, and there is no `# UNIT` and no `# EOF`.
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
            // HELP comes first, but the name depends on TYPE, so the text is kept until then.
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
        // Fast path for the many small writes within a sample. The encoder writes line ends separately.
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
