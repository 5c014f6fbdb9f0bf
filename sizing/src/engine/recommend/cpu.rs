//! The recommended CPU request and limit, with their reasons.

use super::{CpuLimit, Policy, QosRule};
use crate::{
    engine::{
        cpu::{self as usage, CpuSize},
        reason::Reason,
        stability, steps,
    },
    evidence::Evidence,
    workload::{QosClass, Resources},
};

/// The CPU request, millicores, with its reasons.
pub(super) fn request(sized: &CpuSize, previous: Resources, reasons: &mut Vec<Reason>) -> u64 {
    let CpuSize { cores, exceeded, work_above, window_millis, days, start_up } = *sized;
    reasons.push(Reason::CpuQuantile { exceeded, work_above, window_millis, days });
    if start_up {
        reasons.push(Reason::OnlyStartUp);
    }
    let wanted = steps::cpu(cores * 1000.0);
    match previous.cpu_request {
        Some(set) if set != wanted && stability::keeps_cpu(set as f64, wanted as f64) => {
            reasons.push(Reason::Kept { resource: "cpu", wanted });
            set
        }
        _ => wanted,
    }
}

/// Sets the CPU limit by policy and QoS class.
pub(super) fn limit(
    evidence: &Evidence,
    policy: &Policy,
    qos: QosClass,
    values: &mut Resources,
    reasons: &mut Vec<Reason>,
) {
    let Some(request) = values.cpu_request else { return };
    let quota = usage::limit(evidence, policy.risk, request);
    if qos == QosClass::Guaranteed && policy.qos == QosRule::Keep {
        // Without a quota simulation the limit must be one that is never hit.
        let highest = || {
            usage::windows(evidence).0.quantile(1.0).map_or(request, |cores| (cores * 1000.0).ceil() as u64)
        };
        let both = quota.map_or_else(highest, |(quota, _)| quota).max(request);
        (values.cpu_request, values.cpu_limit) = (Some(both), Some(both));
        reasons.push(Reason::Guaranteed);
        return;
    }
    match (policy.cpu_limit, quota) {
        (CpuLimit::None, _) => reasons.push(Reason::NoCpuLimit),
        (CpuLimit::ByRisk, None) => reasons.push(Reason::NoQuota),
        (CpuLimit::ByRisk, Some((quota, outcome))) => {
            // The memory request equals the memory limit. If the CPU request did too, the pod would become Guaranteed.
            let min = if policy.qos == QosRule::Keep { request.saturating_add(1) } else { request };
            values.cpu_limit = Some(quota.max(min));
            reasons.push(Reason::CpuLimit { throttled: outcome.share() });
        }
    }
    if qos == QosClass::BestEffort && evidence.container.seen > 0 {
        reasons.push(Reason::NoLongerBestEffort);
    }
}

/// Share of all CPU time above the current CPU request and above a recommended one, in millicores.
pub(super) fn work_above(evidence: &Evidence, request: u64) -> (f64, f64) {
    let windows = usage::request_windows(evidence).0;
    let above = |millicores: u64| windows.work_above(millicores as f64 / 1000.0);
    (above(evidence.container.current.cpu_request.unwrap_or(0)), above(request))
}
