//! What is wrong with the current values of a container, the worst first.

use serde::Serialize;
use snug_sizing::{cost::Prices, pod::PodRequests, workload::Resources};

use crate::terminal::Style;

/// Prices that compare CPU with memory where the user gives none: in the price lists of large clouds a core costs about as much as
/// 7 to 8 GiB.
const RATIO: Prices = Prices { core_hour: 7.5, gib_hour: 1.0 };

/// The worst that is wrong with current values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Issue {
    /// Expected or recorded OOM kills at the current memory limit are far above the asked risk.
    OomRisk,
    /// The current CPU limit throttles more than the asked risk allows.
    Throttled,
    /// Much of the CPU time is above the current request, so a full node would delay it.
    CpuShort,
    /// A pod container without requests: the scheduler does not know what it needs.
    NoRequest,
    /// Requests of at least twice what is recommended.
    Waste,
    /// Nothing of these.
    #[default]
    Ok,
}

impl Issue {
    /// All issues, the worst first.
    pub const ALL: [Self; 6] =
        [Self::OomRisk, Self::Throttled, Self::CpuShort, Self::NoRequest, Self::Waste, Self::Ok];

    /// In a table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OomRisk => "OOM risk",
            Self::Throttled => "throttled",
            Self::CpuShort => "CPU short",
            Self::NoRequest => "no request",
            Self::Waste => "waste",
            Self::Ok => "ok",
        }
    }

    /// Whether the container fails or is slow with its current values.
    pub const fn is_danger(self) -> bool {
        matches!(self, Self::OomRisk | Self::Throttled)
    }

    pub const fn style(self) -> Style {
        match self {
            Self::OomRisk | Self::Throttled => Style::Danger,
            Self::CpuShort | Self::NoRequest | Self::Waste => Style::Warning,
            Self::Ok => Style::Good,
        }
    }
}

/// Requests that all pods of a container no longer need; negative where they need more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Savings {
    /// Millicores.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// For a month of 730 hours at list prices; `None` without prices. Money is saved only when nodes are removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub month: Option<f64>,
}

impl Savings {
    /// Of so many pods. A request that is not set now, or is not recommended, saves nothing.
    pub fn new(current: Resources, recommended: Resources, pods: u64) -> Self {
        let pods = i64::try_from(pods).unwrap_or(i64::MAX);
        let saved = |now: Option<u64>, then: Option<u64>| {
            let each = now.zip(then).map_or(0, |(now, then)| difference(now, then));
            each.saturating_mul(pods)
        };
        Self {
            cpu: saved(current.cpu_request, recommended.cpu_request),
            memory: saved(current.memory_request, recommended.memory_request),
            month: None,
        }
    }

    /// With the money for hours at prices.
    #[must_use]
    pub fn priced(self, prices: Prices, hours: f64) -> Self {
        Self { month: Some(self.per_hour(prices) * hours), ..self }
    }

    /// One number to sort by: money where there are prices.
    pub fn weight(&self) -> f64 {
        self.month.unwrap_or_else(|| self.per_hour(RATIO))
    }

    fn per_hour(&self, prices: Prices) -> f64 {
        let cost = |cpu: i64, memory: i64| {
            let requests = PodRequests { cpu: cpu.unsigned_abs(), memory: memory.unsigned_abs() };
            prices.hourly_cost(requests)
        };
        let signed = |value: i64, cost: f64| if value < 0 { -cost } else { cost };
        signed(self.cpu, cost(self.cpu, 0)) + signed(self.memory, cost(0, self.memory))
    }
}

fn difference(now: u64, then: u64) -> i64 {
    let amount = i64::try_from(now.abs_diff(then)).unwrap_or(i64::MAX);
    if now >= then { amount } else { -amount }
}
