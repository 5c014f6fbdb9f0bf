//! Values that the agent computes from its samples over time; no cgroup file has them.

use snug_sizing::histogram::Histogram;

/// A histogram with the exact sum of its values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Number of values in each bucket.
    pub histogram: Histogram,
    /// Sum of the values.
    pub sum: f64,
    /// Values up to this are counted in the zero bucket.
    pub zero_threshold: f64,
}

impl Distribution {
    /// An empty distribution.
    pub fn new(zero_threshold: f64) -> Self {
        Self { zero_threshold, ..Self::default() }
    }

    /// Adds a value `times` times.
    pub fn record(&mut self, value: f64, times: u64) {
        if self.histogram.record(value, times) {
            self.sum += value * times as f64;
        }
    }
}

/// Histograms of memory usage over time, bytes, since the agent first saw the cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryHistograms {
    /// The working set of each second.
    pub working_set: Distribution,
    /// Unreclaimable memory (anonymous, shared, unreclaimable slab) in each reading of `memory.stat`.
    pub unreclaimable: Distribution,
}

/// The highest memory usage of the last one to two minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowPeak {
    /// Bytes, file cache included.
    pub bytes: u64,
    /// The source of the value.
    pub source: PeakSource,
}

/// The source of the highest memory usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeakSource {
    /// Samples only.
    Samples,
    /// Samples, and `memory.peak` since the creation of the cgroup when it increased.
    Watermark,
    /// `memory.peak` since the last reading, reset through an open file (Linux 6.12, cgroup v2).
    PeakFile,
}

impl PeakSource {
    /// The name in the `source` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Watermark => "watermark",
            Self::PeakFile => "peak_file",
        }
    }
}
