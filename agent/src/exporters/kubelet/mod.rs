//! The kubelet's endpoints, with its names, labels and units, so that what reads those keeps working: here
//! `/metrics/cadvisor`, and `/metrics/resource` in [`resource`].
//!
//! Text 0.0.4 by an own encoder, because there is much of it: a row's labels are rendered once per scrape and copied
//! into each of its series. On `/metrics/cadvisor` no sample carries a timestamp; the kubelet's are older than the
//! scrape by up to 15 s.

mod families;
mod left_out;
pub mod resource;
mod text;

use std::{
    io::{self, Write},
    ops::Range,
    time::{Duration, Instant},
};

use text::{FamilyWriter, Header, Line};

use super::{
    catalogue::{self, Value},
    limits::SeriesLimits,
    series::SeriesCounts,
    text::render,
};
use crate::{
    clock::since_epoch,
    model::{CgroupRow, Level, Machine, Runtime, View},
};

pub use families::{Family, Samples, families};
pub use left_out::LEFT_OUT;

/// View values older than this are an error.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// The image of a sandbox whose runtime does not note it, as containerd before 2.0.
const UNTOLD_PAUSE: &str = "pause";

/// Takes the samples of a row: rendered labels of the family's own (`cpu="total"`, or empty), and the value.
pub type Emit<'a> = dyn FnMut(&str, Value<'_>) + 'a;

/// One scrape.
#[derive(Clone, Copy, Debug)]
pub struct Scrape<'a> {
    /// What to export.
    pub published: &'a View,
    /// What to leave out.
    pub limits: &'a SeriesLimits,
    /// The moment of the scrape.
    pub now: Instant,
    /// The same since the Unix epoch.
    pub now_unix: Duration,
}

impl<'a> Scrape<'a> {
    /// A scrape at this moment.
    pub fn now(published: &'a View, limits: &'a SeriesLimits) -> Self {
        Self { published, limits, now: Instant::now(), now_unix: since_epoch() }
    }

    /// Whether the values are so old that they are an error.
    fn is_stale(&self) -> bool {
        self.now.saturating_duration_since(self.published.at) > STALE_AFTER
    }

    /// Writes the whole exposition and says what was in it.
    pub fn encode(&self, out: &mut dyn Write) -> io::Result<SeriesCounts> {
        let mut counts = SeriesCounts::default();
        let rows = Rows::new(self.published, self.limits);
        let mut line = Line::default();
        for family in families() {
            let admitted = self.limits.family(&[family.name]);
            let Family { name, kind, help, .. } = *family;
            let mut writer = FamilyWriter::new(out, &mut line, Header { name, kind, help }, None);
            match family.samples {
                Samples::Cgroup(samples) => {
                    for row in &rows.rows {
                        let labels = rows.labels.get(row.labels.clone()).unwrap_or_default();
                        samples(row.row, self, &mut |own, value| {
                            if counts.admit(self.limits, admitted, row.admitted) {
                                writer.write(labels, own, value);
                            }
                        });
                    }
                }
                Samples::Machine(value) => {
                    if let Some(value) = value(&self.published.host)
                        && counts.admit(self.limits, admitted, true)
                    {
                        writer.write(&rows.machine, "", Value::Int(value));
                    }
                }
                Samples::Plain(value) => writer.write("", "", Value::Int(value(self))),
            }
            writer.result?;
        }
        Ok(counts)
    }
}

struct Row<'a> {
    row: &'a CgroupRow,
    admitted: bool,
    labels: Range<usize>,
}

/// The rows that a kubelet shows, and all their labels behind one another.
struct Rows<'a> {
    rows: Vec<Row<'a>>,
    labels: String,
    /// The machine's.
    machine: String,
}

impl<'a> Rows<'a> {
    fn new(published: &'a View, limits: &SeriesLimits) -> Self {
        let mut labels = String::new();
        let rows = catalogue::cgroups(published, limits)
            .filter(|(row, _)| row.identity.of_path.level != Level::Cgroup)
            .map(|(row, admitted)| {
                let start = labels.len();
                row_labels(row, limits, &mut labels);
                Row { row, admitted, labels: start..labels.len() }
            })
            .collect();
        let Machine { boot_id, machine_id, system_uuid, .. } = &published.host.machine;
        let mut machine = String::new();
        let ids = [("boot_id", boot_id), ("machine_id", machine_id), ("system_uuid", system_uuid)];
        render(ids.map(|(label, id)| (label, id.as_str())), &mut machine);
        Self { rows, labels, machine }
    }
}

fn row_labels(row: &CgroupRow, limits: &SeriesLimits, out: &mut String) {
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
    let image = match names.filter(|_| in_container).map_or("", |n| &n.image) {
        "" if of_path.level == Level::Sandbox => UNTOLD_PAUSE,
        image => image,
    };
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
    render(labels.into_iter().filter(|(label, _)| !limits.drops(label)), out);
}

#[cfg(test)]
mod tests;
