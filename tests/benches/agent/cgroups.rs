//! Cgroups to measure: made as a container runtime makes them, in every hierarchy, and removed with the guard.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use snug_agent::cgroupfs::mounts::{Hierarchies, Hierarchy, Version};

/// Begins the name of everything made here; the process id follows.
const PREFIX: &str = "snug-bench-";

/// Files of controllers that containers need on cgroup v2.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// A top cgroup in every hierarchy. Dropped = removed with all below it; processes in it must have ended.
pub(crate) struct Tree {
    hierarchies: Hierarchies,
    name: String,
}

/// A container's place.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// Path in every hierarchy.
    pub(crate) path: String,
    /// Number of its pod.
    pub(crate) pod: usize,
    /// Its id: 64 hexadecimal digits.
    pub(crate) id: String,
}

impl Tree {
    /// Makes the top cgroup; also removes what a killed run has left.
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

    /// Makes `relative` (its parent must be there) in every hierarchy.
    pub(crate) fn make(&self, relative: &str) -> Result<()> {
        for hierarchy in all(&self.hierarchies) {
            let directory = self.directory(hierarchy, relative);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("cannot make {}", directory.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes `relative` with cgroups below it to come: on v2 its children get controllers.
    pub(crate) fn make_parent(&self, relative: &str) -> Result<()> {
        self.make(relative)?;
        let Some(unified) = &self.hierarchies.unified else { return Ok(()) };
        // The top cgroup first, if this is the first below it.
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

    /// Makes `count` containers in `pods` burstable pods, as the kubelet's cgroupfs driver places them.
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

    /// The directories of `path` (as [`Self::path`] gives it) that processes are put into. Not in cpuset, which takes
    /// none before it has been given CPUs.
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
                eprintln!("bench: {} is left behind: {error}", top.display());
            }
        }
    }
}

/// The uid of a pod.
pub(crate) fn pod_uid(pod: usize) -> String {
    format!("5a0b1c2d-0000-4000-8000-{pod:012x}")
}

fn container_id(index: usize) -> String {
    format!("{:064x}", (index as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn all(hierarchies: &Hierarchies) -> impl Iterator<Item = &Hierarchy> {
    hierarchies.unified.iter().chain(&hierarchies.v1)
}

/// Removes what benches that are no more have left in a hierarchy.
fn sweep(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = remove_tree(&entry.path());
        }
    }
}

/// Removes a cgroup and all below it. Processes that were just killed need a moment to leave.
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
