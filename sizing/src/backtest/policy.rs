//! What is asked of a policy, and what it may know.

use super::trace::{ContainerTrace, GroupKey, Series};
use crate::{engine::Pool, evidence::Evidence};

/// What a policy says of a workload.
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
    /// The limit that failed, KiB.
    pub limit: f64,
    /// Index of the container among the workload's rows.
    pub row: usize,
}

/// A sample of CPU use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuSample {
    /// Millicores.
    pub value: f64,
    /// Minute.
    pub at: u32,
    /// Index of the container among the workload's rows.
    pub row: u32,
}

/// A workload at one minute of its life. Everything before `now` is known to a policy; what follows only to the oracle.
#[derive(Clone, Copy, Debug)]
pub struct PolicyInput<'t> {
    /// Which workload.
    pub key: &'t GroupKey,
    /// Its containers.
    pub rows: &'t [ContainerTrace],
    /// Their memory, KiB, as it could have been seen: cut off at the limits that were in force.
    pub memory: &'t [Series],
    /// All samples of CPU of the whole trace, ascending by value.
    pub cpu: &'t [CpuSample],
    /// Minute of the decision.
    pub now: usize,
    /// Minutes of the trace.
    pub minutes: usize,
    /// OOM kills before now.
    pub kills: &'t [Kill],
    /// What an agent would have gathered; `None` where the policy has to see for itself, as it then sees less.
    pub evidence: Option<&'t Evidence>,
    /// How the engine's rule did on all workloads before now.
    pub pool: Pool,
}

impl PolicyInput<'_> {
    /// Samples of CPU before now, ascending by value.
    pub fn past_cpu(&self) -> impl Iterator<Item = &CpuSample> + Clone {
        let now = self.now;
        self.cpu.iter().filter(move |sample| (sample.at as usize) < now)
    }

    /// The highest memory use before now, KiB.
    pub fn highest(&self) -> Option<f64> {
        self.memory.iter().filter_map(|series| series.highest(0, self.now)).reduce(f64::max)
    }
}

/// A way to choose values. One is made for each workload, and asked in order of time.
pub trait Policy {
    /// The values from now on. Only asked where both resources have samples.
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values>;
}

/// Samples of CPU of all rows, ascending by value; of equal ones by row and time.
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
