//! LimitRanges, ResourceQuotas and HorizontalPodAutoscalers.

use k8s_openapi::api::{
    autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, MetricTarget},
    core::v1::{LimitRange as LimitRangeObject, ResourceQuota, ScopedResourceSelectorRequirement},
};
use snug_sizing::constraints::{
    LimitBounds, LimitRange, LimitType, PriorityClasses, Quota, QuotaField, Resource, Scope,
    UtilizationTarget,
};

use crate::cluster::amounts::{Amounts, bytes, millicores, ratio};

/// A `HorizontalPodAutoscaler` with targets for the utilization of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoscaler {
    pub namespace: String,
    /// Kind and name of `scaleTargetRef`.
    pub target: (String, String),
    pub targets: Vec<UtilizationTarget>,
}

fn amount(resource: Resource, amounts: &Amounts, name: &str) -> Option<u64> {
    match resource {
        Resource::Cpu => millicores(amounts, name),
        Resource::Memory => bytes(amounts, name),
    }
}

/// The items of a LimitRange that are for containers or pods, with their namespace.
pub(super) fn limit_ranges(object: &LimitRangeObject) -> Vec<(String, LimitRange)> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    let items = object.spec.iter().flat_map(|spec| &spec.limits).filter_map(|item| {
        let limit_type = match item.type_.as_str() {
            "Container" => LimitType::Container,
            "Pod" => LimitType::Pod,
            _ => return None,
        };
        let bounds = |resource: Resource| {
            let of = resource.to_string();
            LimitBounds {
                min: amount(resource, &item.min, &of),
                max: amount(resource, &item.max, &of),
                default: amount(resource, &item.default, &of),
                default_request: amount(resource, &item.default_request, &of),
                ratio: ratio(&item.max_limit_request_ratio, &of),
            }
        };
        let (cpu, memory) = (bounds(Resource::Cpu), bounds(Resource::Memory));
        Some((namespace.clone(), LimitRange { name: name.clone(), limit_type, cpu, memory }))
    });
    items.collect()
}

/// A ResourceQuota with its namespace; `None` if it counts neither CPU nor memory.
pub(super) fn quota(object: &ResourceQuota) -> Option<(String, Quota)> {
    let (spec, status) = (object.spec.clone().unwrap_or_default(), object.status.as_ref());
    let hard = status.and_then(|status| status.hard.clone()).or(spec.hard);
    let used = status.and_then(|status| status.used.clone());
    let field = |resource: Resource, is_limit: bool| {
        let prefixed = format!("{}.{resource}", if is_limit { "limits" } else { "requests" });
        // `cpu` and `requests.cpu` mean the same; so do the names of memory.
        let plain = (!is_limit).then(|| resource.to_string());
        let names = || [Some(prefixed.clone()), plain.clone()].into_iter().flatten();
        let is_counted = hard.as_ref().is_some_and(|hard| names().any(|name| hard.contains_key(&name)));
        // Before the quota controller has counted, the usage is unknown.
        let left = |name: String| {
            let hard = amount(resource, &hard, &name)?;
            used.as_ref().map(|_| hard.saturating_sub(amount(resource, &used, &name).unwrap_or(0)))
        };
        is_counted.then(|| QuotaField { resource, is_limit, left: names().filter_map(left).min() })
    };
    let both = Resource::ALL.into_iter().flat_map(|resource| [(resource, false), (resource, true)]);
    let fields: Vec<QuotaField> = both.filter_map(|(resource, is_limit)| field(resource, is_limit)).collect();
    let selectors = spec.scope_selector.and_then(|selector| selector.match_expressions).unwrap_or_default();
    let named = spec.scopes.unwrap_or_default();
    let named = named.iter().map(|name| scope(name, PriorityClasses::Exists));
    let scopes = named.chain(selectors.into_iter().map(selected)).collect();
    let (namespace, name) = (object.metadata.namespace.clone()?, object.metadata.name.clone()?);
    (!fields.is_empty()).then_some((namespace, Quota { name, scopes, fields }))
}

fn scope(name: &str, classes: PriorityClasses) -> Scope {
    match name {
        "Terminating" => Scope::Terminating,
        "NotTerminating" => Scope::NotTerminating,
        "BestEffort" => Scope::BestEffort,
        "NotBestEffort" => Scope::NotBestEffort,
        "CrossNamespacePodAffinity" => Scope::CrossNamespacePodAffinity,
        "PriorityClass" => Scope::PriorityClass(classes),
        _ => Scope::NoPods,
    }
}

fn selected(requirement: ScopedResourceSelectorRequirement) -> Scope {
    let ScopedResourceSelectorRequirement { operator, scope_name, values } = requirement;
    let values = values.unwrap_or_default();
    let classes = match operator.as_str() {
        "In" => PriorityClasses::In(values),
        "NotIn" => PriorityClasses::NotIn(values),
        "DoesNotExist" => PriorityClasses::DoesNotExist,
        _ => PriorityClasses::Exists,
    };
    scope(&scope_name, classes)
}

/// An autoscaler; `None` if no metric compares usage with a request.
pub(super) fn autoscaler(object: &HorizontalPodAutoscaler) -> Option<Autoscaler> {
    let spec = object.spec.as_ref()?;
    let name = object.metadata.name.clone()?;
    let target = |container: Option<&String>, resource: &str, target: &MetricTarget| {
        let resource = Resource::ALL.into_iter().find(|known| known.to_string() == resource)?;
        let percent = u32::try_from(target.average_utilization?).ok()?;
        Some(UtilizationTarget { autoscaler: name.clone(), container: container.cloned(), resource, percent })
    };
    let of_metric = |metric: &MetricSpec| {
        let of_pod = metric.resource.as_ref();
        let of_container = metric.container_resource.as_ref();
        of_pod
            .and_then(|metric| target(None, &metric.name, &metric.target))
            .or_else(|| of_container.and_then(|it| target(Some(&it.container), &it.name, &it.target)))
    };
    let targets: Vec<UtilizationTarget> = spec.metrics.iter().flatten().filter_map(of_metric).collect();
    let scaled = &spec.scale_target_ref;
    (!targets.is_empty()).then_some(Autoscaler {
        namespace: object.metadata.namespace.clone()?,
        target: (scaled.kind.clone(), scaled.name.clone()),
        targets,
    })
}
