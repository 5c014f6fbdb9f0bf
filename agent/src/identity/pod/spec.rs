//! What the spec of a pod says of its containers: requests and limits of the pod, images, settings, and memory outside of heaps.
//!
//! Environments hold secrets. Of arguments and environment only the settings of [`snug_sizing::settings`] are kept.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements, Volume},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};
use snug_sizing::{quantity, settings, workload::Resources};

use crate::model::{AgentRule, ContainerSpec};

/// The maximum length of an image reference, in characters.
const MAX_IMAGE: usize = 512;
/// No machine has 2^62 bytes. A kubelet shows `9007199254740988Ki` where there is no limit.
const UNLIMITED: u64 = 1 << 62;

/// Requests and limits. A missing request equals the limit, as in the API server. An invalid quantity counts as not set.
pub(super) fn resources(requirements: &ResourceRequirements) -> Resources {
    let (cpu_limit, memory_limit) = cpu_and_memory(requirements.limits.as_ref());
    let (cpu_request, memory_request) = cpu_and_memory(requirements.requests.as_ref());
    Resources {
        cpu_request: cpu_request.or(cpu_limit),
        cpu_limit,
        memory_request: memory_request.or(memory_limit),
        memory_limit,
    }
}

/// Requests without limits.
pub(super) fn requests(list: &BTreeMap<String, ApiQuantity>) -> Resources {
    let (cpu_request, memory_request) = cpu_and_memory(Some(list));
    Resources { cpu_request, memory_request, ..Resources::default() }
}

/// Millicores and bytes.
fn cpu_and_memory(list: Option<&BTreeMap<String, ApiQuantity>>) -> (Option<u64>, Option<u64>) {
    let amount = |name: &str| list?.get(name);
    (amount("cpu").and_then(|cpu| quantity::millicores(&cpu.0)), amount("memory").and_then(bytes))
}

fn bytes(amount: &ApiQuantity) -> Option<u64> {
    let is_limit = |bytes: &u64| *bytes <= UNLIMITED || !AgentRule::NoLimit.is_on();
    quantity::bytes(&amount.0).filter(is_limit)
}

/// A pod's spec, as far as all of its containers share it.
pub(super) struct Shared<'a> {
    spec: &'a PodSpec,
    pod_resources: Option<Resources>,
    /// The memory limit of the pod's cgroup, bytes.
    memory_limit: Option<u64>,
}

impl<'a> Shared<'a> {
    /// `pod_resources`: the current requests and limits of the whole pod, if it has any.
    pub(super) fn new(spec: &'a PodSpec, pod_resources: Option<Resources>) -> Self {
        let own = pod_resources.and_then(|pod| pod.memory_limit);
        let memory_limit = own.or_else(|| sum_of_memory_limits(spec));
        Self { spec, pod_resources, memory_limit }
    }

    /// The spec of one container of the pod.
    pub(super) fn container(&self, container: &Container) -> ContainerSpec {
        ContainerSpec {
            image: container.image.as_deref().unwrap_or_default().chars().take(MAX_IMAGE).collect(),
            pod_resources: self.pod_resources,
            settings: settings_of(container),
            memory_volumes: self.memory_volumes(container),
            hugepages: hugepages(container),
        }
    }

    /// Sizes of the writable `emptyDir` volumes in memory. As in the kubelet, a volume is as large as the memory limit of the pod
    /// at most, and without either limit as large as the node's memory: then the sum is `u64::MAX`.
    fn memory_volumes(&self, container: &Container) -> u64 {
        if !AgentRule::MemoryVolumes.is_on() {
            return 0;
        }
        let mut names: Vec<&str> = container
            .volume_mounts
            .iter()
            .flatten()
            .filter(|mount| mount.read_only != Some(true))
            .map(|mount| mount.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let size = |volume: &Volume| -> Option<u64> {
            let in_memory = volume.empty_dir.as_ref().filter(|it| it.medium.as_deref() == Some("Memory"))?;
            // A size of 0 is no limit, as in the kubelet.
            let limit = in_memory.size_limit.as_ref().and_then(bytes).filter(|bytes| *bytes > 0);
            Some(limit.into_iter().chain(self.memory_limit).min().unwrap_or(u64::MAX))
        };
        let volumes = self.spec.volumes.iter().flatten();
        let mounted = volumes.filter(|volume| names.binary_search(&volume.name.as_str()).is_ok());
        mounted.filter_map(size).fold(0, u64::saturating_add)
    }
}

/// The memory limit that a pod has by its containers, if each has one: the most that can run at a time.
fn sum_of_memory_limits(spec: &PodSpec) -> Option<u64> {
    let limit = |container: &Container| resources(container.resources.as_ref()?).memory_limit;
    let (mut sidecars, mut highest) = (0_u64, 0_u64);
    for init in spec.init_containers.iter().flatten() {
        let with_it = sidecars.saturating_add(limit(init)?);
        if is_sidecar(init) {
            sidecars = with_it;
        }
        highest = highest.max(with_it);
    }
    let all = spec.containers.iter().try_fold(sidecars, |sum, app| Some(sum.saturating_add(limit(app)?)))?;
    Some(highest.max(all))
}

/// Whether an init container is a sidecar, which runs as long as the pod.
pub(super) fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

fn settings_of(container: &Container) -> BTreeMap<String, String> {
    let arguments = container.command.iter().chain(&container.args).flatten().map(String::as_str);
    let environment = container.env.iter().flatten().map(|variable| {
        let read_elsewhere = variable.value_from.is_some();
        // Without a value and another source, the value is the empty text.
        let value = (!read_elsewhere).then(|| variable.value.as_deref().unwrap_or_default());
        (variable.name.as_str(), value)
    });
    if !AgentRule::SettingsOnly.is_on() {
        let all = environment.map(|(name, value)| (name.to_owned(), value.unwrap_or_default().to_owned()));
        return all.collect();
    }
    settings::pick(arguments, environment)
}

/// Limits of huge pages of all sizes.
fn hugepages(container: &Container) -> u64 {
    let limits = container.resources.iter().flat_map(|it| it.limits.iter().flatten());
    let pages = limits.filter(|(name, _)| name.starts_with("hugepages-"));
    pages.filter_map(|(_, quantity)| bytes(quantity)).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests;
