//! Checks of recommended values against the rules and the headroom of a cluster.

use std::fmt;

use serde::Serialize;

use crate::{pod::PodRequests, quantity::Quantity, workload::Resources};

/// A `LimitRange` of type Container. Each pair is CPU (millicores) and memory (bytes); `None` is no rule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LimitRange {
    /// `min`: applies to requests and to limits.
    pub min: (Option<u64>, Option<u64>),
    /// `max`: applies to requests and to limits, and requires a limit.
    pub max: (Option<u64>, Option<u64>),
    /// `maxLimitRequestRatio`.
    pub ratio: (Option<f64>, Option<f64>),
}

/// What a cluster can still hold. Each `None` is an unknown or absent bound.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Headroom {
    /// Allocatable of the largest schedulable node.
    pub largest_node: Option<PodRequests>,
    /// `hard` minus `used` of the namespace's `ResourceQuota`.
    pub quota_left: Option<PodRequests>,
    /// `disruptionsAllowed` of the `PodDisruptionBudget` that selects the pods.
    pub disruptions_allowed: Option<u64>,
}

/// Why the cluster would reject a recommendation, or could not apply it. Values are millicores or bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "violation")]
pub enum Violation {
    /// A request or limit is below the `min` of a `LimitRange`.
    BelowMin {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// The lowest of request and limit.
        value: u64,
        /// `min` of the LimitRange.
        min: u64,
    },
    /// A request or limit is above the `max` of a `LimitRange`.
    AboveMax {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// The highest of request and limit.
        value: u64,
        /// `max` of the LimitRange.
        max: u64,
    },
    /// A `LimitRange` with a `max` or a `maxLimitRequestRatio` requires a limit.
    LimitMissing {
        /// `cpu` or `memory`.
        resource: &'static str,
    },
    /// Limit ÷ request is above the `maxLimitRequestRatio` of a `LimitRange`.
    Ratio {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// Limit ÷ request.
        ratio: f64,
        /// `maxLimitRequestRatio`.
        max_ratio: f64,
    },
    /// The pod requests more than the largest node has.
    NoNode {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// The pod's effective request.
        value: u64,
        /// Allocatable of the largest node.
        largest: u64,
    },
    /// All replicas together need more than the `ResourceQuota` has left.
    Quota {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// Increase over all replicas.
        more: u64,
        /// `hard` minus `used`.
        left: u64,
    },
    /// The `PodDisruptionBudget` allows no disruption now.
    NoDisruption,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |resource: &str, value: u64| match resource {
            "cpu" => Quantity::from_millicores(value),
            _ => Quantity::from_bytes(value),
        };
        match self {
            Self::BelowMin { resource, value, min } => {
                write!(
                    f,
                    "{resource} {} is below the LimitRange min {}",
                    amount(resource, *value),
                    amount(resource, *min)
                )
            }
            Self::AboveMax { resource, value, max } => {
                write!(
                    f,
                    "{resource} {} is above the LimitRange max {}",
                    amount(resource, *value),
                    amount(resource, *max)
                )
            }
            Self::LimitMissing { resource } => write!(f, "the LimitRange requires a {resource} limit"),
            Self::Ratio { resource, ratio, max_ratio } => {
                write!(
                    f,
                    "the {resource} limit is {ratio:.2} times the request, above the LimitRange maxLimitRequestRatio {max_ratio:.2}"
                )
            }
            Self::NoNode { resource, value, largest } => write!(
                f,
                "the pod's {resource} request {} fits no node: the largest has {} allocatable",
                amount(resource, *value),
                amount(resource, *largest)
            ),
            Self::Quota { resource, more, left } => write!(
                f,
                "all replicas together request {} more {resource} than now, but the ResourceQuota has {} left",
                amount(resource, *more),
                amount(resource, *left)
            ),
            Self::NoDisruption => f.write_str("the PodDisruptionBudget allows no disruption now"),
        }
    }
}

/// The violations of a `LimitRange` by the values of one container.
pub fn limit_range(values: &Resources, range: &LimitRange) -> Vec<Violation> {
    let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = *values;
    let LimitRange { min, max, ratio } = *range;
    let mut found = Vec::new();
    for (resource, request, limit, min, max, max_ratio) in [
        ("cpu", cpu_request, cpu_limit, min.0, max.0, ratio.0),
        ("memory", memory_request, memory_limit, min.1, max.1, ratio.1),
    ] {
        // A missing request is the limit.
        let request = request.or(limit);
        let lowest = request.into_iter().chain(limit).min();
        if let Some((value, min)) = lowest.zip(min).filter(|(value, min)| value < min) {
            found.push(Violation::BelowMin { resource, value, min });
        }
        let highest = request.into_iter().chain(limit).max();
        if let Some((value, max)) = highest.zip(max).filter(|(value, max)| value > max) {
            found.push(Violation::AboveMax { resource, value, max });
        }
        if limit.is_none() && (max.is_some() || max_ratio.is_some()) {
            found.push(Violation::LimitMissing { resource });
        }
        let apart = limit
            .zip(request)
            .filter(|(_, request)| *request > 0)
            .map(|(limit, request)| limit as f64 / request as f64);
        if let Some((ratio, max_ratio)) = apart.zip(max_ratio).filter(|(ratio, max_ratio)| ratio > max_ratio)
        {
            found.push(Violation::Ratio { resource, ratio, max_ratio });
        }
    }
    found
}

/// The violations of a change of one pod's effective requests from `now` to `then`, for all its replicas.
pub fn headroom(now: PodRequests, then: PodRequests, replicas: u64, headroom: &Headroom) -> Vec<Violation> {
    let mut found = Vec::new();
    let each = |it: PodRequests| [("cpu", it.cpu), ("memory", it.memory)];
    if let Some(largest) = headroom.largest_node {
        for ((resource, value), (_, largest)) in each(then).into_iter().zip(each(largest)) {
            if value > largest {
                found.push(Violation::NoNode { resource, value, largest });
            }
        }
    }
    if let Some(left) = headroom.quota_left {
        for (((resource, then), (_, now)), (_, left)) in each(then).into_iter().zip(each(now)).zip(each(left))
        {
            let more = then.saturating_sub(now).saturating_mul(replicas);
            if more > left {
                found.push(Violation::Quota { resource, more, left });
            }
        }
    }
    if headroom.disruptions_allowed == Some(0) && now != then {
        found.push(Violation::NoDisruption);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_of_a_limit_range() {
        let range = LimitRange { min: (Some(50), None), max: (None, Some(1000)), ratio: (None, Some(2.0)) };
        let good = Resources {
            cpu_request: Some(50),
            memory_request: Some(500),
            memory_limit: Some(1000),
            cpu_limit: None,
        };
        assert_eq!(limit_range(&good, &range), []);
        let bad = Resources {
            cpu_request: Some(10),
            memory_request: Some(100),
            memory_limit: Some(1001),
            cpu_limit: None,
        };
        let found: Vec<String> = limit_range(&bad, &range).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "cpu 10m is below the LimitRange min 50m",
                "memory 1001 is above the LimitRange max 1k",
                "the memory limit is 10.01 times the request, above the LimitRange maxLimitRequestRatio 2.00",
            ]
        );
        let open = Resources { cpu_request: Some(50), memory_request: Some(500), ..Resources::default() };
        assert_eq!(limit_range(&open, &range), [Violation::LimitMissing { resource: "memory" }]);
    }

    #[test]
    fn violations_of_headroom() {
        let asked = |cpu, memory| PodRequests { cpu, memory };
        let limits = Headroom {
            largest_node: Some(asked(4000, 8000)),
            quota_left: Some(asked(1000, 100)),
            disruptions_allowed: Some(0),
        };
        assert_eq!(headroom(asked(100, 100), asked(100, 100), 3, &limits), []);
        assert_eq!(
            headroom(asked(1000, 100), asked(5000, 150), 3, &limits),
            [
                Violation::NoNode { resource: "cpu", value: 5000, largest: 4000 },
                Violation::Quota { resource: "cpu", more: 12000, left: 1000 },
                Violation::Quota { resource: "memory", more: 150, left: 100 },
                Violation::NoDisruption,
            ]
        );
        assert_eq!(
            headroom(asked(9000, 1), asked(3000, 1), 9, &Headroom { disruptions_allowed: None, ..limits }),
            []
        );
    }
}
