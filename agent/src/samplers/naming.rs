//! Giving names to pods' cgroups, from what is known of pods and, for sandboxes, from the process in them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    identity::{Identity, Level, Names, pods::Pods, pods_file::PodsFile},
    store::{Key, Store},
};

/// How often a container without a name is looked at for being a sandbox.
const LOOKS: u8 = 5;

/// Names for the store.
#[derive(Debug)]
pub(super) struct Naming {
    file: Option<PodsFile>,
    pods: Arc<Pods>,
    proc_root: PathBuf,
    /// Whether `pods` has changed since the living were named.
    fresh: bool,
    /// Looks that were taken at containers which the pods do not name.
    looks: HashMap<Key, u8>,
    /// Pods in the file that could not be used.
    pub(super) skipped_pods: u64,
    /// Times that the file could not be used.
    pub(super) failed_reloads: u64,
}

impl Naming {
    pub(super) fn new(file: Option<PathBuf>, proc_root: PathBuf) -> Self {
        Self {
            file: file.map(PodsFile::new),
            pods: Arc::default(),
            fresh: false,
            proc_root,
            looks: HashMap::new(),
            skipped_pods: 0,
            failed_reloads: 0,
        }
    }

    /// Takes up what has changed in the pods file, and names what can be named.
    pub(super) fn refresh(&mut self, store: &mut Store, cgroup_mount: &Path) {
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
            .filter(|(_, identity)| identity.of_path.pod_uid.is_some() && identity.names.is_none())
            .map(|(key, identity)| (key, identity.clone()))
            .collect();
        if unnamed.is_empty() {
            return;
        }
        self.reload();
        for (key, identity) in unnamed {
            if let Some(names) = self.pods.names(&identity.of_path) {
                store.name(key, names, identity.of_path.level);
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
        let Some(file) = &mut self.file else { return };
        match file.reload_if_changed() {
            Ok(None) => {}
            Ok(Some(reloaded)) => {
                self.skipped_pods += reloaded.skipped.len() as u64;
                for pod in &reloaded.skipped {
                    tracing::warn!(
                        file = %file.path().display(), index = pod.index, name = ?pod.name, reason = %pod.reason,
                        "a pod of the pods file cannot be used and is skipped"
                    );
                }
                tracing::info!(file = %file.path().display(), pods = reloaded.pods.len(), "pods file read");
                self.pods = reloaded.pods;
                self.looks.clear();
                self.fresh = true;
            }
            Err(error) => {
                self.failed_reloads += 1;
                let error = anyhow::Error::from(error);
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the pods file cannot be used; pods keep the names they have"
                );
            }
        }
    }

    fn names(&mut self, key: Key, identity: &Identity, mount: &Path) -> Option<(Arc<Names>, Level)> {
        let of_path = &identity.of_path;
        if let Some(names) = self.pods.names(of_path) {
            return Some((names, of_path.level));
        }
        if of_path.level != Level::Container {
            return None;
        }
        // The pods do not know it: it is new, or the pod's sandbox, which no pod status lists.
        let looks = self.looks.entry(key).or_default();
        if *looks >= LOOKS {
            return None;
        }
        *looks += 1;
        let sandbox = is_pause(mount, &identity.path, &self.proc_root);
        sandbox.then(|| self.pods.sandbox_names(of_path))?.map(|names| (names, Level::Sandbox))
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
        let mut naming = Naming::new(Some(pods_file.clone()), folder.path().to_owned());
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
