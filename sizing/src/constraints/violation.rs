//! What a cluster would refuse of a recommendation, and what was changed so that it does not.

use std::fmt;

use serde::Serialize;

use super::resource::Resource;

/// Why the cluster would reject a recommendation, or could not apply it. Values are millicores or bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "violation")]
pub enum Violation {
    /// A request or limit is below the `min` of a `LimitRange`.
    BelowMin {
        /// `cpu` or `memory`.
        resource: Resource,
        /// The lowest of request and limit.
        value: u64,
        /// `min` of the LimitRange.
        min: u64,
        /// Name of the LimitRange.
        limit_range: String,
        /// Whether the LimitRange is for the sums of a pod.
        of_pod: bool,
    },
    /// A request or limit is above the `max` of a `LimitRange`.
    AboveMax {
        /// `cpu` or `memory`.
        resource: Resource,
        /// The highest of request and limit.
        value: u64,
        /// `max` of the LimitRange.
        max: u64,
        /// Name of the LimitRange.
        limit_range: String,
        /// Whether the LimitRange is for the sums of a pod.
        of_pod: bool,
    },
    /// A `LimitRange` with a `max` or a `maxLimitRequestRatio` requires a limit.
    LimitMissing {
        /// `cpu` or `memory`.
        resource: Resource,
        /// Name of the LimitRange.
        limit_range: String,
        /// Whether the LimitRange is for the sums of a pod.
        of_pod: bool,
    },
    /// A `LimitRange` with a `min` or a `maxLimitRequestRatio` requires a request.
    RequestMissing {
        /// `cpu` or `memory`.
        resource: Resource,
        /// Name of the LimitRange.
        limit_range: String,
        /// Whether the LimitRange is for the sums of a pod.
        of_pod: bool,
    },
    /// Limit ÷ request is above the `maxLimitRequestRatio` of a `LimitRange`.
    Ratio {
        /// `cpu` or `memory`.
        resource: Resource,
        /// Limit ÷ request.
        ratio: f64,
        /// `maxLimitRequestRatio`.
        max_ratio: f64,
        /// Name of the LimitRange.
        limit_range: String,
        /// Whether the LimitRange is for the sums of a pod.
        of_pod: bool,
    },
    /// The default limit of a `LimitRange` for a container without one is below its request.
    DefaultBelowRequest {
        /// `cpu` or `memory`.
        resource: Resource,
        /// `default` of the LimitRange.
        default: u64,
        /// The recommended request.
        request: u64,
        /// Name of the LimitRange.
        limit_range: String,
    },
    RequestAboveLimit {
        /// `cpu` or `memory`.
        resource: Resource,
        request: u64,
        limit: u64,
    },
    /// The containers request more than the pod (`spec.resources.requests`).
    AbovePodRequest {
        /// `cpu` or `memory`.
        resource: Resource,
        /// The sum over the containers.
        value: u64,
        /// The pod's request.
        pod: u64,
    },
    /// The limit of a container is above that of the pod (`spec.resources.limits`).
    AbovePodLimit {
        /// `cpu` or `memory`.
        resource: Resource,
        /// The container's limit.
        value: u64,
        /// The pod's limit.
        pod: u64,
    },
    /// The pod requests more than any node has beside its DaemonSets.
    NoNode {
        /// `cpu` or `memory`.
        resource: Resource,
        /// The pod's effective request.
        value: u64,
        /// What the largest node has.
        largest: u64,
    },
    /// Some node has the CPU and some node has the memory, but none has both.
    NoNodeForBoth {
        /// The pod's CPU request, millicores.
        cpu: u64,
        /// The pod's memory request, bytes.
        memory: u64,
    },
    /// All replicas together need more than the `ResourceQuota` has left.
    Quota {
        /// `cpu` or `memory`.
        resource: Resource,
        /// Increase over all replicas.
        more: u64,
        /// `hard` minus `used`.
        left: u64,
        /// Name of the resource in the quota, such as `limits.cpu`.
        field: &'static str,
        /// Name of the ResourceQuota.
        quota: String,
    },
    /// A rollout starts a new pod before it ends an old one, and the `ResourceQuota` has too little left for that.
    SurgeQuota {
        /// `cpu` or `memory`.
        resource: Resource,
        /// Increase for a while.
        more: u64,
        /// `hard` minus `used`.
        left: u64,
        /// Name of the resource in the quota, such as `limits.cpu`.
        field: &'static str,
        /// Name of the ResourceQuota.
        quota: String,
    },
    /// A rollout starts a new pod before it ends an old one, and no node has room for that now.
    SurgeRoom {
        /// The pod's CPU request, millicores.
        cpu: u64,
        /// The pod's memory request, bytes.
        memory: u64,
    },
    /// A `ResourceQuota` refuses pods with a container without this value.
    QuotaDemands {
        /// `cpu` or `memory`.
        resource: Resource,
        /// Name of the resource in the quota, such as `limits.cpu`.
        field: &'static str,
        /// Name of the ResourceQuota.
        quota: String,
    },
    /// The `PodDisruptionBudget` allows no disruption now.
    NoDisruption {
        /// Name of the PodDisruptionBudget.
        budget: String,
    },
}

impl Violation {
    /// Whether the API server refuses new pods with these values, whatever else runs in the cluster.
    pub const fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::NoNode { .. }
                | Self::NoNodeForBoth { .. }
                | Self::Quota { .. }
                | Self::SurgeQuota { .. }
                | Self::SurgeRoom { .. }
                | Self::NoDisruption { .. }
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = |of_pod: &bool| if *of_pod { "the pod's " } else { "" };
        match self {
            Self::BelowMin { resource, value, min, limit_range, of_pod } => {
                let (value, min) = (resource.quantity(*value), resource.quantity(*min));
                write!(
                    f,
                    "{}{resource} {value} is below the LimitRange min {min} ({limit_range})",
                    whose(of_pod)
                )
            }
            Self::AboveMax { resource, value, max, limit_range, of_pod } => {
                let (value, max) = (resource.quantity(*value), resource.quantity(*max));
                write!(
                    f,
                    "{}{resource} {value} is above the LimitRange max {max} ({limit_range})",
                    whose(of_pod)
                )
            }
            Self::LimitMissing { resource, limit_range, of_pod } => {
                let each = if *of_pod { " of every container" } else { "" };
                write!(f, "the LimitRange {limit_range} requires a {resource} limit{each}")
            }
            Self::RequestMissing { resource, limit_range, of_pod } => {
                let each = if *of_pod { " of every container" } else { "" };
                write!(f, "the LimitRange {limit_range} requires a {resource} request{each}")
            }
            Self::Ratio { resource, ratio, max_ratio, limit_range, of_pod } => write!(
                f,
                "{}{resource} limit is {ratio:.2} times the request, above the LimitRange maxLimitRequestRatio {max_ratio:.2} \
                 ({limit_range})",
                if *of_pod { "the pod's " } else { "the " },
            ),
            Self::DefaultBelowRequest { resource, default, request, limit_range } => write!(
                f,
                "without a {resource} limit the LimitRange {limit_range} sets its default of {}, which is below the request of {}: the \
                 API server refuses the pod; set a {resource} limit",
                resource.quantity(*default),
                resource.quantity(*request),
            ),
            Self::RequestAboveLimit { resource, request, limit } => write!(
                f,
                "the {resource} request {} is above the limit {}",
                resource.quantity(*request),
                resource.quantity(*limit)
            ),
            Self::AbovePodRequest { resource, value, pod } => write!(
                f,
                "the containers request {} of {resource}, more than the {} of the pod (spec.resources)",
                resource.quantity(*value),
                resource.quantity(*pod)
            ),
            Self::AbovePodLimit { resource, value, pod } => write!(
                f,
                "the {resource} limit {} is above the pod's limit {} (spec.resources)",
                resource.quantity(*value),
                resource.quantity(*pod)
            ),
            Self::NoNode { resource, value, largest } => write!(
                f,
                "the pod's {resource} request {} fits no node: the largest has {} beside its DaemonSets",
                resource.quantity(*value),
                resource.quantity(*largest)
            ),
            Self::NoNodeForBoth { cpu, memory } => write!(
                f,
                "no node has both the pod's cpu request {} and its memory request {}",
                Resource::Cpu.quantity(*cpu),
                Resource::Memory.quantity(*memory)
            ),
            Self::Quota { resource, more, left, field, quota } => write!(
                f,
                "all replicas together need {} more {field} than now, but the ResourceQuota {quota} has {} left",
                resource.quantity(*more),
                resource.quantity(*left)
            ),
            Self::SurgeQuota { resource, more, left, field, quota } => write!(
                f,
                "a rollout starts a new pod before it ends an old one, which needs {} more {field} for a while, but the ResourceQuota \
                 {quota} has {} left: the rollout would stop; allow maxUnavailable 1, or raise the quota",
                resource.quantity(*more),
                resource.quantity(*left)
            ),
            Self::SurgeRoom { cpu, memory } => write!(
                f,
                "a rollout starts a new pod before it ends an old one, and no node has room for its cpu request {} and memory request {} \
                 beside all pods now: it stays Pending until there is; allow maxUnavailable 1, or add a node",
                Resource::Cpu.quantity(*cpu),
                Resource::Memory.quantity(*memory)
            ),
            Self::QuotaDemands { resource, field, quota } => {
                write!(
                    f,
                    "the ResourceQuota {quota} demands {field} of every container, and none is proposed"
                )?;
                match (resource, field.starts_with("limits")) {
                    (Resource::Cpu, true) => f.write_str(": set a CPU limit (--cpu-limit by-risk)"),
                    _ => Ok(()),
                }
            }
            Self::NoDisruption { budget } => {
                write!(
                    f,
                    "the PodDisruptionBudget {budget} allows no disruption now; a rollout replaces its pods all the same"
                )
            }
        }
    }
}

/// A value that was changed so that the cluster accepts the recommendation. Values are millicores or bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "adjusted")]
pub enum Adjusted {
    /// Raised to the `min` of a `LimitRange`.
    Min {
        /// `cpu` or `memory`.
        resource: Resource,
        /// Before.
        value: u64,
        /// `min` of the LimitRange.
        min: u64,
        /// Name of the LimitRange.
        limit_range: String,
        /// Whether the LimitRange is for the sums of a pod.
        of_pod: bool,
    },
    /// Lowered to the `max` of a `LimitRange`: less than the usage history calls for.
    Max {
        /// `cpu` or `memory`.
        resource: Resource,
        /// Before.
        value: u64,
        /// `max` of the LimitRange.
        max: u64,
        /// Name of the LimitRange.
        limit_range: String,
    },
    /// The request was raised for the `maxLimitRequestRatio` of a `LimitRange`.
    Ratio {
        /// `cpu` or `memory`.
        resource: Resource,
        /// Limit ÷ request before.
        ratio: f64,
        /// `maxLimitRequestRatio`.
        max_ratio: f64,
        /// The request after.
        request: u64,
        /// Name of the LimitRange.
        limit_range: String,
    },
    /// A CPU limit is set because the `LimitRange` would set its default.
    DefaultLimit {
        /// The default, millicores; `None` if the LimitRange has none but requires a limit.
        default: Option<u64>,
        /// The CPU request, millicores.
        request: u64,
        /// The CPU limit, millicores.
        limit: u64,
        /// Name of the LimitRange.
        limit_range: String,
    },
    /// A CPU limit is set because a `ResourceQuota` demands one.
    DemandedLimit {
        /// The CPU limit, millicores.
        limit: u64,
        /// Name of the ResourceQuota.
        quota: String,
    },
    /// The CPU request and limit were moved so that the kubelet neither pins cores by accident nor ends pinning.
    Pinned {
        /// Before, millicores.
        value: u64,
        /// After, millicores.
        cpu: u64,
        /// Whether cores are pinned today.
        was_pinned: bool,
    },
    /// The pod's request (`spec.resources.requests`) is raised to the sum of its containers' requests.
    PodRequest {
        /// `cpu` or `memory`.
        resource: Resource,
        /// Before.
        pod: u64,
        /// After.
        raised: u64,
    },
    /// The pod's limit (`spec.resources.limits`) is raised.
    PodLimit {
        /// `cpu` or `memory`.
        resource: Resource,
        /// What does not fit: the highest of the containers' limits and the pod's request.
        value: u64,
        /// Before.
        pod: u64,
        /// After.
        raised: u64,
    },
}

impl fmt::Display for Adjusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Min { resource, value, min, limit_range, of_pod } => {
                let (value, min) = (resource.quantity(*value), resource.quantity(*min));
                let whose = if *of_pod { "the pod's " } else { "" };
                write!(
                    f,
                    "{whose}{resource} {value} is below the LimitRange min {min} ({limit_range}): raised to it"
                )
            }
            Self::Max { resource, value, max, limit_range } => {
                let (value, max) = (resource.quantity(*value), resource.quantity(*max));
                write!(
                    f,
                    "{resource} {value} is above the LimitRange max {max} ({limit_range}): lowered to it, which is less than the usage \
                     calls for"
                )
            }
            Self::Ratio { resource, ratio, max_ratio, request, limit_range } => write!(
                f,
                "the {resource} limit is {ratio:.2} times the request, above the LimitRange maxLimitRequestRatio {max_ratio:.2} \
                 ({limit_range}): the request is raised to {}",
                resource.quantity(*request)
            ),
            Self::DefaultLimit { default: Some(default), request, limit, limit_range } => {
                let [default_limit, limit] = [default, limit].map(|value| Resource::Cpu.quantity(*value));
                write!(
                    f,
                    "without a cpu limit the LimitRange {limit_range} sets its default of {default_limit}"
                )?;
                if default < request {
                    write!(f, ", which is below the request of {}", Resource::Cpu.quantity(*request))?;
                }
                write!(f, ": a cpu limit of {limit} is proposed")
            }
            Self::DefaultLimit { default: None, limit, limit_range, .. } => {
                let limit = Resource::Cpu.quantity(*limit);
                write!(f, "the LimitRange {limit_range} requires a cpu limit: {limit} is proposed")
            }
            Self::DemandedLimit { limit, quota } => {
                let limit = Resource::Cpu.quantity(*limit);
                write!(
                    f,
                    "the ResourceQuota {quota} demands limits.cpu of every container: a cpu limit of {limit} is proposed"
                )
            }
            Self::Pinned { value, cpu, was_pinned } => {
                let [value, cpu] = [value, cpu].map(|value| Resource::Cpu.quantity(*value));
                let why = if *was_pinned {
                    "would end the pinning of whole cores (static CPU manager)"
                } else {
                    "would have cores pinned (static CPU manager), which they are not today"
                };
                write!(f, "cpu {value} {why}: {cpu} is proposed")
            }
            Self::PodRequest { resource, pod, raised } => {
                let (pod, raised) = (resource.quantity(*pod), resource.quantity(*raised));
                write!(
                    f,
                    "the containers request {raised} of {resource}, more than the pod's request {pod} (spec.resources): it is raised to \
                     {raised}"
                )
            }
            Self::PodLimit { resource, value, pod, raised } => {
                let (value, pod, raised) =
                    (resource.quantity(*value), resource.quantity(*pod), resource.quantity(*raised));
                write!(
                    f,
                    "{resource} {value} does not fit below the pod's limit {pod} (spec.resources): it is raised to {raised}"
                )
            }
        }
    }
}
