//! The recommended memory limit, with its reasons.

use super::Policy;
use crate::{
    engine::{
        advice::AdviceRule,
        growth,
        memory::{Basis, MemorySize, risk_of},
        oom,
        reason::Reason,
        stability, steps,
    },
    evidence::Evidence,
    workload::Resources,
};

/// Memory that a container runtime needs to start a container, bytes. `docs/recommendations.md` has the measurements.
const RUNTIME_MINIMUM: f64 = 10.0 * 1024.0 * 1024.0;

/// The memory limit, bytes, with its reasons.
pub(super) fn limit(
    evidence: &Evidence,
    policy: &Policy,
    sized: &MemorySize,
    previous: Resources,
    reasons: &mut Vec<Reason>,
) -> u64 {
    let Basis { bytes, peak, start_up } = &sized.basis;
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
    let demand = oom::minimum_limit(evidence);
    let failed = demand.as_ref().map_or(0.0, |demand| demand.bytes);
    if let Some(oom::MinimumLimit { kill, kills, bounded, .. }) = demand {
        reasons.push(Reason::OomKill { limit: kill.limit, pod: kill.pod, at: kill.at, kills, bounded });
    }
    if let Some(growth) = growth::steady(evidence, evidence.container.current.memory_limit) {
        reasons
            .push(Reason::Leak { bytes_per_day: growth.bytes_per_day, days_to_limit: growth.days_to_limit });
    }
    let minimum = if AdviceRule::RuntimeMinimum.is_on() { RUNTIME_MINIMUM } else { 0.0 };
    let wanted = steps::memory(sized.bytes.max(failed).max(minimum));
    match previous.memory_limit {
        Some(set) if set != wanted && stability::keeps_memory(set as f64, wanted as f64, *bytes, failed) => {
            reasons.push(Reason::Kept { resource: "memory", wanted });
            set
        }
        _ => wanted,
    }
}

/// OOM kills per pod-day expected at the current memory limit and at the recommended one.
pub(super) fn risk(evidence: &Evidence, sized: &MemorySize, limit: u64) -> (f64, f64) {
    let now = evidence
        .container
        .current
        .memory_limit
        .map_or(0.0, |limit| risk_of(limit as f64, sized).max(killed(evidence, limit)));
    (now, risk_of(limit as f64, sized))
}

/// OOM kills per pod-day that were observed at a limit in bytes or a higher one, at most 1.
fn killed(evidence: &Evidence, limit: u64) -> f64 {
    let kills = evidence.kills().filter(|kill| kill.limit >= limit).count();
    if kills == 0 { 0.0 } else { (kills as f64 / evidence.pod_days()).min(1.0) }
}
