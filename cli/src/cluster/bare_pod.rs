//! Pods without a controller, which only a resize can change.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::ResourceExt as _;
use snug_sizing::workload::{QosClass, Resources, Role};

use super::amounts::{bytes, millicores};

/// A pod without a controller, which only a resize can change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BarePod {
    /// Its containers by name.
    pub containers: BTreeMap<String, PodContainer>,
    /// The older one of the API server's version and the kubelet's, major and minor; `None` if both are unknown.
    pub version: Option<(u32, u32)>,
    /// The class in its status.
    pub qos: Option<QosClass>,
    /// Whether `spec.resources` is set.
    pub has_pod_resources: bool,
    /// Whether the kubelet made it from a file or the operating system is Windows: neither is resized.
    pub is_fixed: bool,
}

/// A container in a pod spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodContainer {
    pub role: Role,
    pub resources: Resources,
    /// Whether a change of the memory restarts the container (`resizePolicy`).
    pub restarts_for_memory: bool,
}

/// Major and minor version: `1.33` and `1.33+` of some providers.
pub(super) fn version(major: &str, minor: &str) -> Option<(u32, u32)> {
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok();
    Some((number(major)?, number(minor)?))
}

pub(super) fn containers(spec: &PodSpec) -> impl Iterator<Item = (&Container, Role)> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let is_sidecar = container.restart_policy.as_deref() == Some("Always");
        (container, if is_sidecar { Role::Sidecar } else { Role::Init })
    });
    init.chain(spec.containers.iter().map(|container| (container, Role::App)))
}

pub(super) fn bare_pod(pod: &Pod) -> BarePod {
    let spec = pod.spec.clone().unwrap_or_default();
    let qos = match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => Some(QosClass::Guaranteed),
        Some("Burstable") => Some(QosClass::Burstable),
        Some("BestEffort") => Some(QosClass::BestEffort),
        _ => None,
    };
    let in_spec = |(container, role): (&Container, Role)| {
        let of = container.resources.clone().unwrap_or_default();
        let resources = Resources {
            cpu_request: millicores(&of.requests, "cpu"),
            cpu_limit: millicores(&of.limits, "cpu"),
            memory_request: bytes(&of.requests, "memory"),
            memory_limit: bytes(&of.limits, "memory"),
        };
        let mut policies = container.resize_policy.iter().flatten();
        let restarts_for_memory = policies
            .any(|policy| policy.resource_name == "memory" && policy.restart_policy == "RestartContainer");
        (container.name.clone(), PodContainer { role, resources, restarts_for_memory })
    };
    let is_mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
    let is_windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    BarePod {
        version: None,
        containers: containers(&spec).map(in_spec).collect(),
        qos,
        has_pod_resources: spec.resources.is_some(),
        is_fixed: is_mirror || is_windows,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bare_pods_have_what_a_resize_depends_on() {
        let pod = serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": "tool" },
            "spec": { "containers": [{
                "name": "app",
                "resources": { "requests": { "cpu": "250m" }, "limits": { "memory": "64Mi" } },
                "resizePolicy": [{ "resourceName": "memory", "restartPolicy": "RestartContainer" }],
            }] },
            "status": { "qosClass": "Burstable" },
        }));
        let found = bare_pod(&pod.unwrap());
        let app = &found.containers["app"];
        assert_eq!(
            (found.qos, found.is_fixed, found.has_pod_resources),
            (Some(QosClass::Burstable), false, false)
        );
        assert_eq!((app.resources.cpu_request, app.resources.memory_limit), (Some(250), Some(64 << 20)));
        assert!(app.restarts_for_memory);
    }

    #[test]
    fn versions_of_providers_are_understood() {
        assert_eq!(
            (version("1", "33"), version("1", "30+"), version("", "x")),
            (Some((1, 33)), Some((1, 30)), None)
        );
    }
}
