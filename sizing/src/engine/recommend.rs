//! The recommendation for one container: memory, CPU request, CPU limit, policy and reasons together.

mod cpu;
mod memory;

use serde::Serialize;

use super::{
    calibration::Pool,
    cpu::CpuSize,
    memory::MemorySize,
    reason::{Confidence, Reason},
    risk::Risk,
    rule::Rule,
};
use crate::{
    evidence::Evidence,
    skew,
    workload::{QosClass, Resources},
};

/// Container-seconds observed without which there is no recommendation. Little more gives a low confidence.
const MIN_SECONDS: u64 = 60;

/// Whether a CPU limit is recommended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuLimit {
    /// No CPU limit.
    #[default]
    None,
    /// The smallest simulated quota whose throttling is within the risk.
    ByRisk,
}

/// Whether a recommendation may change the pod's QoS class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QosRule {
    /// Guaranteed stays Guaranteed, and no other class becomes Guaranteed. BestEffort always becomes Burstable, because every
    /// recommendation sets requests.
    #[default]
    Keep,
    /// The QoS class may change.
    Free,
}

/// The user's settings for a workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// The accepted risk.
    pub risk: Risk,
    /// Whether a CPU limit is recommended.
    pub cpu_limit: CpuLimit,
    /// Whether the QoS class may change.
    pub qos: QosRule,
    /// Lower bounds.
    pub min: Resources,
    /// Upper bounds.
    pub max: Resources,
    /// Whether previously recommended values are kept where a change is too small.
    pub steady: bool,
    /// The fitted constants.
    pub rule: Rule,
}

impl Policy {
    /// The default settings for a risk.
    pub fn new(risk: Risk) -> Self {
        Self {
            risk,
            cpu_limit: CpuLimit::default(),
            qos: QosRule::default(),
            min: Resources::default(),
            max: Resources::default(),
            steady: true,
            rule: Rule::FITTED,
        }
    }
}

/// Inputs beside the container's own usage history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Context {
    /// Calibration by similar workloads.
    pub pool: Pool,
    /// QoS class of the pod; `None` where it is unknown, and is then derived from this container alone.
    pub qos: Option<QosClass>,
    /// Values that Snug recommended earlier and that are still set.
    pub previous: Option<Resources>,
}

/// Recommended requests and limits of a container, with reasons.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Recommendation {
    /// Recommended requests and limits.
    pub values: Resources,
    /// Inputs of the CPU request; `None` without CPU usage.
    pub cpu: Option<CpuSize>,
    /// Inputs of the memory limit; `None` without memory usage.
    pub memory: Option<MemorySize>,
    /// Expected OOM kills per pod-day at the current memory limit and at the recommended one.
    pub oom_risk: Option<(f64, f64)>,
    /// Share of all CPU time above the current CPU request and above the recommended one.
    pub cpu_work_above: Option<(f64, f64)>,
    /// The accepted risk.
    pub risk: Risk,
    /// How much usage history there is.
    pub confidence: Confidence,
    /// Reasons, in the order in which they were found.
    pub reasons: Vec<Reason>,
}

/// Why there is no recommendation for a container.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
pub enum NotEnoughData {
    /// Neither CPU nor memory usage was observed.
    #[error("no CPU or memory usage observed")]
    NoUsage,
    /// Less than a minute was observed.
    #[error("only {seconds} s observed; at least 60 s are needed")]
    TooShort {
        /// Container-seconds observed.
        seconds: u64,
    },
}

/// Makes the recommendation for a container.
pub fn recommend(
    evidence: &Evidence,
    policy: &Policy,
    context: Context,
) -> Result<Recommendation, NotEnoughData> {
    let Context { pool, qos, previous } = context;
    let observed: u64 = evidence.hours.values().fold(0, |sum, hour| sum.saturating_add(hour.observed));
    let cpu = super::cpu::size(evidence, policy.rule, policy.risk);
    let memory = super::memory::size(evidence, policy.rule, policy.risk, pool.memory);
    if cpu.is_none() && memory.is_none() {
        return Err(NotEnoughData::NoUsage);
    }
    if observed < MIN_SECONDS {
        return Err(NotEnoughData::TooShort { seconds: observed });
    }
    let mut reasons = Vec::new();
    let previous = previous.filter(|_| policy.steady).unwrap_or_default();
    let memory_limit =
        memory.as_ref().map(|sized| memory::limit(evidence, policy, sized, previous, &mut reasons));
    let cpu_request = cpu.as_ref().map(|sized| cpu::request(sized, previous, &mut reasons));
    let mut values = Resources { cpu_request, cpu_limit: None, memory_request: memory_limit, memory_limit };
    let qos = qos.unwrap_or_else(|| QosClass::from_containers(&[evidence.container.current]));
    cpu::limit(evidence, policy, qos, &mut values, &mut reasons);
    bound(policy, &mut values, &mut reasons);

    let oom_risk =
        memory.as_ref().zip(values.memory_limit).map(|(sized, limit)| memory::risk(evidence, sized, limit));
    let cpu_work_above = values.cpu_request.map(|request| cpu::work_above(evidence, request));
    let confidence = confidence(evidence, &mut reasons);
    reasons.extend(skew::find(evidence).into_iter().map(Reason::Skew));
    Ok(Recommendation {
        values,
        cpu,
        memory,
        oom_risk,
        cpu_work_above,
        risk: policy.risk,
        confidence,
        reasons,
    })
}

/// Applies the bounds of the policy. Where `min` is above `max`, `max` wins.
fn bound(policy: &Policy, values: &mut Resources, reasons: &mut Vec<Reason>) {
    let within = |value: Option<u64>, min: Option<u64>, max: Option<u64>| {
        value.map(|value| value.max(min.unwrap_or(0)).min(max.unwrap_or(u64::MAX)))
    };
    let Policy { min, max, .. } = policy;
    let unbounded = *values;
    values.cpu_limit = within(unbounded.cpu_limit, min.cpu_limit, max.cpu_limit);
    values.memory_limit = within(unbounded.memory_limit, min.memory_limit, max.memory_limit);
    // The API server rejects a request above its limit.
    let upper = |max: Option<u64>, limit: Option<u64>| max.into_iter().chain(limit).min();
    values.cpu_request =
        within(unbounded.cpu_request, min.cpu_request, upper(max.cpu_request, values.cpu_limit));
    values.memory_request =
        within(unbounded.memory_request, min.memory_request, upper(max.memory_request, values.memory_limit));
    for (resource, before, after) in [
        ("cpu", unbounded.cpu_request, values.cpu_request),
        ("memory", unbounded.memory_limit, values.memory_limit),
    ] {
        if let Some(wanted) = before.filter(|_| before != after) {
            reasons.push(Reason::Bounded { resource, wanted });
        }
    }
}

/// The confidence, with reasons for gaps in the usage history.
fn confidence(evidence: &Evidence, reasons: &mut Vec<Reason>) -> Confidence {
    let (days, weekdays, coverage) = (evidence.pod_days(), evidence.weekdays(), evidence.coverage());
    if days < 1.0 {
        reasons.push(Reason::Young { days });
    }
    if weekdays < 7 {
        reasons.push(Reason::Weekdays { seen: weekdays });
    }
    if coverage < 0.9 {
        reasons.push(Reason::Gaps { coverage });
    }
    Confidence::from_coverage(days, weekdays, coverage)
}

#[cfg(test)]
mod tests;
