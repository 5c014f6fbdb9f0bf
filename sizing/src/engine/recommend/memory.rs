//! The recommended memory request and limit, with their reasons.

use super::{Policy, settings};
use crate::{
    engine::{
        advice::AdviceRule,
        calibration::Factors,
        growth::{self, Growth, Shape},
        memory::{Basis, ClusterRecord, MemorySize, risk_of, unreclaimable_peak},
        note::MemoryNote,
        oom,
        reason::{Confidence, Reason},
        stability, steps,
    },
    evidence::{EarlierPeak, Evidence, HOUR},
    workload::Resources,
};

/// Memory that every container runtime needs at most to start a container, bytes. `docs/recommendations.md` has the measurements.
const RUNTIME_MINIMUM: f64 = 16.0 * 1024.0 * 1024.0;
/// Days after which usage from before the agent no longer counts: every weekday was seen once.
const EARLIER_PEAK_DAYS: f64 = 7.0;
/// A limit that would have to be more than this many times as high to last for the horizon is not raised for growth.
const MAX_GROWTH: f64 = 2.0;

/// Headroom above the usage that a growing container reaches.
const ABOVE_GROWTH: f64 = 0.05;
/// Growth that no line describes is taken this many times as fast when the question is whether a lower limit lasts.
const IRREGULAR: f64 = 1.5;

/// What memory values are made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'i> {
    pub(super) evidence: &'i Evidence,
    pub(super) policy: &'i Policy,
    pub(super) sized: &'i MemorySize,
    pub(super) confidence: Confidence,
    /// Whether request and limit must be equal.
    pub(super) is_guaranteed: bool,
    /// Requests and limits that are set now.
    pub(super) current: Resources,
    pub(super) previous: Resources,
}

/// Recommended memory values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Values {
    /// Bytes.
    pub(super) request: Option<u64>,
    /// Bytes. `None` where the container grows and has no limit now.
    pub(super) limit: Option<u64>,
    /// The lowest limit that the rules allow, bytes.
    pub(super) floor: f64,
}

/// A lower bound of a value, with the remark that goes with it if it decides.
struct Floor {
    bytes: f64,
    note: Option<MemoryNote>,
}

/// The highest bound. Its remark is a reason if it is above `base`.
fn highest(floors: impl IntoIterator<Item = Floor>, base: f64, reasons: &mut Vec<Reason>) -> f64 {
    let highest = floors.into_iter().reduce(|best, it| if it.bytes > best.bytes { it } else { best });
    let Some(Floor { bytes, note }) = highest.filter(|floor| floor.bytes > base) else { return base };
    reasons.extend(note.map(Reason::Memory));
    bytes
}

/// The memory request and limit, bytes, with their reasons.
pub(super) fn values(input: &Input<'_>, reasons: &mut Vec<Reason>) -> Values {
    let Input { evidence, sized, is_guaranteed, current, previous, .. } = *input;
    explain(input, reasons);
    let failed = failed(evidence, reasons);
    let minimum = minimum(evidence);
    let hard = minimum.iter().map(|floor| floor.bytes).fold(failed, f64::max);
    let need = highest(minimum, failed.max(sized.bytes), reasons);
    let growth = growth(input, need, reasons);
    let used = match growth {
        Growing::Until(bytes) | Growing::Slowly(bytes) => need.max(bytes),
        Growing::No | Growing::NotLowered => need,
    };
    let may_fall = matches!(growth, Growing::No | Growing::Slowly(_));
    let heap = settings::heap_floor(&evidence.container).unwrap_or(0.0);
    let held = |used: f64, value: Option<u64>, floors: Vec<Floor>, reasons: &mut Vec<Reason>| {
        let base = used.max(if may_fall { 0.0 } else { value.unwrap_or(0) as f64 });
        highest(floors, base, reasons)
    };
    // Rules that only keep a value from being lowered do not raise it above the current one, even by rounding.
    let rounded = |need: f64, held: f64, value: Option<u64>| {
        steps::memory(need).max(steps::memory(held).min(value.unwrap_or(u64::MAX)))
    };
    let of_limit = held(used, current.memory_limit, limit_floors(input, used.max(heap)), reasons);
    let mut limit = Some(rounded(used.max(heap), of_limit, current.memory_limit));
    if growth == Growing::NotLowered && current.memory_limit.is_none() {
        limit = None;
    }
    let floor = hard.max(heap).max(match growth {
        Growing::No => 0.0,
        Growing::Slowly(_) => used,
        Growing::Until(_) | Growing::NotLowered => of_limit.max(used),
    });
    if let Some(note) = keeps(input, limit, floor) {
        limit = previous.memory_limit;
        reasons.push(note);
    }
    // A request is reserved on the node, so it is for the usage of today, not for that of a growing container in some days.
    let of_request = held(need, current.memory_request, request_floors(input, need), &mut Vec::new());
    let request = rounded(need, of_request, current.memory_request);
    let request = limit.map_or(request, |limit| if is_guaranteed { limit } else { request.min(limit) });
    let values = Values { request: Some(request), limit, floor };
    if AdviceRule::Warnings.is_on() {
        reasons.extend(warnings(evidence, values).into_iter().map(Reason::Memory));
    }
    values
}

/// Why the previous limit is kept instead of `wanted`; `None` where it is not. `floor` is what no limit may be below, bytes.
fn keeps(input: &Input<'_>, wanted: Option<u64>, floor: f64) -> Option<Reason> {
    let Input { policy, sized, previous, .. } = *input;
    let (set, wanted) = previous.memory_limit.zip(wanted).filter(|(set, wanted)| set != wanted)?;
    let (asked, expected) = (policy.risk.oom_kills, risk_of(set as f64, sized));
    let is_kept =
        stability::keeps_memory(set as f64, wanted as f64, sized.basis.bytes, floor, expected / asked);
    let reason = if wanted > set && expected > 0.0 {
        Reason::Memory(MemoryNote::NearlyEnough { wanted, asked, expected })
    } else {
        Reason::Kept { resource: "memory", wanted }
    };
    is_kept.then_some(reason)
}

/// The basis and the headroom of the values.
fn explain(input: &Input<'_>, reasons: &mut Vec<Reason>) {
    let Input { evidence, policy, sized, .. } = *input;
    let Basis { bytes, peak, start_up, without_cache } = &sized.basis;
    reasons.push(Reason::MemoryBasis {
        peak: peak.bytes,
        counted: *bytes as u64,
        pod: peak.pod.clone(),
        at: peak.at,
        start_up: *start_up,
    });
    if let (true, Some(limit)) = (without_cache, evidence.container.current.memory_limit) {
        reasons.push(Reason::Memory(MemoryNote::PageCache { limit }));
    }
    reasons.push(Reason::MemoryMargin {
        margin: sized.margin,
        days: sized.days,
        risk: policy.risk.oom_kills,
        level: sized.level,
        factor: sized.factors.product(),
        shape: sized.shape,
    });
    let Factors { own, likes } = sized.factors;
    if (own - 1.0).abs() >= 0.01 || (likes - 1.0).abs() >= 0.01 {
        reasons.push(Reason::Calibrated { own, likes, likes_days: sized.likes_days });
    }
    if let Some(ClusterRecord { risk, delivered, pod_days }) = sized.record {
        reasons.push(Reason::ClusterRecord { risk, asked: delivered.asked, seen: delivered.seen, pod_days });
    }
}

/// The lowest limit after OOM kills; 0 without any.
fn failed(evidence: &Evidence, reasons: &mut Vec<Reason>) -> f64 {
    let found = oom::minimum_limit(evidence).filter(|_| AdviceRule::KillRaises.is_on());
    let Some(oom::MinimumLimit { bytes, kill, kills, bounded, assumed }) = found else { return 0.0 };
    reasons.push(Reason::OomKill { limit: kill.limit, assumed, pod: kill.pod, at: kill.at, kills, bounded });
    bytes
}

/// What no limit may be below: what runtimes need, and what the kernel cannot reclaim.
fn minimum(evidence: &Evidence) -> Vec<Floor> {
    let mut floors = Vec::new();
    if AdviceRule::RuntimeMinimum.is_on() {
        let note = MemoryNote::RuntimeMinimum { bytes: RUNTIME_MINIMUM as u64 };
        floors.push(Floor { bytes: RUNTIME_MINIMUM, note: Some(note) });
    }
    let unreclaimable = evidence.hours.values().filter_map(unreclaimable_peak).max();
    if let Some(bytes) = unreclaimable.filter(|_| AdviceRule::UnreclaimablePeak.is_on()) {
        floors.push(Floor { bytes: bytes as f64, note: Some(MemoryNote::Unreclaimable { bytes }) });
    }
    floors
}

/// What growth asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Growing {
    /// Nothing: there is no growth.
    No,
    /// Values for this usage, bytes, and none lower than now.
    Until(f64),
    /// Values for this usage, bytes. So little that values may be lower than now.
    Slowly(f64),
    /// No value lower than now. A value for the whole horizon would be out of proportion, or growth is not sure.
    NotLowered,
}

/// Whether a container grows, with the reason.
fn growth(input: &Input<'_>, need: f64, reasons: &mut Vec<Reason>) -> Growing {
    let Input { evidence, policy, current, .. } = *input;
    let limit = current.memory_limit;
    let Some(growth) = growth::find(evidence, limit) else { return Growing::No };
    let horizon_days = policy.horizon_days;
    let until = growth.after(horizon_days) * (1.0 + ABOVE_GROWTH);
    let proportionate = until <= MAX_GROWTH * need.max(limit.unwrap_or(0) as f64);
    // What the limit would be without growth.
    let proposed = highest(limit_floors(input, need), need, &mut Vec::new());
    // Growth that no line describes may well be faster.
    let is_reached = until + (IRREGULAR - 1.0) * growth.bytes_per_day * horizon_days > proposed;
    let (covered, growing) = match growth.shape {
        Shape::Line if proportionate => (true, Growing::Until(until)),
        Shape::FlatLine if proportionate && is_reached => (true, Growing::Slowly(until)),
        Shape::FlatLine | Shape::ByDay if !is_reached => return Growing::No,
        _ => (false, Growing::NotLowered),
    };
    let Growth { bytes_per_day, days_to_limit, .. } = growth;
    reasons.push(Reason::Leak { bytes_per_day, days_to_limit, horizon_days, covered });
    if AdviceRule::Growth.is_on() { growing } else { Growing::No }
}

/// What the limit is not lowered below. `wanted` is the limit without these.
fn limit_floors(input: &Input<'_>, wanted: f64) -> Vec<Floor> {
    let Input { evidence, sized, current, .. } = *input;
    let container = &evidence.container;
    let limit = current.memory_limit;
    // Where there is no limit, the request is what someone declared as the need.
    let declared = limit.or(current.memory_request);
    let mut floors = request_or_limit_floors(input, declared, wanted);
    // A limit where there is none could end a container whose volume has no bound.
    let volumes =
        Some(container.memory_volumes).filter(|size| *size > 0 && (*size < u64::MAX || limit.is_some()));
    if let Some(size) = volumes.filter(|_| AdviceRule::VolumesFit.is_on()) {
        floors.push(Floor { bytes: sized.basis.bytes + size as f64, note: None });
    }
    if let Some(share) = settings::heap_share(container).filter(|_| AdviceRule::HeapShare.is_on()) {
        floors.push(Floor { bytes: sized.basis.bytes / share, note: None });
    }
    capped(floors, limit)
}

/// What the request is not lowered below.
fn request_floors(input: &Input<'_>, wanted: f64) -> Vec<Floor> {
    let request = input.current.memory_request;
    if request.is_none() {
        return Vec::new();
    }
    capped(request_or_limit_floors(input, request, wanted), request)
}

/// These floors keep a value from being lowered, but do not raise it above the current one.
fn capped(mut floors: Vec<Floor>, value: Option<u64>) -> Vec<Floor> {
    let max = value.map_or(f64::INFINITY, |value| value as f64);
    floors.iter_mut().for_each(|floor| floor.bytes = floor.bytes.min(max));
    floors
}

fn request_or_limit_floors(input: &Input<'_>, value: Option<u64>, wanted: f64) -> Vec<Floor> {
    let mut floors = Vec::new();
    if AdviceRule::EarlierPeak.is_on() {
        floors.extend(earlier_peak(input.evidence));
    }
    if let Some(value) = value.filter(|_| AdviceRule::LargestStep.is_on()) {
        let is_killed = input.evidence.kills().next().is_some();
        let share = stability::largest_step(if is_killed { Confidence::Low } else { input.confidence });
        let note = MemoryNote::LargestStep { wanted: steps::memory(wanted), share };
        floors.push(Floor { bytes: value as f64 * (1.0 - share), note: Some(note) });
    }
    floors
}

/// The highest usage from before the agent, until enough days are seen.
fn earlier_peak(evidence: &Evidence) -> Option<Floor> {
    let EarlierPeak { bytes, at, pod } = evidence.earlier_peak.clone()?;
    let (_, last) = evidence.span()?;
    let days = ((u64::from(last.0) + 1) * HOUR).saturating_sub(at) as f64 / (24 * HOUR) as f64;
    let note = MemoryNote::EarlierPeak { bytes, pod, days, of_days: EARLIER_PEAK_DAYS };
    (days < EARLIER_PEAK_DAYS).then_some(Floor { bytes: bytes as f64, note: Some(note) })
}

/// What to mind about memory besides the values.
fn warnings(evidence: &Evidence, values: Values) -> Vec<MemoryNote> {
    let container = &evidence.container;
    let current = container.current;
    let mut notes = Vec::new();
    if container.memory_volumes > 0 {
        let bytes = Some(container.memory_volumes).filter(|size| *size < u64::MAX);
        notes.push(MemoryNote::Volumes { bytes });
    }
    if container.hugepages > 0 {
        notes.push(MemoryNote::HugePages { bytes: container.hugepages });
    }
    let had_swap = current.memory_request.is_some() && current.memory_request != current.memory_limit;
    if had_swap && values.request == values.limit {
        notes.push(MemoryNote::NoSwap);
    }
    notes
}

/// OOM kills per pod-day expected at the current memory limit and at the recommended one.
pub(super) fn risk(evidence: &Evidence, sized: &MemorySize, limit: u64) -> (f64, f64) {
    let current = evidence.container.current.memory_limit;
    let expected = current.map_or(0.0, |limit| risk_of(limit as f64, sized));
    (expected.max(killed(evidence, current.unwrap_or(0))), risk_of(limit as f64, sized))
}

/// OOM kills per pod-day that were observed at a limit in bytes, a higher one or an unknown one; at most 1.
fn killed(evidence: &Evidence, limit: u64) -> f64 {
    let kills = evidence.kills().filter(|kill| kill.limit >= limit || kill.limit == 0).count();
    if kills == 0 { 0.0 } else { (kills as f64 / evidence.pod_days()).min(1.0) }
}
