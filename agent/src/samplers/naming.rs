//! Names of pods and containers (namespace, pod, container, workload) for their cgroups.
//!
//! Sources: the watch of the API server or the pods file; the container runtime's state on disk (`config.json`) and its CRI
//! socket for what these do not list; the process `pause` for sandboxes. All series of pods get their labels from here. Metric:
//! `snug_agent_skipped_total` (`pods`, `pods_file_reloads`, `bundles`, `cri_lists`).

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{Component, Round};
use crate::{
    cri::CriNames,
    identity::{
        ContainerKind, Identity, Level, Names, PathIdentity,
        bundle::{self, Bundle},
        engine,
        pods_file::PodsFile,
    },
    kubernetes::PodWatch,
    messages,
    model::{AgentRule, KubernetesRow, Pods},
    retry::Outage,
    store::{Key, Store, Unnamed},
};

const SANDBOX_PROGRAM: &str = "pause";
/// Where engines keep the names of containers outside of pods. An agent in a container does not see it.
const LIB_ROOT: &str = "/var/lib";
/// How often the runtime's state of a container without a name is read, and whether the container is a sandbox.
const MAX_ATTEMPTS: u8 = 5;

pub(super) struct NameSampler;

impl Component for NameSampler {
    fn round(&mut self, round: &mut Round) {
        round.name_living();
        round.naming.name_ended(&mut round.store, round.now);
    }

    fn forget(&mut self, round: &mut Round, settled: &[Key]) {
        for key in settled {
            round.naming.attempts.remove(key);
        }
    }
}

#[derive(Debug)]
enum PodSource {
    None,
    File(PodsFile),
    Watch(Arc<PodWatch>),
}

/// Gives names to the cgroups in the store.
#[derive(Debug)]
pub(super) struct Naming {
    source: PodSource,
    pods: Arc<Pods>,
    proc_root: PathBuf,
    run_root: PathBuf,
    lib_root: PathBuf,
    /// Whether `pods` has changed since cgroups were last named.
    pods_changed: bool,
    /// Whether a pod's cgroup was added since then.
    appeared: bool,
    /// Attempts to name containers that are not in `pods`.
    attempts: HashMap<Key, u8>,
    outage: Outage,
    /// The container runtime's socket, if configured.
    runtime: Option<Arc<CriNames>>,
    /// Number of pods in the file that could not be used.
    skipped_pods: u64,
    /// Number of times the file could not be read.
    failed_reloads: u64,
    /// Number of OCI bundles that could not be read.
    failed_bundles: u64,
}

impl Naming {
    pub(super) fn new(file: Option<PathBuf>, proc_root: PathBuf, run_root: PathBuf) -> Self {
        Self {
            source: file.map_or(PodSource::None, |file| PodSource::File(PodsFile::new(file))),
            pods: Arc::default(),
            pods_changed: false,
            appeared: false,
            proc_root,
            run_root,
            lib_root: LIB_ROOT.into(),
            attempts: HashMap::new(),
            outage: Outage::default(),
            runtime: None,
            skipped_pods: 0,
            failed_reloads: 0,
            failed_bundles: 0,
        }
    }

    /// Uses a watch of the API server instead of the pods file.
    pub(super) fn watch(&mut self, watched: Arc<PodWatch>) {
        self.source = PodSource::Watch(watched);
    }

    /// Uses the CRI socket for containers that no other source names.
    pub(super) fn ask(&mut self, runtime: Arc<CriNames>) {
        self.runtime = Some(runtime);
    }

    /// The known pods.
    pub(super) fn pods(&self) -> &Arc<Pods> {
        &self.pods
    }

    /// State of the watch of pods, if there is one.
    pub(super) fn watch_row(&self) -> Option<KubernetesRow> {
        let PodSource::Watch(watched) = &self.source else { return None };
        Some(watched.row(&self.pods))
    }

    /// Numbers for `snug_agent_skipped_total`, by kind.
    pub(super) fn skipped(&self) -> [(&'static str, u64); 4] {
        let watched = match &self.source {
            PodSource::Watch(watched) => watched.skipped_pods(),
            PodSource::None | PodSource::File(_) => 0,
        };
        [
            ("pods", self.skipped_pods + watched),
            ("pods_file_reloads", self.failed_reloads),
            ("bundles", self.failed_bundles),
            ("cri_lists", self.runtime.as_ref().map_or(0, |runtime| runtime.failures())),
        ]
    }

    /// A cgroup was added. If it is a pod's, cgroups are named in this round, not only in the next full one.
    pub(super) fn appeared(&mut self, of_path: &PathIdentity) {
        self.appeared |= of_path.pod_uid.is_some();
    }

    /// Reloads pods if they have changed, and names cgroups. Does nothing between full rounds, unless a pod's cgroup was
    /// added.
    pub(super) fn refresh(&mut self, store: &mut Store, cgroup_mount: &Path, full: bool) {
        if !std::mem::take(&mut self.appeared) && !full {
            return;
        }
        self.reload();
        let changed = std::mem::take(&mut self.pods_changed);
        let to_name: Vec<(Key, Arc<Identity>)> = store
            .living()
            .filter(|(_, identity)| {
                identity.of_path.pod_uid.is_some() && (changed || identity.names.is_none())
            })
            .map(|(key, identity)| (key, identity.clone()))
            .collect();
        for (key, identity) in to_name {
            if let Some((names, level)) = self.names(key, &identity, cgroup_mount) {
                store.set_names(key, names, level);
            }
        }
        if full {
            self.name_by_engines(store);
        }
    }

    /// Names containers outside of pods.
    fn name_by_engines(&mut self, store: &mut Store) {
        let is_unnamed = |identity: &Identity| {
            let of_path = &identity.of_path;
            of_path.level == Level::Container && of_path.pod_uid.is_none() && identity.engine_name.is_none()
        };
        let unnamed: Vec<(Key, String)> = store
            .living()
            .filter(|(_, identity)| is_unnamed(identity))
            .map(|(key, identity)| (key, identity.of_path.id.clone()))
            .collect();
        for (key, id) in unnamed {
            let attempts = self.attempts.entry(key).or_default();
            if *attempts < MAX_ATTEMPTS {
                *attempts += 1;
                if let Some(name) = engine::find(&self.run_root, &self.lib_root, &id) {
                    store.set_engine_name(key, &name);
                }
            }
        }
    }

    /// Names removed containers whose workload is not known yet, before they are counted.
    pub(super) fn name_ended(&mut self, store: &mut Store, now: Instant) {
        store.expect_names(!matches!(self.source, PodSource::None));
        let unnamed = store.unnamed(now);
        if unnamed.is_empty() {
            return;
        }
        self.reload();
        for ended in unnamed {
            if let Some((names, level)) = self.names_of_ended(&ended) {
                store.set_names(ended.key, names, level);
            }
        }
    }

    /// Statuses have the id of a container, or its runtime named it. Of the earlier runs of a crash loop neither may be left:
    /// then the only container of its pod is meant, unless the program is that of a sandbox.
    fn names_of_ended(&self, ended: &Unnamed) -> Option<(Arc<Names>, Level)> {
        let of_path = &ended.identity.of_path;
        let names = self.pods.names(of_path).or_else(|| match &ended.identity.names {
            Some(names) => self.in_known_pod(names, of_path),
            None => None,
        });
        if let Some(names) = names {
            return Some((names, of_path.level));
        }
        let init = ended.init.as_ref().filter(|init| init.contained && ended.identity.names.is_none())?;
        if init.comm != SANDBOX_PROGRAM && AgentRule::OnlyContainer.is_on() {
            let [only] = self.pods.pod(of_path)?.containers.as_slice() else { return None };
            return Some((Arc::clone(&only.names), of_path.level));
        }
        // A container may run this program, too: then a status has its id sooner or later.
        let names = ended.is_last_attempt.then(|| self.pods.sandbox_names(of_path))??;
        Some((names, Level::Sandbox))
    }

    fn reload(&mut self) {
        let pods = match &mut self.source {
            PodSource::None => return,
            PodSource::Watch(watched) => {
                let pods = watched.pods();
                (!Arc::ptr_eq(&pods, &self.pods)).then_some(pods)
            }
            PodSource::File(file) => match file.reload_if_changed() {
                Ok(reloaded) => reloaded.map(|reloaded| {
                    self.skipped_pods += reloaded.skipped.len() as u64;
                    for pod in &reloaded.skipped {
                        tracing::warn!(
                            file = %file.path().display(), index = pod.index, name = ?pod.name, reason = %pod.reason,
                            "cannot use a pod of the pods file; skipped"
                        );
                    }
                    tracing::info!(file = %file.path().display(), pods = reloaded.pods.len(), "pods file read");
                    self.attempts.clear();
                    reloaded.pods
                }),
                Err(error) => {
                    self.failed_reloads += 1;
                    let error = messages::chain(&error);
                    tracing::warn!(error, "cannot read the pods file; pods keep their names");
                    None
                }
            },
        };
        if let Some(pods) = pods {
            self.pods = pods;
            self.pods_changed = true;
        }
    }

    fn names(&mut self, key: Key, identity: &Identity, mount: &Path) -> Option<(Arc<Names>, Level)> {
        let of_path = &identity.of_path;
        // The pod's status has no image of the sandbox; keep the one from the runtime.
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
        // The names came from the runtime; the pod may be known by now, or have changed.
        if let Some(names) = &identity.names {
            return self.in_known_pod(names, of_path).map(|names| (names, of_path.level));
        }
        // Not in any pod's status: a new container, or a sandbox, which the status does not list.
        let attempts = self.attempts.entry(key).or_default();
        if *attempts >= MAX_ATTEMPTS {
            return None;
        }
        *attempts += 1;
        if let Some(bundle) = self.bundle(&of_path.id) {
            return Some(self.of_bundle(bundle, of_path));
        }
        let sandbox = is_pause(mount, &identity.path, &self.proc_root);
        sandbox.then(|| self.pods.sandbox_names(of_path))?.map(|names| (names, Level::Sandbox))
    }

    /// The names from the pod, for a container whose name came from the runtime.
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

    /// The runtime's names of a container: from its state on disk, else from its CRI socket, if configured.
    fn bundle(&mut self, id: &str) -> Option<Bundle> {
        let on_disk = bundle::find(&self.run_root, id).unwrap_or_else(|error| {
            self.failed_bundles += 1;
            if let Some(error) = self.outage.new_cause(&error) {
                tracing::warn!(
                    error,
                    "cannot read a container's bundle; it has no name until its pod is known"
                );
            }
            None
        });
        on_disk.or_else(|| self.runtime.as_ref()?.find(id))
    }
}

/// Whether the only process in the cgroup is `pause`, the process of a sandbox.
fn is_pause(mount: &Path, cgroup: &str, proc_root: &Path) -> bool {
    let procs = mount.join(cgroup.trim_start_matches('/')).join("cgroup.procs");
    let Ok(procs) = fs::read_to_string(procs) else { return false };
    let mut pids = procs.split_whitespace();
    let (Some(pid), None) = (pids.next(), pids.next()) else { return false };
    // If the agent has a PID namespace of its own, processes outside it have pid 0.
    fs::read_to_string(proc_root.join(pid).join("comm")).is_ok_and(|comm| comm.trim_end() == SANDBOX_PROGRAM)
}

#[cfg(test)]
mod tests;
