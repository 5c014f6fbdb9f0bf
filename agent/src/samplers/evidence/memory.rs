//! Memory usage of one container over time: peaks, growth and histograms.

use std::{collections::VecDeque, sync::Arc};

use snug_sizing::minutes::{MINUTE, Minute};

use crate::{
    model::AgentRule,
    values::{MemoryHistograms, MemoryStat, PeakSource, Values, WindowPeak},
};

/// Maximum and minimum number of minutes from which growth is computed.
const GROWTH_MINUTES: (usize, usize) = (60, 10);
/// Half of the window of [`WindowPeak`], seconds. The window covers between one and two halves.
const HALF_WINDOW: u64 = 60;

/// Memory usage of one container.
#[derive(Debug)]
pub(super) struct ContainerMemory {
    /// `memory.peak` since the cgroup was created, as of the last observation, bytes.
    watermark: Option<u64>,
    /// The watermark at the first observation of a container that is older than the agent, bytes, and the time; until it is taken.
    earlier_peak: Option<(u64, u64)>,
    /// Working set at the last observation, bytes.
    working_set: Option<u64>,
    /// Inactive file cache at the last observation, bytes.
    inactive_file: u64,
    /// Highest usage in the samples since the last observation, bytes.
    sampled: u64,
    halves: Halves,
    growth: Growth,
    /// Histograms since the first observation, if enabled.
    histograms: Option<Box<MemoryHistograms>>,
}

/// Memory usage between two observations, usually one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemorySecond {
    /// Working set at the end, bytes; `None` for a container that ended before it was measured.
    pub(super) working_set: Option<u64>,
    /// Highest usage without reclaimable file cache, bytes.
    pub(super) highest: u64,
}

impl ContainerMemory {
    /// `is_new`: the container was created while the agent ran, so its watermark is not from before.
    pub(super) fn new(is_new: bool, histograms: bool) -> Self {
        Self {
            watermark: (is_new || !AgentRule::WatermarkBeforeAgent.is_on()).then_some(0),
            earlier_peak: None,
            working_set: None,
            inactive_file: 0,
            sampled: 0,
            halves: Halves::default(),
            growth: Growth::default(),
            histograms: histograms.then(Box::default),
        }
    }

    /// Usage in a sample between two observations, bytes.
    pub(super) fn sample(&mut self, usage_bytes: u64) {
        self.sampled = self.sampled.max(usage_bytes);
    }

    /// An observation, once a second. `peak`: highest usage since the last observation, if the kernel reports it. `steady`:
    /// the container is past its start-up, so growth counts.
    ///
    /// The highest usage is the working set at the end, or the peak of the usage less the inactive file cache, whichever is
    /// larger. The cache counts as at the start or the end, whichever is larger: file cache that was dropped meanwhile is not
    /// usage.
    pub(super) fn second(
        &mut self,
        values: &Values,
        peak: Option<u64>,
        now_unix: f64,
        steady: bool,
    ) -> Option<MemorySecond> {
        let watermark = values.memory.and_then(|memory| memory.peak_bytes);
        let risen = watermark.filter(|peak| self.watermark.is_some_and(|before| *peak > before));
        let Some(working_set) = values.working_set else {
            // The final record has the watermark. How much of it was file cache is not known.
            let highest = self.watermark.and(watermark).filter(|_| AgentRule::FinalPeak.is_on());
            return highest.map(|highest| MemorySecond { working_set: None, highest });
        };
        self.working_set = Some(working_set.bytes);
        if let (None, Some(peak)) = (self.watermark, watermark) {
            self.earlier_peak = Some((peak, now_unix as u64));
        }
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
        Some(MemorySecond { working_set: Some(working_set.bytes), highest })
    }

    /// The watermark from before the agent, bytes, and when it was first read, seconds; returned once.
    pub(super) fn take_earlier_peak(&mut self) -> Option<(u64, u64)> {
        self.earlier_peak.take()
    }

    /// Counts seconds in which nothing changed. Returns the working set, bytes.
    pub(super) fn add_idle_seconds(&mut self, seconds: u64) -> Option<u64> {
        let working_set = self.working_set?;
        if let Some(histograms) = &mut self.histograms {
            histograms.working_set.record(working_set as f64, seconds);
        }
        Some(working_set)
    }

    /// Unreclaimable memory of a new reading of `memory.stat`, bytes: anonymous, shared and unreclaimable slab.
    pub(super) fn unreclaimable(&mut self, stat: &MemoryStat) -> u64 {
        let slab = stat.slab_unreclaimable_bytes.unwrap_or(0);
        let bytes = stat.anon_bytes.saturating_add(stat.shmem_bytes).saturating_add(slab);
        if let Some(histograms) = &mut self.histograms {
            histograms.unreclaimable.record(bytes as f64, 1);
        }
        bytes
    }

    /// Sets the values that the store shows.
    pub(super) fn fill_values(&self, values: &mut Values) {
        values.window_peak = self.halves.peak();
        values.memory_growth = self.growth.slope;
        values.memory_histograms = self.histograms.as_deref().map(|histograms| Arc::new(histograms.clone()));
    }
}

/// Highest usage in the current and the previous half of the window.
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
            // After a stall or a step of the clock the last half is not the previous one.
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

/// Growth of memory that is never freed: the trend of the lowest working set of each minute.
#[derive(Debug, Default)]
struct Growth {
    minute: Minute,
    lowest: Option<u64>,
    ended: VecDeque<(Minute, u64)>,
    /// Bytes per second, as of the last complete minute.
    slope: Option<f64>,
}

impl Growth {
    fn see(&mut self, bytes: u64, minute: Minute) {
        if minute != self.minute {
            if let Some(lowest) = self.lowest.take() {
                self.ended.push_back((self.minute, lowest));
            }
            self.minute = minute;
            let (max, _) = GROWTH_MINUTES;
            // Also drops minutes in the future, after the clock was set back.
            self.ended.retain(|(old, _)| minute.0.checked_sub(old.0).is_some_and(|age| age as usize <= max));
            self.slope = slope(&self.ended);
        }
        self.lowest = Some(self.lowest.map_or(bytes, |lowest| lowest.min(bytes)));
    }
}

/// Slope by least squares, bytes per second; `None` if there are too few minutes.
fn slope(ended: &VecDeque<(Minute, u64)>) -> Option<f64> {
    let (_, min) = GROWTH_MINUTES;
    let (first, _) = ended.front().filter(|_| ended.len() >= min)?;
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
                ..Memory::default()
            }),
            working_set: Some(WorkingSet {
                inactive_file_bytes: inactive * MIB,
                bytes: (usage - inactive) * MIB,
            }),
            ..Values::default()
        }
    }

    fn highest(watch: &mut ContainerMemory, values: &Values, peak: Option<u64>, at: f64) -> u64 {
        watch.second(values, peak.map(|peak| peak * MIB), at, true).unwrap().highest / MIB
    }

    fn window_peak(watch: &ContainerMemory) -> (u64, &'static str) {
        let mut shown = Values::default();
        watch.fill_values(&mut shown);
        let WindowPeak { bytes, source } = shown.window_peak.unwrap();
        (bytes / MIB, source.as_str())
    }

    #[test]
    fn usage_between_two_observations_counts() {
        let mut watch = ContainerMemory::new(false, false);
        assert_eq!(highest(&mut watch, &values(10, 2, Some(90)), None, 1.0), 8, "it was as high before");
        assert_eq!(highest(&mut watch, &values(10, 2, Some(99)), None, 2.0), 97, "the watermark has risen");
        watch.sample(40 * MIB);
        assert_eq!(highest(&mut watch, &values(10, 2, Some(99)), None, 3.0), 38, "seen in between");
        assert_eq!(highest(&mut watch, &values(10, 2, Some(99)), Some(50), 4.0), 48, "the kernel says");
        assert_eq!(highest(&mut watch, &values(10, 2, Some(99)), Some(10), 5.0), 8);
    }

    #[test]
    fn a_watermark_from_before_the_agent_is_kept_apart() {
        let mut watch = ContainerMemory::new(false, false);
        assert_eq!(highest(&mut watch, &values(10, 2, Some(90)), None, 7.0), 8);
        let _ = highest(&mut watch, &values(10, 2, Some(99)), None, 8.0);
        assert_eq!((watch.take_earlier_peak(), watch.take_earlier_peak()), (Some((90 * MIB, 7)), None));
        let mut new = ContainerMemory::new(true, false);
        let _ = highest(&mut new, &values(10, 2, Some(90)), None, 7.0);
        assert_eq!(new.take_earlier_peak(), None);
    }

    #[test]
    fn a_container_that_ended_before_its_working_set_was_measured_has_its_watermark() {
        let unmeasured = Values { working_set: None, ..values(0, 0, Some(90)) };
        let second = ContainerMemory::new(true, false).second(&unmeasured, None, 1.0, false);
        assert_eq!(second, Some(MemorySecond { working_set: None, highest: 90 * MIB }));
        assert_eq!(ContainerMemory::new(false, false).second(&unmeasured, None, 1.0, false), None);
    }

    #[test]
    fn dropped_file_cache_is_no_usage() {
        let mut watch = ContainerMemory::new(true, false);
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
        let mut watch = ContainerMemory::new(false, false);
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
    fn growth_is_of_memory_that_is_not_freed() {
        let mut watch = ContainerMemory::new(false, false);
        let growth = |watch: &ContainerMemory| {
            let mut shown = Values::default();
            watch.fill_values(&mut shown);
            shown.memory_growth
        };
        for second in 0..3600_u32 {
            // A sawtooth on a baseline that grows by a MiB per minute.
            let usage = 100 + u64::from(second / 60) + u64::from(second % 30);
            let _ = highest(&mut watch, &values(usage, 0, None), None, f64::from(second));
            assert!(second >= 600 || growth(&watch).is_none(), "{second}");
        }
        let by_minute = growth(&watch).unwrap() * 60.0 / MIB as f64;
        assert!((by_minute - 1.0).abs() < 1e-9, "{by_minute}");
        // The clock is set back by an hour: earlier minutes do not count.
        let _ = highest(&mut watch, &values(100, 0, None), None, 60.0);
        assert_eq!(growth(&watch), None);
    }

    #[test]
    fn start_up_is_no_growth() {
        let mut watch = ContainerMemory::new(true, false);
        for minute in 0..30_u32 {
            let _ = watch.second(&values(u64::from(minute), 0, None), None, f64::from(minute * 60), false);
        }
        assert_eq!(watch.growth.slope, None);
    }

    #[test]
    fn histograms_are_kept_if_enabled() {
        for enabled in [false, true] {
            let mut watch = ContainerMemory::new(true, enabled);
            let _ = highest(&mut watch, &values(10, 2, None), None, 1.0);
            let stat = MemoryStat {
                anon_bytes: 3,
                shmem_bytes: 2,
                slab_unreclaimable_bytes: Some(1),
                ..MemoryStat::default()
            };
            assert_eq!(watch.unreclaimable(&stat), 6);
            let mut shown = Values::default();
            watch.fill_values(&mut shown);
            let sums = shown.memory_histograms.map(|both| (both.working_set.sum, both.unreclaimable.sum));
            assert_eq!(sums, enabled.then_some(((8 * MIB) as f64, 6.0)));
        }
    }
}
