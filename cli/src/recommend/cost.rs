//! Sums of requests over all pods, and what they cost.

use serde::Serialize;

use super::issue::Savings;

/// Cost of the requests of all pods for a month of 730 hours at list prices. Containers without a current or a recommended
/// request are left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Cost {
    /// Cost of current requests.
    pub month_now: f64,
    /// Cost of recommended requests. Money is saved only when nodes are removed.
    pub month_then: f64,
}

/// Requests of all pods of a namespace, or of a value of a label. Containers without a current or a recommended request are left
/// out of the sums.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Total {
    /// The cluster, if the source has several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The namespace, or the value of the label. Empty on a host, or without the label.
    pub name: String,
    /// Containers with a recommendation.
    pub containers: usize,
    /// Current requests, millicores and bytes.
    pub cpu_request_now: u64,
    pub memory_request_now: u64,
    /// Recommended requests, millicores and bytes.
    pub cpu_request: u64,
    pub memory_request: u64,
    /// Cost of the requests; `None` without prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

impl Cost {
    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { month_now: self.month_now + other.month_now, month_then: self.month_then + other.month_then }
    }
}

impl Total {
    /// The sum of two clusters.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            cluster: String::new(),
            name: self.name,
            containers: self.containers + other.containers,
            cpu_request_now: self.cpu_request_now.saturating_add(other.cpu_request_now),
            memory_request_now: self.memory_request_now.saturating_add(other.memory_request_now),
            cpu_request: self.cpu_request.saturating_add(other.cpu_request),
            memory_request: self.memory_request.saturating_add(other.memory_request),
            cost: self.cost.zip(other.cost).map(|(one, other)| one.plus(other)),
        }
    }

    /// What the total no longer needs.
    pub fn savings(&self) -> Savings {
        let less = |now: u64, then: u64| {
            let amount = i64::try_from(now.abs_diff(then)).unwrap_or(i64::MAX);
            if now >= then { amount } else { -amount }
        };
        Savings {
            cpu: less(self.cpu_request_now, self.cpu_request),
            memory: less(self.memory_request_now, self.memory_request),
            month: self.cost.map(|cost| cost.month_now - cost.month_then),
        }
    }
}
