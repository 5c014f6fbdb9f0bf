//! Giving names to pods' cgroups, from what is known of pods and, for sandboxes, from the process in them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    cri::Runtime,
    identity::{
        ContainerKind, Identity, Level, Names, PathIdentity,
        bundle::{self, Bundle},
        pods_file::PodsFile,
    },
    kubernetes::PodWatch,
    model::Pods,
    store::{Key, Store},
};

/// How often a container without a name is looked at: for its bundle, and for being a sandbox.
const LOOKS: u8 = 5;

/// Where pods are known from.
#[derive(Debug)]
enum Source {
    None,
    File(PodsFile),
    Watch(Arc<PodWatch>),
}

/// Names for the store.
#[derive(Debug)]
pub(super) struct Naming {
    source: Source,
    pods: Arc<Pods>,
    proc_root: PathBuf,
    run_root: PathBuf,
    /// Whether `pods` has changed since the living were named.
    fresh: bool,
    /// Whether a pod's cgroup has appeared since then.
    appeared: bool,
    /// Looks that were taken at containers which the pods do not name.
    looks: HashMap<Key, u8>,
    said_bundle: bool,
    /// The runtime's own word, where it may be asked.
    runtime: Option<Arc<Runtime>>,
    /// Pods in the file that could not be used.
    skipped_pods: u64,
    /// Times that the file could not be used.
    failed_reloads: u64,
    /// Bundles that could not be used.
    failed_bundles: u64,
}

impl Naming {
    pub(super) fn new(file: Option<PathBuf>, proc_root: PathBuf, run_root: PathBuf) -> Self {
        Self {
            source: file.map_or(Source::None, |file| Source::File(PodsFile::new(file))),
            pods: Arc::default(),
            fresh: false,
            appeared: false,
            proc_root,
            run_root,
            looks: HashMap::new(),
            said_bundle: false,
            runtime: None,
            skipped_pods: 0,
            failed_reloads: 0,
            failed_bundles: 0,
        }
    }

    /// Takes names from a watch instead of a file.
    pub(super) fn watch(&mut self, watched: Arc<PodWatch>) {
        self.source = Source::Watch(watched);
    }

    /// Asks the runtime for what nothing else names.
    pub(super) fn ask(&mut self, runtime: Arc<Runtime>) {
        self.runtime = Some(runtime);
    }

    /// The pods that are known.
    pub(super) fn pods(&self) -> &Arc<Pods> {
        &self.pods
    }

    /// What was skipped, by kind.
    pub(super) fn skipped(&self) -> [(&'static str, u64); 4] {
        let watched = match &self.source {
            Source::Watch(watched) => watched.skipped_pods(),
            Source::None | Source::File(_) => 0,
        };
        [
            ("pods", self.skipped_pods + watched),
            ("pods_file_reloads", self.failed_reloads),
            ("bundles", self.failed_bundles),
            ("cri_lists", self.runtime.as_ref().map_or(0, |runtime| runtime.failures())),
        ]
    }

    /// A cgroup has appeared: one of a pod is named in this round, not in the next second.
    pub(super) fn appeared(&mut self, of_path: &PathIdentity) {
        self.appeared |= of_path.pod_uid.is_some();
    }

    /// Takes up what has changed of the pods and names what can be named; between the seconds only if something
    /// appeared.
    pub(super) fn refresh(&mut self, store: &mut Store, cgroup_mount: &Path, second: bool) {
        if !std::mem::take(&mut self.appeared) && !second {
            return;
        }
        self.reload();
        let changed = std::mem::take(&mut self.fresh);
        let to_name: Vec<(Key, Arc<Identity>)> = store
            .living()
            .filter(|(_, identity)| {
                identity.of_path.pod_uid.is_some() && (changed || identity.names.is_none())
            })
            .map(|(key, identity)| (key, identity.clone()))
            .collect();
        for (key, identity) in to_name {
            if let Some((names, level)) = self.names(key, &identity, cgroup_mount) {
                store.name(key, names, level);
            }
        }
    }

    /// Names what has ended before it was named, while it can still be counted under its name.
    pub(super) fn name_leaving(&mut self, store: &mut Store) {
        let unnamed: Vec<(Key, Arc<Identity>)> = store
            .leaving()
            .filter(|(_, identity)| {
                let known = identity.names.as_deref().is_some_and(|names| !names.workload.is_empty());
                identity.of_path.pod_uid.is_some() && !known
            })
            .map(|(key, identity)| (key, identity.clone()))
            .collect();
        if unnamed.is_empty() {
            return;
        }
        self.reload();
        for (key, identity) in unnamed {
            let of_path = &identity.of_path;
            let told =
                self.pods.names(of_path).or_else(|| self.in_known_pod(identity.names.as_deref()?, of_path));
            if let Some(names) = told {
                store.name(key, names, of_path.level);
            }
        }
    }

    /// Forgets cgroups that have gone.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        for key in gone {
            self.looks.remove(key);
        }
    }

    fn reload(&mut self) {
        let pods = match &mut self.source {
            Source::None => return,
            Source::Watch(watched) => {
                let pods = watched.pods();
                (!Arc::ptr_eq(&pods, &self.pods)).then_some(pods)
            }
            Source::File(file) => match file.reload_if_changed() {
                Ok(reloaded) => reloaded.map(|reloaded| {
                    self.skipped_pods += reloaded.skipped.len() as u64;
                    for pod in &reloaded.skipped {
                        tracing::warn!(
                            file = %file.path().display(), index = pod.index, name = ?pod.name, reason = %pod.reason,
                            "a pod of the pods file cannot be used and is skipped"
                        );
                    }
                    tracing::info!(file = %file.path().display(), pods = reloaded.pods.len(), "pods file read");
                    self.looks.clear();
                    reloaded.pods
                }),
                Err(error) => {
                    self.failed_reloads += 1;
                    let error = anyhow::Error::from(error);
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the pods file cannot be used; pods keep the names they have"
                    );
                    None
                }
            },
        };
        if let Some(pods) = pods {
            self.pods = pods;
            self.fresh = true;
        }
    }

    fn names(&mut self, key: Key, identity: &Identity, mount: &Path) -> Option<(Arc<Names>, Level)> {
        let of_path = &identity.of_path;
        // No pod status tells a sandbox's image; its runtime may have.
        let of_runtime = identity.names.as_deref().filter(|names| !names.image.is_empty());
        if let (Level::Sandbox, Some(names)) = (of_path.level, of_runtime) {
            return self.in_known_pod(names, of_path).map(|names| (names, of_path.level));
        }
        if let Some(names) = self.pods.names(of_path) {
            return Some((names, of_path.level));
        }
        if of_path.level != Level::Container {
            return None;
        }
        // Its runtime has named it, and its pod is known by now, or has changed.
        if let Some(names) = &identity.names {
            return self.in_known_pod(names, of_path).map(|names| (names, of_path.level));
        }
        // The pods do not know it: it is new, or the pod's sandbox, which no pod status lists.
        let looks = self.looks.entry(key).or_default();
        if *looks >= LOOKS {
            return None;
        }
        *looks += 1;
        if let Some(bundle) = self.bundle(&of_path.id) {
            return Some(self.of_bundle(bundle, of_path));
        }
        let sandbox = is_pause(mount, &identity.path, &self.proc_root);
        sandbox.then(|| self.pods.sandbox_names(of_path))?.map(|names| (names, Level::Sandbox))
    }

    /// The names that the pod has for a container that its runtime has named.
    fn in_known_pod(&self, names: &Names, of_path: &PathIdentity) -> Option<Arc<Names>> {
        let pod = self.pods.pod(of_path)?;
        if names.kind == Some(ContainerKind::Sandbox) {
            return Some(Arc::new(Names { image: names.image.clone(), ..(*pod.sandbox).clone() }));
        }
        pod.container(&names.container).map(|container| Arc::clone(&container.names))
    }

    fn of_bundle(&self, bundle: Bundle, of_path: &PathIdentity) -> (Arc<Names>, Level) {
        let Bundle { namespace, pod, container, image } = bundle;
        let (level, kind) = match container {
            Some(_) => (Level::Container, None),
            None => (Level::Sandbox, Some(ContainerKind::Sandbox)),
        };
        let container = container.unwrap_or_default();
        let names = Names { namespace, pod, container, image, kind, ..Names::default() };
        (self.in_known_pod(&names, of_path).unwrap_or_else(|| Arc::new(names)), level)
    }

    /// What the runtime says of a container: on disk, else by its socket, where it may be asked.
    fn bundle(&mut self, id: &str) -> Option<Bundle> {
        let on_disk = bundle::find(&self.run_root, id).unwrap_or_else(|error| {
            self.failed_bundles += 1;
            if !std::mem::replace(&mut self.said_bundle, true) {
                let error = anyhow::Error::from(error);
                tracing::warn!(
                    error = format!("{error:#}"),
                    "containers go unnamed until the API server names them; said once"
                );
            }
            None
        });
        on_disk.or_else(|| self.runtime.as_ref()?.find(id))
    }
}

/// Whether the cgroup's only process is a pause container's.
fn is_pause(mount: &Path, cgroup: &str, proc_root: &Path) -> bool {
    let procs = mount.join(cgroup.trim_start_matches('/')).join("cgroup.procs");
    let Ok(procs) = fs::read_to_string(procs) else { return false };
    let mut pids = procs.split_whitespace();
    let (Some(pid), None) = (pids.next(), pids.next()) else { return false };
    // From a pid namespace of its own the agent sees 0 for processes outside.
    fs::read_to_string(proc_root.join(pid).join("comm")).is_ok_and(|comm| comm.trim_end() == "pause")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{identity::path, store::Appearance};

    #[test]
    fn what_ends_before_its_turn_is_counted_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let pods_file = folder.path().join("pods.json");
        let id = "0123456789abcdef".repeat(4);
        let pod = serde_json::json!({
            "metadata": { "name": "report-x2k4p", "namespace": "shop", "uid": "11111111-2222-3333-4444-555555555555" },
            "status": { "containerStatuses": [{
                "name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{id}"),
            }] },
        });
        let list = serde_json::json!({ "kind": "PodList", "items": [pod] });
        let mut naming =
            Naming::new(Some(pods_file.clone()), folder.path().to_owned(), folder.path().to_owned());
        let mut store = Store::new(16);
        let now = Instant::now();

        let path = format!("/kubepods/besteffort/pod11111111-2222-3333-4444-555555555555/{id}");
        let of_path = path::parse(&path).unwrap();
        let appearance =
            Appearance { path: path.as_str().into(), of_path, created_unix: 0.0, present_at_start: false };
        let key = store.appear(appearance, 0, now);
        fs::write(&pods_file, list.to_string()).unwrap();
        store.depart(key, 0, true, false, now);
        naming.name_leaving(&mut store);
        store.settle(now);
        store.count_workloads(now);

        let view = store.publish(Default::default(), now);
        let row = view.workloads.iter().find(|row| &*row.workload == "report-x2k4p").unwrap();
        assert_eq!((&*row.namespace, &*row.container, row.containers_ended), ("shop", "app", 1));
        // The living are named with what was read meanwhile.
        assert!(naming.fresh);
    }
}
