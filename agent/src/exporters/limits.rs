//! What an endpoint leaves out: families, namespaces, labels, and everything beyond a number of series.
//!
//! Whatever is left out is counted and exported. The agent's own metrics are never left out. A series is never
//! merged with another: labels that tell series apart cannot be dropped, so no limit can make a duplicate.

use std::str::FromStr;

use crate::{
    config::Pattern,
    model::{CgroupRow, Event, Level, Names, Subject, WorkloadRow},
};

/// Why a limit cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LimitsError {
    /// A label that tells series apart, or that no series has.
    #[error("label `{0}` cannot be dropped, because series would collide or no series has it; these can: {names}", names = DroppableLabel::names())]
    NotDroppable(String),
}

/// A label that may be dropped, because `id` or the workload's own labels still tell the series apart.
///
/// The namespace, pod and container labels stay too: one series without them breaks queries that join on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DroppableLabel {
    /// The runtime's id, on `snug_container_info`.
    ContainerId,
    /// The image, on `snug_container_info` and on every kubelet series.
    Image,
    /// The kind of container, on container series.
    Kind,
    /// The container's id, on kubelet series.
    Name,
    /// The pod's uid, on `snug_container_info`.
    PodUid,
    /// The QoS class, on `snug_container_info`.
    Qos,
    /// The runtime, on `snug_container_info`.
    Runtime,
    /// The workload's name, on container and pod series.
    Workload,
    /// The workload's kind, on container and pod series.
    WorkloadKind,
}

impl DroppableLabel {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ContainerId,
        Self::Image,
        Self::Kind,
        Self::Name,
        Self::PodUid,
        Self::Qos,
        Self::Runtime,
        Self::Workload,
        Self::WorkloadKind,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContainerId => "container_id",
            Self::Image => "image",
            Self::Kind => "kind",
            Self::Name => "name",
            Self::PodUid => "pod_uid",
            Self::Qos => "qos",
            Self::Runtime => "runtime",
            Self::Workload => "workload",
            Self::WorkloadKind => "workload_kind",
        }
    }

    /// All names, for a message.
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl FromStr for DroppableLabel {
    type Err = LimitsError;

    fn from_str(text: &str) -> Result<Self, LimitsError> {
        Self::ALL
            .into_iter()
            .find(|label| label.as_str() == text)
            .ok_or_else(|| LimitsError::NotDroppable(text.to_owned()))
    }
}

/// What endpoints leave out.
#[derive(Clone, Debug)]
pub struct SeriesLimits {
    /// Only families that match one of these; empty = all.
    pub allow_families: Vec<Pattern>,
    /// No family that matches one of these.
    pub deny_families: Vec<Pattern>,
    /// Only pods and workloads in a namespace that matches one of these; empty = all.
    pub allow_namespaces: Vec<Pattern>,
    /// No pod or workload in a namespace that matches one of these.
    pub deny_namespaces: Vec<Pattern>,
    /// Labels left out of every series that is about a container or pod.
    pub drop_labels: Vec<DroppableLabel>,
    /// Whether pods are exported in the form of kube-state-metrics, too.
    pub kube_state: bool,
    /// At most this many series in one scrape of one endpoint, the agent's own not counted. Families come in the
    /// order of the catalogue and rows in the order of their paths, so that it is the same series that are cut.
    pub max_series: u64,
}

impl Default for SeriesLimits {
    fn default() -> Self {
        Self {
            allow_families: Vec::new(),
            deny_families: Vec::new(),
            allow_namespaces: Vec::new(),
            deny_namespaces: Vec::new(),
            drop_labels: Vec::new(),
            kube_state: false,
            max_series: u64::MAX,
        }
    }
}

impl SeriesLimits {
    /// Whether a family with one of these names is exported.
    pub fn family(&self, names: &[&str]) -> bool {
        allowed(&self.allow_families, &self.deny_families, |p| names.iter().any(|name| p.matches(name)))
    }

    /// Whether the rows of a namespace are exported.
    pub fn namespace(&self, namespace: &str) -> bool {
        allowed(&self.allow_namespaces, &self.deny_namespaces, |p| p.matches(namespace))
    }

    /// Whether a cgroup is exported. The node's own cgroups are in no namespace and always are. A pod whose
    /// namespace is not known yet is held back as soon as there is any rule, because it might break it.
    pub fn cgroup(&self, row: &CgroupRow) -> bool {
        let of_path = &row.identity.of_path;
        self.named(row.identity.names.as_deref(), of_path.pod_uid.is_some(), of_path.level)
    }

    /// Whether an event is told on: as its subject is exported.
    pub fn event(&self, event: &Event) -> bool {
        let Subject { names, pod_uid, level, .. } = &event.subject;
        self.named(names.as_deref(), !pod_uid.is_empty(), *level)
    }

    fn named(&self, names: Option<&Names>, in_pod: bool, level: Level) -> bool {
        match names {
            Some(names) if !names.namespace.is_empty() => self.namespace(&names.namespace),
            _ if in_pod || matches!(level, Level::Pod | Level::Sandbox) => {
                self.allow_namespaces.is_empty() && self.deny_namespaces.is_empty()
            }
            _ => true,
        }
    }

    /// Whether a workload is exported. Workloads of a host without pods are in no namespace and always are.
    pub fn workload(&self, row: &WorkloadRow) -> bool {
        row.namespace.is_empty() || self.namespace(&row.namespace)
    }

    /// Whether a label is left out.
    pub fn drops(&self, label: &str) -> bool {
        self.drop_labels.iter().any(|dropped| dropped.as_str() == label)
    }
}

fn allowed(allow: &[Pattern], deny: &[Pattern], matches: impl Fn(&Pattern) -> bool) -> bool {
    (allow.is_empty() || allow.iter().any(&matches)) && !deny.iter().any(&matches)
}

/// What became of the series of one scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesCounts {
    /// Exported.
    pub written: u64,
    /// Left out by family.
    pub cut_by_family: u64,
    /// Left out by namespace.
    pub cut_by_namespace: u64,
    /// Left out beyond the number.
    pub cut_by_cap: u64,
}

impl SeriesCounts {
    /// Why series were left out, and how many.
    pub const fn cut(&self) -> [(&'static str, u64); 3] {
        let Self { written: _, cut_by_family, cut_by_namespace, cut_by_cap } = *self;
        [("family", cut_by_family), ("namespace", cut_by_namespace), ("cap", cut_by_cap)]
    }

    /// Decides on one series and counts it.
    pub fn admit(&mut self, limits: &SeriesLimits, family: bool, namespace: bool) -> bool {
        if !family {
            self.cut_by_family += 1;
        } else if !namespace {
            self.cut_by_namespace += 1;
        } else if self.written >= limits.max_series {
            self.cut_by_cap += 1;
        } else {
            self.written += 1;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text)
    }

    #[test]
    fn labels_that_tell_series_apart_cannot_be_dropped() {
        for label in ["id", "namespace", "pod", "container", "event", "device", "cpu", "", "Image"] {
            let error = label.parse::<DroppableLabel>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{label}`")) && error.contains("workload_kind"), "{error}");
        }
        for label in DroppableLabel::ALL {
            assert_eq!(label.as_str().parse(), Ok(label));
        }
    }

    #[test]
    fn deny_wins_over_allow() {
        let limits = SeriesLimits {
            allow_families: vec![pattern("snug_container_*")],
            deny_families: vec![pattern("*_cfs_*")],
            allow_namespaces: vec![pattern("prod-*")],
            ..SeriesLimits::default()
        };
        assert!(limits.family(&["snug_container_tasks"]));
        assert!(!limits.family(&["snug_container_cpu_cfs_periods", "snug_container_cpu_cfs_periods_total"]));
        assert!(!limits.family(&["snug_pod_memory_usage_bytes"]));
        assert!(limits.namespace("prod-a") && !limits.namespace("dev"));
    }

    #[test]
    fn a_series_is_counted_once() {
        let limits = SeriesLimits { max_series: 1, ..SeriesLimits::default() };
        let mut counts = SeriesCounts::default();
        assert!(!counts.admit(&limits, false, false));
        assert!(!counts.admit(&limits, true, false));
        assert!(counts.admit(&limits, true, true));
        assert!(!counts.admit(&limits, true, true));
        assert_eq!(counts, SeriesCounts { written: 1, cut_by_family: 1, cut_by_namespace: 1, cut_by_cap: 1 });
    }
}
