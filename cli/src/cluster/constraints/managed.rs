//! Workloads whose requests a VerticalPodAutoscaler sets, or that KEDA scales by usage of their requests.

use std::collections::BTreeMap;

use kube::api::DynamicObject;

/// A workload that a VerticalPodAutoscaler sizes or KEDA scales.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedWorkload {
    pub namespace: String,
    /// Kind and name of the workload.
    pub target: (String, String),
    /// Kind and name of that object.
    pub by: (&'static str, String),
    /// Whether containers are managed that `containers` does not have.
    pub others: bool,
    /// Whether a container is managed, by its name.
    pub containers: BTreeMap<String, bool>,
}

impl ManagedWorkload {
    /// Whether a container is managed.
    pub fn manages(&self, container: &str) -> bool {
        self.containers.get(container).copied().unwrap_or(self.others)
    }
}

fn workload(object: &DynamicObject, kind: &'static str, field: &str) -> Option<ManagedWorkload> {
    let target = &object.data["spec"][field];
    let text = |name: &str| target[name].as_str().map(str::to_owned);
    Some(ManagedWorkload {
        namespace: object.metadata.namespace.clone()?,
        // KEDA's default is a Deployment.
        target: (text("kind").unwrap_or_else(|| "Deployment".to_owned()), text("name")?),
        by: (kind, object.metadata.name.clone()?),
        others: true,
        containers: BTreeMap::new(),
    })
}

/// The workload of a VerticalPodAutoscaler; `None` if it only recommends (`updateMode: Off`). A policy excludes containers in
/// the same way.
pub(super) fn by_vertical_autoscaler(object: &DynamicObject) -> Option<ManagedWorkload> {
    let spec = &object.data["spec"];
    if spec["updatePolicy"]["updateMode"] == "Off" {
        return None;
    }
    let mut managed = workload(object, "VerticalPodAutoscaler", "targetRef")?;
    for policy in spec["resourcePolicy"]["containerPolicies"].as_array().into_iter().flatten() {
        let is_on = policy["mode"] != "Off";
        match policy["containerName"].as_str() {
            Some("*") => managed.others = is_on,
            Some(name) => drop(managed.containers.insert(name.to_owned(), is_on)),
            None => {}
        }
    }
    (managed.others || managed.containers.values().any(|is_on| *is_on)).then_some(managed)
}

/// The workload of a ScaledObject; `None` if no trigger is about the usage of CPU or memory.
pub(super) fn by_keda(object: &DynamicObject) -> Option<ManagedWorkload> {
    let triggers = object.data["spec"]["triggers"].as_array();
    let is_usage = |trigger: &serde_json::Value| trigger["type"] == "cpu" || trigger["type"] == "memory";
    if triggers.is_some_and(|triggers| !triggers.iter().any(is_usage)) {
        return None;
    }
    workload(object, "ScaledObject", "scaleTargetRef")
}
