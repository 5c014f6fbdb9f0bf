//! The interface of a policy: its input and its values.

use super::trace::{ContainerTrace, GroupKey, Series};
use crate::{engine::Pool, evidence::Evidence};

/// The values that a policy chooses for a workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values {
    /// CPU request, millicores.
    pub cpu: f64,
    /// Memory limit, KiB.
    pub memory: f64,
}

/// An OOM kill of the closed loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    /// Minute.
    pub at: usize,
    /// The limit that was hit, KiB.
    pub limit: f64,
    /// Index of the container in the workload's rows.
    pub row: usize,
}

/// A sample of CPU usage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuSample {
    /// Millicores.
    pub value: f64,
    /// Minute.
    pub at: u32,
    /// Index of the container in the workload's rows.
    pub row: u32,
}

/// What a decision delivered. It is known when the day that it was made for is over, and not before.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Minute of the decision.
    pub at: usize,
    /// Index of the workload in the trace.
    pub group: usize,
    pub values: Values,
    /// Highest memory usage of each pod in the day, KiB.
    pub highest: Vec<f64>,
    /// CPU time above the request, and all CPU time: sums over samples, millicores.
    pub work: (f64, f64),
}

/// A workload at the time of a decision. Policies use samples before `now`; only the oracle uses those after.
#[derive(Clone, Copy, Debug)]
pub struct PolicyInput<'t> {
    /// The workload.
    pub key: &'t GroupKey,
    pub rows: &'t [ContainerTrace],
    /// Their observable memory, KiB: capped at the limits in the closed loop.
    pub memory: &'t [Series],
    /// All CPU samples of the whole trace, ascending by value.
    pub cpu: &'t [CpuSample],
    /// Minute of the decision.
    pub now: usize,
    /// Minutes of the trace.
    pub minutes: usize,
    /// OOM kills before now.
    pub kills: &'t [Kill],
    /// Evidence as an agent would have recorded it; `None` in the closed loop, where each policy observes its own usage.
    pub evidence: Option<&'t Evidence>,
    /// What the engine's rule learnt from all workloads before now.
    pub pool: Pool,
    /// What earlier decisions of this policy delivered, for all workloads, in order of time: only those whose day is over.
    pub labels: &'t [Label],
}

impl PolicyInput<'_> {
    /// CPU samples before now, ascending by value.
    pub fn past_cpu(&self) -> impl Iterator<Item = &CpuSample> + Clone {
        let now = self.now;
        self.cpu.iter().filter(move |sample| (sample.at as usize) < now)
    }

    /// The highest memory usage before now, KiB.
    pub fn highest(&self) -> Option<f64> {
        self.memory.iter().filter_map(|series| series.highest(0, self.now)).reduce(f64::max)
    }
}

/// A method of choosing values. There is one instance per workload; it decides in order of time.
pub trait Policy {
    /// Chooses the values from now on. Called only when both resources have samples.
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values>;
}

/// CPU samples of all rows, ascending by value, then by row and time.
pub fn sorted_cpu(rows: &[ContainerTrace]) -> Vec<CpuSample> {
    let samples = |(row, it): (usize, &ContainerTrace)| {
        let all: Vec<_> = it
            .cpu
            .range(0, usize::MAX)
            .map(|(at, value)| CpuSample { value, at: at as u32, row: row as u32 })
            .collect();
        all
    };
    let mut all: Vec<CpuSample> = rows.iter().enumerate().flat_map(samples).collect();
    all.sort_by(|a, b| a.value.total_cmp(&b.value));
    all
}
