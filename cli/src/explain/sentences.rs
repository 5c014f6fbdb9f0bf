//! What is to be known of a container first, in a few sentences.

use snug_sizing::{
    engine::{Reason, span},
    quantity::Quantity,
};

use super::Explanation;
use crate::{
    columns::plain,
    recommend::report::{Entry, Issue},
    units,
};

pub(super) fn cpu_amount(millicores: u64) -> String {
    Quantity::from_millicores(millicores).to_string()
}

pub(super) fn memory_amount(bytes: u64) -> String {
    Quantity::from_bytes(bytes).to_string()
}

/// A share as a percentage; a small share is not shown as zero.
pub(crate) fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.0005 { "<0.1%".to_owned() } else { units::percent(share) }
}

/// A rate of OOM kills of one pod, as part of a sentence.
fn kills(per_day: f64) -> String {
    if per_day > 0.0 { format!("{} of a pod", units::rate(per_day)) } else { "none expected".to_owned() }
}

/// A change in words; `None` without a recommended value.
fn change(name: &str, now: Option<u64>, then: Option<u64>, amount: fn(u64) -> String) -> Option<String> {
    Some(match (now, then) {
        (None, Some(then)) => format!("set the {name} to {}", amount(then)),
        (Some(now), Some(then)) if then > now => {
            format!("raise the {name} from {} to {}", amount(now), amount(then))
        }
        (Some(now), Some(then)) if then < now => {
            format!("lower the {name} from {} to {}", amount(now), amount(then))
        }
        (Some(now), Some(_)) => format!("keep the {name} at {}", amount(now)),
        (Some(now), None) => format!("remove the {name} of {}", amount(now)),
        (None, None) => return None,
    })
}

/// The sentences.
pub(super) fn in_short(explanation: &Explanation) -> Vec<String> {
    let entry = &explanation.recommendation;
    let mut lines = vec![issue(entry)];
    let (now, then) = (entry.current, entry.recommended);
    let changes: Vec<String> = [
        change("CPU request", now.cpu_request, then.cpu_request, cpu_amount),
        change("CPU limit", now.cpu_limit, then.cpu_limit, cpu_amount),
        change("memory request", now.memory_request, then.memory_request, memory_amount),
        change("memory limit", now.memory_limit, then.memory_limit, memory_amount),
    ]
    .into_iter()
    .flatten()
    .collect();
    lines.push(format!("Recommended: {}.", changes.join(", ")));
    if let Some(expected) = entry.expected_oom_kills_per_pod_day {
        lines.push(format!(
            "OOM kills then: expected {}; asked {}, on average over all workloads.",
            kills(expected),
            kills(entry.asked_risk.oom_kills)
        ));
    }
    if let Some(expected) = entry.expected_cpu_work_above {
        lines.push(format!(
            "CPU time above the request then: expected {}; asked {}, on average over all workloads.",
            percent(expected),
            percent(entry.asked_risk.cpu_work)
        ));
    }
    lines.extend(entry.reasons.iter().filter_map(|it| why(&it.reason)));
    lines.push(how_sure(explanation));
    lines
}

/// Why a value is needed. The reasons below the values say which other rules keep it, raise it or lower it by a part.
fn why(reason: &Reason) -> Option<String> {
    Some(match *reason {
        Reason::MemoryMargin { margin, days, .. } => format!(
            "Why so much memory: {} on top of the usage that counts is headroom for a day that needs more than any before; a small container, \
             or one with a short history ({}), gets a larger share.",
            percent(margin),
            span(days)
        ),
        Reason::CpuQuantile { request, exceeded, work_above, rise, .. } => format!(
            "Why so much CPU: so far usage was above {} for {} of the time, with {} of its CPU time; the chance that the next day is \
             busier than all before is {}.",
            cpu_amount(request),
            percent(exceeded),
            percent(work_above),
            percent(rise)
        ),
        _ => return None,
    })
}

/// How much the values can be relied on.
fn how_sure(explanation: &Explanation) -> String {
    let Explanation { recommendation: entry, history } = explanation;
    format!(
        "How sure: confidence is {}, from {} with {} of 7 weekdays; {}.",
        entry.confidence.as_str(),
        span(entry.container_days),
        history.weekdays,
        entry.delivered
    )
}

/// What is wrong with the current values.
fn issue(entry: &Entry) -> String {
    let current = entry.current;
    match entry.issue {
        Issue::OomRisk => {
            let rate = entry.oom_kills_per_pod_day.and_then(|change| change.now).unwrap_or_default();
            let limit = current.memory_limit.map_or_else(
                || "without a memory limit of its own".to_owned(),
                |limit| format!("at its memory limit of {}", memory_amount(limit)),
            );
            format!("It is killed for lack of memory, or will be: {} {limit}.", kills(rate))
        }
        Issue::Throttled => format!(
            "Its CPU limit of {} slows it down: {} of CFS periods were throttled in the last day.",
            current.cpu_limit.map_or_else(String::new, cpu_amount),
            percent(entry.throttled_periods.unwrap_or_default())
        ),
        Issue::CpuShort => format!(
            "{} of its CPU time is expected above its request of {}: a full node would delay that.",
            percent(entry.cpu_work_above_request.and_then(|change| change.now).unwrap_or_default()),
            current.cpu_request.map_or_else(String::new, cpu_amount)
        ),
        Issue::NoRequest => "It has no requests, so the scheduler does not know what it needs.".to_owned(),
        Issue::Waste => format!("It requests more than it needs: {}.", saved(entry)),
        Issue::Ok => "Nothing is wrong with its current values.".to_owned(),
    }
}

/// What all pods together do not need.
fn saved(entry: &Entry) -> String {
    let savings = entry.savings;
    let pods = units::count(usize::try_from(entry.replicas).unwrap_or(usize::MAX), "pod");
    let amounts = [
        (savings.cpu > 0).then(|| format!("{} of CPU", cpu_amount(savings.cpu.unsigned_abs()))),
        (savings.memory > 0).then(|| format!("{} of memory", memory_amount(savings.memory.unsigned_abs()))),
    ];
    let amounts: Vec<String> = amounts.into_iter().flatten().collect();
    format!("{} too much in {}", amounts.join(" and "), plain(&pods))
}
