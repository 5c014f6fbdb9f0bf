//! Requests and limits as Kubernetes writes them.

use serde::Serialize;
use snug_sizing::{quantity::Quantity, workload::Resources};

/// Requests and limits of a whole pod (`spec.resources`), millicores and bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct PodResources {
    pub current: Resources,
    /// Higher than the current ones where the containers would not fit.
    pub recommended: Resources,
    /// The recommended ones as Kubernetes quantities.
    pub quantities: Quantities,
}

impl PodResources {
    pub fn new(current: Resources, recommended: Resources) -> Self {
        Self { current, recommended, quantities: Quantities::from(recommended) }
    }
}

/// Requests and limits as Kubernetes quantities, without unset ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantities {
    pub requests: Pair,
    pub limits: Pair,
}

/// CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pair {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

impl From<Resources> for Quantities {
    fn from(values: Resources) -> Self {
        let cpu = |value: Option<u64>| value.map(|value| Quantity::from_millicores(value).to_string());
        let memory = |value: Option<u64>| value.map(|value| Quantity::from_bytes(value).to_string());
        Self {
            requests: Pair { cpu: cpu(values.cpu_request), memory: memory(values.memory_request) },
            limits: Pair { cpu: cpu(values.cpu_limit), memory: memory(values.memory_limit) },
        }
    }
}
