//! Pods, indexed by uid and by container id.

use std::{collections::HashMap, sync::Arc};

use super::{Level, Names, PathIdentity, pod::KnownPod};

/// The known pods, indexed by uid and by container id.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    pods: Vec<Arc<KnownPod>>,
    /// Index by `metadata.uid` and, for a static pod, by the hash of its manifest, which its cgroup paths contain instead.
    by_uid: HashMap<Box<str>, usize>,
    /// Index of the pod, and of the container in the pod.
    by_container: HashMap<Box<str>, (usize, usize)>,
}

impl Pods {
    pub fn iter(&self) -> impl Iterator<Item = &Arc<KnownPod>> {
        self.pods.iter()
    }

    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// The names of a pod, of a container by its id, or of a sandbox already known to be one.
    ///
    /// `None` for a container that is in no status, even if its pod is known: see [`Pods::sandbox_names`]. `None` also if the
    /// path of the container names another known pod than its id does.
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

    /// The names of a pod's sandbox. The caller must know that the cgroup is a sandbox, from its process (`pause`) or from the
    /// runtime. Pod statuses do not contain sandboxes, so a container id that is in no status can be
    /// - the sandbox,
    /// - a container that started after the list was made,
    /// - an older run of a container: statuses keep only the current and the previous id.
    ///
    /// [`Pods::started_all`] excludes the second case. `None` if the id belongs to a container.
    pub fn sandbox_names(&self, of_path: &PathIdentity) -> Option<Arc<Names>> {
        if !matches!(of_path.level, Level::Sandbox | Level::Container)
            || self.by_container.contains_key(of_path.id.as_str())
        {
            return None;
        }
        Some(Arc::clone(&self.pod(of_path)?.sandbox))
    }

    /// Whether every container of the pod's spec had an id when the list was made. If so, an unknown container older than the
    /// list is the sandbox or an older run. A newer one may be a restart.
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
        // Users can set the hash annotation: a hash must not replace a real uid.
        for (place, pod) in pods.iter().enumerate() {
            for hash in &pod.hashes {
                by_uid.entry(hash.clone()).or_insert(place);
            }
        }
        Self { pods, by_uid, by_container }
    }
}
