use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    evidence::{HOUR, OomKill},
    workload::tests::{container, workload},
};

const RULE: Rule = Rule::FITTED;
const MIB: u64 = 1 << 20;

/// Some usage in MiB: often equal to another one, also after it lost weight.
fn usage() -> impl Strategy<Value = u64> {
    prop_oneof![2 => prop::sample::select(vec![0, 85, 90, 100, 1000]), 1 => 1..2000_u64]
}

/// An hour: hours since the one before, pods, usage after start-up and in it, number of the pod with the peak, and the kills.
type Drawn = (u32, u64, Option<u64>, Option<u64>, u32, Vec<(u64, u32)>);

fn drawn() -> impl Strategy<Value = Drawn> {
    let gap = prop_oneof![12 => Just(1), 3 => 2..9_u32, 1 => 20..80_u32];
    let pods = prop_oneof![1 => Just(0), 9 => 1..7_u64];
    let start = prop::option::weighted(0.2, usage());
    let kills =
        prop_oneof![15 => Just(Vec::new()), 1 => prop::collection::vec((1..1500_u64, 0..4_u32), 1..3)];
    (gap, pods, prop::option::weighted(0.9, usage()), start, 0..4_u32, kills)
}

/// Histories of a container with gaps, equal peaks, starts, and sometimes page cache at its limit or OOM kills.
pub(crate) fn history() -> impl Strategy<Value = Evidence> {
    let limit = prop::option::weighted(0.3, 50..1500_u64);
    (0..30_u32, limit, any::<bool>(), prop::collection::vec(drawn(), 1..70)).prop_map(
        |(first, limit, can_be_killed, hours)| {
            let mut evidence = Evidence::new(workload("web"), container("app"), 100);
            evidence.container.current.memory_limit = limit.map(|mib| mib * MIB);
            let mut hour = first;
            for (gap, pods, steady, start, pod, kills) in hours {
                hour += gap;
                let at = u64::from(hour) * HOUR;
                let peak = |mib: u64| Peak { bytes: mib * MIB, at, pod: format!("web-{pod}") };
                let record = evidence.hour(Hour(hour));
                record.observed = pods * HOUR - pods * u64::from(pod);
                record.peak = steady.map(peak);
                record.start_peak = start.map(peak);
                let used = record.highest().map_or(0, |peak| peak.bytes) as f64;
                for of in 1..=pods {
                    record.working_set.record(used / of as f64, HOUR);
                }
                record.unreclaimable.record(used / 2.0, u64::from(pod % 2) * HOUR);
                for (mib, pod) in kills.into_iter().filter(|_| can_be_killed) {
                    record.kills.push(OomKill { at, limit: mib * MIB, pod: format!("web-{pod}") });
                }
            }
            evidence
        },
    )
}

/// Decisions by their definition: each goes over the whole past.
struct Plain<'e> {
    evidence: &'e Evidence,
    /// The limit that page cache may have filled.
    limit: Option<u64>,
}

impl<'e> Plain<'e> {
    fn new(evidence: &'e Evidence) -> Self {
        let limit = evidence.container.current.memory_limit;
        Self { evidence, limit: limit.filter(|_| evidence.kills().next().is_none()) }
    }

    /// Observed hours from one to another, without that.
    fn hours(&self, from: u32, to: u32) -> impl DoubleEndedIterator<Item = (Hour, &'e HourRecord)> {
        let hours = self.evidence.hours.range(Hour(from)..Hour(to));
        hours.map(|(hour, record)| (*hour, record)).filter(|(_, record)| record.observed > 0)
    }

    /// The peaks of an hour with their needs, and whether they were in start-up.
    fn needs(&self, record: &'e HourRecord) -> Vec<(u64, &'e Peak, bool)> {
        let peaks = [(&record.peak, false), (&record.start_peak, true)];
        let peaks = peaks.into_iter().filter_map(|(peak, start_up)| Some((peak.as_ref()?, start_up)));
        peaks.map(|(peak, start_up)| (Need::new(peak, 0, record, self.limit).bytes, peak, start_up)).collect()
    }

    /// Bytes with the weight of their age, the need, its peak and whether it was in start-up, from the hours until one.
    fn highest(&self, last: u32) -> Option<(f64, u64, &'e Peak, bool)> {
        let mut best: Option<(f64, u64, &'e Peak, bool)> = None;
        for (hour, record) in self.hours(0, last + 1) {
            let age = f64::from(last - hour.0) / 24.0;
            for (need, peak, start_up) in self.needs(record) {
                let weight = if start_up { 1.0 } else { (1.0 - 0.1 * age).max(0.85) };
                let bytes = need as f64 * weight;
                if best.is_none_or(|best| bytes > best.0) {
                    best = Some((bytes, need, peak, start_up));
                }
            }
        }
        best
    }

    fn trial(&self, at: u32) -> Option<Trial> {
        let pods = |(_, record): (Hour, &HourRecord)| record.observed as f64 / HOUR as f64;
        let days = self.hours(0, at).map(pods).sum::<f64>() / 24.0;
        let (bytes, ..) = self.highest(at.checked_sub(1)?)?;
        if days * 24.0 < 1.0 || bytes <= 0.0 {
            return None;
        }
        let newest = self.hours(0, at).next_back()?.0.0;
        let of_day: Vec<f64> = self.hours((newest + 1).saturating_sub(24), at).map(pods).collect();
        let pods = of_day.iter().rev().sum::<f64>() / of_day.len() as f64;
        Some(Trial { bytes, shape: shape(RULE, bytes, days), pods })
    }

    /// Pods, killed pods, and the pods above a limit, of the day after the beginning of an hour.
    fn outcome(&self, at: u32, limit: f64) -> Option<(f64, f64, f64)> {
        let day = || self.hours(at, at + 24);
        day().next()?;
        let (mut of_pods, mut killed) = (BTreeMap::<&str, f64>::new(), BTreeMap::<&str, ()>::new());
        let mut busiest: Option<(u64, bool, &HourRecord)> = None;
        for (_, record) in day() {
            let needs = self.needs(record);
            let of_peaks = needs.iter().map(|(need, peak, _)| (&peak.pod, *need));
            let of_kills = record.kills.iter().map(|kill| (&kill.pod, kill.limit + 1));
            for (pod, need) in of_peaks.chain(of_kills) {
                let highest = of_pods.entry(pod).or_default();
                *highest = highest.max(need as f64);
            }
            killed.extend(record.kills.iter().map(|kill| (kill.pod.as_str(), ())));
            let highest = needs.iter().map(|(need, ..)| *need).max().unwrap_or(0);
            if busiest.is_none_or(|(before, ..)| highest >= before) {
                let is_whole = needs.iter().all(|(need, peak, _)| *need == peak.bytes);
                busiest = Some((highest, is_whole, record));
            }
        }
        let pods = day().map(|(_, record)| record.observed as f64 / HOUR as f64).sum::<f64>() / 24.0;
        let pods = pods.max(of_pods.len() as f64);
        let known = of_pods.values().filter(|need| **need > limit).count() as f64;
        let (_, is_whole, record) = busiest?;
        let together = record.working_set.share_above(limit) * (record.observed as f64 / HOUR as f64);
        let above = if known > 0.0 && is_whole { known.max(together) } else { known };
        Some((pods, killed.len() as f64, above.min(pods)))
    }
}

proptest! {
    #[test]
    fn decisions_are_those_of_going_over_the_whole_past(evidence in history(), limit in 0.0..2e9_f64) {
        let (history, plain) = (PeakHistory::new(&evidence), Plain::new(&evidence));
        let end = evidence.span().map_or(0, |(_, last)| last.0) + 60;
        let mut followed = Vec::new();
        for at in 0..end {
            prop_assert_eq!(history.trial(Hour(at), RULE), plain.trial(at), "hour {}", at);
            let outcome = history.outcome(Hour(at));
            let found = outcome.map(|it| (it.pods, it.killed, it.pods_above(limit)));
            prop_assert_eq!(found, plain.outcome(at, limit), "hour {}", at);
            followed.extend(found.filter(|_| at % TRIAL_STEP == 0).map(|_| Hour(at)));
        }
        prop_assert_eq!(history.trial_hours(), followed);
    }

    #[test]
    fn the_basis_is_that_of_going_over_the_whole_past(evidence in history()) {
        let plain = Plain::new(&evidence);
        let last = plain.hours(0, u32::MAX).next_back().map(|(hour, _)| hour.0);
        let found = PeakHistory::new(&evidence).basis();
        let found = found.map(|it| (it.bytes, it.peak, it.start_up));
        let expected = last.and_then(|last| plain.highest(last));
        let expected = expected.map(|(bytes, need, peak, start_up)| {
            (bytes, Peak { bytes: need, ..peak.clone() }, start_up)
        });
        prop_assert_eq!(found, expected);
    }
}
