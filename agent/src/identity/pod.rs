//! Converts a pod of the Kubernetes API to the fields that Snug uses.

mod spec;

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus,
        ResourceRequirements,
    },
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
};
use snug_sizing::workload::Resources;

use self::spec::{Shared, is_sidecar, requests, resources};
use super::workload::{self, Workload};
use crate::model::{
    ContainerKind, ContainerSpec, Names,
    pod::{KnownContainer, KnownPod, Owner, Stages, State, Status, Terminated},
};

/// The maximum length of a status message, in characters.
const MAX_MESSAGE: usize = 512;

impl KnownPod {
    /// Converts a pod of the Kubernetes API.
    ///
    /// # Errors
    /// Names the field that is missing: `metadata.name` or `metadata.uid`.
    pub fn from_api(pod: &Pod) -> Result<Self, &'static str> {
        let metadata = &pod.metadata;
        let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let name = named(&metadata.name).ok_or("it has no metadata.name")?;
        let uid = named(&metadata.uid).ok_or("it has no metadata.uid")?;
        let workload = workload::of_pod(pod);
        let names = Names {
            namespace: metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            pod: name,
            workload_kind: workload.kind,
            workload: workload.name,
            ..Names::default()
        };
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let resources = pod_resources(spec, status);
        let containers = containers(pod, &names, resources);
        let started = containers.iter().filter(|one| !one.ids.is_empty()).count();
        let in_spec = spec.map_or(0, container_count);
        let text = |text: Option<&String>| text.map(String::as_str).unwrap_or_default().into();
        Ok(Self {
            uid: uid.into(),
            hashes: ["kubernetes.io/config.hash", "kubernetes.io/config.mirror"]
                .iter()
                .filter_map(|key| metadata.annotations.as_ref()?.get(*key))
                .map(|hash| hash.as_str().into())
                .collect(),
            sandbox: Arc::new(Names { kind: Some(ContainerKind::Sandbox), ..names.clone() }),
            names: Arc::new(Names { resources: resources.unwrap_or_default(), ..names }),
            all_started: started > 0 && started >= in_spec,
            containers,
            node: text(spec.and_then(|spec| spec.node_name.as_ref())),
            phase: text(status.and_then(|status| status.phase.as_ref())),
            reason: text(status.and_then(|status| status.reason.as_ref())),
            message: status
                .and_then(|status| status.message.as_ref())
                .map(|message| message.chars().take(MAX_MESSAGE).collect::<String>())
                .unwrap_or_default()
                .into(),
            ip: text(status.and_then(|status| status.pod_ip.as_ref())),
            host_ip: text(status.and_then(|status| status.host_ip.as_ref())),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            priority_class: text(spec.and_then(|spec| spec.priority_class_name.as_ref())),
            owner: workload::controller(&pod.metadata).map(Owner::from),
        })
    }

    /// The same pod with another workload.
    pub fn with_workload(&self, workload: &Workload) -> Self {
        let renamed = |names: &Names| {
            let (workload_kind, workload) = (workload.kind.clone(), workload.name.clone());
            Arc::new(Names { workload_kind, workload, ..names.clone() })
        };
        let mut pod = self.clone();
        pod.names = renamed(&pod.names);
        pod.sandbox = renamed(&pod.sandbox);
        for container in &mut pod.containers {
            container.names = renamed(&container.names);
        }
        pod
    }
}

impl From<&OwnerReference> for Owner {
    fn from(owner: &OwnerReference) -> Self {
        Self {
            api_version: owner.api_version.as_str().into(),
            kind: owner.kind.as_str().into(),
            name: owner.name.as_str().into(),
            uid: owner.uid.as_str().into(),
            controller: owner.controller.unwrap_or(false),
        }
    }
}

/// Current requests and limits of the whole pod; `None` without `spec.resources`. The status of other pods has them, too, as the sum
/// over the containers, but nobody set them.
fn pod_resources(spec: Option<&PodSpec>, status: Option<&PodStatus>) -> Option<Resources> {
    let is_set = |of: &Resources| *of != Resources::default();
    let desired = Some(resources(spec?.resources.as_ref()?)).filter(is_set)?;
    let applied = status.and_then(|status| status.resources.as_ref()).map(resources);
    Some(applied.filter(is_set).unwrap_or(desired))
}

/// A container of the spec. For a container that only a status has, name and kind are set.
struct InSpec<'a> {
    name: &'a str,
    kind: ContainerKind,
    resources: Option<&'a ResourceRequirements>,
    spec: ContainerSpec,
}

/// The containers of the spec, then those that only a status has.
fn containers(pod: &Pod, names: &Names, pod_resources: Option<Resources>) -> Vec<KnownContainer> {
    let spec = pod.spec.iter().flat_map(|spec| in_spec(spec, pod_resources));
    let mut known: Vec<KnownContainer> = Vec::new();
    let mut statuses = statuses(pod);
    for one in spec {
        let place = statuses.iter().position(|(status, _)| status.name == one.name);
        let status = place.map(|place| statuses.swap_remove(place).0);
        known.push(container(one, status, names));
    }
    for (status, kind) in statuses {
        let one = InSpec { name: &status.name, kind, resources: None, spec: ContainerSpec::default() };
        known.push(container(one, Some(status), names));
    }
    known
}

fn in_spec(spec: &PodSpec, pod_resources: Option<Resources>) -> impl Iterator<Item = InSpec<'_>> {
    let shared = Shared::new(spec, pod_resources);
    let app = spec.containers.iter().map(|container| (container, ContainerKind::App));
    let init = spec.init_containers.iter().flatten().map(|container| {
        (container, if is_sidecar(container) { ContainerKind::Sidecar } else { ContainerKind::Init })
    });
    let of_spec = app.chain(init).map(move |(container, kind)| InSpec {
        name: &container.name,
        kind,
        resources: container.resources.as_ref(),
        spec: shared.container(container),
    });
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| InSpec {
        name: &container.name,
        kind: ContainerKind::Ephemeral,
        resources: None,
        spec: ContainerSpec {
            image: container.image.clone().unwrap_or_default(),
            ..ContainerSpec::default()
        },
    });
    of_spec.chain(ephemeral)
}

fn statuses(pod: &Pod) -> Vec<(&ContainerStatus, ContainerKind)> {
    let Some(status) = &pod.status else { return Vec::new() };
    let of = |list: &'_ Option<Vec<ContainerStatus>>| list.as_deref().unwrap_or_default().len();
    let mut all = Vec::with_capacity(of(&status.container_statuses) + of(&status.init_container_statuses));
    for (list, kind) in [
        (&status.container_statuses, ContainerKind::App),
        (&status.init_container_statuses, ContainerKind::Init),
        (&status.ephemeral_container_statuses, ContainerKind::Ephemeral),
    ] {
        all.extend(list.iter().flatten().map(|status| (status, kind)));
    }
    all
}

fn container(one: InSpec<'_>, status: Option<&ContainerStatus>, names: &Names) -> KnownContainer {
    let image = status.map(|status| status.image.as_str()).filter(|image| !image.is_empty());
    let stages = Stages {
        desired: one.resources.map(resources).unwrap_or_default(),
        allocated: status.and_then(|status| status.allocated_resources.as_ref()).map(requests),
        applied: status.and_then(|status| status.resources.as_ref()).map(resources),
    };
    KnownContainer {
        names: Arc::new(Names {
            container: one.name.to_owned(),
            image: image.unwrap_or(&one.spec.image).to_owned(),
            kind: Some(one.kind),
            resources: stages.current(),
            spec: Arc::new(one.spec),
            ..names.clone()
        }),
        ids: status.map(container_ids).unwrap_or_default(),
        status: status.map(Status::from),
        resources: stages,
    }
}

impl From<&ContainerStatus> for Status {
    fn from(status: &ContainerStatus) -> Self {
        let terminated = |state: &Option<ContainerState>| {
            state.as_ref().and_then(|state| state.terminated.as_ref()).map(Terminated::from)
        };
        let state = match (&status.state, terminated(&status.state)) {
            (_, Some(terminated)) => State::Terminated(terminated),
            (Some(ContainerState { running: Some(_), .. }), None) => State::Running,
            // As in the API, a container without a state is waiting.
            (state, None) => {
                let waiting = state.as_ref().and_then(|state| state.waiting.as_ref());
                State::Waiting(
                    waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default().into(),
                )
            }
        };
        Self {
            restarts: u64::try_from(status.restart_count).unwrap_or(0),
            ready: status.ready,
            state,
            last: terminated(&status.last_state),
        }
    }
}

impl From<&ContainerStateTerminated> for Terminated {
    fn from(ended: &ContainerStateTerminated) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let unix = |time: &Time| time.0.as_second() as f64;
        Self {
            reason: ended.reason.as_deref().unwrap_or_default().into(),
            exit_code: ended.exit_code,
            finished_unix: ended.finished_at.as_ref().map_or(0.0, unix),
            id: bare_id(ended.container_id.as_deref()).unwrap_or_default().into(),
        }
    }
}

fn container_count(spec: &PodSpec) -> usize {
    spec.containers.len()
        + spec.init_containers.as_ref().map_or(0, Vec::len)
        + spec.ephemeral_containers.as_ref().map_or(0, Vec::len)
}

/// The ids of a container's current and previous run.
fn container_ids(container: &ContainerStatus) -> Vec<Box<str>> {
    let ended = [&container.state, &container.last_state]
        .into_iter()
        .filter_map(|state| state.as_ref()?.terminated.as_ref()?.container_id.as_deref());
    let all = container.container_id.as_deref().into_iter().chain(ended);
    let mut ids: Vec<Box<str>> = all.filter_map(|id| bare_id(Some(id))).map(Into::into).collect();
    ids.dedup();
    ids
}

/// `containerd://<id>` without the runtime's name.
fn bare_id(id: Option<&str>) -> Option<&str> {
    let id = id?;
    let bare = id.split_once("://").map_or(id, |(_, bare)| bare);
    (!bare.is_empty()).then_some(bare)
}
