//! The rows of a view, by scope, in the order that every exporter uses.

use super::{
    AgentView, CONTAINER_LABELS, Emit, Family, KUBE_STATE_LABELS, POD_LABELS, STATUS_LABELS, Samples, Scope,
    WORKLOAD_LABELS,
};
use crate::{
    exporters::limits::SeriesLimits,
    model::{
        CgroupRow, Level, View, WorkloadRow,
        pod::{KnownContainer, KnownPod},
    },
};

/// The subject of a row.
#[derive(Clone, Copy, Debug)]
pub enum Entity<'a> {
    /// A cgroup that exists: a container or a pod.
    Cgroup(&'a CgroupRow),
    /// The containers of a workload with the same name.
    Workload(&'a WorkloadRow),
    /// A container of a known pod, running or not.
    Status(&'a KnownPod, &'a KnownContainer),
    KubeState(&'a KnownPod),
    Agent(&'a AgentView<'a>),
}

/// A row of a scope.
#[derive(Clone, Copy, Debug)]
pub struct MetricRow<'a> {
    /// The scope whose families have samples of the row.
    pub scope: Scope,
    /// The subject.
    pub entity: Entity<'a>,
    /// Whether the limits by namespace admit the row.
    pub admitted: bool,
}

/// All cgroups of a view in the order of their paths, and whether the limits by namespace admit them.
pub fn cgroups<'a>(view: &'a View, limits: &SeriesLimits) -> impl Iterator<Item = (&'a CgroupRow, bool)> {
    view.cgroups.iter().map(|row| (row, limits.cgroup(row)))
}

/// All rows of a view except the agent's: cgroups in the order of their paths, workloads in the order of their names, containers
/// in the status of pods, and pods for kube-state-metrics if that is on.
pub fn rows<'a>(view: &'a View, limits: &'a SeriesLimits) -> impl Iterator<Item = MetricRow<'a>> {
    let cgroups = cgroups(view, limits).filter_map(|(row, admitted)| {
        Some(MetricRow {
            scope: scope_of(row.identity.of_path.level)?,
            entity: Entity::Cgroup(row),
            admitted,
        })
    });
    let workloads = view.workloads.iter().map(|row| MetricRow {
        scope: Scope::Workload,
        entity: Entity::Workload(row),
        admitted: limits.workload(row),
    });
    let statuses = view.pods.iter().flat_map(|pod| {
        let admitted = limits.namespace(&pod.names.namespace);
        let row = move |container| MetricRow {
            scope: Scope::Status,
            entity: Entity::Status(pod, container),
            admitted,
        };
        pod.containers.iter().map(row)
    });
    let pods = view.pods.iter().filter(|_| limits.kube_state).map(|pod| MetricRow {
        scope: Scope::KubeState,
        entity: Entity::KubeState(pod),
        admitted: limits.namespace(&pod.names.namespace),
    });
    cgroups.chain(workloads).chain(statuses).chain(pods)
}

/// The scope of cgroups of a level; `None` if they are not exported.
const fn scope_of(level: Level) -> Option<Scope> {
    match level {
        Level::Pod => Some(Scope::Pod),
        level if level.is_container() => Some(Scope::Container),
        _ => None,
    }
}

impl<'a> MetricRow<'a> {
    /// The agent's own row. Limits do not apply to it.
    pub const fn agent(view: &'a AgentView<'a>) -> Self {
        Self { scope: Scope::Agent, entity: Entity::Agent(view), admitted: true }
    }

    /// Emits the samples of a family for this row.
    pub fn samples(&self, family: &Family, emit: &mut Emit<'_>) {
        match (family.samples, self.entity) {
            (Samples::Container(samples) | Samples::Pod(samples), Entity::Cgroup(row)) => samples(row, emit),
            (Samples::Workload(samples), Entity::Workload(row)) => samples(row, emit),
            (Samples::Status(samples), Entity::Status(_, container)) => samples(container, emit),
            (Samples::KubeState(samples), Entity::KubeState(pod)) => samples(pod, emit),
            (Samples::Agent(samples), Entity::Agent(view)) => samples(view, emit),
            _ => {}
        }
    }

    /// Names and values of the labels of the scope. Values that are not known yet are empty.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, &'a str)> + use<'a> {
        let values = match (self.entity, self.scope) {
            (Entity::Cgroup(row), Scope::Pod) => padded(pod_labels(row)),
            (Entity::Cgroup(row), _) => padded(container_labels(row)),
            (Entity::Workload(row), _) => padded(workload_labels(row)),
            (Entity::Status(_, container), _) => padded(status_labels(container)),
            (Entity::KubeState(pod), _) => padded(kube_state_labels(pod)),
            (Entity::Agent(_), _) => padded([]),
        };
        self.scope.label_names().iter().copied().zip(values)
    }
}

/// The largest number of labels of a scope.
const MAX_LABELS: usize = CONTAINER_LABELS.len();

/// Values in a place of one size, which needs no memory of the heap.
fn padded<const N: usize>(values: [&str; N]) -> [&str; MAX_LABELS] {
    const { assert!(N <= MAX_LABELS) };
    let mut all = [""; MAX_LABELS];
    for (place, value) in all.iter_mut().zip(values) {
        *place = value;
    }
    all
}

/// Values of [`STATUS_LABELS`].
fn status_labels(container: &KnownContainer) -> [&str; STATUS_LABELS.len()] {
    let names = &*container.names;
    let kind = names.kind.map_or("", |kind| kind.as_str());
    [&names.namespace, &names.pod, &names.container, kind, &names.workload_kind, &names.workload]
}

/// Values of [`KUBE_STATE_LABELS`].
fn kube_state_labels(pod: &KnownPod) -> [&str; KUBE_STATE_LABELS.len()] {
    [&pod.names.namespace, &pod.names.pod, &pod.uid]
}

/// Values of [`CONTAINER_LABELS`]. Names that are not known yet are empty.
fn container_labels(row: &CgroupRow) -> [&str; CONTAINER_LABELS.len()] {
    let level = row.identity.of_path.level.as_str();
    let id = &*row.identity.path;
    row.identity.names.as_deref().map_or(["", "", "", "", "", id, level], |n| {
        let kind = n.kind.map_or(level, |kind| kind.as_str());
        [&n.namespace, &n.pod, &n.container, &n.workload_kind, &n.workload, id, kind]
    })
}

/// Values of [`POD_LABELS`]; names that are not known yet are empty.
fn pod_labels(row: &CgroupRow) -> [&str; POD_LABELS.len()] {
    let id = &*row.identity.path;
    row.identity
        .names
        .as_deref()
        .map_or(["", "", "", "", id], |n| [&n.namespace, &n.pod, &n.workload_kind, &n.workload, id])
}

/// Values of [`WORKLOAD_LABELS`].
fn workload_labels(row: &WorkloadRow) -> [&str; WORKLOAD_LABELS.len()] {
    [&row.namespace, &row.workload_kind, &row.workload, &row.container]
}
