//! What the API server makes of a pod before it checks it: missing values get defaults.

use super::{
    limit_range::{LimitRange, LimitType, of_type},
    pod_spec::PodSpec,
    resource::Resource,
};

/// A pod as the API server stores it. Sources: `SetDefaults_Pod` in
/// `pkg/apis/core/v1/defaults.go`, and `mergePodResourceRequirements` in `plugin/pkg/admission/limitranger`.
pub(super) fn admitted(pod: &PodSpec, ranges: &[LimitRange]) -> PodSpec {
    let mut pod = pod.clone();
    for resource in Resource::ALL {
        for container in &mut pod.containers {
            let limit = resource.limit(&container.values);
            let request = resource.request_mut(&mut container.values);
            *request = request.or(limit);
        }
        // A pod with limits of its own gets requests of its own: those of its containers, or else its limits.
        let sum = pod.sum(|values| resource.request(values));
        if let Some(own) = &mut pod.pod
            && (own.cpu_limit.is_some() || own.memory_limit.is_some())
        {
            let limit = resource.limit(own);
            let request = resource.request_mut(own);
            *request = request.or((sum > 0).then_some(sum)).or(limit);
        }
        for container in &mut pod.containers {
            for (_, bounds) in of_type(ranges, LimitType::Container, resource) {
                let limit = resource.limit_mut(&mut container.values);
                *limit = limit.or(bounds.default);
                let request = resource.request_mut(&mut container.values);
                *request = request.or(bounds.default_request);
            }
        }
    }
    pod
}
