//! The samples of a scrape, family by family: what there is, less what limits leave out.

use std::cell::RefCell;

use super::Scrape;
use crate::exporters::{
    catalogue::{
        self, AgentView, CONTAINER_LABELS, Emit, EndpointSeries, Family, KUBE_STATE_LABELS, POD_LABELS,
        STATUS_LABELS, Samples, Scope, Value, WORKLOAD_LABELS,
    },
    limits::{SeriesCounts, SeriesLimits},
};

/// A sample that is exported.
pub(super) struct Sample<'a> {
    family: &'static Family,
    names: &'a [&'static str],
    values: &'a [&'a str],
    own: &'a [&'a str],
    limits: &'a SeriesLimits,
    pub(super) value: Value<'a>,
}

impl Sample<'_> {
    /// Names and values of its labels.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        // A workload is told apart by the very labels that may be dropped elsewhere.
        let droppable = !matches!(self.family.scope(), Scope::Workload | Scope::Agent);
        let of_row = self.names.iter().zip(self.values);
        let all = of_row.chain(self.family.labels.iter().zip(self.own));
        all.filter(move |(name, _)| !(droppable && self.limits.drops(name)))
            .map(|(name, value)| (*name, *value))
    }
}

/// Gives the samples of a family.
pub(super) type Rows<'a> = &'a dyn Fn(&mut dyn FnMut(Sample<'_>));

/// Calls `each` with every family, in the order of the catalogue, and says what was exported and what left out.
pub(super) fn walk<E>(
    scrape: &Scrape,
    mut each: impl FnMut(&'static Family, Rows<'_>) -> Result<(), E>,
) -> Result<SeriesCounts, E> {
    let Scrape { published, limits, now, endpoint, others, otlp, .. } = scrape;
    let counts = RefCell::new(SeriesCounts::default());
    let cgroups_admitted: Vec<bool> = published.cgroups.iter().map(|row| limits.cgroup(row)).collect();

    let scopes = [Scope::Container, Scope::Pod, Scope::Workload, Scope::Status, Scope::KubeState];
    for scope in scopes.into_iter().filter(|scope| *scope != Scope::KubeState || limits.kube_state) {
        for family in scope.families() {
            let family_admitted = limits.family(&[family.name, &family.series_name()]);
            each(family, &|take| {
                let mut row = |admitted: bool, names, values: &[&str], samples: &dyn Fn(&mut Emit<'_>)| {
                    samples(&mut |own, value| {
                        if value.is_finite() && counts.borrow_mut().admit(limits, family_admitted, admitted) {
                            take(Sample { family, names, values, own, limits, value });
                        }
                    });
                };
                match family.samples {
                    Samples::Container(samples) => {
                        for (cgroup, admitted) in published.cgroups.iter().zip(&cgroups_admitted) {
                            if catalogue::in_scope(cgroup, scope) {
                                let values = catalogue::container_labels(cgroup);
                                row(*admitted, &CONTAINER_LABELS, &values, &|emit| samples(cgroup, emit));
                            }
                        }
                    }
                    Samples::Pod(samples) => {
                        for (cgroup, admitted) in published.cgroups.iter().zip(&cgroups_admitted) {
                            if catalogue::in_scope(cgroup, scope) {
                                let values = catalogue::pod_labels(cgroup);
                                row(*admitted, &POD_LABELS, &values, &|emit| samples(cgroup, emit));
                            }
                        }
                    }
                    Samples::Workload(samples) => {
                        for workload in published.workloads.iter() {
                            let values = catalogue::workload_labels(workload);
                            let admitted = limits.workload(workload);
                            row(admitted, &WORKLOAD_LABELS, &values, &|emit| samples(workload, emit));
                        }
                    }
                    Samples::Status(samples) => {
                        for pod in published.pods.iter() {
                            let admitted = limits.namespace(&pod.names.namespace);
                            for container in &pod.containers {
                                let values = catalogue::status_labels(container);
                                row(admitted, &STATUS_LABELS, &values, &|emit| samples(container, emit));
                            }
                        }
                    }
                    Samples::KubeState(samples) => {
                        for pod in published.pods.iter() {
                            let admitted = limits.namespace(&pod.names.namespace);
                            let values = catalogue::kube_state_labels(pod);
                            row(admitted, &KUBE_STATE_LABELS, &values, &|emit| samples(pod, emit));
                        }
                    }
                    Samples::Agent(_) => {}
                }
            })?;
        }
    }

    // The agent comes last, so that it can say what this very scrape left out. It is never cut.
    let counts = counts.into_inner();
    let mut endpoints = vec![EndpointSeries { endpoint, counts }];
    endpoints.extend_from_slice(others);
    let view = AgentView { row: &published.agent, now: *now, endpoints: &endpoints, otlp };
    for family in Scope::Agent.families() {
        each(family, &|take| {
            if let Samples::Agent(samples) = family.samples {
                samples(&view, &mut |own, value| {
                    if value.is_finite() {
                        take(Sample { family, names: &[], values: &[], own, limits, value });
                    }
                });
            }
        })?;
    }
    Ok(counts)
}
