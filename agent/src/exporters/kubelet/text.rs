//! Text 0.0.4, written label by label.

use std::io::{self, Write};

use crate::exporters::catalogue::{Kind, Value};

/// The header of a family.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

/// Writes a family. The header is written before the first sample, so a family without samples writes nothing.
pub(super) struct FamilyWriter<'a> {
    out: &'a mut dyn Write,
    line: &'a mut Line,
    header: Header,
    /// The timestamp of the samples, in milliseconds since the Unix epoch; `None` for samples without one.
    milliseconds: Option<u64>,
    headed: bool,
    /// The first error. After it nothing is written.
    pub(super) result: io::Result<()>,
}

impl<'a> FamilyWriter<'a> {
    pub(super) fn new(
        out: &'a mut dyn Write,
        line: &'a mut Line,
        header: Header,
        milliseconds: Option<u64>,
    ) -> Self {
        Self { out, line, header, milliseconds, headed: false, result: Ok(()) }
    }

    /// Writes a sample; `labels` as [`render`](crate::exporters::text::render) leaves them, `own` behind them.
    pub(super) fn write(&mut self, labels: &str, own: &str, value: Value<'_>) {
        let Header { name, kind, help } = self.header;
        if self.result.is_ok() && !self.headed {
            self.headed = true;
            self.result = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        }
        if self.result.is_ok() {
            self.result = self.line.write(self.out, name, labels, own, value, self.milliseconds);
        }
    }
}

/// A sample, written in one piece.
#[derive(Default)]
pub(super) struct Line(Vec<u8>);

impl Line {
    /// Writes the sample; `labels` as [`render`](crate::exporters::text::render) leaves them, `milliseconds` since the Unix epoch.
    pub(super) fn write(
        &mut self,
        out: &mut dyn Write,
        name: &str,
        labels: &str,
        own: &str,
        value: Value<'_>,
        milliseconds: Option<u64>,
    ) -> io::Result<()> {
        let line = &mut self.0;
        line.clear();
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(labels.as_bytes());
        if !own.is_empty() {
            line.push(b',');
            line.extend_from_slice(own.as_bytes());
        }
        line.extend_from_slice(if labels.is_empty() { b" " } else { b"} " });
        match value {
            Value::Int(v) => line.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
            Value::Float(v) if v.is_nan() => line.extend_from_slice(b"NaN"),
            Value::Float(v) if v.is_infinite() => {
                line.extend_from_slice(if v > 0.0 { b"+Inf" } else { b"-Inf" });
            }
            Value::Float(v) => line.extend_from_slice(ryu::Buffer::new().format_finite(v).as_bytes()),
            // The kubelet has none.
            Value::Histogram(_) => {}
        }
        if let Some(milliseconds) = milliseconds {
            line.push(b' ');
            line.extend_from_slice(itoa::Buffer::new().format(milliseconds).as_bytes());
        }
        line.push(b'\n');
        out.write_all(line)
    }
}
