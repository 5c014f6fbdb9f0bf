//! What no cgroup file says: what the agent itself sees over time.

use snug_sizing::histogram::Histogram;

/// A distribution and the exact sum of what is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// How often each value was seen.
    pub histogram: Histogram,
    /// Sum of the values.
    pub sum: f64,
    /// What is not larger is counted as zero.
    pub zero_threshold: f64,
}

impl Distribution {
    /// Nothing yet, with values up to this counted as zero.
    pub fn new(zero_threshold: f64) -> Self {
        Self { zero_threshold, ..Self::default() }
    }

    /// Counts a value so many times.
    pub fn record(&mut self, value: f64, times: u64) {
        if self.histogram.record(value, times) {
            self.sum += value * times as f64;
        }
    }
}

/// How memory use is spread over time, bytes, since the agent has seen the cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryHistograms {
    /// The working set of each second.
    pub working_set: Distribution,
    /// Memory that cannot be given back (anonymous, shared, and the kernel's unreclaimable), each time that `memory.stat` is read.
    pub unreclaimable: Distribution,
}

/// The highest memory usage of a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowPeak {
    /// Bytes, file cache included.
    pub bytes: u64,
    /// What tells it.
    pub source: PeakSource,
}

/// What tells the highest usage between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeakSource {
    /// The looks alone.
    Samples,
    /// The looks, and the kernel's watermark of the cgroup's whole life where it rose.
    Watermark,
    /// The kernel's own watermark since the last look: `memory.peak`, set back through a file kept open (Linux 6.12, cgroup v2).
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
