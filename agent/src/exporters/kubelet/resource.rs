//! `/metrics/resource`, which metrics-server reads for `kubectl top` and the HorizontalPodAutoscaler.
//!
//! metrics-server computes rates from the timestamps of samples, so samples have the time at which they were measured. For a
//! node or container it keeps only the timestamp of the last sample that it reads. Therefore all samples of a scrape have the
//! same timestamp, the one of CPU time.
//! metrics-server drops a pod if any container has no CPU time or memory. Therefore, like a kubelet, this endpoint leaves out
//! terminated containers, whose cgroups have no tasks.

use std::io;

use super::Scrape;
use crate::{
    exporters::{
        catalogue::{
            Kind::{self, Counter, Gauge},
            Value, cgroups, seconds,
        },
        limits::SeriesLimits,
        series::SeriesCounts,
        stream::Sink,
        text::{Header, Number, TextWriter, render},
    },
    model::{CgroupRow, Level, View},
    values::Measurement,
};

/// A family of `/metrics/resource`.
#[derive(Debug)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// The help text.
    pub help: &'static str,
    /// The level of cgroups that have a sample: containers, pods, or the root for the node.
    level: Level,
    /// Whether samples have a timestamp. As in a kubelet, the start time has none.
    timed: bool,
    value: fn(&CgroupRow) -> Option<Value<'static>>,
}

impl Family {
    /// Names of the labels.
    pub fn labels(&self) -> &'static [&'static str] {
        match self.level {
            Level::Container => &LABELS,
            Level::Pod => &LABELS[1..],
            _ => &[],
        }
    }
}

const LABELS: [&str; 3] = ["container", "namespace", "pod"];

fn cpu(row: &CgroupRow) -> Option<Value<'static>> {
    row.values.cpu.map(|cpu| seconds(cpu.usage_ns))
}

fn working_set(row: &CgroupRow) -> Option<Value<'static>> {
    row.values.working_set.map(|set| Value::Int(set.bytes))
}

fn swap(row: &CgroupRow) -> Option<Value<'static>> {
    row.values.swap.map(|swap| Value::Int(swap.usage_bytes))
}

const fn family(
    name: &'static str,
    kind: Kind,
    level: Level,
    help: &'static str,
    value: fn(&CgroupRow) -> Option<Value<'static>>,
) -> Family {
    Family { name, kind, help, level, timed: true, value }
}

/// All families except `resource_scrape_error`, in the order of the exposition.
pub static FAMILIES: [Family; 11] = [
    family(
        "container_cpu_usage_seconds_total",
        Counter,
        Level::Container,
        "CPU time used by the container, in seconds",
        cpu,
    ),
    family(
        "container_memory_working_set_bytes",
        Gauge,
        Level::Container,
        "Memory usage of the container without inactive file cache, in bytes",
        working_set,
    ),
    Family {
        timed: false,
        ..family(
            "container_start_time_seconds",
            Gauge,
            Level::Container,
            "When the container's cgroup was created, in seconds since the Unix epoch",
            |row| Some(Value::Float(row.created_unix)),
        )
    },
    family(
        "container_swap_limit_bytes",
        Gauge,
        Level::Container,
        "Swap limit of the container, in bytes; on cgroup v1 of memory and swap together; absent without a limit",
        |row| row.values.swap.and_then(|swap| swap.limit_bytes).map(Value::Int),
    ),
    family(
        "container_swap_usage_bytes",
        Gauge,
        Level::Container,
        "Swap used by the container, in bytes",
        swap,
    ),
    family(
        "node_cpu_usage_seconds_total",
        Counter,
        Level::Root,
        "CPU time used by the node, in seconds",
        cpu,
    ),
    family(
        "node_memory_working_set_bytes",
        Gauge,
        Level::Root,
        "Memory usage of the node without inactive file cache, in bytes",
        working_set,
    ),
    family("node_swap_usage_bytes", Gauge, Level::Root, "Swap used on the node, in bytes", swap),
    family("pod_cpu_usage_seconds_total", Counter, Level::Pod, "CPU time used by the pod, in seconds", cpu),
    family(
        "pod_memory_working_set_bytes",
        Gauge,
        Level::Pod,
        "Memory usage of the pod without inactive file cache, in bytes",
        working_set,
    ),
    family("pod_swap_usage_bytes", Gauge, Level::Pod, "Swap used by the pod, in bytes", swap),
];

/// Name and help text of the family that reports stale values.
pub const SCRAPE_ERROR: (&str, &str) =
    ("resource_scrape_error", "1 if the values are older than 10 seconds, 0 otherwise");

/// A row with its labels.
struct ResourceRow<'a> {
    row: &'a CgroupRow,
    admitted: bool,
    level: Level,
    /// Container, namespace and pod.
    names: [&'a str; 3],
    labels: Vec<u8>,
}

/// The rows that a kubelet exports. A restarted container may still have its old cgroup. Only the newer one is exported,
/// because both have the same labels.
fn rows<'a>(view: &'a View, limits: &SeriesLimits) -> Vec<ResourceRow<'a>> {
    let mut rows: Vec<ResourceRow<'_>> =
        cgroups(view, limits).filter_map(|(one, admitted)| row(one, admitted)).collect();
    rows.sort_by(|one, other| {
        let newest_first = other.row.created_unix.total_cmp(&one.row.created_unix);
        (one.level, one.names).cmp(&(other.level, other.names)).then(newest_first)
    });
    rows.dedup_by(|next, kept| (next.level, next.names) == (kept.level, kept.names));
    rows
}

fn row(row: &CgroupRow, admitted: bool) -> Option<ResourceRow<'_>> {
    let level = row.identity.of_path.level;
    let of_pod = || row.identity.names.as_deref().filter(|names| !names.pod.is_empty());
    let names = match level {
        Level::Root => ["", "", ""],
        Level::Pod => of_pod().map(|names| ["", &*names.namespace, &*names.pod])?,
        Level::Container if row.values.pids.is_none_or(|pids| pids.current > 0) => of_pod()
            .filter(|names| !names.container.is_empty())
            .map(|names| [&*names.container, &*names.namespace, &*names.pod])?,
        _ => return None,
    };
    let labels = render(LABELS.into_iter().zip(names).filter(|(_, name)| !name.is_empty()));
    Some(ResourceRow { row, admitted, level, names, labels })
}

impl Scrape<'_> {
    /// Writes `/metrics/resource` and returns the counts of its series.
    pub fn encode_resource(&self, out: &mut dyn Sink) -> io::Result<SeriesCounts> {
        let mut counts = SeriesCounts::default();
        let rows = rows(self.view, self.limits);
        let measured = self.measured_milliseconds();
        let mut text = TextWriter::new(out);
        for &Family { name, kind, help, level, timed, value } in &FAMILIES {
            let admitted = self.limits.family(&[name]);
            let milliseconds = timed.then_some(measured);
            let mut writer = text.family(Header::text(name, kind, help), milliseconds);
            for row in rows.iter().filter(|row| row.level == level) {
                if let Some(value) = value(row.row)
                    && counts.admit(self.limits, admitted, row.admitted)
                {
                    writer.sample(&row.labels, [], Number::of(value));
                }
            }
            text.check()?;
        }
        let (name, help) = SCRAPE_ERROR;
        let mut writer = text.family(Header::text(name, Gauge, help), None);
        writer.sample(b"", [], Number::Int(u64::from(self.is_stale())));
        text.finish("")?;
        Ok(counts)
    }

    /// When CPU time was last read, in milliseconds since the Unix epoch.
    fn measured_milliseconds(&self) -> u64 {
        let sources = &self.view.agent.sources;
        let cpu = sources.iter().find(|source| source.measurement == Measurement::Cpu);
        let at = cpu.and_then(|source| source.sampled_at).unwrap_or(self.view.at);
        let unix = self.now_unix.saturating_sub(self.now.saturating_duration_since(at));
        u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
