//! The risk that the user accepts.

use serde::{Deserialize, Serialize};

/// Named risks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// For workloads that others depend on: one OOM kill in 2,000 pod-days, 0.25 % of CPU time above the request.
    Critical,
    /// One OOM kill in 400 pod-days, 1 % of CPU time above the request.
    #[default]
    Standard,
    /// For work that can be repeated: one OOM kill in 100 pod-days, 4 % of CPU time above the request.
    Batch,
}

impl Profile {
    /// All profiles, the strictest first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Standard, Self::Batch];

    /// The name in options, annotations and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Standard => "standard",
            Self::Batch => "batch",
        }
    }

    /// The risk of the profile.
    pub const fn risk(self) -> Risk {
        match self {
            Self::Critical => Risk { oom_kills: 0.0005, cpu_work: 0.0025, throttled: 0.001 },
            Self::Standard => Risk { oom_kills: 0.0025, cpu_work: 0.01, throttled: 0.01 },
            Self::Batch => Risk { oom_kills: 0.01, cpu_work: 0.04, throttled: 0.1 },
        }
    }
}

/// Accepted risk in numbers, on average over all workloads with the same risk.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Risk {
    /// OOM kills per pod-day.
    pub oom_kills: f64,
    /// Share of all CPU time above the request, 0..=1: CPU time that no request guarantees, and that a busy node may delay.
    pub cpu_work: f64,
    /// Share of CFS periods that a CPU limit may throttle, 0..=1.
    pub throttled: f64,
}

/// A number outside the range of a risk.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} must be above 0 and at most {max}, not {value}")]
pub struct RiskError {
    /// Name of the number.
    pub name: &'static str,
    pub value: f64,
    /// The highest allowed value.
    pub max: f64,
}

impl Risk {
    /// Checks the ranges. Zero, negative numbers, NaN and numbers above the maximum are errors.
    pub fn checked(self) -> Result<Self, RiskError> {
        let Self { oom_kills, cpu_work, throttled } = self;
        for (name, value, max) in [
            ("OOM kills per pod-day", oom_kills, 1.0),
            ("the share of CPU time above the request", cpu_work, 0.5),
            ("the share of throttled periods", throttled, 1.0),
        ] {
            if !(value > 0.0 && value <= max) {
                return Err(RiskError { name, value, max });
            }
        }
        Ok(self)
    }

    /// Multiplies all three numbers by a factor, within their ranges.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        let scale = |value: f64, max: f64| (value * factor).clamp(1e-9, max);
        Self {
            oom_kills: scale(self.oom_kills, 1.0),
            cpu_work: scale(self.cpu_work, 0.5),
            throttled: scale(self.throttled, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_ordered_and_valid() {
        let risks: Vec<Risk> = Profile::ALL.iter().map(|profile| profile.risk().checked().unwrap()).collect();
        assert!(
            risks
                .windows(2)
                .all(|pair| pair[0].oom_kills < pair[1].oom_kills && pair[0].cpu_work < pair[1].cpu_work)
        );
    }

    #[test]
    fn invalid_risks_are_errors() {
        let standard = Profile::Standard.risk();
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.5] {
            assert!(Risk { oom_kills: bad, ..standard }.checked().is_err());
            assert!(Risk { cpu_work: bad, ..standard }.checked().is_err());
        }
        assert_eq!(
            Risk { cpu_work: 0.9, ..standard }.checked().unwrap_err().to_string(),
            "the share of CPU time above the request must be above 0 and at most 0.5, not 0.9"
        );
    }
}
