//! The cgroups of a pod with one container, in every hierarchy with measurements. They are removed when the guard is dropped.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use snug_agent::cgroupfs::mounts::{Hierarchies, Version};

/// Distinguishes the pods of one run.
static MADE: AtomicU32 = AtomicU32::new(0);

/// The v1 controllers whose hierarchies get a cgroup. Others require settings before they accept a process.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "blkio"];

#[derive(Debug)]
pub(crate) struct Container {
    /// Path of the container's cgroup below each hierarchy's root.
    pub(crate) path: String,
    /// The pod's uid.
    pub(crate) uid: String,
    /// The container's id.
    pub(crate) id: String,
    /// The container's directory in each hierarchy; the one that keeps CPU time first.
    leaves: Vec<PathBuf>,
    made: Vec<PathBuf>,
    processes: Vec<Child>,
}

impl Container {
    /// Creates the cgroups of a pod with one container.
    pub(crate) fn make() -> Result<Self> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let uid =
            format!("5e57ab1e-0000-4000-8000-{:012x}", u64::from(process::id()) << 16 | u64::from(number));
        let mut container = Self {
            path: String::new(),
            id: format!("{:032x}{:032x}", process::id(), number),
            leaves: Vec::new(),
            made: Vec::new(),
            processes: Vec::new(),
            uid,
        };
        // A separate kubepods tree, so that no cgroup is shared with real pods.
        let parts = [
            format!("snug-system-{}-{number}", process::id()),
            "kubepods".to_owned(),
            "burstable".to_owned(),
            format!("pod{}", container.uid),
            container.id.clone(),
        ];
        container.path = format!("/{}", parts.join("/"));
        let hierarchies = Hierarchies::find(Path::new("/proc"), None)?;
        let measuring =
            |one: &&_| CONTROLLERS.iter().any(|name| snug_agent::cgroupfs::mounts::Hierarchy::has(one, name));
        let all = hierarchies.unified.iter().chain(hierarchies.v1.iter().filter(measuring));
        for hierarchy in all {
            let mut directory = hierarchy.mount.clone();
            for part in &parts {
                if hierarchy.version == Version::V2 {
                    for controller in ["+cpu", "+memory", "+pids", "+io"] {
                        // Controllers of v1 hierarchies are not available here.
                        let _ = fs::write(directory.join("cgroup.subtree_control"), controller);
                    }
                }
                directory.push(part);
                fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
                container.made.push(directory.clone());
            }
            container.leaves.push(directory);
        }
        Ok(container)
    }

    /// Creates the cgroups of another container or sandbox of the pod. Returns their directories.
    pub(crate) fn beside(&mut self, id: &str) -> Result<Vec<PathBuf>> {
        let directories: Vec<PathBuf> = self.leaves.iter().map(|leaf| leaf.with_file_name(id)).collect();
        for directory in &directories {
            fs::create_dir(directory).with_context(|| format!("cannot make {}", directory.display()))?;
            self.made.push(directory.clone());
        }
        Ok(directories)
    }

    /// Ends the container and creates the cgroups of the next one in the same pod, with an id of its own, as a runtime does.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.end_processes();
        let ended = std::mem::take(&mut self.leaves);
        for leaf in &ended {
            remove_empty(leaf)?;
        }
        self.made.retain(|directory| !ended.contains(directory));
        let id = format!("{:032x}{:032x}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        self.path = self.path.replace(&self.id, &id);
        self.leaves = ended.iter().map(|leaf| leaf.with_file_name(&id)).collect();
        self.id = id;
        for leaf in &self.leaves {
            fs::create_dir(leaf).with_context(|| format!("cannot make {}", leaf.display()))?;
            self.made.push(leaf.clone());
        }
        Ok(())
    }

    /// Lets its cgroups look as if they had been created that long ago.
    pub(crate) fn make_older(&self, by: Duration) -> Result<()> {
        for leaf in &self.leaves {
            fs::File::open(leaf)?.set_modified(SystemTime::now() - by)?;
        }
        Ok(())
    }

    /// Runs a shell script in the container, with a mount namespace of its own. The script starts once its process is in the cgroups
    /// of all hierarchies.
    pub(crate) fn run(&mut self, script: &str) -> Result<u32> {
        self.run_in(&self.leaves.clone(), script)
    }

    /// Runs a shell script in cgroups of the pod.
    pub(crate) fn run_in(&mut self, directories: &[PathBuf], script: &str) -> Result<u32> {
        // A process that shares its parent's mount namespace would pass for one of the runtime's own.
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &format!("read -r go; {script}")])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start unshare")?;
        let (pid, start) = (child.id(), child.stdin.take());
        self.processes.push(child);
        for leaf in directories {
            let procs = leaf.join("cgroup.procs");
            fs::write(&procs, pid.to_string())
                .with_context(|| format!("cannot write {}", procs.display()))?;
        }
        start.context("no standard input")?.write_all(b"go\n")?;
        Ok(pid)
    }

    /// Starts a busy loop on one CPU, with maximum CPU shares.
    pub(crate) fn be_busy(&mut self) -> Result<()> {
        for top in self
            .made
            .iter()
            .filter(|directory| directory.ends_with(self.path[1..].split('/').next().unwrap_or("")))
        {
            for (file, max) in [("cpu.shares", "262144"), ("cpu.weight", "10000")] {
                let file = top.join(file);
                if file.exists() {
                    fs::write(&file, max).with_context(|| format!("cannot write {}", file.display()))?;
                }
            }
        }
        self.run("while :; do :; done").map(drop)
    }

    /// Sends a signal to all processes of the container.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let leaf = self.leaves.first().context("no hierarchy")?;
        for pid in fs::read_to_string(leaf.join("cgroup.procs"))?.lines() {
            kill_process(Pid::from_raw(pid.parse()?).context("no pid")?, signal)?;
        }
        Ok(())
    }

    /// CPU time of the container by its `cpu.stat`, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let leaf = self.leaves.first().context("no hierarchy")?;
        let stat = fs::read_to_string(leaf.join("cpu.stat"))?;
        let row = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(row.context("no usage_usec in cpu.stat")?.parse::<f64>()? / 1e6)
    }

    /// Kills the processes and removes the cgroups. Returns the last [`Self::cpu_seconds`].
    pub(crate) fn remove(mut self) -> Result<f64> {
        self.end_processes();
        let used = self.cpu_seconds();
        self.end()?;
        used
    }

    /// The path of a cgroup file, in the hierarchy that has it.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf> {
        let files = self.leaves.iter().map(|leaf| leaf.join(name));
        files
            .clone()
            .find(|file| file.exists())
            .with_context(|| format!("{name} in none of {:?}", self.leaves))
    }

    /// Writes a value to a cgroup file: its name and value in v2 and in v1.
    pub(crate) fn set(&self, v2: (&str, &str), v1: (&str, &str)) -> Result<()> {
        let (file, value) = match self.file(v2.0) {
            Ok(file) => (file, v2.1),
            Err(_) => (self.file(v1.0)?, v1.1),
        };
        fs::write(&file, value).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Reads a cgroup file: its name in v2 and in v1.
    pub(crate) fn read(&self, v2: &str, v1: &str) -> Result<String> {
        let file = self.file(v2).or_else(|_| self.file(v1))?;
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// Reads a cgroup file in the first hierarchy where it contains `line`.
    pub(crate) fn read_first_with(&self, name: &str, line: &str) -> Result<String> {
        let texts = self.leaves.iter().filter_map(|leaf| fs::read_to_string(leaf.join(name)).ok());
        let mut with_line = texts.filter(|text| text.lines().any(|other| other.starts_with(line)));
        with_line.next().with_context(|| format!("no {name} with {line:?} in any of {:?}", self.leaves))
    }

    fn end_processes(&mut self) {
        // Processes that a script started outlive it.
        for leaf in &self.made {
            let procs = fs::read_to_string(leaf.join("cgroup.procs")).unwrap_or_default();
            for pid in procs.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        for mut child in self.processes.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn end(&mut self) -> Result<()> {
        self.end_processes();
        while let Some(directory) = self.made.pop() {
            remove_empty(&directory)?;
        }
        Ok(())
    }

    /// The pod of the Deployment `<name>`, as the API server would list it.
    pub(crate) fn pod(&self, namespace: &str, name: &str, container: &str) -> Value {
        let hash = "5d4f8c7b9c";
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": namespace, "name": format!("{name}-{hash}-x7k2p"), "uid": self.uid,
                "labels": {"pod-template-hash": hash},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-{hash}"),
                    "uid": "0", "controller": true,
                }],
            },
            "spec": {"containers": [{"name": container, "image": "example.org/web:1"}]},
            "status": {"containerStatuses": [{
                "name": container, "image": "example.org/web:1", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{}", self.id),
            }]},
        })
    }
}

/// Removes a cgroup whose processes were killed. The kernel removes a process from its cgroup a moment after its exit.
fn remove_empty(directory: &Path) -> Result<()> {
    let patience = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < patience => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", directory.display()));
            }
            _ => return Ok(()),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// A list of pods as `kubectl get pods -o json` prints it.
pub(crate) fn pod_list(pods: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string()
}
