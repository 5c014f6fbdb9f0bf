//! `ResourceQuota`s, as the API server's quota evaluator of pods applies them.
//!
//! Rules: [`pkg/quota/v1/evaluator/core/pods.go`](https://github.com/kubernetes/kubernetes/blob/master/pkg/quota/v1/evaluator/core/pods.go).

use crate::workload::{QosClass, Resources};

use super::{advice::ConstraintRule, pod_spec::PodSpec, resource::Resource, violation::Violation};

/// The pods that a quota counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Pods with `activeDeadlineSeconds`.
    Terminating,
    /// Pods without it.
    NotTerminating,
    /// Pods of the QoS class BestEffort.
    BestEffort,
    /// Pods of another QoS class.
    NotBestEffort,
    /// Pods with an affinity to pods of other namespaces.
    CrossNamespacePodAffinity,
    /// Pods by their `priorityClassName`.
    PriorityClass(PriorityClasses),
    /// A scope that selects no pods, such as those of volumes.
    NoPods,
}

/// A selector of priority classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PriorityClasses {
    In(Vec<String>),
    /// None of these.
    NotIn(Vec<String>),
    Exists,
    /// None.
    DoesNotExist,
}

/// A resource that a quota counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaField {
    /// CPU or memory.
    pub resource: Resource,
    /// Whether limits are counted instead of requests.
    pub is_limit: bool,
    /// `hard` minus `used`; `None` if the usage is unknown.
    pub left: Option<u64>,
}

impl QuotaField {
    /// The name of the resource in a quota, such as `limits.cpu`.
    pub fn name(&self) -> &'static str {
        match (self.resource, self.is_limit) {
            (Resource::Cpu, false) => "requests.cpu",
            (Resource::Cpu, true) => "limits.cpu",
            (Resource::Memory, false) => "requests.memory",
            (Resource::Memory, true) => "limits.memory",
        }
    }

    pub(super) fn usage(&self, pod: &PodSpec) -> u64 {
        if self.is_limit { pod.limit(self.resource) } else { pod.request(self.resource) }
    }

    fn is_stated(&self, values: &Resources) -> bool {
        let value = if self.is_limit { self.resource.limit(values) } else { self.resource.request(values) };
        value.is_some()
    }
}

/// A `ResourceQuota` of CPU or memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Name of the object.
    pub name: String,
    /// All of these must select a pod.
    pub scopes: Vec<Scope>,
    /// What it counts.
    pub fields: Vec<QuotaField>,
}

impl Quota {
    /// Whether the quota counts an admitted pod.
    pub(super) fn counts(&self, pod: &PodSpec) -> bool {
        !ConstraintRule::QuotaScope.is_on() || self.scopes.iter().all(|scope| scope.selects(pod))
    }

    /// Whether every container needs a CPU limit. Resources of the whole pod lift the demand.
    pub(super) fn demands_cpu_limit(&self, pod: &PodSpec) -> bool {
        let of_cpu_limits = |field: &QuotaField| field.is_limit && field.resource == Resource::Cpu;
        pod.pod.is_none() && self.fields.iter().any(of_cpu_limits) && self.counts(pod)
    }
}

impl Scope {
    fn selects(&self, pod: &PodSpec) -> bool {
        let class = &pod.priority_class;
        match self {
            Self::Terminating => pod.has_deadline,
            Self::NotTerminating => !pod.has_deadline,
            Self::BestEffort => pod.qos() == QosClass::BestEffort,
            Self::NotBestEffort => pod.qos() != QosClass::BestEffort,
            Self::CrossNamespacePodAffinity => pod.has_cross_namespace_affinity,
            Self::PriorityClass(PriorityClasses::In(classes)) => classes.contains(class),
            Self::PriorityClass(PriorityClasses::NotIn(classes)) => !classes.contains(class),
            Self::PriorityClass(PriorityClasses::Exists) => !class.is_empty(),
            Self::PriorityClass(PriorityClasses::DoesNotExist) => class.is_empty(),
            Self::NoPods => false,
        }
    }
}

/// The violations of quotas by a change of `replicas` admitted pods.
pub(super) fn violations(
    now: &PodSpec,
    then: &PodSpec,
    replicas: u64,
    quotas: &[Quota],
) -> Vec<(Option<usize>, Violation)> {
    let mut found = Vec::new();
    for quota in quotas.iter().filter(|quota| quota.counts(then)) {
        let was_counted = quota.counts(now);
        for field in &quota.fields {
            let name = || quota.name.clone();
            if then.pod.is_none() {
                let missing = then.containers.iter().enumerate();
                let missing = missing.filter(|(_, container)| !field.is_stated(&container.values));
                found.extend(missing.map(|(at, _)| {
                    let demanded = Violation::QuotaDemands {
                        resource: field.resource,
                        field: field.name(),
                        quota: name(),
                    };
                    (Some(at), demanded)
                }));
            }
            let before = if was_counted { field.usage(now) } else { 0 };
            let more = field.usage(then).saturating_sub(before).saturating_mul(replicas);
            if let Some(left) =
                field.left.filter(|left| more > *left && ConstraintRule::QuotaHeadroom.is_on())
            {
                found.push((
                    None,
                    Violation::Quota {
                        resource: field.resource,
                        more,
                        left,
                        field: field.name(),
                        quota: name(),
                    },
                ));
            }
        }
    }
    found
}
