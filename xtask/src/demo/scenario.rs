//! Creates and removes what the demo needs on the host: a temporary folder, cgroups and containers.

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
    bundle::{self, BundlePaths},
    cgroups::{self, Throttling},
    plan::{self, Pod},
};
use crate::command;

/// Exit code of a container whose process was killed by SIGKILL: by the OOM killer, for example.
const KILLED_EXIT_CODE: i32 = 128 + 9;
/// How long runc may take to exit after its container was deleted.
const RUNC_EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The demo's resources on the host. Dropping it removes the temporary folder.
#[derive(Debug)]
pub(super) struct Scenario {
    folder: TempDir,
    /// Path of the parent of all cgroups of the demo. It contains the process id, so runs do not collide.
    cgroup: String,
    mounts: Vec<PathBuf>,
    host_swaps: bool,
    /// All pods, finished ones included: the API server lists completed pods of a Job, too.
    pods: Vec<Pod>,
}

/// The `runc run` process of one container.
#[derive(Debug)]
pub(super) struct RuncProcess {
    id: String,
    /// Runs until the container's process exits, then deletes the container.
    runc: Child,
}

/// How a container exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Completed,
    Killed,
}

impl Scenario {
    /// Creates the temporary folder and a root file system for containers with `program` as the only program.
    pub(super) fn set_up(program: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("snug-demo-")
            .tempdir()
            .context("cannot create a temporary folder (set TMPDIR to a writable folder)")?;
        let scenario = Self {
            folder,
            cgroup: format!("/snug-demo-{}", std::process::id()),
            mounts: cgroups::mounts()?,
            host_swaps: bundle::swaps(&fs::read_to_string("/proc/swaps").unwrap_or_default()),
            pods: Vec::new(),
        };
        let root = scenario.path("root");
        for name in bundle::FOLDERS {
            make_folder(&root.join(name))?;
        }
        for name in ["agent", "bundles", "logs", "runc", "shared"] {
            make_folder(&scenario.path(name))?;
        }
        let copy = root.join(bundle::PROGRAM.trim_start_matches('/'));
        fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
        Ok(scenario)
    }

    /// A path in the temporary folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file with the names of all pods.
    pub(super) fn pods_file(&self) -> PathBuf {
        self.path("pods.json")
    }

    /// Creates the parent of all cgroups; [`Scenario::clear`] removes it.
    pub(super) fn make_cgroup(&self) -> Result<()> {
        cgroups::make(&self.mounts, &self.cgroup)
    }

    /// Adds a pod to the pods file, or updates its entry.
    pub(super) fn announce(&mut self, pod: &Pod) -> Result<()> {
        match self.pods.iter_mut().find(|listed| listed.name == pod.name) {
            Some(listed) => listed.clone_from(pod),
            None => self.pods.push(pod.clone()),
        }
        let (path, temporary) = (self.pods_file(), self.path("pods.json.new"));
        fs::write(&temporary, plan::pod_list(&self.pods).to_string())
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Starts a pod's container.
    pub(super) fn start(&self, pod: &Pod) -> Result<RuncProcess> {
        let id = &pod.container_id;
        let bundle = self.path("bundles").join(id);
        make_folder(&bundle)?;
        let cgroup = pod.container_cgroup(&self.cgroup);
        let paths = BundlePaths {
            root: &self.path("root"),
            shared: &self.path("shared"),
            cgroup: &cgroup,
            host_swaps: self.host_swaps,
        };
        let config = bundle.join("config.json");
        fs::write(&config, bundle::config(pod.workload, id, &paths).to_string())
            .with_context(|| format!("cannot write {}", config.display()))?;
        let log = self.log(id);
        let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut runc = self.runc();
        runc.arg("run").arg("--bundle").arg(&bundle).arg(id);
        runc.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Ctrl-C must reach the demo only, which removes the containers itself.
        runc.process_group(0);
        let runc = runc.spawn().with_context(|| format!("cannot start `{}`", command::line(&runc)))?;
        Ok(RuncProcess { id: id.clone(), runc })
    }

    /// How a container has exited; `None` while it runs.
    ///
    /// # Errors
    ///
    /// Fails if the container exited with another code than 0 or 137.
    pub(super) fn exit(&self, container: &mut RuncProcess) -> Result<Option<Exit>> {
        let Some(status) = container.runc.try_wait().context("cannot wait for runc")? else {
            return Ok(None);
        };
        match exit_from_status(status) {
            Some(end) => Ok(Some(end)),
            None => {
                let log = fs::read_to_string(self.log(&container.id)).unwrap_or_default();
                bail!("container {} ended with {status}: {}", container.id, log.trim())
            }
        }
    }

    /// Removes the cgroup of a finished pod, as a kubelet does.
    pub(super) fn remove_pod(&self, pod: &Pod) -> Result<()> {
        cgroups::remove(&self.mounts, &pod.cgroup(&self.cgroup))
    }

    /// Pauses all workloads, or resumes them.
    pub(super) fn set_paused(&self, paused: bool) -> Result<()> {
        let path = self.path("shared/hold");
        let done = if paused { fs::write(&path, "") } else { fs::remove_file(&path) };
        done.with_context(|| format!("cannot create or remove {}", path.display()))
    }

    /// The usage that a container last wrote to its file.
    pub(super) fn truth(&self, pod: &Pod) -> Option<Value> {
        let path = self.path("shared").join(format!("{}.json", pod.container_id));
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Throttling of a container, from the kernel's `cpu.stat`.
    pub(super) fn throttling(&self, pod: &Pod) -> Option<Throttling> {
        cgroups::throttling(&self.mounts, &pod.container_cgroup(&self.cgroup))
    }

    /// Deletes all containers and removes all cgroups. Dropping the scenario removes the folder.
    pub(super) fn clear(&self, containers: Vec<RuncProcess>) -> Result<()> {
        let mut failures = Vec::new();
        for mut container in containers {
            if matches!(container.runc.try_wait(), Ok(Some(_))) {
                continue;
            }
            let deleted = command::capture(self.runc().args(["delete", "--force", &container.id]));
            failures.extend(deleted.err().map(|error| format!("{error:#}")));
            if !wait(&mut container.runc, RUNC_EXIT_TIMEOUT) {
                let _ = container.runc.kill();
                let _ = container.runc.wait();
            }
        }
        failures.extend(cgroups::remove(&self.mounts, &self.cgroup).err().map(|error| format!("{error:#}")));
        if !failures.is_empty() {
            bail!("cannot remove everything that the demo created: {}", failures.join("; "));
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

/// `None` if the container neither completed nor was killed.
fn exit_from_status(status: ExitStatus) -> Option<Exit> {
    match status.code() {
        Some(0) => Some(Exit::Completed),
        Some(KILLED_EXIT_CODE) => Some(Exit::Killed),
        _ => None,
    }
}

/// Waits for a process. Returns whether it exited in time.
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
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use crate::demo::plan::{GROWER, IDLE};

    #[test]
    fn exits_follow_from_the_exit_code() {
        for (code, end) in [(0, Some(Exit::Completed)), (137, Some(Exit::Killed)), (1, None), (143, None)] {
            assert_eq!(exit_from_status(ExitStatus::from_raw(code << 8)), end, "{code}");
        }
        // runc itself was killed.
        assert_eq!(exit_from_status(ExitStatus::from_raw(9)), None);
    }

    #[test]
    fn the_pods_file_follows_restarts() {
        let program = std::env::current_exe().unwrap();
        let mut scenario = Scenario::set_up(&program).unwrap();
        let mut pod = Pod::new(&GROWER);
        scenario.announce(&pod).unwrap();
        scenario.announce(&Pod::new(&IDLE)).unwrap();
        pod.restart();
        scenario.announce(&pod).unwrap();
        let list: Value = serde_json::from_slice(&fs::read(scenario.pods_file()).unwrap()).unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), 2);
        assert_eq!(list["items"][0]["status"]["containerStatuses"][0]["restartCount"], 1);
        assert!(scenario.path("root/snug-workload").is_file());
        let folder = scenario.path("");
        drop(scenario);
        assert!(!folder.exists());
    }
}
