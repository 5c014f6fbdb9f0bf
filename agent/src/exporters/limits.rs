//! Limits of the series that endpoints export: by family, namespace and label, and by number.
//!
//! Series that are left out are counted, and the counts exported. The agent's own metrics are never left out. Series are never
//! merged: labels that identify a series cannot be dropped, so no limit creates a duplicate.

use crate::{
    model::{CgroupRow, Event, Level, Names, Subject, WorkloadRow},
    patterns::{DroppableLabel, Pattern},
};

/// Limits of the series that endpoints export.
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
    /// Whether pods are also exported under the names of kube-state-metrics.
    pub kube_state: bool,
    /// Maximum number of series in one scrape of one endpoint, without the agent's own. Families are in the order of
    /// the catalogue and rows in the order of their paths, so each scrape cuts the same series.
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

    /// Whether a cgroup is exported. Cgroups without a namespace always are. If there is any rule, pods whose
    /// namespace is not known yet are left out.
    pub fn cgroup(&self, row: &CgroupRow) -> bool {
        let of_path = &row.identity.of_path;
        self.named(row.identity.names.as_deref(), of_path.pod_uid.is_some(), of_path.level)
    }

    /// Whether an event is exported. The rules are those for its subject.
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

    /// Whether a workload is exported. Workloads without a namespace always are.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text)
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
}
