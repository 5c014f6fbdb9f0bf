//! The peaks of single hours.

use std::collections::HashMap;

use super::{DAY, unreclaimable_peak};
use crate::{
    engine::advice::AdviceRule,
    evidence::{Hour, HourRecord, Peak},
};

/// Weight that a peak loses with each day of its age.
const FADE_PER_DAY: f64 = 0.1;
/// Weight that a peak keeps while it is in the history: the peak of last week may come again.
pub(super) const FADE_TO: f64 = 0.85;
/// Age in hours above which a peak has only that weight.
pub(super) const FADED: u32 = 36;
/// A peak above this share of the memory limit was bounded by the limit.
const AT_LIMIT: f64 = 0.95;
/// Above this share of the time stalled on memory, page cache is needed: without it, the container waits for its files.
const MAX_STALLED: f64 = 0.01;

/// An hour in a cache line: replays go over hours of all containers many times.
#[derive(Clone, Copy, Debug)]
pub(super) struct HourPeaks<'e> {
    pub(super) hour: Hour,
    /// Number of the hour with the highest peak until the end of this one, where all are as old as weights go.
    pub(super) highest_faded: u32,
    /// Container-hours observed.
    pub(super) pods: f64,
    /// Container-hours observed until the end of the hour.
    pub(super) pods_until: f64,
    pub(super) steady: Option<Need>,
    pub(super) start: Option<Need>,
    pub(super) record: &'e HourRecord,
}

/// An OOM kill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    pub(super) hour: Hour,
    /// The limit that was hit, bytes.
    pub(super) limit: u64,
    pub(super) pod: PodNumber,
}

/// The part of a peak that is a need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) bytes: u64,
    pub(super) pod: PodNumber,
    /// Whether no page cache was left out of the peak.
    pub(super) is_whole: bool,
}

/// Pods of one history, numbered: names take long to compare.
pub(super) type PodNumber = u32;

/// A need with the weight of its age.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighted<'e> {
    pub(super) bytes: f64,
    pub(super) need: Need,
    pub(super) peak: &'e Option<Peak>,
    pub(super) start_up: bool,
}

impl<'e> Weighted<'e> {
    /// The higher one; of equal ones the earlier, so that an explanation does not change from hour to hour.
    pub(super) fn higher(best: Self, it: Self) -> Self {
        if it.bytes > best.bytes { it } else { best }
    }
}

/// Gives numbers to the names of pods.
#[derive(Default)]
pub(super) struct PodNumbers<'e> {
    numbers: HashMap<&'e str, PodNumber>,
    /// Mostly the same pod as in the hour before.
    last: Option<(&'e str, PodNumber)>,
}

impl<'e> PodNumbers<'e> {
    pub(super) fn number(&mut self, pod: &'e str) -> PodNumber {
        if let Some((_, number)) = self.last.filter(|(last, _)| *last == pod) {
            return number;
        }
        let next = self.numbers.len() as PodNumber;
        let number = *self.numbers.entry(pod).or_insert(next);
        self.last = Some((pod, number));
        number
    }
}

impl Need {
    /// The need behind a peak. Page cache grows until it meets the limit. So of a peak at the limit, only unreclaimable memory is a
    /// need, unless the container waited for memory. `cache_limit` is the limit; `None` if a limit was hit by an OOM kill.
    pub(super) fn new(peak: &Peak, pod: PodNumber, record: &HourRecord, cache_limit: Option<u64>) -> Self {
        let stalled = record.stalled.memory_millis as f64 / 1000.0;
        let is_at_limit = cache_limit.is_some_and(|limit| peak.bytes as f64 >= limit as f64 * AT_LIMIT);
        let is_cache = is_at_limit && stalled <= MAX_STALLED * record.observed as f64;
        let is_cache = is_cache && AdviceRule::PageCache.is_on();
        let unreclaimable = is_cache.then(|| unreclaimable_peak(record)).flatten();
        let bytes = unreclaimable.map_or(peak.bytes, |bytes| bytes.min(peak.bytes));
        Self { bytes, pod, is_whole: bytes == peak.bytes }
    }
}

impl<'e> HourPeaks<'e> {
    /// The peaks with the weight of their age at an hour.
    pub(super) fn weighted(&self, last: Hour) -> impl Iterator<Item = Weighted<'e>> {
        let days = f64::from(last.0.saturating_sub(self.hour.0)) / DAY as f64;
        self.with_weight((1.0 - FADE_PER_DAY * days).max(FADE_TO))
    }

    pub(super) fn with_weight(&self, weight: f64) -> impl Iterator<Item = Weighted<'e>> {
        let HourRecord { peak, start_peak, .. } = self.record;
        let weighted = move |(need, peak, start_up): (Need, _, bool)| {
            let weight = if start_up { 1.0 } else { weight };
            Weighted { bytes: need.bytes as f64 * weight, need, peak, start_up }
        };
        let steady = self.steady.map(|need| (need, peak, false));
        let start = self.start.map(|need| (need, start_peak, true));
        steady.into_iter().chain(start).map(weighted)
    }

    pub(super) fn needs(&self) -> impl Iterator<Item = Need> {
        self.steady.into_iter().chain(self.start)
    }

    pub(super) fn highest(&self) -> f64 {
        let bytes = |need: Option<Need>| need.map_or(0, |need| need.bytes);
        bytes(self.steady).max(bytes(self.start)) as f64
    }

    /// Whether no page cache was left out of the peaks.
    pub(super) fn is_whole(&self) -> bool {
        self.needs().all(|need| need.is_whole)
    }
}
