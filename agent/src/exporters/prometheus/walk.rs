//! The samples of a scrape, family by family, after limits.

use std::cell::{OnceCell, RefCell};

use super::Scrape;
use crate::exporters::{
    catalogue::{self, AgentView, Family, Scope, Value},
    limits::SeriesLimits,
    series::{EndpointSeries, SeriesCounts},
};

/// A row of a scope, with the labels that all its samples share.
#[derive(Default)]
pub(super) struct LabelledRow<'a> {
    /// Names and values of the labels, without dropped ones.
    pub(super) labels: Vec<(&'static str, &'a str)>,
    /// The labels as text; rendered on first use.
    pub(super) text: OnceCell<Vec<u8>>,
    /// The labels as a part of a protobuf message; encoded on first use.
    pub(super) message: OnceCell<Vec<u8>>,
}

/// A sample that is exported.
pub(super) struct Sample<'a> {
    family: &'static Family,
    pub(super) row: &'a LabelledRow<'a>,
    own: &'a [&'a str],
    limits: &'a SeriesLimits,
    pub(super) value: Value<'a>,
}

impl<'a> Sample<'a> {
    /// Names and values of the labels that the family adds to those of its row.
    pub(super) fn own_labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
        let (family, limits) = (self.family, self.limits);
        let all = family
            .labels
            .iter()
            .copied()
            .zip(self.own.iter().copied())
            .map(|(name, value): (&'a str, _)| (name, value));
        all.filter(move |(name, _)| !(is_droppable(family.scope()) && limits.drops(name)))
    }
}

/// Whether labels can be dropped. Workloads are identified by the same labels that other scopes may drop.
const fn is_droppable(scope: Scope) -> bool {
    !matches!(scope, Scope::Workload | Scope::Agent)
}

/// Calls a function with each sample of a family.
pub(super) type Rows<'a> = &'a dyn Fn(&mut dyn FnMut(Sample<'_>));

/// Calls `each` with every family in the order of the catalogue, and returns the counts of exported and omitted series.
pub(super) fn walk<E>(
    scrape: &Scrape,
    mut each: impl FnMut(&'static Family, Rows<'_>) -> Result<(), E>,
) -> Result<SeriesCounts, E> {
    let Scrape { view, limits, now, endpoint, others, otlp, server, .. } = scrape;
    let counts = RefCell::new(SeriesCounts::default());

    let all: Vec<catalogue::MetricRow<'_>> = catalogue::rows(view, limits).collect();
    let scopes = [Scope::Container, Scope::Pod, Scope::Workload, Scope::Status, Scope::KubeState];
    for scope in scopes.into_iter().filter(|scope| *scope != Scope::KubeState || limits.kube_state) {
        let is_kept = |name: &str| !(is_droppable(scope) && limits.drops(name));
        // The families of a scope have the same rows.
        let rows: Vec<(&catalogue::MetricRow<'_>, LabelledRow<'_>)> = all
            .iter()
            .filter(|row| row.scope == scope)
            .map(|row| {
                let labels = row.labels().filter(|(name, _)| is_kept(name)).collect();
                (row, LabelledRow { labels, ..LabelledRow::default() })
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

    // The agent's row comes last, because it has the counts of this scrape. Limits do not apply to it.
    let counts = counts.into_inner();
    let mut endpoints = vec![EndpointSeries { endpoint, counts }];
    endpoints.extend_from_slice(others);
    let row = LabelledRow::default();
    let agent = AgentView { row: &view.agent, now: *now, endpoints: &endpoints, otlp, server: *server };
    for family in Scope::Agent.families() {
        each(family, &|take| {
            catalogue::MetricRow::agent(&agent).samples(family, &mut |own, value| {
                if value.is_finite() {
                    take(Sample { family, row: &row, own, limits, value });
                }
            });
        })?;
    }
    Ok(counts)
}
