//! Whole hours: usage of the hour that is not over changes no recommendation, so that the same question soon after has the same
//! answer.

use super::advice::AdviceRule;
use crate::evidence::{Evidence, HOUR, Hour, HourRecord};

/// Container-seconds in whole hours without which the unfinished hours count as well: a younger history has too little else.
const MIN_WHOLE: u64 = HOUR;

/// Takes the hours that are not complete at a time in seconds out of the history ([`Evidence::unfinished`]).
///
/// A history with less than a container-hour in whole hours keeps them.
pub fn settle(evidence: &mut Evidence, now: u64) {
    if !AdviceRule::WholeHours.is_on() {
        return;
    }
    let first = Hour::first_unfinished(now);
    let whole = evidence.hours.range(..first).fold(0_u64, |sum, (_, hour)| sum.saturating_add(hour.observed));
    if whole >= MIN_WHOLE {
        evidence.unfinished.append(&mut evidence.hours.split_off(&first));
    }
}

/// Whether the unfinished hours show what whole hours do not: memory usage above the recommended limit, bytes.
pub(super) fn exceed(evidence: &Evidence, memory_limit: Option<u64>) -> bool {
    let highest = evidence.unfinished.values().filter_map(HourRecord::highest).map(|peak| peak.bytes).max();
    AdviceRule::UnfinishedPeak.is_on()
        && highest.is_some_and(|bytes| memory_limit.is_none_or(|limit| bytes > limit))
}

/// The history with its unfinished hours.
pub(super) fn with_unfinished(evidence: &Evidence) -> Evidence {
    with(evidence, HourRecord::clone)
}

/// The history with the memory usage of its unfinished hours.
pub(super) fn with_peaks(evidence: &Evidence) -> Evidence {
    with(evidence, |record| HourRecord {
        observed: record.observed,
        peak: record.peak.clone(),
        start_peak: record.start_peak.clone(),
        working_set: record.working_set.clone(),
        unreclaimable: record.unreclaimable.clone(),
        kills: record.kills.clone(),
        ..HourRecord::default()
    })
}

fn with(evidence: &Evidence, part: impl Fn(&HourRecord) -> HourRecord) -> Evidence {
    let mut whole = evidence.clone();
    for (hour, record) in std::mem::take(&mut whole.unfinished) {
        whole.hour(hour).merge(&part(&record));
    }
    whole
}

#[cfg(test)]
mod tests;
