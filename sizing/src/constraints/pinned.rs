//! Pinned cores: the kubelet's static CPU manager gives exclusive cores to containers of Guaranteed pods with whole cores
//! (`guaranteedCPUs` in
//! [`pkg/kubelet/cm/cpumanager/policy_static.go`](https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/cm/cpumanager/policy_static.go)).

use crate::workload::{QosClass, Role};

use super::{
    advice::ConstraintRule,
    limit_range::{LimitRange, LimitType, of_type},
    pod_spec::PodSpec,
    resource::Resource,
    violation::Adjusted,
};

/// Millicores of a core.
const CORE: u64 = 1000;
/// What is added to or taken from whole cores that must not be pinned, millicores.
const APART: u64 = 50;

/// Whether the static CPU manager gives the container cores of its own.
fn is_pinned(pod: &PodSpec, at: usize) -> bool {
    let Some(container) = pod.containers.get(at).filter(|container| container.role != Role::Init) else {
        return false;
    };
    let limit = container.values.cpu_limit;
    // With requests of its own, a pod shares its cores (KEP-2837).
    pod.pod.is_none()
        && pod.qos() == QosClass::Guaranteed
        && limit.is_some_and(|limit| limit > 0 && limit.is_multiple_of(CORE))
}

/// Keeps whole cores whole and other CPU values apart from whole cores, where what the cluster demands has changed that.
pub(super) fn keep(now: &PodSpec, then: &mut PodSpec, ranges: &[LimitRange]) -> Vec<(usize, Adjusted)> {
    let mut found = Vec::new();
    if !ConstraintRule::PinnedStays.is_on() {
        return found;
    }
    let bounds = || of_type(ranges, LimitType::Container, Resource::Cpu).map(|(_, bounds)| bounds);
    let min = bounds().filter_map(|bounds| bounds.min).max().unwrap_or(1).max(1);
    let max = bounds().filter_map(|bounds| bounds.max).min().unwrap_or(u64::MAX);
    for at in 0..then.containers.len() {
        let (was, is) = (is_pinned(now, at), is_pinned(then, at));
        // What makes a pod lose its class is not the CPU of one container.
        if was == is || then.qos() != QosClass::Guaranteed {
            continue;
        }
        let Some(container) = then.containers.get_mut(at).filter(|container| container.is_advised) else {
            continue;
        };
        let Some(limit) = container.values.cpu_limit else { continue };
        let choices = if was {
            [limit.div_ceil(CORE) * CORE, limit / CORE * CORE]
        } else {
            [limit.saturating_add(APART), limit.saturating_sub(APART)]
        };
        if let Some(cpu) = choices.into_iter().find(|cpu| (min..=max).contains(cpu)) {
            (container.values.cpu_request, container.values.cpu_limit) = (Some(cpu), Some(cpu));
            found.push((at, Adjusted::Pinned { value: limit, cpu, was_pinned: was }));
        }
    }
    found
}
