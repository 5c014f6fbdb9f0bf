//! How much a recommendation can be relied on.

use serde::Serialize;

/// How much usage history a recommendation is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Less than one pod-day, or less than half of the hours observed.
    Low,
    /// More than that, but not every weekday, or less than nine of ten hours.
    Medium,
    /// Every weekday, and at least nine of ten hours.
    High,
}

impl Confidence {
    /// The name in output: `low`, `medium` or `high`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// From pod-days, weekdays observed (0..=7) and the share of hours observed (0..=1).
    pub fn from_coverage(days: f64, weekdays: u32, coverage: f64) -> Self {
        if days < 1.0 || coverage < 0.5 {
            Self::Low
        } else if weekdays < 7 || coverage < 0.9 {
            Self::Medium
        } else {
            Self::High
        }
    }
}
