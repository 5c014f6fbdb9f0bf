//! The samples of a scrape, family by family: what there is, less what limits leave out.

use std::cell::{OnceCell, RefCell};

use super::Scrape;
use crate::exporters::{
    catalogue::{self, AgentView, Family, Scope, Value},
    limits::SeriesLimits,
    series::{EndpointSeries, SeriesCounts},
};

/// What the families of a scope have samples of, with the labels that these share.
#[derive(Default)]
pub(super) struct Row<'a> {
    /// Names and values of the labels that are not dropped.
    pub(super) labels: Vec<(&'static str, &'a str)>,
    /// Their text up to the last one's value; made when it is first asked for.
    pub(super) key: OnceCell<String>,
    /// Them as a part of a protobuf message; made when it is first asked for.
    pub(super) message: OnceCell<Vec<u8>>,
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

    let all: Vec<catalogue::Row<'_>> = catalogue::rows(published, limits).collect();
    let scopes = [Scope::Container, Scope::Pod, Scope::Workload, Scope::Status, Scope::KubeState];
    for scope in scopes.into_iter().filter(|scope| *scope != Scope::KubeState || limits.kube_state) {
        let is_kept = |name: &str| !(is_droppable(scope) && limits.drops(name));
        // The families of a scope have the same rows.
        let rows: Vec<(&catalogue::Row<'_>, Row<'_>)> = all
            .iter()
            .filter(|row| row.scope == scope)
            .map(|row| {
                let labels = row.labels().filter(|(name, _)| is_kept(name)).collect();
                (row, Row { labels, ..Row::default() })
            })
            .collect();
        for family in scope.families() {
            let family_admitted = limits.family(&[family.name, &family.series_name()]);
            each(family, &|take| {
                for (of, row) in &rows {
                    of.samples(family, &mut |own, value| {
                        let is_value = value.is_finite();
                        if is_value && counts.borrow_mut().admit(limits, family_admitted, of.admitted) {
                            take(Sample { family, row, own, limits, value });
                        }
                    });
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
            catalogue::Row::agent(&view).samples(family, &mut |own, value| {
                if value.is_finite() {
                    take(Sample { family, row: &row, own, limits, value });
                }
            });
        })?;
    }
    Ok(counts)
}
