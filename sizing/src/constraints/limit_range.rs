//! `LimitRange`s, with what the API server's admission plugin `LimitRanger` makes of them.
//!
//! Rules: [`plugin/pkg/admission/limitranger`](https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/admission/limitranger/admission.go),
//! and for the defaults of defaults `SetDefaults_LimitRangeItem` in `pkg/apis/core/v1/defaults.go`.

use crate::workload::{Resources, Role};

use super::{pod_spec::PodSpec, resource::Resource, violation::Violation};

/// What a `LimitRange` applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitType {
    /// Each container, init containers too.
    #[default]
    Container,
    /// The sums of a pod.
    Pod,
}

/// The rules for one resource; `None` is no rule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LimitBounds {
    /// `min`: applies to requests and to limits.
    pub min: Option<u64>,
    /// `max`: applies to requests and to limits, and requires a limit.
    pub max: Option<u64>,
    /// `default`: the limit of a container without one.
    pub default: Option<u64>,
    /// `defaultRequest`: the request of a container without one.
    pub default_request: Option<u64>,
    /// `maxLimitRequestRatio`: requires a limit and a request.
    pub ratio: Option<f64>,
}

/// One item of a `LimitRange`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitRange {
    /// Name of the object.
    pub name: String,
    /// What it applies to.
    pub limit_type: LimitType,
    /// Rules for CPU, millicores.
    pub cpu: LimitBounds,
    /// Rules for memory, bytes.
    pub memory: LimitBounds,
}

impl LimitRange {
    /// The rules for a resource. The API server completes the defaults: `default` is `max`, and `defaultRequest` is `default`,
    /// else `min`.
    pub fn bounds(&self, resource: Resource) -> LimitBounds {
        let bounds = match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
        };
        match self.limit_type {
            LimitType::Pod => bounds,
            LimitType::Container => {
                let default = bounds.default.or(bounds.max);
                LimitBounds {
                    default,
                    default_request: bounds.default_request.or(default).or(bounds.min),
                    ..bounds
                }
            }
        }
    }
}

/// The bounds of the LimitRanges for containers, or for pods, with the names of their objects.
pub(super) fn of_type(
    ranges: &[LimitRange],
    limit_type: LimitType,
    resource: Resource,
) -> impl Iterator<Item = (&str, LimitBounds)> + Clone {
    let of_type = ranges.iter().filter(move |range| range.limit_type == limit_type);
    of_type.map(move |range| (range.name.as_str(), range.bounds(resource)))
}

/// The request and limit of a pod that a LimitRange for pods checks. A sum exists only if every container has the value.
pub(super) fn pod_totals(pod: &PodSpec, resource: Resource) -> (Option<u64>, Option<u64>) {
    let total = |pick: fn(Resource, &Resources) -> Option<u64>| {
        let own = pod.pod.as_ref().and_then(|own| pick(resource, own));
        let mut apps = pod.containers.iter().filter(|container| container.role == Role::App);
        let is_stated = apps.all(|container| pick(resource, &container.values).is_some());
        let of_init = pod.containers.iter().filter(|container| container.role != Role::App);
        let highest_init = of_init.filter_map(|container| pick(resource, &container.values)).max();
        own.or_else(|| if is_stated { Some(pod.sum(|values| pick(resource, values))) } else { highest_init })
    };
    (total(Resource::request), total(Resource::limit))
}

/// The violations of LimitRanges by an admitted pod, each with its container.
pub(super) fn violations(pod: &PodSpec, ranges: &[LimitRange]) -> Vec<(Option<usize>, Violation)> {
    let mut found = Vec::new();
    for range in ranges {
        for resource in Resource::ALL {
            let bounds = range.bounds(resource);
            let mut check = |container, of_pod, (request, limit)| {
                let violations = violated(&range.name, resource, of_pod, request, limit, bounds);
                found.extend(violations.into_iter().map(|violation| (container, violation)));
            };
            match range.limit_type {
                LimitType::Container => {
                    for (at, container) in pod.containers.iter().enumerate() {
                        let values = &container.values;
                        check(Some(at), false, (resource.request(values), resource.limit(values)));
                    }
                }
                LimitType::Pod => check(None, true, pod_totals(pod, resource)),
            }
        }
    }
    found
}

fn violated(
    name: &str,
    resource: Resource,
    of_pod: bool,
    request: Option<u64>,
    limit: Option<u64>,
    bounds: LimitBounds,
) -> Vec<Violation> {
    let limit_range = || name.to_owned();
    let mut found = Vec::new();
    if let Some(min) = bounds.min {
        let lowest = request.into_iter().chain(limit).min();
        match lowest {
            Some(value) if value < min => {
                found.push(Violation::BelowMin { resource, value, min, limit_range: limit_range(), of_pod });
            }
            _ if request.is_none() => {
                found.push(Violation::RequestMissing { resource, limit_range: limit_range(), of_pod });
            }
            _ => {}
        }
    }
    let highest = request.into_iter().chain(limit).max();
    if let Some((value, max)) = highest.zip(bounds.max).filter(|(value, max)| value > max) {
        found.push(Violation::AboveMax { resource, value, max, limit_range: limit_range(), of_pod });
    }
    let is_missing = |value: Option<u64>| value.is_none_or(|value| value == 0);
    if limit.is_none() && bounds.max.is_some() || is_missing(limit) && bounds.ratio.is_some() {
        found.push(Violation::LimitMissing { resource, limit_range: limit_range(), of_pod });
    }
    if is_missing(request) && bounds.ratio.is_some() && bounds.min.is_none() {
        found.push(Violation::RequestMissing { resource, limit_range: limit_range(), of_pod });
    }
    let apart = limit
        .zip(request)
        .filter(|(_, request)| *request > 0)
        .map(|(limit, request)| limit as f64 / request as f64);
    if let Some((ratio, max_ratio)) = apart.zip(bounds.ratio).filter(|(ratio, max_ratio)| ratio > max_ratio) {
        found.push(Violation::Ratio { resource, ratio, max_ratio, limit_range: limit_range(), of_pod });
    }
    found
}
