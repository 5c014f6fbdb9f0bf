//! Encodes what the pod's spec says of a container.

use snug_sizing::{evidence::Evidence, workload};

use super::message::{ContainerHour, Resources};

/// A record with these fields only.
pub(super) fn encode(evidence: &Evidence) -> ContainerHour {
    let workload::Container { image, settings, memory_volumes, hugepages, pod_resources, .. } =
        &evidence.container;
    let name = |name: &String| if name == image { String::new() } else { name.clone() };
    ContainerHour {
        pod_resources: pod_resources.map(Resources::from),
        image: image.clone(),
        setting_names: settings.keys().cloned().collect(),
        setting_values: settings.values().cloned().collect(),
        memory_volumes: *memory_volumes,
        hugepages: *hugepages,
        images: evidence.images.keys().map(name).collect(),
        images_first_seen: evidence.images.values().copied().collect(),
        ..ContainerHour::default()
    }
}

/// The opposite of [`encode`]. A setting without a value has an empty one; an image without a time is left out.
pub(super) fn decode(whole: &ContainerHour, evidence: &mut Evidence) {
    let container = &mut evidence.container;
    container.pod_resources = whole.pod_resources.clone().map(workload::Resources::from);
    container.image.clone_from(&whole.image);
    let values = whole.setting_values.iter().map(String::as_str).chain(std::iter::repeat(""));
    container.settings = whole
        .setting_names
        .iter()
        .zip(values)
        .map(|(name, value)| (name.clone(), value.to_owned()))
        .collect();
    container.memory_volumes = whole.memory_volumes;
    container.hugepages = whole.hugepages;
    let name = |name: &String| if name.is_empty() { whole.image.clone() } else { name.clone() };
    let images = whole.images.iter().zip(&whole.images_first_seen);
    evidence.images = images.map(|(image, first)| (name(image), *first)).collect();
}

impl From<workload::Resources> for Resources {
    fn from(of: workload::Resources) -> Self {
        let workload::Resources { cpu_request, cpu_limit, memory_request, memory_limit } = of;
        Self { cpu_request, cpu_limit, memory_request, memory_limit }
    }
}

impl From<Resources> for workload::Resources {
    fn from(Resources { cpu_request, cpu_limit, memory_request, memory_limit }: Resources) -> Self {
        Self { cpu_request, cpu_limit, memory_request, memory_limit }
    }
}
