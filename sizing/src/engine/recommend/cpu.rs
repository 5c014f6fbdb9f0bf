//! The recommended CPU request and limit, with their reasons.

use super::{CpuLimit, Policy, QosRule};
use crate::{
    engine::{
        advice::AdviceRule,
        cpu::{self as usage, CpuSize, Lent, RequestUsage},
        delivered::DeliveredShare,
        reason::{Confidence, LimitKept, Reason},
        stability, steps,
    },
    evidence::Evidence,
    workload::Resources,
};

/// Millicores of a core.
const CORE: u64 = 1000;
/// Hours of history without which a CPU limit is not lowered: load often depends on the time of day.
const DAY: usize = 24;

/// What a CPU limit is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'i> {
    pub(super) evidence: &'i Evidence,
    pub(super) policy: &'i Policy,
    pub(super) confidence: Confidence,
}

/// Lowers a value by a part at a time: `wanted`, or what is left of the current value after the largest step; millicores.
pub(super) fn by_a_part(
    resource: &'static str,
    current: Option<u64>,
    wanted: u64,
    confidence: Confidence,
    reasons: &mut Vec<Reason>,
) -> u64 {
    let share = stability::largest_step(confidence);
    let lowest = current.map(|now| steps::cpu(now as f64 * (1.0 - share)).min(now));
    let Some(lowest) = lowest.filter(|lowest| wanted < *lowest && AdviceRule::LargestCpuStep.is_on()) else {
        return wanted;
    };
    reasons.push(Reason::LargestCpuStep { resource, wanted, share });
    lowest
}

/// The CPU request, millicores, with its reasons.
pub(super) fn request(
    sized: &CpuSize,
    so_far: DeliveredShare,
    previous: Resources,
    reasons: &mut Vec<Reason>,
) -> u64 {
    let CpuSize {
        cores,
        exceeded,
        work_above,
        expected,
        rise,
        window_millis,
        days,
        likes_days,
        start_up,
        ..
    } = *sized;
    // `as` saturates.
    let request = (cores * CORE as f64).ceil() as u64;
    reasons.push(Reason::CpuQuantile { request, exceeded, work_above, expected, rise, window_millis, days });
    if likes_days > 0.0 {
        reasons.push(Reason::CpuLikes { likes_days, days });
    }
    let DeliveredShare { asked, delivered, pod_days, needed } = so_far;
    let calibration = sized.calibration;
    reasons.push(Reason::CpuDelivered { asked, delivered, pod_days, needed, calibration });
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

/// Sets the CPU limit by policy and QoS class, and the request where it follows the limit.
pub(super) fn limit(
    input: &Input<'_>,
    is_guaranteed: bool,
    values: &mut Resources,
    reasons: &mut Vec<Reason>,
) {
    let Some(request) = values.cpu_request else { return };
    let Input { evidence, policy, .. } = *input;
    if is_guaranteed && AdviceRule::RequestFollowsLimit.is_on() {
        let pinned = is_pinned(evidence);
        let Some(limit) = by_periods(input, request, request, reasons) else { return };
        let is_apart = !pinned && is_whole(limit) && is_not_pinned(evidence);
        let limit = match () {
            () if pinned => whole_cores(limit),
            () if is_apart => apart(limit),
            () => limit,
        };
        (values.cpu_request, values.cpu_limit) = (Some(limit), Some(limit));
        reasons.push(Reason::Guaranteed);
        reasons.extend(pinned.then_some(Reason::WholeCores));
        reasons.extend(is_apart.then_some(Reason::NotPinned));
    } else if policy.cpu_limit == CpuLimit::ByRisk {
        // The memory request may equal the memory limit. If the CPU request did too, the pod would become Guaranteed.
        let apart = policy.qos == QosRule::Keep;
        let min = request.saturating_add(u64::from(apart));
        values.cpu_limit = by_periods(input, request, min, reasons);
        if let Some(limit) = values.cpu_limit.filter(|limit| *limit < min) {
            values.cpu_request = Some(if apart { steps::cpu_below(limit) } else { limit });
        }
    } else {
        reasons.push(Reason::NoCpuLimit);
    }
}

/// Keeps the request at the limit, and whole cores whole, within the bounds of the policy.
pub(super) fn align(evidence: &Evidence, policy: &Policy, values: &mut Resources) {
    let Some(limit) = values.cpu_limit.filter(|_| AdviceRule::RequestFollowsLimit.is_on()) else { return };
    let Policy { min, max, .. } = policy;
    let is_within = |limit: &u64| {
        *limit >= min.cpu_limit.unwrap_or(1).max(1) && *limit <= max.cpu_limit.unwrap_or(u64::MAX)
    };
    let choices = if is_pinned(evidence) {
        [whole_cores(limit), limit / CORE * CORE]
    } else if is_whole(limit) && is_not_pinned(evidence) {
        [apart(limit), steps::cpu_below(limit)]
    } else {
        [limit, limit]
    };
    // Bounds that allow neither are what the user asks for.
    let both = choices.into_iter().find(is_within).unwrap_or(limit);
    (values.cpu_request, values.cpu_limit) = (Some(both), Some(both));
}

/// Whether a container of a Guaranteed pod has whole cores, which the kubelet's static CPU manager pins.
fn is_pinned(evidence: &Evidence) -> bool {
    AdviceRule::WholeCores.is_on() && evidence.container.current.cpu_limit.is_some_and(is_whole)
}

/// Whether a container of a Guaranteed pod shares its cores with others today.
fn is_not_pinned(evidence: &Evidence) -> bool {
    AdviceRule::NotPinned.is_on()
        && evidence.container.current.cpu_limit.is_some_and(|limit| !is_whole(limit))
}

const fn is_whole(millicores: u64) -> bool {
    millicores > 0 && millicores.is_multiple_of(CORE)
}

/// The step above whole cores; of many cores, a step of fewer.
const fn apart(whole: u64) -> u64 {
    whole.saturating_add(if whole < 4 * CORE { 50 } else { 100 })
}

/// Rounds millicores up to whole cores.
const fn whole_cores(millicores: u64) -> u64 {
    match millicores.checked_next_multiple_of(CORE) {
        Some(whole) => whole,
        None => millicores,
    }
}

/// The CPU limit that CFS periods show, millicores; else the current one. A simulated quota is at least the request, and the
/// limit at least `min`.
fn by_periods(input: &Input<'_>, request: u64, min: u64, reasons: &mut Vec<Reason>) -> Option<u64> {
    let Input { evidence, policy, confidence } = *input;
    let current = evidence.container.current.cpu_limit;
    // A real limit delays CPU time, so the simulation is too favourable to limits near it and above.
    let throttled = current.and_then(|_| usage::throttled(evidence));
    let is_above = throttled.is_some_and(|share| share > policy.risk.throttled);
    let failed = current.filter(|_| is_above && AdviceRule::ThrottledLimitRises.is_on());
    let from = failed.map_or(request, |limit| request.max(limit.saturating_add(1)));
    let Some((quota, outcome)) = usage::limit(evidence, policy.risk, from) else {
        let Some(limit) = current else {
            reasons.push(Reason::NoQuota);
            return None;
        };
        if !AdviceRule::PeriodsCarryLimits.is_on() {
            return Some(steps::cpu(min as f64));
        }
        let why = match throttled {
            _ if evidence.quota_what_if().is_some() => LimitKept::BeyondSimulation,
            None => LimitKept::NotMeasured,
            Some(_) if is_above => LimitKept::AboveRisk,
            Some(_) => LimitKept::WithinRisk,
        };
        reasons.push(Reason::CpuLimitKept { limit, throttled, why });
        return Some(limit);
    };
    let wanted = steps::cpu(quota.max(min) as f64);
    let is_short = usage::hours(evidence) < DAY && AdviceRule::LimitFallsAfterADay.is_on();
    let is_enough = |limit| limit >= min && usage::throttled_ever(evidence) <= Some(policy.risk.throttled);
    let why = match current {
        Some(limit) if wanted < limit && is_short => Some(LimitKept::ShortHistory),
        // Counters show what the current limit does; a simulated quota is only near it.
        Some(limit) if wanted > limit && !is_above && throttled.is_some() && is_enough(limit) => {
            Some(LimitKept::WithinRisk)
        }
        _ => None,
    };
    if let (Some(limit), Some(why)) = (current, why) {
        reasons.push(Reason::CpuLimitKept { limit, throttled, why });
        return Some(limit);
    }
    let is_kept = |limit: &u64| *limit >= min && failed.is_none() && is_small(*limit, wanted);
    if let Some(limit) = current.filter(|limit| policy.steady && is_kept(limit)) {
        if limit != wanted {
            reasons.push(Reason::Kept { resource: "cpu limit", wanted });
        }
        return Some(limit);
    }
    reasons.extend(failed.zip(throttled).map(|(limit, throttled)| Reason::Throttled { limit, throttled }));
    reasons.push(Reason::CpuLimit { throttled: outcome.share() });
    Some(by_a_part("cpu limit", current, wanted, confidence, reasons))
}

/// Whether a current CPU value stays because `wanted` differs too little; millicores.
pub(super) fn is_small(current: u64, wanted: u64) -> bool {
    AdviceRule::MinimalChange.is_on() && stability::is_small_cpu_change(current, wanted)
}

/// Share of the next day's CPU time that is expected above the current CPU request and above a recommended one, in millicores.
pub(super) fn work_above(
    usage: &RequestUsage,
    current: Option<u64>,
    request: u64,
    lent: &Lent,
) -> (f64, f64) {
    let requests = [current.unwrap_or(0), request].map(|millicores| millicores as f64 / 1000.0);
    usage.expected_above(requests, lent).into()
}

#[cfg(test)]
mod tests;
