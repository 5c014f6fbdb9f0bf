//! The text formats of Prometheus: text 0.0.4 and OpenMetrics 1.0, which differ in their headers only.
//!
//! This is our own, for speed: the labels of a row are rendered once per scrape and copied into each of its series. A test
//! compares it with prometheus-client, which renders them for each series.

use std::io::{self, Write};

use super::catalogue::{Family, Kind, Unit, Value};

/// The header of a family, and the name of its samples.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    /// The name in the header. OpenMetrics has no `_total` there.
    pub(super) family: &'a str,
    /// The name of the samples; of a histogram without the suffix of its parts.
    pub(super) series: &'a str,
    pub(super) kind: Kind,
    pub(super) help: &'a str,
    /// [`Unit::None`] leaves out the line that only OpenMetrics has.
    pub(super) unit: Unit,
}

impl<'a> Header<'a> {
    /// A header in text 0.0.4.
    pub(super) const fn text(series: &'a str, kind: Kind, help: &'a str) -> Self {
        Self { family: series, series, kind, help, unit: Unit::None }
    }

    /// A header in OpenMetrics.
    pub(super) const fn open_metrics(family: &'static Family, series: &'a str) -> Self {
        let Family { name, kind, help, unit, .. } = *family;
        Self { family: name, series, kind, help, unit }
    }

    fn write(&self, out: &mut String) {
        let Self { family, series: _, kind, help, unit } = *self;
        for part in ["# HELP ", family, " ", help, "\n# TYPE ", family, " ", kind.as_str(), "\n"] {
            out.push_str(part);
        }
        if unit != Unit::None {
            for part in ["# UNIT ", family, " ", unit.as_str(), "\n"] {
                out.push_str(part);
            }
        }
    }
}

/// The parts of a histogram's text.
pub(super) struct HistogramText {
    pub(super) sum: f64,
    /// Upper bounds and counts, not cumulative. The last bound is infinite.
    pub(super) buckets: Vec<(f64, u64)>,
}

/// Writes a family. The header is written before the first sample, so a family without samples writes nothing.
pub(super) struct FamilyWriter<'a> {
    out: &'a mut dyn Write,
    line: &'a mut String,
    header: Header<'a>,
    /// The timestamp of the samples, in milliseconds since the Unix epoch; `None` for samples without one.
    milliseconds: Option<u64>,
    has_header: bool,
    /// The first error. After it nothing is written.
    pub(super) result: io::Result<()>,
}

impl<'a> FamilyWriter<'a> {
    /// A writer of a family to `out`. `line` is a buffer for one line, whose content is lost.
    pub(super) fn new(
        out: &'a mut dyn Write,
        line: &'a mut String,
        header: Header<'a>,
        milliseconds: Option<u64>,
    ) -> Self {
        Self { out, line, header, milliseconds, has_header: false, result: Ok(()) }
    }

    /// Writes a sample with the labels of its row, as [`render`] writes them, and then those of its family.
    pub(super) fn sample<'l>(
        &mut self,
        labels: &str,
        own: impl IntoIterator<Item = (&'l str, &'l str)>,
        number: Number,
    ) {
        self.begin("", labels);
        for (name, value) in own {
            self.label(name, value);
        }
        self.end(number);
    }

    /// Writes a sample whose own labels are rendered, too.
    pub(super) fn rendered_sample(&mut self, labels: &str, own: &str, number: Number) {
        self.begin("", labels);
        self.rendered(own);
        self.end(number);
    }

    /// Writes the samples of a histogram. All labels are rendered.
    pub(super) fn histogram(&mut self, labels: &str, own: &str, histogram: &HistogramText) {
        let mut below = 0_u64;
        for (bound, count) in &histogram.buckets {
            below = below.saturating_add(*count);
            self.begin("_bucket", labels);
            self.rendered(own);
            if bound.is_finite() {
                self.label("le", ryu::Buffer::new().format_finite(*bound));
            } else {
                self.label("le", "+Inf");
            }
            self.end(Number::Int(below));
        }
        for (suffix, number) in [("_sum", Number::Float(histogram.sum)), ("_count", Number::Int(below))] {
            self.begin(suffix, labels);
            self.rendered(own);
            self.end(number);
        }
    }

    fn begin(&mut self, suffix: &str, labels: &str) {
        self.line.clear();
        if !self.has_header {
            self.has_header = true;
            self.header.write(self.line);
        }
        self.line.push_str(self.header.series);
        self.line.push_str(suffix);
        self.line.push('{');
        self.line.push_str(labels);
    }

    fn label(&mut self, name: &str, value: &str) {
        self.separate();
        push_label(name, value, self.line);
    }

    fn rendered(&mut self, labels: &str) {
        if !labels.is_empty() {
            self.separate();
            self.line.push_str(labels);
        }
    }

    /// Separates a label from those before it.
    fn separate(&mut self) {
        if !self.line.ends_with('{') {
            self.line.push(',');
        }
    }

    fn end(&mut self, number: Number) {
        // A brace that was opened for nothing is taken back. No label ends with one.
        if self.line.ends_with('{') {
            self.line.pop();
        } else {
            self.line.push('}');
        }
        self.line.push(' ');
        number.write(self.line);
        if let Some(milliseconds) = self.milliseconds {
            self.line.push(' ');
            self.line.push_str(itoa::Buffer::new().format(milliseconds));
        }
        self.line.push('\n');
        if self.result.is_ok() {
            self.result = self.out.write_all(self.line.as_bytes());
        }
    }
}

/// The value of a sample.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Int(u64),
    Float(f64),
}

impl Number {
    /// The number of a value; of a histogram, which has no single one, its count.
    pub(super) fn of(value: Value<'_>) -> Self {
        match value {
            Value::Int(value) => Self::Int(value),
            Value::Float(value) => Self::Float(value),
            Value::Histogram(distribution) => Self::Int(distribution.histogram.count()),
        }
    }

    fn write(self, out: &mut String) {
        match self {
            Self::Int(value) => out.push_str(itoa::Buffer::new().format(value)),
            Self::Float(value) if value.is_nan() => out.push_str("NaN"),
            Self::Float(value) if value.is_infinite() => {
                out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
            }
            Self::Float(value) => out.push_str(ryu::Buffer::new().format_finite(value)),
        }
    }
}

/// Renders labels, separated by commas, without braces.
pub(super) fn render<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        push_label(name, value, &mut out);
    }
    out
}

/// Writes a label. The formats reserve only backslash, quote and newline in its value.
fn push_label(name: &str, value: &str, out: &mut String) {
    out.push_str(name);
    out.push_str("=\"");
    let mut rest = value;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        let (plain, reserved) = rest.split_at(at);
        let (reserved, after) = reserved.split_at(1);
        out.push_str(plain);
        out.push('\\');
        out.push_str(if reserved == "\n" { "n" } else { reserved });
        rest = after;
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_numbers_are_written_as_prometheus_reads_them() {
        let numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 0.0].map(|number| {
            let mut out = String::new();
            Number::Float(number).write(&mut out);
            out
        });
        assert_eq!(numbers, ["NaN", "+Inf", "-Inf", "1e300", "0.0"]);
    }

    #[test]
    fn a_family_has_one_header_and_only_with_samples() {
        let (mut out, mut line) = (Vec::new(), String::from("left over"));
        let header = Header::text("a_total", Kind::Counter, "A help text");
        let writer = FamilyWriter::new(&mut out, &mut line, header, None);
        assert!(writer.result.is_ok());
        let mut writer = FamilyWriter::new(&mut out, &mut line, header, Some(17));
        writer.sample("", [], Number::Int(1));
        writer.sample("", [("b", "\\ \" \n {")], Number::Int(2));
        writer.rendered_sample(&render([("b", "c"), ("d", "")]), "e=\"f\"", Number::Float(0.5));
        writer.result.unwrap();
        let expected = [
            "# HELP a_total A help text",
            "# TYPE a_total counter",
            "a_total 1 17",
            r#"a_total{b="\\ \" \n {"} 2 17"#,
            r#"a_total{b="c",d="",e="f"} 0.5 17"#,
        ];
        assert_eq!(String::from_utf8(out).unwrap().lines().collect::<Vec<_>>(), expected);
    }
}
