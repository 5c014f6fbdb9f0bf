//! Which container of the history a container of the manifests is.

use std::collections::BTreeSet;

use crate::{
    columns::plain,
    manifests::Target,
    recommend::report::{Entry, InTemplate, Report},
};

/// The reason where the history does not have a container.
pub(super) const NO_HISTORY: &str = "no usage history";

/// A container of the manifests in the history.
pub(super) enum Match<'r> {
    Entry(&'r Entry),
    /// Why there is no recommendation for it.
    Nothing(String),
    /// Several have its names.
    Ambiguous(String),
}

/// Whether names in the manifests and in the history are of one container. A missing namespace matches all.
pub(super) fn is_same(target: &Target, [namespace, owner, workload, container]: [&str; 4]) -> bool {
    target.namespace.as_deref().is_none_or(|it| it == namespace)
        && target.kind == owner
        && target.workload == workload
        && target.container == container
}

/// Finds a container of the manifests in a report.
pub(super) fn find<'r>(report: &'r Report, target: &Target) -> Match<'r> {
    let found: Vec<&Entry> =
        report.recommendations.iter().filter(|entry| is_same(target, entry.subject())).collect();
    match found.as_slice() {
        [one] if one.in_template == InTemplate::No => {
            Match::Nothing("the pod template does not have this container".to_owned())
        }
        [one] => {
            let workload: Vec<Entry> =
                report.recommendations.iter().filter(|it| it.is_of_one_workload(one)).cloned().collect();
            match Entry::refusal(&workload) {
                Some(refusal) => Match::Nothing(format!("the cluster would refuse its pods: {refusal}")),
                None if one.pod_resources.as_ref().is_some_and(|own| own.current != own.recommended) => {
                    Match::Nothing(
                        "it needs other requests and limits of the pod (spec.resources): use -o patch"
                            .to_owned(),
                    )
                }
                None => Match::Entry(one),
            }
        }
        [] => Match::Nothing(why_not(report, target)),
        several => {
            let namespaces: BTreeSet<&str> = several.iter().map(|entry| entry.namespace.as_str()).collect();
            let namespaces: Vec<&str> = namespaces.into_iter().collect();
            Match::Ambiguous(format!(
                "in the namespaces {}; set --default-namespace",
                plain(&namespaces.join(" and "))
            ))
        }
    }
}

/// Why a container has no recommendation.
fn why_not(report: &Report, target: &Target) -> String {
    let is_namespace = |namespace: &str| target.namespace.as_deref().is_none_or(|it| it == namespace);
    let skipped = report.skipped.iter().find(|one| {
        is_namespace(&one.namespace) && one.workload == target.workload && one.container == target.container
    });
    if let Some(skipped) = skipped {
        return plain(&skipped.reason.to_string());
    }
    let elsewhere: BTreeSet<&str> = report
        .recommendations
        .iter()
        .filter(|entry| entry.workload == target.workload && entry.owner == target.kind)
        .map(|entry| entry.namespace.as_str())
        .collect();
    let mut why = NO_HISTORY.to_owned();
    if let (Some(other), Some(own)) = (elsewhere.first(), &target.namespace)
        && other != own
    {
        why += &format!("; the namespace {} has a workload of this name", plain(other));
    }
    why
}
