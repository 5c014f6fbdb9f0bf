//! The figures.

use serde::Serialize;

use super::{policy::Values, trace::Row};
use crate::baselines::krr::percentile;

/// A value differs from the one before if by more than this part of it.
const CHANGE: f64 = 0.1;
/// Decisions a day.
const PER_DAY: f64 = (1440 / super::STEP) as f64;
/// Slack is counted from this percentile of the horizon, as a share.
const SLACK_SHARE: f64 = 0.95;

/// Sums of one resource.
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
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        let Self { units, bad, recommended, used, unserved, exceeded, samples, slack, changes, decisions } =
            other;
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
    /// The other units, percent.
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

/// A part of a whole, 0 of nothing.
fn part(value: f64, whole: f64) -> f64 {
    if whole > 0.0 { value / whole } else { 0.0 }
}

impl Sums {
    /// The figures, taken as memory's.
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

    /// The figures, taken as CPU's.
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

    fn decided(&mut self, value: f64, before: Option<f64>) {
        self.decisions += 1;
        self.changes += u64::from(before.is_some_and(|before| (value - before).abs() > CHANGE * before));
    }

    fn slack(&mut self, value: f64, samples: &mut [f64]) {
        samples.sort_by(f64::total_cmp);
        if let Some(used) = percentile(samples, SLACK_SHARE).filter(|_| value > 0.0) {
            self.slack += (value - used) / value;
        }
    }
}

/// Judges the values of one decision on the minutes `from..to`; `before` are those of the decision before.
pub fn judge(
    rows: &[Row],
    values: Values,
    before: Option<Values>,
    from: usize,
    to: usize,
    memory: &mut Sums,
    cpu: &mut Sums,
) {
    let take =
        |series: &super::trace::Series| series.range(from, to).map(|(_, value)| value).collect::<Vec<f64>>();
    let units = |pick: fn(&Row) -> &super::trace::Series| {
        rows.iter().map(move |row| take(pick(row))).filter(|unit| !unit.is_empty())
    };
    let (mut any_memory, mut any_cpu) = (false, false);
    for mut unit in units(|row| &row.memory) {
        any_memory = true;
        let highest = unit.iter().copied().fold(0.0, f64::max);
        memory.units += 1;
        memory.bad += u64::from(highest > values.memory);
        memory.recommended += values.memory;
        memory.used += highest;
        memory.slack(values.memory, &mut unit);
    }
    for mut unit in units(|row| &row.cpu) {
        any_cpu = true;
        cpu.units += 1;
        cpu.samples += unit.len() as u64;
        cpu.recommended += values.cpu * unit.len() as f64;
        for used in &unit {
            cpu.used += used;
            cpu.unserved += (used - values.cpu).max(0.0);
            cpu.exceeded += u64::from(*used > values.cpu);
        }
        cpu.slack(values.cpu, &mut unit);
    }
    // A decision counts where there was anything to judge it by.
    if any_memory {
        memory.decided(values.memory, before.map(|before| before.memory));
    }
    if any_cpu {
        cpu.decided(values.cpu, before.map(|before| before.cpu));
    }
}
