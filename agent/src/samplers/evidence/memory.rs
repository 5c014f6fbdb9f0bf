//! How one container uses memory over time.

use std::{collections::VecDeque, sync::Arc};

use snug_sizing::minutes::{MINUTE, Minute};

use crate::values::{MemoryHistograms, MemoryStat, PeakSource, Values, WindowPeak};

/// Minutes that growth is taken from, at most and at least.
const GROWTH_MINUTES: (usize, usize) = (60, 10);
/// Seconds of a half of the window of [`WindowPeak`]: so much at least, and twice so much at most, is looked back at.
const HALF_WINDOW: u64 = 60;

/// What is kept of one container's memory.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    /// The kernel's watermark of the whole life when last seen, bytes.
    watermark: Option<u64>,
    /// Working set when last seen, bytes.
    working_set: Option<u64>,
    /// Inactive file cache when last seen, bytes.
    inactive_file: u64,
    /// Highest usage that was seen since the last second, bytes.
    sampled: u64,
    halves: Halves,
    growth: Growth,
    /// Since it was first seen; where that is asked for.
    histograms: Option<Box<MemoryHistograms>>,
}

/// Memory use of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemorySecond {
    /// Working set at its end, bytes.
    pub(super) working_set: u64,
    /// Highest use, without the file cache that can be given back, bytes.
    pub(super) highest: u64,
}

impl MemoryWatch {
    /// `is_new`: it was made while the agent ran, so that its watermark is of what was seen.
    pub(super) fn new(is_new: bool, histograms: bool) -> Self {
        Self {
            watermark: is_new.then_some(0),
            working_set: None,
            inactive_file: 0,
            sampled: 0,
            halves: Halves::default(),
            growth: Growth::default(),
            histograms: histograms.then(Box::default),
        }
    }

    /// Usage between two seconds, bytes.
    pub(super) fn sample(&mut self, usage_bytes: u64) {
        self.sampled = self.sampled.max(usage_bytes);
    }

    /// Once a second. `peak`: the kernel's own highest usage since the last time, where it says it.
    ///
    /// The highest use is the working set at the second's end; or the highest usage in it, less the file cache that could be given back,
    /// of which there was as much as at one of its ends: a cache that is dropped in it is no use.
    pub(super) fn second(
        &mut self,
        values: &Values,
        peak: Option<u64>,
        now_unix: f64,
        steady: bool,
    ) -> Option<MemorySecond> {
        let working_set = values.working_set?;
        self.working_set = Some(working_set.bytes);
        let watermark = values.memory.and_then(|memory| memory.peak_bytes);
        let risen = watermark.filter(|peak| self.watermark.is_some_and(|before| *peak > before));
        self.watermark = watermark.or(self.watermark);
        let sampled = std::mem::take(&mut self.sampled);
        let usage = values.memory.map_or(0, |memory| memory.usage_bytes);
        let between = sampled.max(risen.unwrap_or(0)).max(peak.unwrap_or(0));

        let source = match (peak, watermark) {
            (Some(_), _) => PeakSource::PeakFile,
            (None, Some(_)) => PeakSource::Watermark,
            (None, None) => PeakSource::Samples,
        };
        self.halves.see(between.max(usage), source, now_unix as u64);
        if steady {
            self.growth.see(working_set.bytes, Minute::from_seconds(now_unix as u64));
        }
        if let Some(histograms) = &mut self.histograms {
            histograms.working_set.record(working_set.bytes as f64, 1);
        }
        let before = std::mem::replace(&mut self.inactive_file, working_set.inactive_file_bytes);
        let cache = before.max(working_set.inactive_file_bytes);
        let highest = working_set.bytes.max(between.saturating_sub(cache));
        Some(MemorySecond { working_set: working_set.bytes, highest })
    }

    /// So many seconds in which nothing changed. Returns the working set in them, bytes.
    pub(super) fn rest(&mut self, seconds: u64) -> Option<u64> {
        let working_set = self.working_set?;
        if let Some(histograms) = &mut self.histograms {
            histograms.working_set.record(working_set as f64, seconds);
        }
        Some(working_set)
    }

    /// Memory that cannot be given back, each time that it is read; bytes.
    pub(super) fn unreclaimable(&mut self, stat: &MemoryStat) -> u64 {
        let slab = stat.slab_unreclaimable_bytes.unwrap_or(0);
        let bytes = stat.anon_bytes.saturating_add(stat.shmem_bytes).saturating_add(slab);
        if let Some(histograms) = &mut self.histograms {
            histograms.unreclaimable.record(bytes as f64, 1);
        }
        bytes
    }

    /// What is shown of it.
    pub(super) fn show(&self, values: &mut Values) {
        values.window_peak = self.halves.peak();
        values.memory_growth = self.growth.slope;
        values.memory_histograms = self.histograms.as_deref().map(|histograms| Arc::new(histograms.clone()));
    }
}

/// Highest usage in this half of the window and in the one before.
#[derive(Debug, Default)]
struct Halves {
    number: u64,
    this: Option<WindowPeak>,
    before: Option<WindowPeak>,
}

impl Halves {
    fn see(&mut self, bytes: u64, source: PeakSource, at: u64) {
        let number = at / HALF_WINDOW;
        if number != self.number {
            let this = self.this.take();
            // After a stall, or a step of the clock, what was seen last is old.
            self.before = this.filter(|_| number == self.number + 1);
            self.number = number;
        }
        let this = self.this.get_or_insert(WindowPeak { bytes, source });
        *this = WindowPeak { bytes: this.bytes.max(bytes), source };
    }

    fn peak(&self) -> Option<WindowPeak> {
        let this = self.this?;
        let before = self.before.map_or(0, |before| before.bytes);
        Some(WindowPeak { bytes: this.bytes.max(before), ..this })
    }
}

/// Growth of what is never given back: the lowest working set of each minute.
#[derive(Debug, Default)]
struct Growth {
    minute: Minute,
    lowest: Option<u64>,
    ended: VecDeque<(Minute, u64)>,
    /// Bytes a second, as the last minute left it.
    slope: Option<f64>,
}

impl Growth {
    fn see(&mut self, bytes: u64, minute: Minute) {
        if minute != self.minute {
            if let Some(lowest) = self.lowest.take() {
                self.ended.push_back((self.minute, lowest));
            }
            self.minute = minute;
            let (most, _) = GROWTH_MINUTES;
            // A clock that was set back makes them later than now.
            self.ended.retain(|(old, _)| minute.0.checked_sub(old.0).is_some_and(|age| age as usize <= most));
            self.slope = slope(&self.ended);
        }
        self.lowest = Some(self.lowest.map_or(bytes, |lowest| lowest.min(bytes)));
    }
}

/// Slope of the line of least squares, bytes a second; `None` of too few minutes.
fn slope(ended: &VecDeque<(Minute, u64)>) -> Option<f64> {
    let (_, least) = GROWTH_MINUTES;
    let (first, _) = ended.front().filter(|_| ended.len() >= least)?;
    let at = |minute: Minute| f64::from(minute.0.saturating_sub(first.0)) * MINUTE as f64;
    let points = || ended.iter().map(|(minute, bytes)| (at(*minute), *bytes as f64));
    let count = ended.len() as f64;
    let mean_at = points().map(|(at, _)| at).sum::<f64>() / count;
    let mean_bytes = points().map(|(_, bytes)| bytes).sum::<f64>() / count;
    let covariance: f64 = points().map(|(at, bytes)| (at - mean_at) * (bytes - mean_bytes)).sum();
    let variance: f64 = points().map(|(at, _)| (at - mean_at).powi(2)).sum();
    (variance > 0.0).then(|| covariance / variance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{Memory, WorkingSet};

    const MIB: u64 = 1 << 20;

    fn values(usage: u64, inactive: u64, watermark: Option<u64>) -> Values {
        Values {
            memory: Some(Memory {
                usage_bytes: usage * MIB,
                peak_bytes: watermark.map(|peak| peak * MIB),
                limit_bytes: None,
            }),
            working_set: Some(WorkingSet {
                inactive_file_bytes: inactive * MIB,
                bytes: (usage - inactive) * MIB,
            }),
            ..Values::default()
        }
    }

    fn highest(watch: &mut MemoryWatch, values: &Values, peak: Option<u64>, at: f64) -> u64 {
        watch.second(values, peak.map(|peak| peak * MIB), at, true).unwrap().highest / MIB
    }

    fn window_peak(watch: &MemoryWatch) -> (u64, &'static str) {
        let mut shown = Values::default();
        watch.show(&mut shown);
        let WindowPeak { bytes, source } = shown.window_peak.unwrap();
        (bytes / MIB, source.as_str())
    }

    #[test]
    fn what_was_used_between_two_seconds_counts() {
        let mut watch = MemoryWatch::new(false, false);
        assert_eq!(highest(&mut watch, &values(10, 2, Some(90)), None, 1.0), 8, "it was as high before");
        assert_eq!(highest(&mut watch, &values(10, 2, Some(99)), None, 2.0), 97, "the watermark has risen");
        watch.sample(40 * MIB);
        assert_eq!(highest(&mut watch, &values(10, 2, Some(99)), None, 3.0), 38, "seen in between");
        assert_eq!(highest(&mut watch, &values(10, 2, Some(99)), Some(50), 4.0), 48, "the kernel says");
        assert_eq!(highest(&mut watch, &values(10, 2, Some(99)), Some(10), 5.0), 8);
    }

    #[test]
    fn a_file_cache_that_is_dropped_is_no_use() {
        let mut watch = MemoryWatch::new(true, false);
        assert_eq!(highest(&mut watch, &values(100, 90, Some(100)), Some(100), 1.0), 10);
        assert_eq!(highest(&mut watch, &values(10, 0, Some(100)), Some(100), 2.0), 10);
        assert_eq!(
            highest(&mut watch, &values(10, 0, Some(100)), Some(30), 3.0),
            30,
            "but what is not cache is"
        );
    }

    #[test]
    fn the_window_is_a_minute_to_two() {
        let mut watch = MemoryWatch::new(false, false);
        let quiet = values(10, 0, Some(99));
        for (at, peak, expected) in [
            (60, Some(70), 70),
            (119, Some(10), 70),
            (179, Some(20), 70),
            (180, Some(10), 20),
            (400, Some(10), 10),
        ] {
            let _ = highest(&mut watch, &quiet, peak, f64::from(at));
            assert_eq!(window_peak(&watch), (expected, "peak_file"), "{at}");
        }
        let _ = highest(&mut watch, &quiet, None, 401.0);
        assert_eq!(window_peak(&watch), (10, "watermark"));
        let _ = highest(&mut watch, &values(10, 0, None), None, 402.0);
        assert_eq!(window_peak(&watch), (10, "samples"));
    }

    #[test]
    fn growth_is_of_what_stays() {
        let mut watch = MemoryWatch::new(false, false);
        let growth = |watch: &MemoryWatch| {
            let mut shown = Values::default();
            watch.show(&mut shown);
            shown.memory_growth
        };
        for second in 0..3600_u32 {
            // A saw of 40 MiB on what grows by a MiB a minute.
            let usage = 100 + u64::from(second / 60) + u64::from(second % 30);
            let _ = highest(&mut watch, &values(usage, 0, None), None, f64::from(second));
            assert!(second >= 600 || growth(&watch).is_none(), "{second}");
        }
        let by_minute = growth(&watch).unwrap() * 60.0 / MIB as f64;
        assert!((by_minute - 1.0).abs() < 1e-9, "{by_minute}");
        // Set back, and an hour later: nothing of before counts.
        let _ = highest(&mut watch, &values(100, 0, None), None, 60.0);
        assert_eq!(growth(&watch), None);
    }

    #[test]
    fn start_up_is_no_growth() {
        let mut watch = MemoryWatch::new(true, false);
        for minute in 0..30_u32 {
            let _ = watch.second(&values(u64::from(minute), 0, None), None, f64::from(minute * 60), false);
        }
        assert_eq!(watch.growth.slope, None);
    }

    #[test]
    fn histograms_are_kept_where_they_are_wanted() {
        for wanted in [false, true] {
            let mut watch = MemoryWatch::new(true, wanted);
            let _ = highest(&mut watch, &values(10, 2, None), None, 1.0);
            let stat = MemoryStat {
                anon_bytes: 3,
                shmem_bytes: 2,
                slab_unreclaimable_bytes: Some(1),
                ..MemoryStat::default()
            };
            assert_eq!(watch.unreclaimable(&stat), 6);
            let mut shown = Values::default();
            watch.show(&mut shown);
            let sums = shown.memory_histograms.map(|both| (both.working_set.sum, both.unreclaimable.sum));
            assert_eq!(sums, wanted.then_some(((8 * MIB) as f64, 6.0)));
        }
    }
}
