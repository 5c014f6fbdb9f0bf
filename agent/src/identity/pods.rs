//! Pods as the API server or a kubelet lists them, arranged so that a cgroup finds its names at once.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements},
    apimachinery::pkg::api::resource as k8s,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use snug_sizing::{quantity::Quantity, workload::Resources};
use thiserror::Error;

use crate::identity::{ContainerKind, Level, Names, PathIdentity, workload};

/// The pods that are known, by uid and by container id.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    pods: Vec<KnownPod>,
    /// By `metadata.uid` and, for a static pod, by the hash of its manifest, which its cgroups carry instead.
    by_uid: HashMap<String, usize>,
    by_container: HashMap<String, KnownContainer>,
}

#[derive(Clone, Debug)]
struct KnownPod {
    pod: Arc<Names>,
    sandbox: Arc<Names>,
    all_started: bool,
}

#[derive(Clone, Debug)]
struct KnownContainer {
    names: Arc<Names>,
    pod: usize,
}

/// A list that could be read, and what in it could not.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The usable pods.
    pub pods: Pods,
    /// Items of the list that were left out.
    pub skipped: Vec<SkippedPod>,
}

/// An item of a pod list that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedPod {
    /// Its place in the list, from 0.
    pub index: usize,
    /// `namespace/name`, if it has a name.
    pub name: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a list of pods cannot be used at all.
#[derive(Debug, Error)]
pub enum PodsError {
    /// Not JSON, cut short, or without `items`.
    #[error("not a list of pods in JSON; write it with `kubectl get pods -A -o json`")]
    Json {
        /// What the parser met, and where.
        source: serde_json::Error,
    },
    /// JSON of another kind.
    #[error("its kind is {found:?}, not List or PodList; write it with `kubectl get pods -A -o json`")]
    Kind {
        /// The kind it says.
        found: String,
    },
    /// The file's content cannot be used.
    #[error("the pods file {} cannot be used", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: Box<PodsError>,
    },
    /// The file cannot be read.
    #[error("the pods file {} cannot be read; check that it exists and that the agent may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A directory, pipe or device.
    #[error("the pods file {} is not a regular file; write `kubectl get pods -A -o json` to one", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// More than the agent is willing to hold in memory.
    #[error(
        "the pods file {} is larger than {limit} bytes; list this node's pods only, with \
         `--field-selector spec.nodeName=<node>`",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read, in bytes.
        limit: u64,
    },
}

#[derive(Deserialize)]
struct RawList<'a> {
    kind: String,
    /// A kubelet without pods prints `null`.
    #[serde(borrow, deserialize_with = "Option::deserialize")]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct KindOnly {
    kind: String,
}

impl Pods {
    /// Reads a `List` or `PodList` as `kubectl get pods -o json` and a kubelet's `/pods` print it.
    ///
    /// An item that is no usable pod is left out and reported; of two pods with the same uid, the later one counts.
    pub fn from_json(json: &[u8]) -> Result<Loaded, PodsError> {
        let list: RawList<'_> = match serde_json::from_slice(json) {
            Ok(list) => list,
            Err(source) => {
                return Err(match serde_json::from_slice::<KindOnly>(json) {
                    Ok(KindOnly { kind }) if !is_list(&kind) => PodsError::Kind { found: kind },
                    _ => PodsError::Json { source },
                });
            }
        };
        if !is_list(&list.kind) {
            return Err(PodsError::Kind { found: list.kind });
        }
        let mut loaded = Loaded::default();
        let mut hashes = Vec::new();
        for (index, item) in list.items.unwrap_or_default().into_iter().enumerate() {
            if let Err(reason) = loaded.pods.add(item, &mut hashes) {
                loaded.skipped.push(SkippedPod { index, name: name_of(item), reason });
            }
        }
        // Anybody may annotate a pod: a hash never takes the place of a real uid.
        for (hash, pod) in hashes {
            loaded.pods.by_uid.entry(hash).or_insert(pod);
        }
        Ok(loaded)
    }

    /// How many pods are known.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// The names of a pod, of a container by its id, or of a sandbox already known to be one.
    ///
    /// `None` for a container that no status mentions, even if its pod is known: see [`Pods::sandbox_names`].
    /// The container's id decides; a path that puts it into another known pod is not believed.
    pub fn names(&self, of_path: &PathIdentity) -> Option<Arc<Names>> {
        match of_path.level {
            Level::Pod => Some(Arc::clone(&self.pod(of_path)?.pod)),
            Level::Sandbox => self.sandbox_names(of_path),
            Level::Container => {
                let container = self.by_container.get(&of_path.id)?;
                let of_uid = of_path.pod_uid.as_ref().and_then(|uid| self.by_uid.get(uid));
                of_uid.is_none_or(|pod| *pod == container.pod).then(|| Arc::clone(&container.names))
            }
            Level::Root | Level::Slice | Level::Unit | Level::Cgroup => None,
        }
    }

    /// Names for a cgroup in a known pod which the caller knows to be the pod's sandbox, from its process (`pause`)
    /// or from the runtime. No pod status mentions sandboxes, so a container id that is not in the statuses can be
    /// - the sandbox,
    /// - a container that started after the list was made,
    /// - an incarnation older than the last one but one: statuses keep the current id and the one before.
    ///
    /// [`Pods::started_all`] rules out a container that had no id yet. `None` if the id is a container's.
    pub fn sandbox_names(&self, of_path: &PathIdentity) -> Option<Arc<Names>> {
        if !matches!(of_path.level, Level::Sandbox | Level::Container)
            || self.by_container.contains_key(&of_path.id)
        {
            return None;
        }
        Some(Arc::clone(&self.pod(of_path)?.sandbox))
    }

    /// Whether every container of the pod's spec had an id when the list was made. An unmentioned container that is
    /// older than the list can then only be the sandbox or a former incarnation; a newer one may be a restart.
    pub fn started_all(&self, of_path: &PathIdentity) -> bool {
        self.pod(of_path).is_some_and(|pod| pod.all_started)
    }

    fn pod(&self, of_path: &PathIdentity) -> Option<&KnownPod> {
        self.pods.get(*self.by_uid.get(of_path.pod_uid.as_ref()?)?)
    }

    fn add(&mut self, item: &RawValue, hashes: &mut Vec<(String, usize)>) -> Result<(), String> {
        let pod: Pod = serde_json::from_str(item.get()).map_err(|error| error.to_string())?;
        let workload = workload::of_pod(&pod);
        let Pod { metadata, spec, status } = pod;
        let name = metadata.name.filter(|name| !name.is_empty()).ok_or("it has no metadata.name")?;
        let uid = metadata.uid.filter(|uid| !uid.is_empty()).ok_or("it has no metadata.uid")?;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let pod_names = Names {
            namespace: metadata.namespace.unwrap_or_else(|| "default".to_owned()),
            pod: name,
            workload_kind: workload.kind,
            workload: workload.name,
            ..Names::default()
        };
        let pod = self.pods.len();
        let mut started = 0;
        for (container, kind, in_spec) in containers(&spec, &status) {
            let image = if container.image.is_empty() { in_spec.image } else { container.image.as_str() };
            let names = Arc::new(Names {
                container: container.name.clone(),
                image: image.to_owned(),
                kind: Some(kind),
                resources: in_force(container.resources.as_ref().or(in_spec.resources)),
                ..pod_names.clone()
            });
            started += usize::from(bare_id(container.container_id.as_deref()).is_some());
            for id in container_ids(container) {
                self.by_container.insert(id.to_owned(), KnownContainer { names: Arc::clone(&names), pod });
            }
        }
        let sandbox = Arc::new(Names { kind: Some(ContainerKind::Sandbox), ..pod_names.clone() });
        let all_started = started > 0 && started >= container_count(&spec);
        self.pods.push(KnownPod { pod: Arc::new(pod_names), sandbox, all_started });
        for annotation in ["kubernetes.io/config.hash", "kubernetes.io/config.mirror"] {
            if let Some(hash) = metadata.annotations.as_ref().and_then(|all| all.get(annotation)) {
                hashes.push((hash.clone(), pod));
            }
        }
        self.by_uid.insert(uid, pod);
        Ok(())
    }
}

fn is_list(kind: &str) -> bool {
    matches!(kind, "List" | "PodList")
}

/// What the spec of a container says; empty for one that it does not have.
#[derive(Clone, Copy, Default)]
struct InSpec<'a> {
    image: &'a str,
    resources: Option<&'a ResourceRequirements>,
}

impl<'a> From<&'a Container> for InSpec<'a> {
    fn from(container: &'a Container) -> Self {
        Self {
            image: container.image.as_deref().unwrap_or_default(),
            resources: container.resources.as_ref(),
        }
    }
}

/// Each container status with the container's kind and what its spec says.
fn containers<'a>(
    spec: &'a PodSpec,
    status: &'a PodStatus,
) -> impl Iterator<Item = (&'a ContainerStatus, ContainerKind, InSpec<'a>)> {
    let app = status.container_statuses.iter().flatten().map(|container| {
        let in_spec = spec.containers.iter().find(|other| other.name == container.name);
        (container, ContainerKind::App, in_spec.map(InSpec::from))
    });
    let init = status.init_container_statuses.iter().flatten().map(|container| {
        let in_spec = spec.init_containers.iter().flatten().find(|other| other.name == container.name);
        let stays = in_spec.is_some_and(|other| other.restart_policy.as_deref() == Some("Always"));
        let kind = if stays { ContainerKind::Sidecar } else { ContainerKind::Init };
        (container, kind, in_spec.map(InSpec::from))
    });
    let ephemeral = status.ephemeral_container_statuses.iter().flatten().map(|container| {
        let in_spec = spec.ephemeral_containers.iter().flatten().find(|other| other.name == container.name);
        let image = in_spec.and_then(|other| other.image.as_deref()).unwrap_or_default();
        (container, ContainerKind::Ephemeral, Some(InSpec { image, resources: None }))
    });
    app.chain(init)
        .chain(ephemeral)
        .map(|(container, kind, in_spec)| (container, kind, in_spec.unwrap_or_default()))
}

/// Requests and limits; a request that is missing is its limit, as the API server has it. What is no quantity is not set.
fn in_force(requirements: Option<&ResourceRequirements>) -> Resources {
    let Some(requirements) = requirements else { return Resources::default() };
    let quantity = |list: &Option<BTreeMap<String, k8s::Quantity>>, name: &str| -> Option<Quantity> {
        list.as_ref()?.get(name)?.0.parse().ok()
    };
    let millicores = |quantity: Quantity| u64::try_from(quantity.millis()).ok();
    let bytes = |quantity: Quantity| u64::try_from(quantity.value()).ok();
    let ResourceRequirements { limits, requests, .. } = requirements;
    let cpu_limit = quantity(limits, "cpu").and_then(millicores);
    let memory_limit = quantity(limits, "memory").and_then(bytes);
    Resources {
        cpu_request: quantity(requests, "cpu").and_then(millicores).or(cpu_limit),
        cpu_limit,
        memory_request: quantity(requests, "memory").and_then(bytes).or(memory_limit),
        memory_limit,
    }
}

fn container_count(spec: &PodSpec) -> usize {
    spec.containers.len()
        + spec.init_containers.as_ref().map_or(0, Vec::len)
        + spec.ephemeral_containers.as_ref().map_or(0, Vec::len)
}

/// The ids of a container's present and last incarnation.
fn container_ids(container: &ContainerStatus) -> impl Iterator<Item = &str> {
    let ended = [&container.state, &container.last_state]
        .into_iter()
        .filter_map(|state| state.as_ref()?.terminated.as_ref()?.container_id.as_deref());
    container.container_id.as_deref().into_iter().chain(ended).filter_map(|id| bare_id(Some(id)))
}

/// `containerd://<id>` without the runtime's name.
fn bare_id(id: Option<&str>) -> Option<&str> {
    let id = id?;
    let bare = id.split_once("://").map_or(id, |(_, bare)| bare);
    (!bare.is_empty()).then_some(bare)
}

/// The name of an item that is no usable pod, as far as it has one.
fn name_of(item: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        namespace: Option<String>,
        name: String,
    }
    let Metadata { namespace, name } = serde_json::from_str::<Named>(item.get()).ok()?.metadata;
    Some(namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}")))
}

#[cfg(test)]
mod tests;
