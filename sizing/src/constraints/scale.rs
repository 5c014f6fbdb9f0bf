//! Requests of pods with a HorizontalPodAutoscaler.
//!
//! Which requests usage is compared with:
//! [`pkg/controller/podautoscaler/replica_calculator.go`](https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/podautoscaler/replica_calculator.go)
//! (`calculateRequests`): those of app containers and sidecars, or of the one container of the metric, or the pod's own.

use serde::Serialize;

use crate::{hpa, workload::Role};

use super::{
    advice::ConstraintRule,
    pod_spec::{PodContainer, PodSpec},
    resource::Resource,
};

/// A target for the utilization of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UtilizationTarget {
    /// Name of the HorizontalPodAutoscaler.
    pub autoscaler: String,
    /// The container of a `ContainerResource` metric; `None` for `Resource` metrics.
    pub container: Option<String>,
    /// CPU or memory.
    pub resource: Resource,
    /// `averageUtilization`, percent.
    pub percent: u32,
}

/// A target that must change together with the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Scaled {
    /// Name of the HorizontalPodAutoscaler.
    pub autoscaler: String,
    /// The container of a `ContainerResource` metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// `cpu` or `memory`.
    pub resource: Resource,
    /// Current `averageUtilization`, percent.
    pub target_now: u32,
    /// `averageUtilization` for the recommended request, percent.
    pub target: u32,
    /// Whether the request was raised because the target would otherwise be too high.
    pub raised: bool,
}

impl UtilizationTarget {
    fn is_compared(&self, container: &PodContainer) -> bool {
        container.role != Role::Init && self.container.as_ref().is_none_or(|name| *name == container.name)
    }

    /// The pod's own request, if usage is compared with it.
    fn own_request(&self, pod: &PodSpec) -> Option<u64> {
        let own = pod.pod.as_ref().filter(|_| self.container.is_none())?;
        self.resource.request(own)
    }

    /// The request that usage is compared with.
    fn request(&self, pod: &PodSpec) -> u64 {
        self.own_request(pod).unwrap_or_else(|| {
            let compared = pod.containers.iter().filter(|container| self.is_compared(container));
            let requests = compared.filter_map(|container| {
                self.resource.request(&container.values).or(self.resource.limit(&container.values))
            });
            requests.fold(0, u64::saturating_add)
        })
    }
}

/// Raises requests so that no target needs to exceed 90 %. Returns which targets needed it.
pub(super) fn raise(now: &PodSpec, then: &mut PodSpec, targets: &[UtilizationTarget]) -> Vec<bool> {
    // Those of one container first: they count for the whole pod, too.
    let (of_containers, of_pods): (Vec<_>, Vec<_>) =
        targets.iter().zip(0_usize..).partition(|(target, _)| target.container.is_some());
    let mut raised = vec![false; targets.len()];
    for (target, at) in of_containers.into_iter().chain(of_pods) {
        let is_raised = raise_for(now, then, target);
        if let Some(raised) = raised.get_mut(at) {
            *raised = is_raised;
        }
    }
    raised
}

/// The largest container takes what is missing.
fn raise_for(now: &PodSpec, then: &mut PodSpec, target: &UtilizationTarget) -> bool {
    if target.own_request(then).is_some() || !ConstraintRule::AutoscalerTarget.is_on() {
        return false;
    }
    let resource = target.resource;
    let recommended = target.request(then);
    let adjusted = hpa::adjust(target.request(now), target.percent, recommended);
    let more = adjusted.map_or(0, |adjusted| adjusted.request.saturating_sub(recommended));
    let advised = then.containers.iter_mut().filter(|container| container.is_advised);
    let largest = advised
        .filter(|container| target.is_compared(container) && resource.request(&container.values).is_some())
        .max_by_key(|container| resource.request(&container.values));
    let Some(largest) = largest.filter(|_| more > 0) else { return false };
    let request = resource.request_mut(&mut largest.values);
    // A whole MiB of memory, as a person would choose.
    let unit = resource.unit();
    *request = request.map(|request| request.saturating_add(more).div_ceil(unit).saturating_mul(unit));
    true
}

/// The targets that must change with the requests.
pub(super) fn changed_targets(
    now: &PodSpec,
    then: &PodSpec,
    targets: &[UtilizationTarget],
    raised: &[bool],
) -> Vec<Scaled> {
    let changed = targets.iter().zip(raised).filter_map(|(target, raised)| {
        let percent = hpa::target(target.request(now), target.percent, target.request(then))?;
        let is_changed = percent != target.percent || *raised;
        is_changed.then(|| Scaled {
            autoscaler: target.autoscaler.clone(),
            container: target.container.clone(),
            resource: target.resource,
            target_now: target.percent,
            target: percent,
            raised: *raised,
        })
    });
    changed.collect()
}
