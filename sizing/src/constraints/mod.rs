//! Fits recommended values to what a cluster allows, and finds what it would refuse.
//!
//! [`fit()`] moves the proposed values of a pod into the range that LimitRanges and the pod's own resources allow, where that
//! harms nobody. What remains is a [`Violation`]. `docs/recommendations.md` has the rules.

mod admission;
mod advice;
mod fit;
mod limit_range;
mod pinned;
mod pod_level;
mod pod_spec;
mod quota;
mod resource;
mod rollout;
mod scale;
mod violation;

pub use self::{
    fit::{ClusterLimits, Finding, FindingKind, fit},
    limit_range::{LimitBounds, LimitRange, LimitType},
    pod_spec::{PodContainer, PodSpec},
    quota::{PriorityClasses, Quota, QuotaField, Scope},
    resource::Resource,
    rollout::Rollout,
    scale::{Scaled, UtilizationTarget},
    violation::{Adjusted, Violation},
};

#[cfg(test)]
mod tests;
