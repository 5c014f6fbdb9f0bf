//! Moves the proposed values of a pod into what the cluster allows, and finds what it would still refuse.

use crate::{
    pod::PodRequests,
    workload::{Resources, Role},
};

use super::{
    admission::admitted,
    advice::ConstraintRule,
    limit_range::{self, LimitRange, LimitType, of_type, pod_totals},
    pinned, pod_level,
    pod_spec::{PodContainer, PodSpec},
    quota::{self, Quota},
    resource::Resource,
    rollout::{self, Rollout},
    scale::{self, Scaled, UtilizationTarget},
    violation::{Adjusted, Violation},
};

/// What a cluster allows the pods of one workload.
#[derive(Clone, Debug, Default)]
pub struct ClusterLimits {
    /// LimitRanges of the namespace.
    pub ranges: Vec<LimitRange>,
    /// ResourceQuotas of the namespace.
    pub quotas: Vec<Quota>,
    /// Targets of HorizontalPodAutoscalers of the workload.
    pub targets: Vec<UtilizationTarget>,
    /// What each node has beside its DaemonSets; empty if unknown.
    pub nodes: Vec<PodRequests>,
    /// Names of the PodDisruptionBudgets that select the pods and allow no disruption now.
    pub exhausted_budgets: Vec<String>,
    /// Running pods of the workload.
    pub replicas: u64,
    /// How its pods are replaced.
    pub rollout: Rollout,
    /// What each node that the pods may run on has beside all pods; with a DaemonSet each node that has one of its pods. Empty if
    /// unknown.
    pub room: Vec<PodRequests>,
}

/// What was changed of a proposal, or stands against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Index of the container in the pod spec; `None` if it is about the pod.
    pub container: Option<usize>,
    pub kind: FindingKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FindingKind {
    /// The cluster would refuse the proposal, or could not apply it.
    Violation(Violation),
    /// A value was changed so that the cluster accepts it.
    Adjusted(Adjusted),
    /// The target of an autoscaler must change with the request.
    Scaled(Scaled),
}

/// Moves the proposed values `then` of a pod into the range that the cluster allows. `now` are the current values of the same
/// containers. Values of containers without a recommendation stay.
pub fn fit(now: &PodSpec, then: &mut PodSpec, limits: &ClusterLimits) -> Vec<Finding> {
    let mut found = Vec::new();
    let raised = scale::raise(now, then, &limits.targets);
    let demanded_by = limits.quotas.iter().find(|quota| quota.demands_cpu_limit(then));
    let demanded_by = demanded_by.map(|quota| quota.name.clone());
    for (at, container) in then.containers.iter_mut().enumerate().filter(|(_, it)| it.is_advised) {
        let current = now.containers.get(at);
        let mut adjusted = Vec::new();
        for resource in Resource::ALL {
            adjusted.extend(within_min_and_max(current, container, resource, &limits.ranges));
        }
        adjusted.extend(cpu_limit(current, container, &limits.ranges, demanded_by.as_deref()));
        for resource in Resource::ALL {
            request_within_limit(&mut container.values, resource);
            adjusted.extend(within_ratio(
                &mut container.values,
                resource,
                LimitType::Container,
                &limits.ranges,
            ));
        }
        let adjusted = adjusted.into_iter().map(FindingKind::Adjusted);
        found.extend(adjusted.map(|kind| Finding { container: Some(at), kind }));
    }
    let of_pod = |adjusted| Finding { container: None, kind: FindingKind::Adjusted(adjusted) };
    found.extend(within_pod_range(then, &limits.ranges).into_iter().map(of_pod));
    let kept = pinned::keep(now, then, &limits.ranges).into_iter();
    found.extend(
        kept.map(|(at, adjusted)| Finding { container: Some(at), kind: FindingKind::Adjusted(adjusted) }),
    );
    found.extend(pod_level::fit(then, &limits.ranges).into_iter().map(of_pod));
    let scaled = scale::changed_targets(now, then, &limits.targets, &raised);
    found.extend(scaled.into_iter().map(|scaled| {
        let of_container =
            |name: &String| then.containers.iter().position(|container| container.name == *name);
        Finding {
            container: scaled.container.as_ref().and_then(of_container),
            kind: FindingKind::Scaled(scaled),
        }
    }));
    let violations = violations(now, then, limits).into_iter();
    found.extend(
        violations
            .map(|(container, violation)| Finding { container, kind: FindingKind::Violation(violation) }),
    );
    found
}

/// Sets a CPU limit where none is proposed but the cluster would set one or refuse the pod: the current one, else a default or
/// maximum of a LimitRange that is not below the request. Without such a value the container stays without a limit.
fn cpu_limit(
    current: Option<&PodContainer>,
    container: &mut PodContainer,
    ranges: &[LimitRange],
    demanded_by: Option<&str>,
) -> Option<Adjusted> {
    if container.values.cpu_limit.is_some() || !ConstraintRule::CpuLimitDemanded.is_on() {
        return None;
    }
    let of_containers = || of_type(ranges, LimitType::Container, Resource::Cpu);
    let default = of_containers().find_map(|(name, bounds)| Some((name, bounds.default?)));
    let requires = |(name, bounds): (&str, limit_range::LimitBounds)| {
        (bounds.max.is_some() || bounds.ratio.is_some()).then(|| name.to_owned())
    };
    let required_by = of_containers()
        .find_map(requires)
        .or_else(|| of_type(ranges, LimitType::Pod, Resource::Cpu).find_map(requires));
    if default.is_none() && required_by.is_none() && demanded_by.is_none() {
        return None;
    }
    let request = container.values.cpu_request.unwrap_or(0);
    let is_enough = |limit: &u64| *limit >= request;
    let current = current.and_then(|current| current.values.cpu_limit);
    let has_ratio = of_containers().any(|(_, bounds)| bounds.ratio.is_some());
    let max = of_containers().filter_map(|(_, bounds)| bounds.max).min();
    let limit = current
        .map(|current| current.min(max.unwrap_or(u64::MAX)).max(request))
        .or_else(|| default.map(|(_, default)| default).filter(is_enough))
        .or_else(|| max.filter(is_enough).filter(|_| !has_ratio))?;
    container.values.cpu_limit = Some(limit);
    match (default, required_by, demanded_by) {
        // The limit of today is the default: nothing changes.
        (Some((_, default)), ..) if default == limit => None,
        (Some((name, default)), ..) => Some(Adjusted::DefaultLimit {
            default: Some(default),
            request,
            limit,
            limit_range: name.to_owned(),
        }),
        (None, Some(limit_range), _) => {
            Some(Adjusted::DefaultLimit { default: None, request, limit, limit_range })
        }
        (None, None, quota) => quota.map(|quota| Adjusted::DemandedLimit { limit, quota: quota.to_owned() }),
    }
}

/// Moves the values of a container between `min` and `max` of the LimitRanges for containers.
fn within_min_and_max(
    current: Option<&PodContainer>,
    container: &mut PodContainer,
    resource: Resource,
    ranges: &[LimitRange],
) -> Vec<Adjusted> {
    let mut found = Vec::new();
    let values = &mut container.values;
    for (name, bounds) in of_type(ranges, LimitType::Container, resource) {
        let limit_range = || name.to_owned();
        let both = || [resource.request(values), resource.limit(values)].into_iter().flatten();
        let (lowest, highest) = (both().min(), both().max());
        if let Some((value, min)) = lowest.zip(bounds.min).filter(|(value, min)| value < min)
            && ConstraintRule::LimitRangeMin.is_on()
        {
            for field in resource.both_mut(values) {
                *field = field.map(|value| value.max(min));
            }
            found.push(Adjusted::Min { resource, value, min, limit_range: limit_range(), of_pod: false });
        }
        if let Some((value, max)) = highest.zip(bounds.max).filter(|(value, max)| value > max)
            && ConstraintRule::LimitRangeMax.is_on()
        {
            let limit_now = current.and_then(|current| resource.limit(&current.values));
            // Less CPU slows a container down, but less memory than it has today may end it.
            if resource == Resource::Cpu || limit_now.is_some_and(|limit| limit <= max) {
                for field in resource.both_mut(values) {
                    *field = field.map(|value| value.min(max));
                }
                found.push(Adjusted::Max { resource, value, max, limit_range: limit_range() });
            }
        }
    }
    found
}

/// The API server refuses a request above its limit. The limit is what gives way: a higher limit harms no container.
fn request_within_limit(values: &mut Resources, resource: Resource) {
    if ConstraintRule::RequestWithinLimit.is_on() {
        let request = resource.request(values);
        let limit = resource.limit_mut(values);
        *limit = limit.map(|limit| limit.max(request.unwrap_or(0)));
    }
}

/// Raises the request until limit ÷ request is within the LimitRanges of a type. If every container of a pod keeps a ratio, so
/// do the sums.
fn within_ratio(
    values: &mut Resources,
    resource: Resource,
    limit_type: LimitType,
    ranges: &[LimitRange],
) -> Vec<Adjusted> {
    let mut found = Vec::new();
    for (name, bounds) in of_type(ranges, limit_type, resource) {
        let Some((ratio, max_ratio, request)) = for_ratio(values, resource, bounds.ratio) else { continue };
        *resource.request_mut(values) = Some(request);
        found.push(Adjusted::Ratio { resource, ratio, max_ratio, request, limit_range: name.to_owned() });
    }
    found
}

/// The ratio of limit and request, the highest one, and the request that keeps it; `None` if it is kept.
fn for_ratio(values: &Resources, resource: Resource, max_ratio: Option<f64>) -> Option<(f64, f64, u64)> {
    let (max_ratio, limit, request) = (max_ratio?, resource.limit(values)?, resource.request(values)?);
    let ratio_of = |request: u64| limit as f64 / request as f64;
    if request == 0 || ratio_of(request) <= max_ratio || !ConstraintRule::LimitRangeRatio.is_on() {
        return None;
    }
    // `as` saturates.
    let lowest = (limit as f64 / max_ratio).ceil() as u64;
    let unit = resource.unit();
    let raised = lowest.div_ceil(unit).saturating_mul(unit);
    Some((ratio_of(request), max_ratio, raised.clamp(request, limit.max(request))))
}

/// Moves the sums of a pod into the range of the LimitRanges for pods. What is missing goes to the largest container, or to the
/// pod's own resources.
fn within_pod_range(then: &mut PodSpec, ranges: &[LimitRange]) -> Vec<Adjusted> {
    let mut found = Vec::new();
    for resource in Resource::ALL {
        for (name, bounds) in of_type(ranges, LimitType::Pod, resource) {
            found.extend(pod_min(then, resource, name, bounds.min));
        }
        for container in then.containers.iter_mut().filter(|container| container.is_advised) {
            found.extend(within_ratio(&mut container.values, resource, LimitType::Pod, ranges));
        }
    }
    found
}

fn pod_min(then: &mut PodSpec, resource: Resource, name: &str, min: Option<u64>) -> Option<Adjusted> {
    let min = min.filter(|_| ConstraintRule::PodLimitRangeMin.is_on())?;
    let (request, limit) = pod_totals(&admitted(then, &[]), resource);
    let missing = |value: Option<u64>| value.map_or(0, |value| min.saturating_sub(value));
    let (more_request, more_limit) = (missing(request), missing(limit));
    let value = request.into_iter().chain(limit).min().filter(|value| *value < min)?;
    let add = |values: &mut Resources| {
        let request = resource.request_mut(values);
        *request = request.map(|request| request.saturating_add(more_request));
        let limit = resource.limit_mut(values);
        *limit = limit.map(|limit| limit.saturating_add(more_limit));
        request_within_limit(values, resource);
    };
    let of_pod = |own: &&mut Resources| resource.request(own).is_some() || resource.limit(own).is_some();
    if let Some(own) = then.pod.as_mut().filter(of_pod) {
        add(own);
    } else {
        let largest = then
            .containers
            .iter_mut()
            .filter(|container| container.is_advised && container.role != Role::Init)
            .max_by_key(|container| resource.request(&container.values))?;
        add(&mut largest.values);
    }
    Some(Adjusted::Min { resource, value, min, limit_range: name.to_owned(), of_pod: true })
}

/// What the cluster refuses of the proposal, or cannot apply, each with its container.
fn violations(now: &PodSpec, then: &PodSpec, limits: &ClusterLimits) -> Vec<(Option<usize>, Violation)> {
    let ranges = &limits.ranges;
    let (running, created) = (admitted(now, &[]), admitted(then, ranges));
    let mut found = Vec::new();
    for (at, (stated, container)) in then.containers.iter().zip(&created.containers).enumerate() {
        for resource in Resource::ALL {
            let both = resource.request(&container.values).zip(resource.limit(&container.values));
            let Some((request, limit)) = both.filter(|(request, limit)| request > limit) else { continue };
            let by_default = of_type(ranges, LimitType::Container, resource)
                .find(|(_, bounds)| bounds.default.is_some())
                .filter(|_| resource.limit(&stated.values).is_none());
            let violation = match by_default {
                Some((name, _)) => Violation::DefaultBelowRequest {
                    resource,
                    default: limit,
                    request,
                    limit_range: name.to_owned(),
                },
                None => Violation::RequestAboveLimit { resource, request, limit },
            };
            found.push((Some(at), violation));
        }
    }
    found.extend(pod_level::violations(&created));
    found.extend(limit_range::violations(&created, ranges));
    found.extend(quota::violations(&running, &created, limits.replicas, &limits.quotas));
    let no_node = no_node(&created, &limits.nodes);
    // A pod that fits no empty node fits no other one.
    let room = if no_node.is_empty() { limits.room.as_slice() } else { &[] };
    found.extend(no_node.into_iter().map(|violation| (None, violation)));
    let rollout = (limits.replicas, limits.rollout);
    let of_rollout = rollout::violations(&running, &created, rollout, &limits.quotas, room).into_iter();
    found.extend(of_rollout.map(|violation| (None, violation)));
    if now != then {
        let budgets = limits.exhausted_budgets.iter().cloned();
        found.extend(budgets.map(|budget| (None, Violation::NoDisruption { budget })));
    }
    found
}

/// Why a pod fits no node.
fn no_node(pod: &PodSpec, nodes: &[PodRequests]) -> Vec<Violation> {
    let (cpu, memory) = (pod.request(Resource::Cpu), pod.request(Resource::Memory));
    let fits = |node: &PodRequests| cpu <= node.cpu && memory <= node.memory;
    let Some(largest) = nodes.iter().copied().reduce(PodRequests::max) else { return Vec::new() };
    if nodes.iter().any(fits) {
        return Vec::new();
    }
    let each = [(Resource::Cpu, cpu, largest.cpu), (Resource::Memory, memory, largest.memory)];
    let above = each.into_iter().filter(|(_, value, largest)| value > largest);
    let found: Vec<Violation> =
        above.map(|(resource, value, largest)| Violation::NoNode { resource, value, largest }).collect();
    if found.is_empty() && ConstraintRule::NodeFits.is_on() {
        return vec![Violation::NoNodeForBoth { cpu, memory }];
    }
    found
}
