//! What the usage history says about requests and limits as manifests have them.

use snug_sizing::{
    engine::{self, Context},
    evidence::Evidence,
    simulate,
    workload::Resources,
};

use super::history::History;
use crate::policy::{Problem, Thresholds};

/// One finding about a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assessed {
    pub problem: Problem,
    pub field: crate::manifests::Field,
    pub text: String,
}

/// Judges the values of a container by its history. `recommended`: what the history recommends.
pub(super) fn assess(
    history: &History,
    evidence: &Evidence,
    values: Resources,
    recommended: &Resources,
    thresholds: &Thresholds,
) -> Vec<Assessed> {
    use crate::manifests::Field::{CpuLimit, CpuRequest, MemoryLimit, MemoryRequest};
    let mut found = Vec::new();
    let mut add = |problem, field, text| found.push(Assessed { problem, field, text });
    let values = values.effective();
    let mut as_written = evidence.clone();
    as_written.container.current = values;
    let context = Context { pool: history.source.pools.of(evidence), ..Context::default() };
    let policy = history.policies.for_container(evidence);
    let now = policy.and_then(|policy| engine::recommend(&as_written, &policy, context).ok());
    let quantity = |field: crate::manifests::Field, amount: Option<u64>| {
        amount.map_or_else(|| "none".to_owned(), |amount| field.quantity(amount))
    };
    if let (Some(limit), Some((kills, _))) = (values.memory_limit, now.as_ref().and_then(|it| it.oom_risk))
        && kills > thresholds.oom_kills_per_pod_day
    {
        let text = format!(
            "{} OOM kills per pod-day are expected at a memory limit of {}, and {} are accepted; recommended: {}",
            rate(kills),
            MemoryLimit.quantity(limit),
            rate(thresholds.oom_kills_per_pod_day),
            quantity(MemoryLimit, recommended.memory_limit),
        );
        add(Problem::OomRisk, MemoryLimit, text);
    }
    if let Some(limit) = values.cpu_limit {
        let simulated = simulate::cpu_limit(evidence, limit);
        // A simulated quota at or above the limit throttles less than the limit.
        let at_least = simulated.as_ref().and_then(|it| it.at_least).map(|it| it.periods);
        let same = evidence.container.current.cpu_limit == Some(limit);
        let seen = simulate::current_limit(evidence).filter(|_| same).map(|it| it.periods);
        if let Some(share) = seen.or(at_least).filter(|share| *share > thresholds.throttled) {
            let how = if seen.is_some() { "throttles" } else { "would throttle at least" };
            let text = format!(
                "the CPU limit of {} {how} {} of CFS periods, and {} are accepted; recommended: {}",
                CpuLimit.quantity(limit),
                percent(share),
                percent(thresholds.throttled),
                quantity(CpuLimit, recommended.cpu_limit),
            );
            add(Problem::Throttling, CpuLimit, text);
        }
    }
    if let Some((above, _)) = now.as_ref().and_then(|it| it.cpu_work_above)
        && above > thresholds.cpu_time_above_request
        && values.cpu_request.is_some()
    {
        let text = format!(
            "{} of CPU time is expected above the CPU request of {}, and {} are accepted; recommended: {}",
            percent(above),
            quantity(CpuRequest, values.cpu_request),
            percent(thresholds.cpu_time_above_request),
            quantity(CpuRequest, recommended.cpu_request),
        );
        add(Problem::Throttling, CpuRequest, text);
    }
    let requests = [
        (CpuRequest, values.cpu_request, recommended.cpu_request, thresholds.cpu_waste, Thresholds::MIN_CPU),
        (
            MemoryRequest,
            values.memory_request,
            recommended.memory_request,
            thresholds.memory_waste,
            Thresholds::MIN_MEMORY,
        ),
    ];
    for (field, own, wanted, share, min) in requests {
        let Some((own, wanted)) = own.zip(wanted) else { continue };
        let unused = own.saturating_sub(wanted);
        if unused as f64 > share * own as f64 && unused >= min {
            let text = format!(
                "the {} of {} is {} too high, and {} are accepted; recommended: {}",
                field.name(),
                field.quantity(own),
                percent(unused as f64 / own as f64),
                percent(share),
                field.quantity(wanted),
            );
            add(Problem::Waste, field, text);
        }
    }
    found
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A rate with two significant digits.
fn rate(rate: f64) -> String {
    if rate >= 0.0995 { format!("{rate:.1}") } else { format!("{rate:.4}") }
}
