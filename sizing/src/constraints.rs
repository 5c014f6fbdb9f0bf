//! What a cluster would refuse, or could not do, before anything is proposed.

use std::fmt;

use serde::Serialize;

use crate::{pod::PodRequests, quantity::Quantity, workload::Resources};

/// A `LimitRange` of type Container. Millicores and bytes; `None` is no rule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LimitRange {
    /// `min`: of requests, and of limits.
    pub min: (Option<u64>, Option<u64>),
    /// `max`: of limits, which must then be set, and of requests.
    pub max: (Option<u64>, Option<u64>),
    /// `maxLimitRequestRatio`.
    pub ratio: (Option<f64>, Option<f64>),
}

/// What there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Headroom {
    /// The allocatable of the largest node, less what DaemonSets take of it; `None` if not known.
    pub largest_node: Option<PodRequests>,
    /// What a `ResourceQuota` leaves for requests; `None` without one.
    pub quota_left: Option<PodRequests>,
    /// Pods that a `PodDisruptionBudget` lets go at once; `None` without one.
    pub disruptions_allowed: Option<u64>,
}

/// One thing that stands against a change.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "violation")]
pub enum Violation {
    /// Below a `LimitRange`'s `min`.
    BelowMin {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// Millicores or bytes.
        value: u64,
        /// Millicores or bytes.
        min: u64,
    },
    /// Above a `LimitRange`'s `max`.
    AboveMax {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// Millicores or bytes.
        value: u64,
        /// Millicores or bytes.
        max: u64,
    },
    /// A `LimitRange` with a `max` or a ratio requires a limit.
    LimitMissing {
        /// `cpu` or `memory`.
        resource: &'static str,
    },
    /// Limit and request are too far apart for a `LimitRange`.
    Ratio {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// Limit ÷ request.
        ratio: f64,
        /// What is allowed.
        max_ratio: f64,
    },
    /// No node can ever hold the pod.
    NoNode {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// Millicores or bytes.
        value: u64,
        /// Of the largest node.
        largest: u64,
    },
    /// The namespace's quota does not have that much left.
    Quota {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// What all replicas would take more than now.
        more: u64,
        /// What is left.
        left: u64,
    },
    /// No pod may be restarted at the moment.
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
                    "{resource} of {} is below the LimitRange's min of {}",
                    amount(resource, *value),
                    amount(resource, *min)
                )
            }
            Self::AboveMax { resource, value, max } => {
                write!(
                    f,
                    "{resource} of {} is above the LimitRange's max of {}",
                    amount(resource, *value),
                    amount(resource, *max)
                )
            }
            Self::LimitMissing { resource } => write!(f, "the LimitRange demands a {resource} limit"),
            Self::Ratio { resource, ratio, max_ratio } => {
                write!(
                    f,
                    "the {resource} limit is {ratio:.2} times the request, the LimitRange allows {max_ratio:.2}"
                )
            }
            Self::NoNode { resource, value, largest } => write!(
                f,
                "the pod's {resource} of {} fits no node: the largest has {}",
                amount(resource, *value),
                amount(resource, *largest)
            ),
            Self::Quota { resource, more, left } => write!(
                f,
                "all replicas need {} more {resource}, the ResourceQuota has {} left",
                amount(resource, *more),
                amount(resource, *left)
            ),
            Self::NoDisruption => f.write_str("the PodDisruptionBudget lets no pod go at the moment"),
        }
    }
}

/// What a `LimitRange` has against a container's values.
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

/// What a cluster has against pods that ask for `then` instead of `now` (effective requests of one pod).
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
    fn what_a_limit_range_refuses() {
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
                "cpu of 10m is below the LimitRange's min of 50m",
                "memory of 1001 is above the LimitRange's max of 1k",
                "the memory limit is 10.01 times the request, the LimitRange allows 2.00",
            ]
        );
        let open = Resources { cpu_request: Some(50), memory_request: Some(500), ..Resources::default() };
        assert_eq!(limit_range(&open, &range), [Violation::LimitMissing { resource: "memory" }]);
    }

    #[test]
    fn what_there_is_no_room_for() {
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
