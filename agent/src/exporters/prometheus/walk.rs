//! The samples of a scrape, family by family: what there is, less what limits leave out.

use std::cell::{OnceCell, RefCell};

use super::Scrape;
use crate::exporters::{
    catalogue::{
        self, AgentView, CONTAINER_LABELS, Emit, EndpointSeries, Family, KUBE_STATE_LABELS, POD_LABELS,
        STATUS_LABELS, Samples, Scope, Value, WORKLOAD_LABELS,
    },
    limits::{SeriesCounts, SeriesLimits},
};

/// What the families of a scope have samples of, with the labels that these share.
#[derive(Default)]
pub(super) struct Row<'a> {
    admitted: bool,
    /// Names and values of the labels that are not dropped.
    pub(super) labels: Vec<(&'static str, &'a str)>,
    /// Their text up to the last one's value; made when it is first asked for.
    pub(super) key: OnceCell<String>,
    /// Them as a part of a protobuf message; made when it is first asked for.
    pub(super) message: OnceCell<Vec<u8>>,
}

impl<'a> Row<'a> {
    fn new<const N: usize>(
        admitted: bool,
        names: &[&'static str; N],
        values: [&'a str; N],
        dropped: impl Fn(&str) -> bool,
    ) -> Self {
        let labels = names.iter().copied().zip(values).filter(|(name, _)| !dropped(name)).collect();
        Self { admitted, labels, ..Self::default() }
    }
}

/// A sample that is exported.
pub(super) struct Sample<'a> {
    family: &'static Family,
    pub(super) row: &'a Row<'a>,
    own: &'a [&'a str],
    limits: &'a SeriesLimits,
    pub(super) value: Value<'a>,
}

impl<'a> Sample<'a> {
    /// Names and values of its labels.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        self.row.labels.iter().copied().chain(self.own_labels())
    }

    /// Of these, the ones that its row does not have.
    pub(super) fn own_labels(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        let (family, limits) = (self.family, self.limits);
        let all = family.labels.iter().copied().zip(self.own.iter().copied());
        all.filter(move |(name, _)| !(is_droppable(family.scope()) && limits.drops(name)))
    }
}

/// A workload is told apart by the very labels that may be dropped elsewhere.
const fn is_droppable(scope: Scope) -> bool {
    !matches!(scope, Scope::Workload | Scope::Agent)
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

    let scopes = [Scope::Container, Scope::Pod, Scope::Workload, Scope::Status, Scope::KubeState];
    for scope in scopes.into_iter().filter(|scope| *scope != Scope::KubeState || limits.kube_state) {
        let dropped = |name: &str| is_droppable(scope) && limits.drops(name);
        let cgroups = || published.cgroups.iter().filter(|cgroup| catalogue::in_scope(cgroup, scope));
        let containers = || published.pods.iter().flat_map(|pod| &pod.containers);
        // The families of a scope have the same rows.
        let rows: Vec<Row<'_>> = match scope {
            Scope::Container => cgroups()
                .map(|one| {
                    let values = catalogue::container_labels(one);
                    Row::new(limits.cgroup(one), &CONTAINER_LABELS, values, dropped)
                })
                .collect(),
            Scope::Pod => cgroups()
                .map(|one| Row::new(limits.cgroup(one), &POD_LABELS, catalogue::pod_labels(one), dropped))
                .collect(),
            Scope::Workload => published
                .workloads
                .iter()
                .map(|one| {
                    let values = catalogue::workload_labels(one);
                    Row::new(limits.workload(one), &WORKLOAD_LABELS, values, dropped)
                })
                .collect(),
            Scope::Status => containers()
                .map(|one| {
                    let admitted = limits.namespace(&one.names.namespace);
                    Row::new(admitted, &STATUS_LABELS, catalogue::status_labels(one), dropped)
                })
                .collect(),
            Scope::KubeState => published
                .pods
                .iter()
                .map(|pod| {
                    let admitted = limits.namespace(&pod.names.namespace);
                    Row::new(admitted, &KUBE_STATE_LABELS, catalogue::kube_state_labels(pod), dropped)
                })
                .collect(),
            Scope::Agent => Vec::new(),
        };
        for family in scope.families() {
            let family_admitted = limits.family(&[family.name, &family.series_name()]);
            each(family, &|take| {
                let mut take_row = |row: &Row<'_>, samples: &dyn Fn(&mut Emit<'_>)| {
                    samples(&mut |own, value| {
                        let is_value = value.is_finite();
                        if is_value && counts.borrow_mut().admit(limits, family_admitted, row.admitted) {
                            take(Sample { family, row, own, limits, value });
                        }
                    });
                };
                match family.samples {
                    Samples::Container(samples) | Samples::Pod(samples) => {
                        cgroups().zip(&rows).for_each(|(one, row)| take_row(row, &|emit| samples(one, emit)));
                    }
                    Samples::Workload(samples) => {
                        let workloads = published.workloads.iter().zip(&rows);
                        workloads.for_each(|(one, row)| take_row(row, &|emit| samples(one, emit)));
                    }
                    Samples::Status(samples) => {
                        containers()
                            .zip(&rows)
                            .for_each(|(one, row)| take_row(row, &|emit| samples(one, emit)));
                    }
                    Samples::KubeState(samples) => {
                        let pods = published.pods.iter().zip(&rows);
                        pods.for_each(|(one, row)| take_row(row, &|emit| samples(one, emit)));
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
    let row = Row::default();
    let view = AgentView { row: &published.agent, now: *now, endpoints: &endpoints, otlp };
    for family in Scope::Agent.families() {
        each(family, &|take| {
            if let Samples::Agent(samples) = family.samples {
                samples(&view, &mut |own, value| {
                    if value.is_finite() {
                        take(Sample { family, row: &row, own, limits, value });
                    }
                });
            }
        })?;
    }
    Ok(counts)
}
