//! Everything that the demo makes on the host: a temporary folder, cgroups, containers. All of it goes with [`Stage`].

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    bundle::{self, Places},
    cgroups::{self, Throttling},
    plan::{self, Pod},
};
use crate::command;

/// The exit code of a container whose process was killed by SIGKILL, as the OOM killer does.
const KILLED: i32 = 128 + 9;
/// How long a killed container's runc may take to notice.
const PATIENCE: Duration = Duration::from_secs(5);

/// The host's side of the demo.
#[derive(Debug)]
pub(super) struct Stage {
    folder: TempDir,
    /// The cgroup that holds all others: this process alone has this name.
    cgroup: String,
    mounts: Vec<PathBuf>,
    host_swaps: bool,
    /// All pods that ever were: a finished Job's pods stay in the list.
    pods: Vec<Pod>,
}

/// A container that runs.
#[derive(Debug)]
pub(super) struct Container {
    id: String,
    /// `runc run` stays until the container's process ends, and removes the container then.
    runc: Child,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Killed,
}

impl Stage {
    /// A folder with a root file system for containers, whose only program is `program`.
    pub(super) fn set_up(program: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("snug-demo-")
            .tempdir()
            .context("cannot make a temporary folder (TMPDIR says where)")?;
        let stage = Self {
            folder,
            cgroup: format!("/snug-demo-{}", std::process::id()),
            mounts: cgroups::mounts()?,
            host_swaps: bundle::swaps(&fs::read_to_string("/proc/swaps").unwrap_or_default()),
            pods: Vec::new(),
        };
        let root = stage.path("root");
        for name in bundle::FOLDERS {
            make_folder(&root.join(name))?;
        }
        for name in ["agent", "bundles", "logs", "runc", "shared"] {
            make_folder(&stage.path(name))?;
        }
        let copy = root.join(bundle::PROGRAM.trim_start_matches('/'));
        fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
        Ok(stage)
    }

    /// A path in the temporary folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file with the names of all pods.
    pub(super) fn pods_file(&self) -> PathBuf {
        self.path("pods.json")
    }

    /// Makes the cgroup that holds all others; [`Stage::clear`] removes it.
    pub(super) fn make_cgroup(&self) -> Result<()> {
        cgroups::make(&self.mounts, &self.cgroup)
    }

    /// Adds a pod to the pods file, or changes what it says of one.
    pub(super) fn announce(&mut self, pod: &Pod) -> Result<()> {
        match self.pods.iter_mut().find(|known| known.name == pod.name) {
            Some(known) => known.clone_from(pod),
            None => self.pods.push(pod.clone()),
        }
        let (path, beside) = (self.pods_file(), self.path("pods.json.new"));
        fs::write(&beside, plan::pod_list(&self.pods).to_string())
            .and_then(|()| fs::rename(&beside, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Starts a pod's container.
    pub(super) fn start(&self, pod: &Pod) -> Result<Container> {
        let id = &pod.container_id;
        let bundle = self.path("bundles").join(id);
        make_folder(&bundle)?;
        let cgroup = pod.container_cgroup(&self.cgroup);
        let places = Places {
            root: &self.path("root"),
            shared: &self.path("shared"),
            cgroup: &cgroup,
            host_swaps: self.host_swaps,
        };
        let config = bundle.join("config.json");
        fs::write(&config, bundle::config(pod.workload, id, &places).to_string())
            .with_context(|| format!("cannot write {}", config.display()))?;
        let log = self.log(id);
        let output = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut runc = self.runc();
        runc.arg("run").arg("--bundle").arg(&bundle).arg(id);
        runc.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Ctrl-C is for the demo, which ends containers in its own way.
        runc.process_group(0);
        let runc = runc.spawn().with_context(|| format!("cannot start `{}`", command::line(&runc)))?;
        Ok(Container { id: id.clone(), runc })
    }

    /// How a container has ended, if it has.
    pub(super) fn end(&self, container: &mut Container) -> Result<Option<End>> {
        let Some(status) = container.runc.try_wait().context("cannot wait for runc")? else {
            return Ok(None);
        };
        match end_of(status) {
            Some(end) => Ok(Some(end)),
            None => {
                let said = fs::read_to_string(self.log(&container.id)).unwrap_or_default();
                bail!("container {} ended with {status}: {}", container.id, said.trim())
            }
        }
    }

    /// Removes the cgroup of a pod that is over, as a kubelet does.
    pub(super) fn remove_pod(&self, pod: &Pod) -> Result<()> {
        cgroups::remove(&self.mounts, &pod.cgroup(&self.cgroup))
    }

    /// Has all workloads rest, or go on.
    pub(super) fn hold(&self, hold: bool) -> Result<()> {
        let path = self.path("shared/hold");
        let done = if hold { fs::write(&path, "") } else { fs::remove_file(&path) };
        done.with_context(|| format!("cannot make or remove {}", path.display()))
    }

    /// What a container last wrote of itself.
    pub(super) fn truth(&self, pod: &Pod) -> Option<Value> {
        let path = self.path("shared").join(format!("{}.json", pod.container_id));
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// How a container was throttled, as the kernel's own file says.
    pub(super) fn throttling(&self, pod: &Pod) -> Option<Throttling> {
        cgroups::throttling(&self.mounts, &pod.container_cgroup(&self.cgroup))
    }

    /// Ends all containers and removes all cgroups. The folder goes with the stage.
    pub(super) fn clear(&self, containers: Vec<Container>) -> Result<()> {
        let mut failures = Vec::new();
        for mut container in containers {
            if matches!(container.runc.try_wait(), Ok(Some(_))) {
                continue;
            }
            let deleted = command::capture(self.runc().args(["delete", "--force", &container.id]));
            failures.extend(deleted.err().map(|error| format!("{error:#}")));
            if !wait(&mut container.runc, PATIENCE) {
                let _ = container.runc.kill();
                let _ = container.runc.wait();
            }
        }
        failures.extend(cgroups::remove(&self.mounts, &self.cgroup).err().map(|error| format!("{error:#}")));
        if !failures.is_empty() {
            bail!("not everything could be cleaned up: {}", failures.join("; "));
        }
        Ok(())
    }

    fn runc(&self) -> std::process::Command {
        let mut runc = command::new("runc");
        runc.arg("--root").arg(self.path("runc"));
        runc
    }

    fn log(&self, id: &str) -> PathBuf {
        self.path("logs").join(format!("{id}.log"))
    }
}

/// `None`: neither of its own will nor killed.
fn end_of(status: ExitStatus) -> Option<End> {
    match status.code() {
        Some(0) => Some(End::Done),
        Some(KILLED) => Some(End::Killed),
        _ => None,
    }
}

/// Waits for a process; whether it ended in time.
pub(super) fn wait(child: &mut Child, at_most: Duration) -> bool {
    let give_up = Instant::now() + at_most;
    loop {
        match child.try_wait() {
            Ok(Some(_)) | Err(_) => return true,
            Ok(None) if Instant::now() >= give_up => return false,
            Ok(None) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use crate::demo::plan::{GROWER, IDLE};

    #[test]
    fn ends_are_told_by_the_exit_code() {
        for (code, end) in [(0, Some(End::Done)), (137, Some(End::Killed)), (1, None), (143, None)] {
            assert_eq!(end_of(ExitStatus::from_raw(code << 8)), end, "{code}");
        }
        // runc itself was killed.
        assert_eq!(end_of(ExitStatus::from_raw(9)), None);
    }

    #[test]
    fn the_pods_file_follows_restarts() {
        let program = std::env::current_exe().unwrap();
        let mut stage = Stage::set_up(&program).unwrap();
        let mut pod = Pod::new(&GROWER);
        stage.announce(&pod).unwrap();
        stage.announce(&Pod::new(&IDLE)).unwrap();
        pod.restart();
        stage.announce(&pod).unwrap();
        let list: Value = serde_json::from_slice(&fs::read(stage.pods_file()).unwrap()).unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), 2);
        assert_eq!(list["items"][0]["status"]["containerStatuses"][0]["restartCount"], 1);
        assert!(stage.path("root/snug-workload").is_file());
        let folder = stage.path("");
        drop(stage);
        assert!(!folder.exists());
    }
}
