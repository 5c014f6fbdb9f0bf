//! The text formats of Prometheus: text 0.0.4 and OpenMetrics 1.0, which differ in their headers only.
//!
//! This is our own, for speed: the labels of a row are rendered once per scrape and copied into each of its series, straight into
//! the memory that is sent. A test compares it with prometheus-client, which renders them for each series.

use std::io;

use super::{
    catalogue::{Family, Kind, Unit, Value},
    stream::{PIECE, Sink},
};

/// What remains free in a buffer that is written. Most lines fit into it; a longer one makes the buffer larger.
const ROOM: usize = 4 * 1024;

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

    fn write(&self, out: &mut Vec<u8>) {
        let Self { family, series: _, kind, help, unit } = *self;
        for part in ["# HELP ", family, " ", help, "\n# TYPE ", family, " ", kind.as_str(), "\n"] {
            push(out, part);
        }
        if unit != Unit::None {
            for part in ["# UNIT ", family, " ", unit.as_str(), "\n"] {
                push(out, part);
            }
        }
    }
}

/// Writes an exposition to a sink, in large buffers.
pub(super) struct TextWriter<'a> {
    out: &'a mut dyn Sink,
    buffer: Vec<u8>,
    /// The first error. After it nothing is written.
    result: io::Result<()>,
}

impl<'a> TextWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Sink) -> Self {
        Self { out, buffer: Vec::with_capacity(PIECE), result: Ok(()) }
    }

    /// Begins a family. `milliseconds`: the timestamp of its samples since the Unix epoch; `None`: they have none.
    pub(super) fn family<'w>(
        &'w mut self,
        header: Header<'w>,
        milliseconds: Option<u64>,
    ) -> FamilyWriter<'w, 'a> {
        let begin = [header.series.as_bytes(), b"{"].concat();
        FamilyWriter { text: self, header, begin, milliseconds, has_header: false }
    }

    /// Writes what is left, and `end`.
    ///
    /// # Errors
    /// The first one since the beginning.
    pub(super) fn finish(mut self, end: &str) -> io::Result<()> {
        push(&mut self.buffer, end);
        self.write();
        self.result
    }

    /// Whether everything could be written. An encoder that finds out early does no useless work.
    pub(super) fn check(&mut self) -> io::Result<()> {
        std::mem::replace(&mut self.result, Ok(()))
    }

    fn write(&mut self) {
        if self.result.is_ok() {
            self.result = self.out.write_buffer(&mut self.buffer);
        }
        self.buffer.clear();
    }
}

/// Writes a family. The header is written before the first sample, so a family without samples writes nothing.
pub(super) struct FamilyWriter<'w, 'a> {
    text: &'w mut TextWriter<'a>,
    header: Header<'w>,
    /// How the samples begin, those of histograms aside.
    begin: Vec<u8>,
    milliseconds: Option<u64>,
    has_header: bool,
}

impl FamilyWriter<'_, '_> {
    /// Writes a sample with the labels of its row, as [`render`] writes them, and then those of its family.
    pub(super) fn sample<'l>(
        &mut self,
        labels: &[u8],
        own: impl IntoIterator<Item = (&'l str, &'l str)>,
        number: Number,
    ) {
        self.part("", labels, own, None, number);
    }

    /// Writes the samples of a histogram. `buckets`: upper bounds and counts, not cumulative; the last bound is infinite.
    pub(super) fn histogram<'l>(
        &mut self,
        labels: &[u8],
        own: impl Iterator<Item = (&'l str, &'l str)> + Clone,
        sum: f64,
        buckets: &[(f64, u64)],
    ) {
        let mut below = 0_u64;
        for (bound, count) in buckets {
            below = below.saturating_add(*count);
            self.part("_bucket", labels, own.clone(), Some(*bound), Number::Int(below));
        }
        self.part("_sum", labels, own.clone(), None, Number::Float(sum));
        self.part("_count", labels, own, None, Number::Int(below));
    }

    fn part<'l>(
        &mut self,
        suffix: &str,
        labels: &[u8],
        own: impl IntoIterator<Item = (&'l str, &'l str)>,
        bound: Option<f64>,
        number: Number,
    ) {
        self.begin(suffix, labels);
        for (name, value) in own {
            self.label(name, value);
        }
        if let Some(bound) = bound {
            let mut digits = ryu::Buffer::new();
            self.label("le", if bound.is_finite() { digits.format_finite(bound) } else { "+Inf" });
        }
        self.end(number);
    }

    fn label(&mut self, name: &str, value: &str) {
        // Separates it from the labels before it.
        if !self.text.buffer.ends_with(b"{") {
            self.text.buffer.push(b',');
        }
        push_label(name, value, &mut self.text.buffer);
    }

    #[inline]
    fn begin(&mut self, suffix: &str, labels: &[u8]) {
        let out = &mut self.text.buffer;
        if !self.has_header {
            self.has_header = true;
            self.header.write(out);
        }
        if suffix.is_empty() {
            out.extend_from_slice(&self.begin);
        } else {
            push(out, self.header.series);
            push(out, suffix);
            out.push(b'{');
        }
        out.extend_from_slice(labels);
    }

    #[inline]
    fn end(&mut self, number: Number) {
        let out = &mut self.text.buffer;
        // A brace that was opened for nothing is taken back. No label ends with one.
        if out.ends_with(b"{") {
            out.pop();
            out.push(b' ');
        } else {
            push(out, "} ");
        }
        number.write(out);
        if let Some(milliseconds) = self.milliseconds {
            out.push(b' ');
            push(out, itoa::Buffer::new().format(milliseconds));
        }
        out.push(b'\n');
        if out.len() >= PIECE - ROOM {
            self.text.write();
        }
    }
}

#[inline]
fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
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

    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Int(value) => push(out, itoa::Buffer::new().format(value)),
            Self::Float(value) if value.is_finite() => push(out, ryu::Buffer::new().format_finite(value)),
            Self::Float(value) if value.is_nan() => push(out, "NaN"),
            Self::Float(value) => push(out, if value > 0.0 { "+Inf" } else { "-Inf" }),
        }
    }
}

/// Renders labels, separated by commas, without braces.
pub(super) fn render<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    for (name, value) in labels {
        if !out.is_empty() {
            out.push(b',');
        }
        push_label(name, value, &mut out);
    }
    out
}

const fn is_reserved(byte: u8) -> bool {
    matches!(byte, b'\\' | b'"' | b'\n')
}

/// Writes a label. The formats reserve only backslash, quote and newline in its value.
fn push_label(name: &str, value: &str, out: &mut Vec<u8>) {
    push(out, name);
    push(out, "=\"");
    let mut rest = value;
    // Few values have one. Without an early end this loop looks at many bytes at a time.
    let is_plain = !value.bytes().fold(false, |found, byte| found | is_reserved(byte));
    while !is_plain && let Some(at) = rest.bytes().position(is_reserved) {
        let (plain, reserved) = rest.split_at(at);
        let (reserved, after) = reserved.split_at(1);
        push(out, plain);
        out.push(b'\\');
        push(out, if reserved == "\n" { "n" } else { reserved });
        rest = after;
    }
    push(out, rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// A sink that keeps the buffers that it gets.
    #[derive(Default)]
    struct Pieces(Vec<Vec<u8>>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Pieces {
        fn write_buffer(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
            self.0.push(std::mem::take(buffer));
            Ok(())
        }
    }

    /// A sink that fails after some buffers.
    struct Broken(usize);

    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Broken {}

    const HEADER: Header<'_> = Header::text("a", Kind::Gauge, "A help text");

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_are_large_and_in_order(lengths in prop::collection::vec(0..3 * ROOM, 1..200)) {
            let mut pieces = Pieces::default();
            let mut text = TextWriter::new(&mut pieces);
            let mut writer = text.family(HEADER, None);
            let mut expected = String::from("# HELP a A help text\n# TYPE a gauge\n");
            for (value, length) in lengths.iter().enumerate() {
                let label = "x".repeat(*length);
                writer.sample(b"", [("l", &*label)], Number::Int(value as u64));
                expected += &format!("a{{l=\"{label}\"}} {value}\n");
            }
            text.finish("").unwrap();
            let (last, before) = pieces.0.split_last().unwrap();
            prop_assert!(before.iter().all(|piece| (PIECE - ROOM..PIECE + 3 * ROOM).contains(&piece.len())));
            prop_assert!(last.len() < PIECE);
            prop_assert!(pieces.0.concat() == expected.as_bytes());
        }
    }

    #[test]
    fn an_error_ends_the_exposition() {
        let mut sink = Broken(1);
        let mut text = TextWriter::new(&mut sink);
        let label = "x".repeat(PIECE);
        let mut write = || {
            text.family(HEADER, None).sample(b"", [("l", &*label)], Number::Int(1));
            text.check()
        };
        write().unwrap();
        assert_eq!(write().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn special_numbers_are_written_as_prometheus_reads_them() {
        let numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 0.0].map(|number| {
            let mut out = Vec::new();
            Number::Float(number).write(&mut out);
            String::from_utf8(out).unwrap()
        });
        assert_eq!(numbers, ["NaN", "+Inf", "-Inf", "1e300", "0.0"]);
    }

    #[test]
    fn a_family_has_one_header_and_only_with_samples() {
        let mut out = Vec::new();
        let mut text = TextWriter::new(&mut out);
        let header = Header::text("a_total", Kind::Counter, "A help text");
        text.family(header, None);
        let mut writer = text.family(header, Some(17));
        writer.sample(b"", [], Number::Int(1));
        writer.sample(b"", [("b", "\\ \" \n {")], Number::Int(2));
        writer.sample(&render([("b", "c"), ("d", "")]), [("e", "f")], Number::Float(0.5));
        text.finish("# end\n").unwrap();
        let expected = [
            "# HELP a_total A help text",
            "# TYPE a_total counter",
            "a_total 1 17",
            r#"a_total{b="\\ \" \n {"} 2 17"#,
            r#"a_total{b="c",d="",e="f"} 0.5 17"#,
            "# end",
        ];
        assert_eq!(String::from_utf8(out).unwrap().lines().collect::<Vec<_>>(), expected);
    }
}
