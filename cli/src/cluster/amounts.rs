//! Amounts of CPU and memory in objects of the API.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity as Amount,
};
use snug_sizing::{
    quantity::{self, Quantity},
    workload::Resources,
};

/// Amounts by the name of the resource.
pub(in crate::cluster) type Amounts = Option<BTreeMap<String, Amount>>;

pub(in crate::cluster) fn millicores(amounts: &Amounts, name: &str) -> Option<u64> {
    quantity::millicores(&amounts.as_ref()?.get(name)?.0)
}

pub(in crate::cluster) fn bytes(amounts: &Amounts, name: &str) -> Option<u64> {
    quantity::bytes(&amounts.as_ref()?.get(name)?.0)
}

/// A ratio, such as `maxLimitRequestRatio`.
pub(super) fn ratio(amounts: &Amounts, name: &str) -> Option<f64> {
    let ratio: Quantity = amounts.as_ref()?.get(name)?.0.parse().ok()?;
    Some(ratio.millis() as f64 / 1000.0)
}

/// Requests and limits.
pub(in crate::cluster) fn resources(requirements: Option<&ResourceRequirements>) -> Resources {
    let Some(ResourceRequirements { requests, limits, .. }) = requirements else {
        return Resources::default();
    };
    Resources {
        cpu_request: millicores(requests, "cpu"),
        cpu_limit: millicores(limits, "cpu"),
        memory_request: bytes(requests, "memory"),
        memory_limit: bytes(limits, "memory"),
    }
}
