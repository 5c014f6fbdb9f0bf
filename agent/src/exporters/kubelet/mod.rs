//! The endpoints of the kubelet, with its names, labels and units, so that clients of the kubelet keep working. This module has
//! `/metrics/cadvisor`, and [`resource`] has `/metrics/resource`.
//!
//! On `/metrics/cadvisor` samples have no timestamps; those of the kubelet are up to 15 s older than the scrape.

mod families;
mod left_out;
pub mod resource;

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    catalogue::{self, Value},
    limits::SeriesLimits,
    series::SeriesCounts,
    stream::Sink,
    text::{Header, Number, TextWriter, render},
};
use crate::{
    clock::since_epoch,
    model::{CgroupRow, Level, Machine, Runtime, View},
};

pub use families::{Family, Samples, families};
pub use left_out::LEFT_OUT;

/// Values older than this count as a scrape error.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// The image of a sandbox whose runtime does not record it (containerd before 2.0).
const DEFAULT_PAUSE_IMAGE: &str = "pause";

/// Receives the samples of a row: names and values of the family's own labels, and the value.
pub type Emit<'a> = dyn FnMut(&[(&str, &str)], Value<'_>) + 'a;

#[derive(Clone, Copy, Debug)]
pub struct Scrape<'a> {
    /// The view to export.
    pub view: &'a View,
    pub limits: &'a SeriesLimits,
    /// The time of the scrape.
    pub now: Instant,
    /// The time of the scrape since the Unix epoch.
    pub now_unix: Duration,
}

impl<'a> Scrape<'a> {
    /// A scrape at the current time.
    pub fn now(view: &'a View, limits: &'a SeriesLimits) -> Self {
        Self { view, limits, now: Instant::now(), now_unix: since_epoch() }
    }

    /// Whether the values are older than [`STALE_AFTER`].
    fn is_stale(&self) -> bool {
        self.now.saturating_duration_since(self.view.at) > STALE_AFTER
    }

    /// Writes the exposition and returns the counts of its series.
    pub fn encode(&self, out: &mut dyn Sink) -> io::Result<SeriesCounts> {
        let mut counts = SeriesCounts::default();
        let rows = Rows::new(self.view, self.limits);
        let mut text = TextWriter::new(out);
        for family in families() {
            let admitted = self.limits.family(&[family.name]);
            let Family { name, kind, help, .. } = *family;
            let mut writer = text.family(Header::text(name, kind, help), None);
            match family.samples {
                Samples::Cgroup(samples) => {
                    for row in &rows.rows {
                        samples(row.row, self, &mut |own, value| {
                            if counts.admit(self.limits, admitted, row.admitted) {
                                writer.sample(&row.labels, own.iter().copied(), Number::of(value));
                            }
                        });
                    }
                }
                Samples::Machine(value) => {
                    if let Some(value) = value(&self.view.host)
                        && counts.admit(self.limits, admitted, true)
                    {
                        writer.sample(&rows.machine, [], Number::Int(value));
                    }
                }
                Samples::Plain(value) => writer.sample(b"", [], Number::Int(value(self))),
            }
            text.check()?;
        }
        text.finish("")?;
        Ok(counts)
    }
}

struct KubeletRow<'a> {
    row: &'a CgroupRow,
    admitted: bool,
    labels: Vec<u8>,
}

/// The rows that a kubelet exports.
struct Rows<'a> {
    rows: Vec<KubeletRow<'a>>,
    /// The labels of `machine_*` series.
    machine: Vec<u8>,
}

impl<'a> Rows<'a> {
    fn new(view: &'a View, limits: &SeriesLimits) -> Self {
        let rows = catalogue::cgroups(view, limits)
            .filter(|(row, _)| row.identity.of_path.level != Level::Cgroup)
            .map(|(row, admitted)| KubeletRow { row, admitted, labels: row_labels(row, limits) })
            .collect();
        let Machine { boot_id, machine_id, system_uuid, .. } = &view.host.machine;
        let ids = [("boot_id", boot_id), ("machine_id", machine_id), ("system_uuid", system_uuid)];
        Self { rows, machine: render(ids.map(|(label, id)| (label, id.as_str()))) }
    }
}

fn row_labels(row: &CgroupRow, limits: &SeriesLimits) -> Vec<u8> {
    let identity = &row.identity;
    let of_path = &identity.of_path;
    let names = identity.names.as_deref();
    let in_container = matches!(of_path.level, Level::Container | Level::Sandbox);
    let container = match (of_path.level, of_path.runtime) {
        (Level::Sandbox, Runtime::Docker | Runtime::CriO) => "POD",
        (Level::Container, _) => names.map_or("", |n| &n.container),
        _ => "",
    };
    // Queries select containers, as opposed to pods and slices, by a non-empty image.
    let image = match names.filter(|_| in_container).map_or("", |n| &n.image) {
        "" if of_path.level == Level::Sandbox => DEFAULT_PAUSE_IMAGE,
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
    render(labels.into_iter().filter(|(label, _)| !limits.drops(label)))
}

#[cfg(test)]
mod tests;
