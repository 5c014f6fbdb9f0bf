//! Pods as the API server or a kubelet lists them, arranged so that a cgroup finds its names at once.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::identity::{Level, Names, PathIdentity, pod::KnownPod};

/// The pods that are known, by uid and by container id.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    pods: Vec<Arc<KnownPod>>,
    /// By `metadata.uid` and, for a static pod, by the hash of its manifest, which its cgroups carry instead.
    by_uid: HashMap<Box<str>, usize>,
    /// Places of the pod and of the container in it.
    by_container: HashMap<Box<str>, (usize, usize)>,
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
        let mut pods = Vec::new();
        let mut skipped = Vec::new();
        for (index, item) in list.items.unwrap_or_default().into_iter().enumerate() {
            let pod = serde_json::from_str::<Pod>(item.get()).map_err(|error| error.to_string());
            match pod.and_then(|pod| KnownPod::of(&pod).map_err(str::to_owned)) {
                Ok(pod) => pods.push(Arc::new(pod)),
                Err(reason) => skipped.push(SkippedPod { index, name: name_of(item), reason }),
            }
        }
        Ok(Loaded { pods: pods.into_iter().collect(), skipped })
    }

    /// The pods.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<KnownPod>> {
        self.pods.iter()
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
            Level::Pod => Some(Arc::clone(&self.pod(of_path)?.names)),
            Level::Sandbox => self.sandbox_names(of_path),
            Level::Container => {
                let (pod, place) = *self.by_container.get(of_path.id.as_str())?;
                let of_uid = of_path.pod_uid.as_deref().and_then(|uid| self.by_uid.get(uid));
                let container = self.pods.get(pod)?.containers.get(place)?;
                of_uid.is_none_or(|of_uid| *of_uid == pod).then(|| Arc::clone(&container.names))
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
            || self.by_container.contains_key(of_path.id.as_str())
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

    /// The pod that a cgroup belongs to, by its path.
    pub fn pod(&self, of_path: &PathIdentity) -> Option<&Arc<KnownPod>> {
        self.pods.get(*self.by_uid.get(of_path.pod_uid.as_deref()?)?)
    }
}

impl FromIterator<Arc<KnownPod>> for Pods {
    fn from_iter<I: IntoIterator<Item = Arc<KnownPod>>>(pods: I) -> Self {
        let pods: Vec<Arc<KnownPod>> = pods.into_iter().collect();
        let mut by_uid = HashMap::with_capacity(pods.len());
        let mut by_container = HashMap::new();
        for (place, pod) in pods.iter().enumerate() {
            by_uid.insert(pod.uid.clone(), place);
            for (container, known) in pod.containers.iter().enumerate() {
                by_container.extend(known.ids.iter().map(|id| (id.clone(), (place, container))));
            }
        }
        // Anybody may annotate a pod: a hash never takes the place of a real uid.
        for (place, pod) in pods.iter().enumerate() {
            for hash in &pod.hashes {
                by_uid.entry(hash.clone()).or_insert(place);
            }
        }
        Self { pods, by_uid, by_container }
    }
}

fn is_list(kind: &str) -> bool {
    matches!(kind, "List" | "PodList")
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
