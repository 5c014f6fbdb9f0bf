//! Creates cgroups as a container runtime does, in every hierarchy, and removes them on drop.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use snug_agent::cgroupfs::mounts::{Hierarchies, Hierarchy, Version};

/// Prefix of the names of all cgroups of the bench. The process id follows.
const PREFIX: &str = "snug-bench-";

/// Controllers that containers need on cgroup v2.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// A top cgroup in every hierarchy. Dropping it removes it with its descendants, which must have no processes.
pub(crate) struct Tree {
    hierarchies: Hierarchies,
    name: String,
}

/// The cgroup of a container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// Path in every hierarchy.
    pub(crate) path: String,
    /// Index of its pod.
    pub(crate) pod: usize,
    /// Id of the container: 64 hexadecimal digits.
    pub(crate) id: String,
}

impl Tree {
    /// Creates the top cgroup, and removes cgroups of killed runs.
    pub(crate) fn new(what: &str) -> Result<Self> {
        let hierarchies = Hierarchies::find(Path::new("/proc"), None)?;
        for hierarchy in all(&hierarchies) {
            sweep(&hierarchy.mount);
        }
        let name = format!("{PREFIX}{}-{what}", std::process::id());
        let tree = Self { hierarchies, name };
        tree.make("")?;
        Ok(tree)
    }

    pub(crate) fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// The path of `relative` in every hierarchy.
    pub(crate) fn path(&self, relative: &str) -> String {
        let path = format!("/{}/{relative}", self.name);
        path.trim_end_matches('/').to_owned()
    }

    /// Creates `relative` in every hierarchy. Its parent must exist.
    pub(crate) fn make(&self, relative: &str) -> Result<()> {
        for hierarchy in all(&self.hierarchies) {
            let directory = self.directory(hierarchy, relative);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("cannot create {}", directory.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Creates `relative` as a parent of cgroups: on v2 it enables controllers for its children.
    pub(crate) fn make_parent(&self, relative: &str) -> Result<()> {
        self.make(relative)?;
        let Some(unified) = &self.hierarchies.unified else { return Ok(()) };
        // Enable them in the top cgroup first.
        for path in ["", relative] {
            let directory = self.directory(unified, path);
            let available = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
            for controller in available.split_whitespace().filter(|name| CONTROLLERS.contains(name)) {
                let file = directory.join("cgroup.subtree_control");
                fs::write(&file, format!("+{controller}"))
                    .with_context(|| format!("cannot enable {controller} in {}", file.display()))?;
            }
        }
        Ok(())
    }

    /// Removes one cgroup from every hierarchy.
    pub(crate) fn remove(&self, relative: &str) -> Result<()> {
        for hierarchy in all(&self.hierarchies) {
            let directory = self.directory(hierarchy, relative);
            fs::remove_dir(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        Ok(())
    }

    /// Creates `count` containers in `pods` burstable pods, as the kubelet's cgroupfs driver places them.
    pub(crate) fn containers(&self, count: usize, pods: usize) -> Result<Vec<Container>> {
        self.make_parent("kubepods")?;
        self.make_parent("kubepods/burstable")?;
        for pod in 0..pods.min(count) {
            self.make_parent(&format!("kubepods/burstable/pod{}", pod_uid(pod)))?;
        }
        (0..count)
            .map(|index| {
                let (pod, id) = (index % pods, container_id(index));
                let relative = format!("kubepods/burstable/pod{}/{id}", pod_uid(pod));
                self.make(&relative)?;
                crate::interrupt::check()?;
                Ok(Container { path: self.path(&relative), pod, id })
            })
            .collect()
    }

    /// Directories of `path` (from [`Self::path`]) to put processes into. Without cpuset, which accepts no process before
    /// its CPUs are set.
    pub(crate) fn homes(&self, path: &str) -> Vec<PathBuf> {
        all(&self.hierarchies)
            .filter(|hierarchy| hierarchy.version == Version::V2 || !hierarchy.has("cpuset"))
            .map(|hierarchy| hierarchy.mount.join(path.trim_start_matches('/')))
            .collect()
    }

    fn directory(&self, hierarchy: &Hierarchy, relative: &str) -> PathBuf {
        hierarchy.mount.join(&self.name).join(relative)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for hierarchy in all(&self.hierarchies) {
            let top = hierarchy.mount.join(&self.name);
            if let Err(error) = remove_tree(&top) {
                eprintln!("bench: cannot remove {}: {error}", top.display());
            }
        }
    }
}

pub(crate) fn pod_uid(pod: usize) -> String {
    format!("5a0b1c2d-0000-4000-8000-{pod:012x}")
}

fn container_id(index: usize) -> String {
    format!("{:064x}", (index as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn all(hierarchies: &Hierarchies) -> impl Iterator<Item = &Hierarchy> {
    hierarchies.unified.iter().chain(&hierarchies.v1)
}

/// Removes cgroups of earlier benches whose process has exited.
fn sweep(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = remove_tree(&entry.path());
        }
    }
}

/// Removes a cgroup and its descendants. Retries, because killed processes stay in their cgroup for a moment.
fn remove_tree(top: &Path) -> io::Result<()> {
    let children = match fs::read_dir(top) {
        Ok(children) => children,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for child in children.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&child.path())?;
        }
    }
    let mut tries = 0;
    loop {
        match fs::remove_dir(top) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < 100 => {
                tries += 1;
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}
