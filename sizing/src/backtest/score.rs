//! Figures of a back-test: violations, footprint, slack and changes.

use serde::Serialize;

use super::{
    policy::Values,
    trace::{ContainerTrace, Series},
};
use crate::{baselines::krr::percentile, engine::Risk, histogram::Histogram};

/// A change counts from this share of the value before.
const CHANGE: f64 = 0.1;
/// Decisions a day.
const PER_DAY: f64 = (1440 / super::STEP) as f64;
/// Slack is measured from this quantile of the horizon.
const SLACK_SHARE: f64 = 0.95;

/// Sums over units (pod-days) of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    units: u64,
    bad: u64,
    recommended: f64,
    used: f64,
    unserved: f64,
    exceeded: u64,
    samples: u64,
    slack: f64,
    changes: u64,
    decisions: u64,
    /// Pinball loss at the asked level, relative to past usage; and what it is divided by.
    loss: f64,
    judged: f64,
    /// By the truth of synthetic usage: violated units, or CPU time above the request.
    true_bad: f64,
    /// By the truth: all units, or all CPU time.
    true_all: f64,
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        let Self {
            units,
            bad,
            recommended,
            used,
            unserved,
            exceeded,
            samples,
            slack,
            changes,
            decisions,
            ..
        } = other;
        let Self { loss, judged, true_bad, true_all, .. } = other;
        self.loss += loss;
        self.judged += judged;
        self.true_bad += true_bad;
        self.true_all += true_all;
        self.units += units;
        self.bad += bad;
        self.recommended += recommended;
        self.used += used;
        self.unserved += unserved;
        self.exceeded += exceeded;
        self.samples += samples;
        self.slack += slack;
        self.changes += changes;
        self.decisions += decisions;
    }
}

/// Figures of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Units judged.
    pub pod_days: u64,
    /// Units whose maximum exceeds the limit, percent.
    pub violation_pod_days_pct: f64,
    /// Units without violation, percent.
    pub oom_free_pod_days_pct: f64,
    /// Σ limit ÷ Σ maximum over the units.
    pub footprint_ratio: f64,
    /// Mean over units of (limit − 95th percentile) ÷ limit, percent: Autopilot's definition.
    pub slack_pct: f64,
    /// Changes by more than a tenth, per workload and day.
    pub changes_per_day: f64,
}

/// Figures of CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Units judged.
    pub pod_days: u64,
    /// Σ max(0, use − request) ÷ Σ use over samples, percent.
    pub unserved_work_pct: f64,
    /// Samples above the request, percent.
    pub exceeded_samples_pct: f64,
    /// Σ request ÷ Σ use over samples.
    pub footprint_ratio: f64,
    /// Mean over units of (request − 95th percentile) ÷ request, percent.
    pub slack_pct: f64,
    /// Changes by more than a tenth, per workload and day.
    pub changes_per_day: f64,
}

/// A share, 0 if the whole is 0.
pub(super) fn part(value: f64, whole: f64) -> f64 {
    if whole > 0.0 { value / whole } else { 0.0 }
}

/// The asked levels, and the usage before a decision: what losses are counted by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The accepted risk.
    pub asked: Risk,
    /// Highest memory usage of the workload before the decision, KiB.
    pub memory: f64,
    /// Mean CPU usage of a pod before the decision, millicores.
    pub cpu: f64,
}

/// Pinball loss of a quantile at a level, given what was above the value and what was left below it.
fn pinball(level: f64, above: f64, below: f64) -> f64 {
    level * above + (1.0 - level) * below
}

impl Sums {
    /// Units judged.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// Violated units.
    pub fn violated(&self) -> u64 {
        self.bad
    }

    /// Share of the units that are violated.
    pub fn violated_share(&self) -> f64 {
        part(self.bad as f64, self.units as f64)
    }

    /// Share of the CPU time that is above the request.
    pub fn unserved_share(&self) -> f64 {
        part(self.unserved, self.used)
    }

    /// CPU time above the request, and all CPU time.
    pub fn work(&self) -> (f64, f64) {
        (self.unserved, self.used)
    }

    /// Σ value and Σ usage: the footprint is their ratio.
    pub fn footprint(&self) -> (f64, f64) {
        (self.recommended, self.used)
    }

    /// Σ pinball loss, and what it is divided by.
    pub fn loss(&self) -> (f64, f64) {
        (self.loss, self.judged)
    }

    /// By the truth of synthetic usage: violated units and all units, or CPU time above the request and all CPU time.
    pub fn truth(&self) -> (f64, f64) {
        (self.true_bad, self.true_all)
    }

    /// Adds the truth of synthetic usage.
    pub(super) fn add_truth(&mut self, bad: f64, all: f64) {
        self.true_bad += bad;
        self.true_all += all;
    }

    /// Changes of more than a tenth, and decisions.
    pub fn changes(&self) -> (u64, u64) {
        (self.changes, self.decisions)
    }

    /// The figures, if these are sums of memory.
    pub fn memory(&self) -> Memory {
        let violated = 100.0 * part(self.bad as f64, self.units as f64);
        Memory {
            pod_days: self.units,
            violation_pod_days_pct: violated,
            oom_free_pod_days_pct: 100.0 - violated,
            footprint_ratio: part(self.recommended, self.used),
            slack_pct: 100.0 * part(self.slack, self.units as f64),
            changes_per_day: PER_DAY * part(self.changes as f64, self.decisions as f64),
        }
    }

    /// The figures, if these are sums of CPU.
    pub fn cpu(&self) -> Cpu {
        Cpu {
            pod_days: self.units,
            unserved_work_pct: 100.0 * part(self.unserved, self.used),
            exceeded_samples_pct: 100.0 * part(self.exceeded as f64, self.samples as f64),
            footprint_ratio: part(self.recommended, self.used),
            slack_pct: 100.0 * part(self.slack, self.units as f64),
            changes_per_day: PER_DAY * part(self.changes as f64, self.decisions as f64),
        }
    }

    /// Judges a memory limit on one unit, with its highest usage and its distribution.
    pub(super) fn judge_memory(&mut self, limit: f64, highest: f64, used: &Histogram, before: Option<f64>) {
        self.units += 1;
        self.bad += u64::from(highest > limit);
        self.recommended += limit;
        self.used += highest;
        self.slack(limit, used.quantile(SLACK_SHARE).unwrap_or(highest));
        self.decided(limit, before);
    }

    /// Judges a CPU request on the usage of one unit.
    pub(super) fn judge_cpu(&mut self, request: f64, used: &Histogram, before: Option<f64>) {
        let (samples, work) = (used.count(), used.sum());
        self.units += 1;
        self.samples += samples;
        self.exceeded += (used.share_above(request) * samples as f64).round() as u64;
        self.recommended += request * samples as f64;
        self.used += work;
        self.unserved += used.work_above(request) * work;
        self.slack(request, used.quantile(SLACK_SHARE).unwrap_or(0.0));
        self.decided(request, before);
    }

    fn decided(&mut self, value: f64, before: Option<f64>) {
        self.decisions += 1;
        self.changes += u64::from(before.is_some_and(|before| (value - before).abs() > CHANGE * before));
    }

    fn slack(&mut self, value: f64, used: f64) {
        if value > 0.0 {
            self.slack += (value - used) / value;
        }
    }
}

/// The usage that follows a decision, prepared to judge many values.
#[derive(Clone, Debug, Default)]
pub struct Horizon {
    /// Highest and 95th percentile of each unit's memory.
    memory: Vec<(f64, f64)>,
    /// 95th percentile of each unit's CPU.
    cpu: Vec<f64>,
    /// CPU samples of all units, ascending.
    samples: Vec<f64>,
    /// Sums of the samples from each index on; one element more than `samples`.
    work: Vec<f64>,
}

/// Sorts samples and returns the quantile for slack.
fn high(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    percentile(samples, SLACK_SHARE).unwrap_or(0.0)
}

impl Horizon {
    /// Prepares the minutes `from..to`.
    pub fn new(rows: &[ContainerTrace], from: usize, to: usize) -> Self {
        let units = |pick: fn(&ContainerTrace) -> &Series| {
            let unit = move |row: &ContainerTrace| {
                pick(row).range(from, to).map(|(_, value)| value).collect::<Vec<f64>>()
            };
            rows.iter().map(unit).filter(|unit| !unit.is_empty()).collect::<Vec<_>>()
        };
        let memory = units(|row| &row.memory).into_iter().map(|mut unit| {
            let high = high(&mut unit);
            (unit.last().copied().unwrap_or(0.0), high)
        });
        let mut cpu = units(|row| &row.cpu);
        let high = cpu.iter_mut().map(|unit| high(unit)).collect();
        let mut samples = cpu.concat();
        samples.sort_by(f64::total_cmp);
        let mut work: Vec<f64> = samples
            .iter()
            .rev()
            .scan(0.0, |sum, sample| {
                *sum += sample;
                Some(*sum)
            })
            .collect();
        work.reverse();
        work.push(0.0);
        Self { memory: memory.collect(), cpu: high, samples, work }
    }

    /// Highest memory usage of each unit, KiB.
    pub fn highest(&self) -> impl Iterator<Item = f64> + '_ {
        self.memory.iter().map(|(highest, _)| *highest)
    }

    /// CPU time above a request, and all CPU time: sums over samples, millicores.
    pub fn work(&self, request: f64) -> (f64, f64) {
        let served = self.samples.partition_point(|sample| *sample <= request);
        let above = self.work.get(served).copied().unwrap_or(0.0);
        let exceeded = (self.samples.len() - served) as f64;
        ((above - request * exceeded).max(0.0), self.work.first().copied().unwrap_or(0.0))
    }

    /// Judges values; `before` are those of the previous decision.
    pub fn judge(
        &self,
        values: Values,
        before: Option<Values>,
        scale: &Scale,
        memory: &mut Sums,
        cpu: &mut Sums,
    ) {
        for (highest, high) in &self.memory {
            let (above, below) = ((highest - values.memory).max(0.0), (values.memory - highest).max(0.0));
            memory.loss += pinball(1.0 - scale.asked.oom_kills, above, below) / scale.memory.max(1.0);
            memory.judged += 1.0;
            memory.units += 1;
            memory.bad += u64::from(*highest > values.memory);
            memory.recommended += values.memory;
            memory.used += highest;
            memory.slack(values.memory, *high);
        }
        for high in &self.cpu {
            cpu.units += 1;
            cpu.slack(values.cpu, *high);
        }
        let served = self.samples.partition_point(|sample| *sample <= values.cpu);
        let (unserved, used) = self.work(values.cpu);
        cpu.samples += self.samples.len() as u64;
        cpu.exceeded += (self.samples.len() - served) as u64;
        cpu.recommended += values.cpu * self.samples.len() as f64;
        cpu.used += used;
        cpu.unserved += unserved;
        // Of the samples that are served, the request is above usage by this in all.
        let below = values.cpu * self.samples.len() as f64 - used + unserved;
        cpu.loss += pinball(1.0 - scale.asked.cpu_work, unserved, below.max(0.0)) / scale.cpu.max(1.0);
        cpu.judged += self.samples.len() as f64;
        // A decision counts only if the horizon has samples.
        if !self.memory.is_empty() {
            memory.decided(values.memory, before.map(|before| before.memory));
        }
        if !self.cpu.is_empty() {
            cpu.decided(values.cpu, before.map(|before| before.cpu));
        }
    }
}
