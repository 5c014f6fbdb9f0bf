//! What `snug check` accepts, and what it reports.

use clap::ValueEnum;
use serde::{Deserialize, de::Error as _};

/// What is wrong with a value of a manifest, the least serious first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Problem {
    /// A request far above the recommended one
    Waste,
    /// A CPU limit that throttles, or a CPU request that usage often exceeds
    Throttling,
    /// A memory limit at which OOM kills are expected
    OomRisk,
}

impl Problem {
    pub const ALL: [Self; 3] = [Self::Waste, Self::Throttling, Self::OomRisk];

    pub const fn id(self) -> &'static str {
        match self {
            Self::Waste => "waste",
            Self::Throttling => "throttling",
            Self::OomRisk => "oom-risk",
        }
    }

    /// What the rule finds, as a sentence.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Waste => "A CPU or memory request is far above the recommended one.",
            Self::Throttling => {
                "A CPU limit throttles more, or usage exceeds a CPU request more often, than the thresholds allow."
            }
            Self::OomRisk => "More OOM kills are expected at a memory limit than the threshold allows.",
        }
    }

    /// The level of SARIF.
    pub const fn level(self) -> &'static str {
        match self {
            Self::Waste => "note",
            Self::Throttling => "warning",
            Self::OomRisk => "error",
        }
    }
}

/// What `snug check` accepts. Shares are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Expected OOM kills per pod-day.
    pub oom_kills_per_pod_day: f64,
    /// Share of CFS periods.
    pub throttled: f64,
    /// Share of CPU time.
    pub cpu_time_above_request: f64,
    /// Share of the CPU request above the recommended one.
    pub cpu_waste: f64,
    /// Share of the memory request above the recommended one.
    pub memory_waste: f64,
}

impl Thresholds {
    /// Waste below this is none, millicores.
    pub const MIN_CPU: u64 = 100;
    /// Waste below this is none, bytes.
    pub const MIN_MEMORY: u64 = 128 << 20;
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            oom_kills_per_pod_day: 0.01,
            throttled: 0.05,
            cpu_time_above_request: 0.1,
            cpu_waste: 0.5,
            memory_waste: 0.5,
        }
    }
}

/// The thresholds that a policy sets.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ThresholdOverride {
    #[serde(deserialize_with = "rate")]
    oom_kills_per_pod_day: Option<f64>,
    #[serde(deserialize_with = "share")]
    throttled: Option<f64>,
    #[serde(deserialize_with = "share")]
    cpu_time_above_request: Option<f64>,
    #[serde(deserialize_with = "share")]
    cpu_waste: Option<f64>,
    #[serde(deserialize_with = "share")]
    memory_waste: Option<f64>,
}

fn rate<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let value = f64::deserialize(deserializer)?;
    let is_rate = value.is_finite() && value >= 0.0;
    is_rate
        .then_some(Some(value))
        .ok_or_else(|| D::Error::custom(format!("{value} is not a rate of 0 or more")))
}

fn share<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let value = f64::deserialize(deserializer)?;
    let is_share = (0.0..=1.0).contains(&value);
    is_share
        .then_some(Some(value))
        .ok_or_else(|| D::Error::custom(format!("{value} is not a share from 0 to 1")))
}

impl ThresholdOverride {
    /// Sets what it has.
    pub(super) fn apply(self, all: &mut Thresholds) {
        for (value, own) in [
            (&mut all.oom_kills_per_pod_day, self.oom_kills_per_pod_day),
            (&mut all.throttled, self.throttled),
            (&mut all.cpu_time_above_request, self.cpu_time_above_request),
            (&mut all.cpu_waste, self.cpu_waste),
            (&mut all.memory_waste, self.memory_waste),
        ] {
            *value = own.unwrap_or(*value);
        }
    }
}
