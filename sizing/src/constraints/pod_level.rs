//! Requests and limits of a whole pod (`spec.resources`).
//!
//! Rules: `validatePodResources` in
//! [`pkg/apis/core/validation/validation.go`](https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/validation.go).

use crate::workload::Resources;

use super::{
    admission::admitted,
    advice::ConstraintRule,
    limit_range::LimitRange,
    pod_spec::PodSpec,
    resource::Resource,
    violation::{Adjusted, Violation},
};

/// Raises the pod's own requests and limits where its containers would not fit. They are never lowered.
pub(super) fn fit(then: &mut PodSpec, ranges: &[LimitRange]) -> Vec<Adjusted> {
    let mut found = Vec::new();
    if !ConstraintRule::PodResourcesFit.is_on() {
        return found;
    }
    for resource in Resource::ALL {
        let with_defaults = admitted(then, ranges);
        let requested = with_defaults.sum(|values| resource.request(values));
        let limits = with_defaults.sum(|values| resource.limit(values));
        let highest = highest_limit(&with_defaults, resource);
        let Some(own) = &mut then.pod else { break };
        let (request, limit) = (resource.request(own), resource.limit(own));
        let is_equal = request.is_some() && request == limit;
        if let Some(pod) = request.filter(|pod| *pod < requested) {
            *resource.request_mut(own) = Some(requested);
            found.push(Adjusted::PodRequest { resource, pod, raised: requested });
        }
        // Without a request of its own, the pod gets the sum of its containers' requests.
        let request = resource.request(own).unwrap_or(requested);
        let value = request.max(highest.unwrap_or(0));
        if let Some(pod) = limit.filter(|pod| *pod < value) {
            let raised = value.max(limits);
            *resource.limit_mut(own) = Some(raised);
            found.push(Adjusted::PodLimit { resource, value, pod, raised });
        }
        // Guaranteed pods stay Guaranteed.
        if is_equal {
            let both = resource.request(own).max(resource.limit(own));
            (*resource.request_mut(own), *resource.limit_mut(own)) = (both, both);
        }
    }
    found
}

fn highest_limit(pod: &PodSpec, resource: Resource) -> Option<u64> {
    pod.containers.iter().filter_map(|container| resource.limit(&container.values)).max()
}

/// What the API server refuses of an admitted pod with resources of its own.
pub(super) fn violations(pod: &PodSpec) -> Vec<(Option<usize>, Violation)> {
    let mut found = Vec::new();
    let own = pod.pod.unwrap_or_default();
    if own == Resources::default() {
        return found;
    }
    for resource in Resource::ALL {
        let (request, limit) = (resource.request(&own), resource.limit(&own));
        let value = pod.sum(|values| resource.request(values));
        if let Some(pod) = request.filter(|request| *request < value) {
            found.push((None, Violation::AbovePodRequest { resource, value, pod }));
        }
        if let Some((request, limit)) = request.zip(limit).filter(|(request, limit)| request > limit) {
            found.push((None, Violation::RequestAboveLimit { resource, request, limit }));
        }
        for (at, container) in pod.containers.iter().enumerate() {
            let above = resource.limit(&container.values).zip(limit).filter(|(value, pod)| value > pod);
            found.extend(
                above.map(|(value, pod)| (Some(at), Violation::AbovePodLimit { resource, value, pod })),
            );
        }
    }
    found
}
