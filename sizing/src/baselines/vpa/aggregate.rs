//! `pkg/recommender/model`: samples of all replicas, and memory peaks by container.

use super::{Buckets, DAY, Decaying, estimate};

/// `epsilon`: 0.001 of the lowest weight of a sample.
const EPSILON: f64 = 0.0001;
/// Weight of a CPU sample.
const CPU_WEIGHT: f64 = 0.1;
/// `oom-bump-up-ratio` and `oom-min-bump-up-bytes`.
const OOM_RATIO: f64 = 1.2;
const OOM_BYTES: f64 = 104_857_600.0;

/// Samples of all replicas.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// Cores.
    pub cpu: Decaying,
    /// Peaks, bytes.
    pub memory: Decaying,
    first: Option<f64>,
    last: f64,
    samples: u64,
}

impl Default for Aggregate {
    fn default() -> Self {
        Self {
            cpu: Decaying::new(Buckets::cpu(), DAY, EPSILON),
            memory: Decaying::new(Buckets::memory(), DAY, EPSILON),
            first: None,
            last: 0.0,
            samples: 0,
        }
    }
}

impl Aggregate {
    /// Adds a CPU sample in cores.
    pub fn add_cpu(&mut self, cores: f64, at: f64) {
        self.cpu.add(cores, CPU_WEIGHT, at);
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = self.last.max(at);
        self.samples += 1;
    }

    /// Days of history, by the CPU samples.
    pub fn confidence(&self) -> f64 {
        estimate::confidence(self.first.unwrap_or(self.last), self.last, self.samples)
    }
}

/// An OOM kill more than a day before the last sample, which VPA ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the OOM kill is more than a day older than the last memory sample")]
pub struct OomTooOld;

/// The peak of one container in each interval of a day.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContainerMemory {
    window_end: Option<f64>,
    peak: f64,
    oom_peak: f64,
    last: f64,
}

impl ContainerMemory {
    /// Adds a memory sample in bytes.
    pub fn add(&mut self, bytes: f64, at: f64, to: &mut Aggregate) {
        self.put(bytes, at, false, to);
    }

    fn put(&mut self, bytes: f64, at: f64, oom: bool, to: &mut Aggregate) {
        if !oom && at < self.last {
            return;
        }
        self.last = at;
        let end = *self.window_end.get_or_insert(at);
        let end = if at < end {
            let old = self.peak.max(self.oom_peak);
            if bytes <= old && old != 0.0 {
                return;
            }
            if old != 0.0 {
                to.memory.subtract(old, 1.0, end);
            }
            end
        } else {
            (self.peak, self.oom_peak) = (0.0, 0.0);
            end + ((at - end) / DAY).floor() * DAY + DAY
        };
        self.window_end = Some(end);
        to.memory.add(bytes, 1.0, end);
        *(if oom { &mut self.oom_peak } else { &mut self.peak }) = bytes;
    }

    /// Adds an OOM kill; `request` is the memory request at that time, bytes.
    ///
    /// # Errors
    /// When the kill is more than a day before the last sample.
    pub fn oom(&mut self, request: f64, at: f64, to: &mut Aggregate) -> Result<(), OomTooOld> {
        if at < self.last - DAY {
            return Err(OomTooOld);
        }
        let used = request.max(self.peak);
        self.put((used + OOM_BYTES).max(used * OOM_RATIO), at, true, to);
        Ok(())
    }

    /// The highest usage of the interval of the last sample.
    #[cfg(test)]
    fn highest(&self) -> f64 {
        self.peak.max(self.oom_peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1024.0 * 1024.0;
    const START: f64 = 1_458_000_000.0;

    /// Peaks in MiB after each of some OOM kills, with their requests in MiB.
    fn after_kills(requests: &[f64]) -> Vec<f64> {
        let (mut memory, mut all) = (ContainerMemory::default(), Aggregate::default());
        let each = requests.iter().enumerate().map(|(at, request)| {
            memory.oom(request * MIB, START + at as f64, &mut all).unwrap();
            memory.highest() / MIB
        });
        each.collect()
    }

    #[test]
    fn kills_as_in_container_test() {
        assert_eq!(after_kills(&[1000.0, 999.0, 999.0, 2000.0]), [1200.0, 1200.0, 1200.0, 2400.0]);
        assert_eq!(after_kills(&[1.0]), [101.0]);
    }

    #[test]
    fn a_kill_below_what_was_used_as_in_container_test() {
        let (mut memory, mut all) = (ContainerMemory::default(), Aggregate::default());
        memory.add(3000.0 * MIB, START, &mut all);
        memory.oom(1000.0 * MIB, START, &mut all).unwrap();
        assert_eq!(memory.highest(), 3600.0 * MIB);
    }

    #[test]
    fn an_old_kill_as_in_container_test() {
        let (mut memory, mut all) = (ContainerMemory::default(), Aggregate::default());
        memory.add(1000.0 * MIB, START, &mut all);
        assert_eq!(memory.oom(1000.0 * MIB, START - 30.0 * 3600.0, &mut all), Err(OomTooOld));
    }

    #[test]
    fn a_higher_peak_replaces_the_one_of_its_window() {
        let (mut memory, mut all) = (ContainerMemory::default(), Aggregate::default());
        memory.add(5e9, START, &mut all);
        memory.add(1e10, START + 60.0, &mut all);
        memory.add(7e9, START + 120.0, &mut all);
        let of_one = all.memory.percentile(0.01);
        assert!(of_one >= 1e10, "the first peak is gone: {of_one}");
        // Two days later, in the window that ends three days after the start.
        memory.add(5e9, START + 2.5 * DAY, &mut all);
        assert_eq!(memory.window_end, Some(START + 3.0 * DAY));
        assert!(all.memory.percentile(0.1) < 6e9);
    }
}
