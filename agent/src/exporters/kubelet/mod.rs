//! `/metrics/cadvisor`: names, labels and units of the kubelet's endpoint, so that what reads those keeps working.
//!
//! Text 0.0.4 by an own encoder, because there is much of it: a row's labels are rendered once per scrape and copied
//! into each of its series. No sample carries a timestamp; the kubelet's are older than the scrape by up to 15 s.

mod families;
mod left_out;

use std::{
    io::{self, Write},
    ops::Range,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    catalogue::{Kind, Value},
    limits::{SeriesCounts, SeriesLimits},
};
use crate::{
    identity::{Level, Runtime},
    store::published::{CgroupRow, Published},
};

pub use families::{FAMILIES, Family};
pub use left_out::LEFT_OUT;

/// Published values older than this make `container_scrape_error` 1.
pub const STALE_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

/// Takes the samples of a row: rendered labels of the family's own (`cpu="total"`, or empty), and the value.
pub type Emit<'a> = dyn FnMut(&'static str, Value) + 'a;

/// One scrape.
#[derive(Clone, Copy, Debug)]
pub struct Scrape<'a> {
    /// What to export.
    pub published: &'a Published,
    /// What to leave out.
    pub limits: &'a SeriesLimits,
    /// The moment of the scrape.
    pub now: Instant,
    /// The same in seconds since the Unix epoch.
    pub now_unix: u64,
}

impl<'a> Scrape<'a> {
    /// A scrape at this moment.
    pub fn now(published: &'a Published, limits: &'a SeriesLimits) -> Self {
        let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { published, limits, now: Instant::now(), now_unix }
    }

    /// Writes the whole exposition and says what was in it.
    pub fn encode(&self, out: &mut dyn Write) -> io::Result<SeriesCounts> {
        let mut counts = SeriesCounts::default();
        let rows = Rows::new(self.published, self.limits);
        let mut line = Line::default();
        for family in FAMILIES {
            let family_admitted = self.limits.family(&[family.name]);
            let mut headed = false;
            for row in &rows.rows {
                let mut result = Ok(());
                (family.samples)(row.row, self, &mut |own, value| {
                    if result.is_err() || !counts.admit(self.limits, family_admitted, row.admitted) {
                        return;
                    }
                    if !headed {
                        headed = true;
                        result = header(out, family.name, family.kind, family.help);
                    }
                    if result.is_ok() {
                        result = line.write(out, family.name, &rows.labels[row.labels.clone()], own, value);
                    }
                });
                result?;
            }
        }
        header(
            out,
            "container_scrape_error",
            Kind::Gauge,
            "1 if the values are older than 10 seconds, 0 otherwise",
        )?;
        let stale = self.now.saturating_duration_since(self.published.at) > STALE_AFTER;
        out.write_all(if stale { b"container_scrape_error 1\n" } else { b"container_scrape_error 0\n" })?;
        Ok(counts)
    }
}

fn header(out: &mut dyn Write, name: &str, kind: Kind, help: &str) -> io::Result<()> {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str())
}

struct Row<'a> {
    row: &'a CgroupRow,
    admitted: bool,
    labels: Range<usize>,
}

/// The rows that a kubelet shows, and all their labels behind one another.
struct Rows<'a> {
    rows: Vec<Row<'a>>,
    labels: Vec<u8>,
}

impl<'a> Rows<'a> {
    fn new(published: &'a Published, limits: &SeriesLimits) -> Self {
        let mut labels = Vec::new();
        let shown = |row: &&CgroupRow| row.identity.of_path.level != Level::Cgroup;
        let rows = published
            .cgroups
            .iter()
            .filter(shown)
            .map(|row| {
                let start = labels.len();
                row_labels(row, limits, &mut labels);
                Row { row, admitted: limits.cgroup(row), labels: start..labels.len() }
            })
            .collect();
        Self { rows, labels }
    }
}

fn row_labels(row: &CgroupRow, limits: &SeriesLimits, out: &mut Vec<u8>) {
    let identity = &row.identity;
    let of_path = &identity.of_path;
    let names = identity.names.as_deref();
    let in_container = matches!(of_path.level, Level::Container | Level::Sandbox);
    let container = match (of_path.level, of_path.runtime) {
        (Level::Sandbox, Runtime::Docker | Runtime::CriO) => "POD",
        (Level::Container, _) => names.map_or("", |n| &n.container),
        _ => "",
    };
    // Queries tell containers from pods and slices by a non-empty image.
    let image = names.filter(|_| in_container).map_or("", |n| &n.image);
    let name = if in_container { &*of_path.id } else { "" };
    let (namespace, pod) = names.map_or(("", ""), |n| (&n.namespace, &n.pod));
    let labels = [
        ("container", container),
        ("id", &*identity.path),
        ("image", image),
        ("name", name),
        ("namespace", namespace),
        ("pod", pod),
    ];
    let mut separator = b'{';
    for (label, value) in labels {
        if !limits.drops(label) {
            out.push(separator);
            separator = b',';
            out.extend_from_slice(label.as_bytes());
            out.extend_from_slice(b"=\"");
            escape(value, out);
            out.push(b'"');
        }
    }
}

/// Escapes a label value: backslash, quote and newline are all that the format reserves.
fn escape(value: &str, out: &mut Vec<u8>) {
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
}

#[derive(Default)]
struct Line(Vec<u8>);

impl Line {
    fn write(
        &mut self,
        out: &mut dyn Write,
        name: &str,
        labels: &[u8],
        own: &'static str,
        value: Value,
    ) -> io::Result<()> {
        let line = &mut self.0;
        line.clear();
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(labels);
        if !own.is_empty() {
            line.push(b',');
            line.extend_from_slice(own.as_bytes());
        }
        line.extend_from_slice(b"} ");
        match value {
            Value::Int(v) => line.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
            Value::Float(v) if v.is_nan() => line.extend_from_slice(b"NaN"),
            Value::Float(v) if v.is_infinite() => {
                line.extend_from_slice(if v > 0.0 { b"+Inf" } else { b"-Inf" });
            }
            Value::Float(v) => line.extend_from_slice(ryu::Buffer::new().format_finite(v).as_bytes()),
        }
        line.push(b'\n');
        out.write_all(line)
    }
}

#[cfg(test)]
mod tests;
