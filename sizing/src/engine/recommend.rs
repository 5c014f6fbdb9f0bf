//! The recommendation for one container: memory, CPU request, CPU limit, policy and reasons together.

mod classes;
mod cpu;
mod memory;
mod settings;

use serde::Serialize;

use super::{
    advice::AdviceRule,
    calibration::Pool,
    cpu::{CpuSize, RequestUsage},
    delivered::SoFar,
    memory::MemorySize,
    note::MemoryNote,
    reason::{Confidence, Reason},
    risk::Risk,
    rule::Rule,
    stability, whole_hours,
};
use crate::{
    evidence::{Evidence, HOUR, Hour},
    skew,
    start_up::StartUp,
    workload::{QosClass, Resources},
};

/// Container-seconds observed without which there is no recommendation. Little more gives a low confidence.
const MIN_SECONDS: u64 = 60;
/// Days for which the limit of a growing container lasts, by default.
pub const DEFAULT_HORIZON_DAYS: f64 = 7.0;
/// A row whose expected risk is this many times the asked one says so. The asked risk is an average over all workloads.
const FAR_ABOVE: f64 = 2.0;

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
    /// Days for which the memory limit of a growing container must last.
    pub horizon_days: f64,
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
            horizon_days: DEFAULT_HORIZON_DAYS,
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
    /// Share of the next day's CPU time that is expected above the current CPU request and above the recommended one.
    pub cpu_work_above: Option<(f64, f64)>,
    /// CPU usage above the recommended request after starts; `None` without any, or where it is not measured.
    pub start_up: Option<StartUp>,
    /// The accepted risk.
    pub risk: Risk,
    /// What past decisions for the cluster delivered at this risk.
    pub so_far: SoFar,
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
    /// OOM kills, but neither a limit nor any usage.
    #[error(
        "{kills} OOM kill{}, but no usage was observed and no memory limit is known: set a memory limit well above what the program \
         needs to start",
        if *kills == 1 { "" } else { "s" }
    )]
    OnlyKills {
        /// OOM kills in the history.
        kills: usize,
    },
    /// Memory was observed, but none was in use.
    #[error(
        "no memory in use was observed: either no task ran in the container's cgroup, or its runtime accounts to another one \
         (gVisor, Kata)"
    )]
    NoMemoryUse,
    /// Less than a minute was observed.
    #[error("only {seconds} s observed; at least 60 s are needed")]
    TooShort {
        /// Container-seconds observed.
        seconds: u64,
    },
}

/// Makes the recommendation for a container.
///
/// Unfinished hours count only where whole hours show too little: memory usage above the limit, or no usage at all.
pub fn recommend(
    evidence: &Evidence,
    policy: &Policy,
    context: Context,
) -> Result<Recommendation, NotEnoughData> {
    let recommendation = from_hours(evidence, policy, context);
    match &recommendation {
        Ok(found) if whole_hours::exceed(evidence, found.values.memory_limit) => {
            from_hours(&whole_hours::with_peaks(evidence), policy, context)
        }
        Err(_) if !evidence.unfinished.is_empty() => {
            from_hours(&whole_hours::with_unfinished(evidence), policy, context)
        }
        _ => recommendation,
    }
}

/// Makes the recommendation from the hours of the history.
fn from_hours(
    evidence: &Evidence,
    policy: &Policy,
    context: Context,
) -> Result<Recommendation, NotEnoughData> {
    let Context { pool, qos, previous } = context;
    let observed: u64 = evidence.hours.values().fold(0, |sum, hour| sum.saturating_add(hour.observed));
    let cpu_usage = RequestUsage::new(evidence);
    let cpu = super::cpu::size(&cpu_usage, policy.rule, policy.risk, &pool.cpu);
    let memory = super::memory::size(evidence, policy.rule, policy.risk, pool.memory);
    if cpu.is_none() && memory.is_none() {
        let kills = evidence.kills().count();
        let is_killed = kills > 0 && AdviceRule::ShortHistory.is_on();
        return Err(if is_killed { NotEnoughData::OnlyKills { kills } } else { NotEnoughData::NoUsage });
    }
    let is_killed = AdviceRule::ShortHistory.is_on() && evidence.kills().next().is_some();
    if observed < MIN_SECONDS && !is_killed {
        return Err(NotEnoughData::TooShort { seconds: observed });
    }
    let is_cpu_used = super::cpu::is_used(evidence);
    let is_unused = super::memory::is_unused(evidence) || (memory.is_none() && !is_cpu_used);
    if AdviceRule::NoUse.is_on() && !is_killed && is_unused {
        return Err(NotEnoughData::NoMemoryUse);
    }
    let cpu = cpu.filter(|_| observed >= MIN_SECONDS && (is_cpu_used || !AdviceRule::NoUse.is_on()));
    let so_far = pool.so_far(policy.risk);
    let (mut reasons, mut of_history) = (Vec::new(), Vec::new());
    let confidence = confidence(evidence, &mut of_history);
    let current = evidence.container.current;
    // Values that are still set are the current ones, whatever the history was recorded with.
    let in_use = previous.map_or(current, |set| Resources {
        memory_request: set.memory_request.or(current.memory_request),
        memory_limit: set.memory_limit.or(current.memory_limit),
        ..current
    });
    let previous = previous.filter(|_| policy.steady).unwrap_or_default();
    let qos = qos.unwrap_or_else(|| QosClass::from_containers(&[current]));
    let is_guaranteed = qos == QosClass::Guaranteed && policy.qos == QosRule::Keep;
    let mut values = Resources::default();
    if let Some(sized) = &memory {
        let input =
            memory::Input { evidence, policy, sized, confidence, is_guaranteed, current: in_use, previous };
        let memory::Values { request, limit, floor } = memory::values(&input, &mut reasons);
        (values.memory_request, values.memory_limit) = (request, limit);
        if policy.steady {
            keep_memory(current, floor, is_guaranteed, &mut values, &mut reasons);
        }
    }
    match &cpu {
        Some(sized) => {
            let wanted = cpu::request(sized, so_far.cpu, previous, &mut reasons);
            let wanted = cpu::by_a_part("cpu", current.cpu_request, wanted, confidence, &mut reasons);
            values.cpu_request =
                Some(if policy.steady { keep_cpu(current, wanted, &mut reasons) } else { wanted });
            cpu::limit(
                &cpu::Input { evidence, policy, confidence },
                is_guaranteed,
                &mut values,
                &mut reasons,
            );
            if qos == QosClass::BestEffort && evidence.container.seen > 0 {
                reasons.push(Reason::NoLongerBestEffort);
            }
        }
        None => {
            (values.cpu_request, values.cpu_limit) = (current.cpu_request, current.cpu_limit);
            reasons.push(Reason::NoUse { resource: "cpu" });
        }
    }
    bound(policy, &mut values, &mut reasons);
    if is_guaranteed {
        cpu::align(evidence, policy, &mut values);
    }

    let oom_risk =
        memory.as_ref().zip(values.memory_limit).map(|(sized, limit)| memory::risk(evidence, sized, limit));
    let cpu_work_above = values
        .cpu_request
        .map(|request| cpu::work_above(&cpu_usage, current.cpu_request, request, &pool.cpu.lent));
    let start_up = values.cpu_request.and_then(|request| evidence.by_age().above(request as f64 / 1000.0));
    reasons.extend(start_up.map(Reason::StartUp));
    reasons.extend(of_history);
    reasons.extend(settings::notes(&evidence.container, &values));
    let expected = [
        ("memory", policy.risk.oom_kills, oom_risk.map(|(_, expected)| expected)),
        ("cpu", policy.risk.cpu_work, cpu_work_above.map(|(_, expected)| expected)),
    ];
    for (resource, asked, expected) in expected {
        let far_above =
            expected.filter(|expected| *expected > FAR_ABOVE * asked && AdviceRule::ExpectedRisk.is_on());
        reasons.extend(far_above.map(|expected| Reason::ExpectedRisk { resource, asked, expected }));
    }
    let skewed = skew::find(evidence).into_iter().map(|skew| classes::offer(skew, values));
    reasons.extend(skewed.map(Reason::Skew));
    Ok(Recommendation {
        values,
        cpu,
        memory,
        oom_risk,
        cpu_work_above,
        start_up,
        risk: policy.risk,
        so_far,
        confidence,
        reasons,
    })
}

/// Keeps the current memory request and limit where a change would be too small. A limit below `floor`, bytes, is raised.
fn keep_memory(
    current: Resources,
    floor: f64,
    is_guaranteed: bool,
    values: &mut Resources,
    reasons: &mut Vec<Reason>,
) {
    let kept = |now: Option<u64>, wanted: Option<u64>| {
        let (now, wanted) = now.zip(wanted)?;
        let is_small = AdviceRule::MinimalChange.is_on() && stability::is_small_memory_change(now, wanted);
        (now != wanted && is_small).then_some(now)
    };
    if let Some(now) = kept(current.memory_limit, values.memory_limit).filter(|now| *now as f64 >= floor) {
        reasons.extend(values.memory_limit.map(|wanted| Reason::Kept { resource: "memory", wanted }));
        values.memory_limit = Some(now);
    }
    let request = kept(current.memory_request, values.memory_request).or(values.memory_request);
    // The API server rejects a request above its limit.
    values.memory_request = match values.memory_limit {
        Some(limit) if is_guaranteed => Some(limit),
        limit => request.map(|request| request.min(limit.unwrap_or(u64::MAX))),
    };
}

/// Keeps the current CPU request where a change would be too small; millicores.
fn keep_cpu(current: Resources, wanted: u64, reasons: &mut Vec<Reason>) -> u64 {
    match current.cpu_request {
        Some(now) if now != wanted && cpu::is_small(now, wanted) => {
            reasons.push(Reason::Kept { resource: "cpu", wanted });
            now
        }
        _ => wanted,
    }
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
    let confidence = if evidence.partial.is_empty() || !AdviceRule::PartialHistory.is_on() {
        Confidence::from_coverage(days, weekdays, coverage)
    } else {
        reasons.push(Reason::Partial { why: evidence.partial.clone() });
        Confidence::Low
    };
    let Some((image, days)) = new_image(evidence).filter(|_| AdviceRule::NewImage.is_on()) else {
        return confidence;
    };
    reasons.push(Reason::Memory(MemoryNote::NewImage { image: image.to_owned(), days }));
    confidence.min(if days < 1.0 { Confidence::Low } else { Confidence::Medium })
}

/// The image in use and its age in days, if it is less than a week old and the history has usage from before.
fn new_image(evidence: &Evidence) -> Option<(&str, f64)> {
    const WEEK: f64 = 7.0;
    let image = &evidence.container.image;
    let newest = || evidence.images.iter().max_by_key(|(_, first)| **first);
    let (image, first) = evidence.images.get_key_value(image).or_else(newest)?;
    let (from, to) = evidence.span()?;
    let is_within = Hour::from_seconds(*first) > from;
    let days = ((u64::from(to.0) + 1) * HOUR).saturating_sub(*first) as f64 / (24 * HOUR) as f64;
    (is_within && days < WEEK).then_some((image, days))
}

#[cfg(test)]
mod tests;
