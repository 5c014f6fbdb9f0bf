//! All of it together, for one container.

use serde::Serialize;

use super::{
    calibration::Pool,
    cpu, growth, memory, oom,
    reason::{Confidence, Reason},
    risk::Risk,
    rule::Rule,
    stability,
};
use crate::{
    evidence::Evidence,
    skew,
    workload::{Qos, Resources},
};

/// Memory is rounded up to this, bytes.
const MEMORY_UNIT: f64 = 1024.0 * 1024.0;
/// Seconds of watched containers without which nothing can be said. With little more it is said how little it is.
const LEAST_SECONDS: u64 = 60;

/// Whether a CPU limit is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuLimit {
    /// None.
    #[default]
    None,
    /// The smallest that keeps the risk of being throttled.
    ByRisk,
}

/// What becomes of the pod's class of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QosRule {
    /// Guaranteed stays Guaranteed, and no other becomes it. Where nothing is set something will be: that is what is asked for.
    #[default]
    Keep,
    /// Whatever comes out.
    Free,
}

/// What the user wants for a workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// How much may go wrong.
    pub risk: Risk,
    /// Whether a CPU limit is set.
    pub cpu_limit: CpuLimit,
    /// What becomes of the class of service.
    pub qos: QosRule,
    /// Least values.
    pub least: Resources,
    /// Greatest values.
    pub most: Resources,
    /// Whether values are kept where a change is not worth it.
    pub steady: bool,
    /// The fitted constants.
    pub rule: Rule,
}

impl Policy {
    /// The default for a risk.
    pub fn new(risk: Risk) -> Self {
        Self {
            risk,
            cpu_limit: CpuLimit::default(),
            qos: QosRule::default(),
            least: Resources::default(),
            most: Resources::default(),
            steady: true,
            rule: Rule::FITTED,
        }
    }
}

/// What is known beside a container's own evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Context {
    /// What replays on similar workloads have shown.
    pub pool: Pool,
    /// The class of its pods; `None` where not all of it is known, and this container stands for its pod.
    pub class: Option<Qos>,
    /// What Snug has set before, if it is still in force.
    pub set: Option<Resources>,
}

/// What a container should have, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Recommendation {
    /// The values.
    pub values: Resources,
    /// What the CPU request is built on; `None` where no CPU use is known.
    pub cpu: Option<cpu::Sized>,
    /// What the memory limit is built on; `None` where no memory use is known.
    pub memory: Option<memory::Sized>,
    /// OOM kills per pod-day to expect of the limit in force, and of the one recommended.
    pub oom_risk: Option<(f64, f64)>,
    /// Share of the work above the request in force, and above the one recommended.
    pub cpu_work_above: Option<(f64, f64)>,
    /// The risk that it was chosen for.
    pub risk: Risk,
    /// How much it is to be trusted.
    pub confidence: Confidence,
    /// What decided, and what should be known.
    pub reasons: Vec<Reason>,
}

/// Why there is no recommendation.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
pub enum Refusal {
    /// Nothing was seen.
    #[error("no use of CPU or memory was seen")]
    Nothing,
    /// Less than a minute of one pod.
    #[error("only {seconds} seconds were seen; a minute is needed")]
    TooLittle {
        /// Seconds of watched containers.
        seconds: u64,
    },
}

/// The recommendation for a container.
pub fn recommend(evidence: &Evidence, policy: &Policy, context: Context) -> Result<Recommendation, Refusal> {
    let Context { pool, class, set } = context;
    let observed: u64 = evidence.hours.values().fold(0, |sum, hour| sum.saturating_add(hour.observed));
    let cpu = cpu::size(evidence, policy.rule, policy.risk);
    let memory = memory::size(evidence, policy.rule, policy.risk, pool.memory);
    if cpu.is_none() && memory.is_none() {
        return Err(Refusal::Nothing);
    }
    if observed < LEAST_SECONDS {
        return Err(Refusal::TooLittle { seconds: observed });
    }
    let mut reasons = Vec::new();
    let set = set.filter(|_| policy.steady).unwrap_or_default();
    let memory_limit = memory.as_ref().map(|sized| memory_limit(evidence, policy, sized, set, &mut reasons));
    let cpu_request = cpu.as_ref().map(|sized| cpu_request(sized, set, &mut reasons));
    let mut values = Resources { cpu_request, cpu_limit: None, memory_request: memory_limit, memory_limit };
    let class = class.unwrap_or_else(|| Qos::of(&[evidence.container.in_force]));
    limit_cpu(evidence, policy, class, &mut values, &mut reasons);
    bound(policy, &mut values, &mut reasons);

    let force = evidence.container.in_force;
    let oom_risk = memory.as_ref().zip(values.memory_limit).map(|(sized, limit)| {
        let now = force
            .memory_limit
            .map_or(0.0, |limit| memory::risk_of(limit as f64, sized).max(killed(evidence, limit)));
        (now, memory::risk_of(limit as f64, sized))
    });
    let windows = cpu::request_windows(evidence).0;
    let work_above = |millicores: u64| windows.work_above(millicores as f64 / 1000.0);
    let cpu_work_above =
        values.cpu_request.map(|request| (work_above(force.cpu_request.unwrap_or(0)), work_above(request)));
    let confidence = trust(evidence, &mut reasons);
    reasons.extend(skew::of(evidence).into_iter().map(Reason::Skew));
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

/// OOM kills per pod-day at a limit in bytes, or a higher one, that were seen; at most 1.
fn killed(evidence: &Evidence, limit: u64) -> f64 {
    let kills = evidence.kills().filter(|kill| kill.limit >= limit).count();
    if kills == 0 { 0.0 } else { (kills as f64 / evidence.pod_days()).min(1.0) }
}

/// Bytes up to the unit, at least one: a limit of nothing is none that a container can start with.
fn round_memory(bytes: f64) -> u64 {
    // `as` saturates.
    ((bytes / MEMORY_UNIT).ceil().max(1.0) * MEMORY_UNIT) as u64
}

/// The memory limit, bytes, and why.
fn memory_limit(
    evidence: &Evidence,
    policy: &Policy,
    sized: &memory::Sized,
    set: Resources,
    reasons: &mut Vec<Reason>,
) -> u64 {
    let memory::Basis { bytes, peak, start_up } = &sized.basis;
    reasons.push(Reason::MemoryBasis {
        peak: peak.bytes,
        counted: *bytes as u64,
        pod: peak.pod.clone(),
        at: peak.at,
        start_up: *start_up,
    });
    reasons.push(Reason::MemoryMargin {
        margin: sized.margin,
        days: sized.days,
        risk: policy.risk.oom_kills,
    });
    let (own, pool) = (sized.own_factor, sized.pool_factor);
    if (own * pool - 1.0).abs() >= 0.01 {
        reasons.push(Reason::Calibrated { own, pool });
    }
    let demand = oom::demand(evidence);
    let failed = demand.as_ref().map_or(0.0, |demand| demand.bytes);
    if let Some(oom::Demand { kill, kills, bounded, .. }) = demand {
        reasons.push(Reason::OomKill { limit: kill.limit, pod: kill.pod, at: kill.at, kills, bounded });
    }
    if let Some(growth) = growth::steady(evidence, evidence.container.in_force.memory_limit) {
        reasons
            .push(Reason::Leak { bytes_per_day: growth.bytes_per_day, days_to_limit: growth.days_to_limit });
    }
    let wanted = round_memory(sized.bytes.max(failed));
    match set.memory_limit {
        Some(set) if set != wanted && stability::keeps_memory(set as f64, wanted as f64, *bytes, failed) => {
            reasons.push(Reason::Kept { resource: "memory", wanted });
            set
        }
        _ => wanted,
    }
}

/// The CPU request, millicores, and why.
fn cpu_request(sized: &cpu::Sized, set: Resources, reasons: &mut Vec<Reason>) -> u64 {
    let cpu::Sized { cores, exceeded, work_above, window_millis, days, start_up } = *sized;
    reasons.push(Reason::CpuQuantile { exceeded, work_above, window_millis, days });
    if start_up {
        reasons.push(Reason::OnlyStartUp);
    }
    // No request at all would put the pod into another class.
    let wanted = ((cores * 1000.0).ceil() as u64).max(1);
    match set.cpu_request {
        Some(set) if set != wanted && stability::keeps_cpu(set as f64, wanted as f64) => {
            reasons.push(Reason::Kept { resource: "cpu", wanted });
            set
        }
        _ => wanted,
    }
}

/// The CPU limit, by policy and class.
fn limit_cpu(
    evidence: &Evidence,
    policy: &Policy,
    class: Qos,
    values: &mut Resources,
    reasons: &mut Vec<Reason>,
) {
    let Some(request) = values.cpu_request else { return };
    let quota = cpu::limit(evidence, policy.risk, request);
    if class == Qos::Guaranteed && policy.qos == QosRule::Keep {
        // Where no ladder says what a quota would do, none may be hit.
        let highest =
            || cpu::windows(evidence).0.quantile(1.0).map_or(request, |cores| (cores * 1000.0).ceil() as u64);
        let both = quota.map_or_else(highest, |(quota, _)| quota).max(request);
        (values.cpu_request, values.cpu_limit) = (Some(both), Some(both));
        reasons.push(Reason::Guaranteed);
        return;
    }
    match (policy.cpu_limit, quota) {
        (CpuLimit::None, _) => reasons.push(Reason::NoCpuLimit),
        (CpuLimit::ByRisk, None) => reasons.push(Reason::NoQuota),
        (CpuLimit::ByRisk, Some((quota, rung))) => {
            // Memory's request is its limit: with CPU's the same the pod would be Guaranteed, which it was not.
            let least = if policy.qos == QosRule::Keep { request.saturating_add(1) } else { request };
            values.cpu_limit = Some(quota.max(least));
            reasons.push(Reason::CpuLimit { throttled: rung.share() });
        }
    }
    if class == Qos::BestEffort && evidence.container.seen > 0 {
        reasons.push(Reason::NoLongerBestEffort);
    }
}

/// The user's bounds; where they contradict each other the upper one wins.
fn bound(policy: &Policy, values: &mut Resources, reasons: &mut Vec<Reason>) {
    let within = |value: Option<u64>, least: Option<u64>, most: Option<u64>| {
        value.map(|value| value.max(least.unwrap_or(0)).min(most.unwrap_or(u64::MAX)))
    };
    let Policy { least, most, .. } = policy;
    let wanted = *values;
    values.cpu_limit = within(wanted.cpu_limit, least.cpu_limit, most.cpu_limit);
    values.memory_limit = within(wanted.memory_limit, least.memory_limit, most.memory_limit);
    // A request above its limit is refused by the API server.
    let upper = |most: Option<u64>, limit: Option<u64>| most.into_iter().chain(limit).min();
    values.cpu_request =
        within(wanted.cpu_request, least.cpu_request, upper(most.cpu_request, values.cpu_limit));
    values.memory_request =
        within(wanted.memory_request, least.memory_request, upper(most.memory_request, values.memory_limit));
    for (resource, before, after) in [
        ("cpu", wanted.cpu_request, values.cpu_request),
        ("memory", wanted.memory_limit, values.memory_limit),
    ] {
        if let Some(wanted) = before.filter(|_| before != after) {
            reasons.push(Reason::Bounded { resource, wanted });
        }
    }
}

/// How much the evidence is worth, and what it lacks.
fn trust(evidence: &Evidence, reasons: &mut Vec<Reason>) -> Confidence {
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
    Confidence::of(days, weekdays, coverage)
}

#[cfg(test)]
mod tests;
