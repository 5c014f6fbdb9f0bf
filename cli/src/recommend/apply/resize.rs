//! Resizes of running pods (`pods/resize`), within what the API server and the kubelet accept.
//!
//! Sources: `ValidatePodResize` and `validateContainerResize` in kubernetes/pkg/apis/core/validation, KEP-1287, and for pods with
//! resources of their own KEP-5419. The rules of 1.33 that later versions relaxed are kept where a version relaxed them only in part.

use serde_json::{Map, Value, json};
use snug_sizing::workload::{QosClass, Resources, Role};

use crate::{
    advice::CommandRule,
    cluster::BarePod,
    recommend::report::{Entry, Quantities},
};

/// The first version with the subresource by default.
const FIRST: (u32, u32) = (1, 33);
/// The first version that lowers a memory limit without a restart of the container.
const LOWERS_MEMORY: (u32, u32) = (1, 34);

/// A resize that is accepted.
#[derive(Debug, PartialEq)]
pub(super) struct Resize {
    /// `spec` of the patch.
    pub(super) spec: Value,
    /// What differs from the recommendation, and what the resize does beside.
    pub(super) notes: Vec<String>,
}

/// A resize of a pod to the recommended values, as far as the pod allows it.
///
/// # Errors
/// The reasons if the pod cannot be resized, or would change its QoS class.
pub(super) fn resize(entries: &[&Entry], pod: &BarePod) -> Result<Resize, Vec<String>> {
    let is_on = CommandRule::Resize.is_on();
    // Where the version is unknown, what the first one accepts.
    let version = pod.version.unwrap_or(FIRST);
    let (major, minor) = version;
    let refused = [
        (version < FIRST, format!("Kubernetes {major}.{minor} cannot resize pods; 1.33 and later can")),
        (pod.is_fixed, "static pods and pods on Windows cannot be resized".to_owned()),
        (pod.has_pod_resources, "it has resources of the whole pod (spec.resources)".to_owned()),
    ];
    let reasons: Vec<String> =
        refused.into_iter().filter(|(is, _)| *is && is_on).map(|(_, why)| why).collect();
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let mut notes = Vec::new();
    let mut after = pod.containers.clone();
    let mut lists: [Vec<Value>; 2] = [Vec::new(), Vec::new()];
    for entry in entries {
        let Some(container) = after.get_mut(&entry.container) else {
            notes.push(format!("the pod does not have the container {}", entry.container));
            continue;
        };
        if container.role == Role::Init && is_on {
            notes.push(format!("{}: init containers that have run cannot be resized", entry.container));
            continue;
        }
        let allows_less = version >= LOWERS_MEMORY || container.restarts_for_memory;
        let (values, kept) = allowed(container.resources, entry.recommended, allows_less || !is_on, is_on);
        notes.extend(kept.into_iter().map(|kept| format!("{}: {kept}", entry.container)));
        let memory = |it: Resources| (it.memory_request, it.memory_limit);
        if container.restarts_for_memory && memory(values) != memory(container.resources) {
            notes.push(format!("{} is restarted (resizePolicy of its memory)", entry.container));
        }
        container.resources = values;
        let list = usize::from(container.role == Role::App);
        let resources = json!(Quantities::from(values));
        if let Some(list) = lists.get_mut(list) {
            list.push(json!({ "name": entry.container, "resources": resources }));
        }
    }
    let class = |containers: &std::collections::BTreeMap<String, crate::cluster::PodContainer>| {
        let all: Vec<Resources> = containers.values().map(|it| it.resources).collect();
        QosClass::from_containers(&all)
    };
    let (before, after) = (pod.qos.unwrap_or_else(|| class(&pod.containers)), class(&after));
    if before != after && is_on {
        return Err(vec![format!("a resize must not change its QoS class from {before:?} to {after:?}")]);
    }
    let mut spec = Map::new();
    for (field, list) in ["initContainers", "containers"].into_iter().zip(lists) {
        if !list.is_empty() {
            spec.insert(field.to_owned(), list.into());
        }
    }
    if spec.is_empty() {
        notes.push("nothing is left to resize".to_owned());
        return Err(notes);
    }
    Ok(Resize { spec: spec.into(), notes })
}

/// The values nearest to the recommended ones that a resize may set, and what it keeps: requests and limits cannot be removed,
/// and a memory limit may have to stay.
fn allowed(
    current: Resources,
    recommended: Resources,
    allows_less_memory: bool,
    is_on: bool,
) -> (Resources, Vec<&'static str>) {
    let mut values = recommended;
    let mut kept = Vec::new();
    if !is_on {
        return (values, kept);
    }
    if values.cpu_limit.is_none() && current.cpu_limit.is_some() {
        values.cpu_limit = current.cpu_limit.max(values.cpu_request);
        kept.push("the CPU limit stays, because a resize cannot remove one");
    }
    if values.memory_limit.is_none() && current.memory_limit.is_some() {
        values.memory_limit = current.memory_limit.max(values.memory_request);
        kept.push("the memory limit stays, because a resize cannot remove one");
    }
    values.cpu_request = values.cpu_request.or(current.cpu_request);
    values.memory_request = values.memory_request.or(current.memory_request);
    // The API server takes a new limit for a lower one: without a limit it is the highest.
    if !allows_less_memory && current.memory_limit.is_none() && values.memory_limit.is_some() {
        values.memory_limit = None;
        kept.push(
            "no memory limit is added, because Kubernetes 1.33 adds one only with a restart (resizePolicy)",
        );
    }
    if values.memory_limit < current.memory_limit && !allows_less_memory {
        let followed = values.memory_request == values.memory_limit;
        values.memory_limit = current.memory_limit;
        if followed && current.memory_request == current.memory_limit {
            values.memory_request = current.memory_request;
        }
        kept.push(
            "the memory limit stays, because Kubernetes 1.33 lowers it only with a restart (resizePolicy)",
        );
    }
    // A request that is kept may be above the new limit.
    let fits = |request: Option<u64>, limit: Option<u64>| match (request, limit) {
        (Some(request), Some(limit)) => Some(request.min(limit)),
        (request, _) => request,
    };
    values.cpu_request = fits(values.cpu_request, values.cpu_limit);
    values.memory_request = fits(values.memory_request, values.memory_limit);
    (values, kept)
}
