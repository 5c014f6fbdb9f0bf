//! PodDisruptionBudgets, with the pods that they select.

use std::collections::BTreeSet;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{Selector, SelectorExt as _};

use crate::cluster::live_pod::LivePod;

/// A `PodDisruptionBudget`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisruptionBudget {
    pub namespace: String,
    pub name: String,
    /// `disruptionsAllowed`; `None` if it was not computed yet.
    pub allowed: Option<u64>,
    /// Names of the pods that it selects.
    pub pods: BTreeSet<String>,
}

/// A budget with the pods that it selects.
pub(super) fn disruption_budget(object: &PodDisruptionBudget, pods: &[LivePod]) -> DisruptionBudget {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let allowed = object.status.as_ref().map(|status| u64::try_from(status.disruptions_allowed).unwrap_or(0));
    let selector = object.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector: Option<Selector> = selector.and_then(|selector| selector.try_into().ok());
    let is_selected = |pod: &&LivePod| {
        pod.namespace == namespace && selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels))
    };
    let pods = pods.iter().filter(is_selected).map(|pod| pod.name.clone()).collect();
    DisruptionBudget { pods, allowed, name: object.metadata.name.clone().unwrap_or_default(), namespace }
}
