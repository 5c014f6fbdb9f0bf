//! What the user decides: how much may go wrong.

use serde::{Deserialize, Serialize};

/// Common choices of risk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// What others depend on: an OOM kill in 2,000 pod-days, a quarter of a percent of the work above the request.
    Critical,
    /// An OOM kill in 400 pod-days, one percent of the work above the request.
    #[default]
    Standard,
    /// What may be run again: an OOM kill in 100 pod-days, four percent of the work above the request.
    Batch,
}

impl Profile {
    /// All of them, the strictest first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Standard, Self::Batch];

    /// The name in options, annotations and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Standard => "standard",
            Self::Batch => "batch",
        }
    }

    /// The risk that it stands for.
    pub const fn risk(self) -> Risk {
        match self {
            Self::Critical => Risk { oom_kills: 0.0005, cpu_work: 0.0025, throttled: 0.001 },
            Self::Standard => Risk { oom_kills: 0.0025, cpu_work: 0.01, throttled: 0.01 },
            Self::Batch => Risk { oom_kills: 0.01, cpu_work: 0.04, throttled: 0.1 },
        }
    }
}

/// Risk in numbers, as an average over the workloads that are sized with it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Risk {
    /// OOM kills per pod-day.
    pub oom_kills: f64,
    /// Share of CPU work done above the request, 0..=1: what the scheduler has not set aside, and a busy node may hold up.
    pub cpu_work: f64,
    /// Share of CFS periods that a CPU limit may throttle, 0..=1.
    pub throttled: f64,
}

/// Why a number is no risk.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} of {value} is no risk: it must be above 0 and at max {max}")]
pub struct RiskError {
    /// Which of the numbers.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// The greatest value allowed.
    pub max: f64,
}

impl Risk {
    /// The same risk, refused where a number is zero, negative, no number, or so large that it means nothing.
    pub fn checked(self) -> Result<Self, RiskError> {
        let Self { oom_kills, cpu_work, throttled } = self;
        for (name, value, max) in [
            ("OOM kills per pod-day", oom_kills, 1.0),
            ("work above the request", cpu_work, 0.5),
            ("throttled periods", throttled, 1.0),
        ] {
            if !(value > 0.0 && value <= max) {
                return Err(RiskError { name, value, max });
            }
        }
        Ok(self)
    }

    /// All three numbers times a factor, kept in their ranges.
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
    fn profiles_are_ordered_and_sound() {
        let risks: Vec<Risk> = Profile::ALL.iter().map(|profile| profile.risk().checked().unwrap()).collect();
        assert!(
            risks
                .windows(2)
                .all(|pair| pair[0].oom_kills < pair[1].oom_kills && pair[0].cpu_work < pair[1].cpu_work)
        );
    }

    #[test]
    fn what_is_no_risk_is_refused() {
        let standard = Profile::Standard.risk();
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.5] {
            assert!(Risk { oom_kills: bad, ..standard }.checked().is_err());
            assert!(Risk { cpu_work: bad, ..standard }.checked().is_err());
        }
        assert_eq!(
            Risk { cpu_work: 0.9, ..standard }.checked().unwrap_err().to_string(),
            "work above the request of 0.9 is no risk: it must be above 0 and at max 0.5"
        );
    }
}
