//! The metric catalogue: every metric family of `/metrics` and OTLP, defined once. Exporters loop over it and add only their format.
//!
//! A [`Family`] has a name, a help text, and a function that gets its samples from a row of the [view](crate::model::View).
//! The labels that identify a row belong to the [`Scope`] ([`Scope::label_names`]). A family may add labels that split the
//! value of one row.

mod agent;
mod container;
mod kube_state;
mod pod;
mod rows;
mod status;
mod workload;

use crate::{
    model::{
        CgroupRow, WorkloadRow,
        pod::{KnownContainer, KnownPod},
    },
    values::Distribution,
};

pub use self::{
    agent::AgentView,
    rows::{Entity, MetricRow, cgroups, rows},
};

/// The unit of a family: the last part of its name, before `_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    None,
    Seconds,
    Bytes,
    /// CPU cores.
    Cores,
    BytesPerSecond,
}

impl Unit {
    /// The suffix in the name; empty for plain numbers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Cores => "cores",
            Self::BytesPerSecond => "bytes_per_second",
        }
    }

    /// The unit of a family with this name.
    const fn of(name: &str) -> Self {
        let name = name.as_bytes();
        match name {
            _ if ends_with(name, b"_seconds") => Self::Seconds,
            _ if ends_with(name, b"_bytes") => Self::Bytes,
            _ if ends_with(name, b"_cores") => Self::Cores,
            _ if ends_with(name, b"_bytes_per_second") => Self::BytesPerSecond,
            _ => Self::None,
        }
    }
}

const fn ends_with(text: &[u8], end: &[u8]) -> bool {
    match (text.split_last(), end.split_last()) {
        (_, None) => true,
        (Some((last, text)), Some((wanted, end))) => *last == *wanted && ends_with(text, end),
        (None, Some(_)) => false,
    }
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only increases while its series exists. In Prometheus the name has the suffix `_total`.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// A distribution whose counts only increase.
    Histogram,
}

impl Kind {
    /// The name in `# TYPE` lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A count or a size.
    Int(u64),
    /// A time or a ratio. Samples that are not finite are not exported.
    Float(f64),
    Histogram(&'a Distribution),
}

impl Value<'_> {
    /// Whether it can be exported.
    pub const fn is_finite(&self) -> bool {
        match self {
            Self::Int(_) => true,
            Self::Float(value) => value.is_finite(),
            Self::Histogram(windows) => windows.sum.is_finite(),
        }
    }
}

/// Receives the samples of a row: the values of the family's own labels, in the order of `Family::labels`, and the value.
pub type Emit<'a> = dyn FnMut(&[&str], Value<'_>) + 'a;

/// The rows of a family, with the function that emits the samples of one row.
#[derive(Clone, Copy, Debug)]
pub enum Samples {
    /// One row per cgroup whose level is a container (`Level::is_container`).
    Container(fn(&CgroupRow, &mut Emit<'_>)),
    /// One row per pod cgroup.
    Pod(fn(&CgroupRow, &mut Emit<'_>)),
    /// One row per workload and container name.
    Workload(fn(&WorkloadRow, &mut Emit<'_>)),
    /// One row per container of a known pod, running or not.
    Status(fn(&KnownContainer, &mut Emit<'_>)),
    /// One row per known pod, in the form of kube-state-metrics.
    KubeState(fn(&KnownPod, &mut Emit<'_>)),
    Agent(fn(&AgentView<'_>, &mut Emit<'_>)),
}

/// The kind of rows that a family has samples of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Containers, units and other leaf cgroups.
    Container,
    Pod,
    Workload,
    /// Containers in the status of a pod.
    Status,
    /// Pods under the names of kube-state-metrics; exported only if `kube-state-metrics` is on.
    KubeState,
    Agent,
}

impl Scope {
    /// All scopes, in the order of the catalogue.
    pub const ALL: [Self; 6] =
        [Self::Container, Self::Pod, Self::Workload, Self::Status, Self::KubeState, Self::Agent];

    /// The labels that every series of the scope carries.
    pub const fn label_names(self) -> &'static [&'static str] {
        match self {
            Self::Container => &CONTAINER_LABELS,
            Self::Pod => &POD_LABELS,
            Self::Workload => &WORKLOAD_LABELS,
            Self::Status => &STATUS_LABELS,
            Self::KubeState => &KUBE_STATE_LABELS,
            Self::Agent => &[],
        }
    }

    /// The families of the scope.
    pub const fn families(self) -> &'static [Family] {
        match self {
            Self::Container => container::FAMILIES,
            Self::Pod => pod::FAMILIES,
            Self::Workload => workload::FAMILIES,
            Self::Status => status::FAMILIES,
            Self::KubeState => kube_state::FAMILIES,
            Self::Agent => agent::FAMILIES,
        }
    }
}

/// A metric family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Name with the unit, without `_total`.
    pub name: &'static str,
    /// One sentence for users, without a full stop.
    pub help: &'static str,
    pub unit: Unit,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The labels that the family adds to those of its scope.
    pub labels: &'static [&'static str],
    /// Whether its counters start with the agent for containers that are older than the agent.
    pub since_agent: bool,
    /// The rows and the function that emits their samples.
    pub samples: Samples,
}

impl Family {
    /// The kind of its rows.
    pub const fn scope(&self) -> Scope {
        match self.samples {
            Samples::Container(_) => Scope::Container,
            Samples::Pod(_) => Scope::Pod,
            Samples::Workload(_) => Scope::Workload,
            Samples::Status(_) => Scope::Status,
            Samples::KubeState(_) => Scope::KubeState,
            Samples::Agent(_) => Scope::Agent,
        }
    }

    /// The name without the unit.
    pub fn stem(&self) -> &'static str {
        let unit = self.unit.as_str();
        match self.name.strip_suffix(unit) {
            Some(stem) if !unit.is_empty() => stem.strip_suffix('_').unwrap_or(stem),
            _ => self.name,
        }
    }

    /// The name of its series in Prometheus.
    pub fn series_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }

    const fn new(name: &'static str, help: &'static str, kind: Kind, samples: Samples) -> Self {
        Self { name, help, unit: Unit::of(name), kind, labels: &[], since_agent: false, samples }
    }

    const fn counter(name: &'static str, help: &'static str, samples: Samples) -> Self {
        Self::new(name, help, Kind::Counter, samples)
    }

    const fn gauge(name: &'static str, help: &'static str, samples: Samples) -> Self {
        Self::new(name, help, Kind::Gauge, samples)
    }

    const fn histogram(name: &'static str, help: &'static str, samples: Samples) -> Self {
        Self::new(name, help, Kind::Histogram, samples)
    }

    /// Marks a family whose counters start with the agent for containers that are older than the agent.
    const fn since_agent(self) -> Self {
        Self { since_agent: true, ..self }
    }

    const fn labels(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }
}

/// Every family, scope by scope.
pub fn families() -> impl Iterator<Item = &'static Family> {
    Scope::ALL.into_iter().flat_map(Scope::families)
}

/// Labels of container series. The last one should have short values: they are escaped again for every sample.
pub const CONTAINER_LABELS: [&str; 7] =
    ["namespace", "pod", "container", "workload_kind", "workload", "id", "kind"];

/// Labels of pod series.
pub const POD_LABELS: [&str; 5] = ["namespace", "pod", "workload_kind", "workload", "id"];

/// Labels of workload series.
pub const WORKLOAD_LABELS: [&str; 4] = ["namespace", "workload_kind", "workload", "container"];

/// Labels of series from the status of pods.
pub const STATUS_LABELS: [&str; 6] = ["namespace", "pod", "container", "kind", "workload_kind", "workload"];

/// Labels of all series under the names of kube-state-metrics.
pub const KUBE_STATE_LABELS: [&str; 3] = ["namespace", "pod", "uid"];

pub(super) const fn seconds(nanoseconds: u64) -> Value<'static> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "loses nanoseconds only, and only after 104 days of CPU time"
    )]
    Value::Float(nanoseconds as f64 / 1e9)
}

#[expect(clippy::cast_precision_loss, reason = "millicores of one machine")]
const fn cores(millicores: u64) -> Value<'static> {
    Value::Float(millicores as f64 / 1000.0)
}

/// Emits the one sample of a row, if its value is known.
fn one(emit: &mut Emit<'_>, value: Option<Value<'_>>) {
    if let Some(value) = value {
        emit(&[], value);
    }
}

fn memory_events(events: &crate::values::MemoryEvents, emit: &mut Emit<'_>) {
    let crate::values::MemoryEvents { low, high, max, oom, oom_kill } = *events;
    for (event, count) in [("low", low), ("high", high), ("max", max), ("oom", oom), ("oom_kill", oom_kill)] {
        emit(&[event], Value::Int(count));
    }
}

fn connections(tcp: &crate::values::Tcp, emit: &mut Emit<'_>) {
    let outcomes = [
        ("opened", tcp.opened),
        ("accepted", tcp.accepted),
        ("refused", tcp.refused),
        ("reset", tcp.reset),
        ("timed_out", tcp.timed_out),
        ("failed", tcp.failed),
    ];
    for (outcome, count) in outcomes {
        emit(&[outcome], Value::Int(count));
    }
}

#[expect(clippy::cast_precision_loss, reason = "quotas and periods are far below 2^53 nanoseconds")]
fn limit_cores(row: &CgroupRow, emit: &mut Emit<'_>) {
    if let Some(t) = row.values.throttling
        && let Some(quota) = t.quota_ns
        && t.period_ns > 0
    {
        emit(&[], Value::Float(quota as f64 / t.period_ns as f64));
    }
}

#[cfg(test)]
mod tests;
