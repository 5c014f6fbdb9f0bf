//! Containers of runc, for tests that need more of a container than its cgroup.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cgroup::{Cgroup, kill_and_remove},
    wait::until,
    worker,
};

/// Environment variable with the path of a root file system that has busybox; `cargo xtask test` sets it.
pub const ROOT_FILE_SYSTEM: &str = "SNUG_TEST_ROOTFS";

/// Time limit for calls of runc, also on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(60);

/// runc with its own state directory, and the parent cgroup of its containers. Kills and removes all containers when dropped.
#[derive(Debug)]
pub struct Runc {
    folder: TempDir,
    root: PathBuf,
    top: String,
}

/// The PID namespace of a container.
#[derive(Clone, Copy, Debug)]
pub enum PidNamespace {
    Own,
    /// The host's (`hostPID`).
    Host,
    /// That of another process (`shareProcessNamespace`).
    Of(u32),
}

impl Runc {
    /// Prepares runc for containers below `top`.
    ///
    /// # Errors
    /// When there is no runc or no root file system: the reason.
    pub fn find(top: &Cgroup) -> Result<Self, String> {
        let root = env::var_os(ROOT_FILE_SYSTEM)
            .map(PathBuf::from)
            .filter(|root| root.join("bin/sh").exists())
            .ok_or(format!("no root file system in ${ROOT_FILE_SYSTEM}, which `cargo xtask test` sets"))?;
        let version = Command::new("runc").arg("--version").output();
        version.map_err(|error| format!("runc does not run ({error}): `cargo xtask setup containers`"))?;
        let folder = TempDir::new().map_err(|error| format!("no temporary folder: {error}"))?;
        Ok(Self { folder, root, top: top.path().to_owned() })
    }

    /// Starts a container with this id in the cgroup `<top>/<parent>/<id>`; returns when its program runs or has ended.
    ///
    /// # Panics
    /// When runc refuses.
    pub fn start(&self, parent: &str, id: &str, namespace: PidNamespace, args: &[&str]) -> Container<'_> {
        let bundle = self.folder.path().join(format!("bundle-{id}"));
        fs::create_dir_all(&bundle).unwrap();
        let path = format!("{}/{parent}/{id}", self.top);
        let config = self.config(&path, namespace, args);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let pid_file = bundle.join("pid");
        let mut runc = self.runc();
        runc.args(["run", "--bundle"]).arg(&bundle).arg("--pid-file").arg(&pid_file).arg(id);
        // The output of runc is part of the test's output.
        let mut child = runc.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let input = child.stdin.take();
        let mut container = Container { runc: self, id: id.to_owned(), path, pid: 0, child, input };
        container.pid = until("runc has started the container", PATIENCE, || {
            assert!(
                !matches!(container.child.try_wait(), Ok(Some(status)) if status.code() == Some(1)),
                "runc failed"
            );
            fs::read_to_string(&pid_file).ok()?.parse().ok()
        });
        // runc writes the pid file before its process executes the program.
        until("the container's program runs", PATIENCE, || {
            let comm = fs::read_to_string(format!("/proc/{}/comm", container.pid)).unwrap_or_default();
            (!comm.starts_with("runc:")).then_some(())
        });
        container
    }

    fn runc(&self) -> Command {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(self.folder.path().join("state"));
        runc
    }

    /// `config.json` of the OCI runtime specification.
    fn config(&self, cgroup: &str, namespace: PidNamespace, args: &[&str]) -> Value {
        let mut namespaces: Vec<Value> =
            ["ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind})).into();
        match namespace {
            PidNamespace::Own => namespaces.push(json!({"type": "pid"})),
            PidNamespace::Of(pid) => {
                namespaces.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}));
            }
            PidNamespace::Host => {}
        }
        let own = env::current_exe().unwrap();
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "noNewPrivileges": true,
                "env": ["PATH=/bin", worker::variable()],
            },
            "root": {"path": self.root, "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/tmp", "type": "bind", "source": own.parent(), "options": ["bind", "ro"]},
            ],
            "linux": {"cgroupsPath": cgroup, "namespaces": namespaces},
        })
    }

    /// The command of a worker in a container, which reads jobs from the container's input.
    pub fn worker() -> Vec<String> {
        let own = env::current_exe().unwrap();
        let inside = Path::new("/tmp").join(own.file_name().unwrap());
        worker::command_line(&inside)
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        remove_everywhere(&self.top);
    }
}

/// Kills all processes in a cgroup and removes it from every hierarchy: runc also creates it in hierarchies without
/// controllers.
fn remove_everywhere(path: &str) {
    let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo());
    let mounts = mounts.into_iter().flatten().filter(|mount| mount.fs_type.starts_with("cgroup"));
    for mount in mounts {
        let directory = mount.mount_point.join(path.trim_start_matches('/'));
        for _ in 0..100 {
            if !directory.exists() {
                break;
            }
            kill_and_remove(&directory);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A running container. Killed and deleted when dropped.
#[derive(Debug)]
pub struct Container<'a> {
    runc: &'a Runc,
    id: String,
    /// Its cgroup's path below the hierarchies' roots.
    pub path: String,
    /// Of its init process, in the host's namespace.
    pub pid: u32,
    child: Child,
    input: Option<ChildStdin>,
}

impl Container<'_> {
    /// Runs another program in it and waits for its exit.
    ///
    /// # Panics
    /// When runc cannot be started.
    pub fn exec(&self, args: &[&str]) -> ExitStatus {
        let mut runc = self.runc.runc();
        runc.args(["exec", &self.id]).args(args).stdin(Stdio::null()).status().unwrap()
    }

    /// Starts another program in it, without waiting.
    ///
    /// # Panics
    /// When runc cannot start it.
    pub fn exec_detached(&self, args: &[&str]) {
        let mut runc = self.runc.runc();
        let status = runc.args(["exec", "--detach", &self.id]).args(args).stdin(Stdio::null()).status();
        assert!(status.unwrap().success(), "{args:?}");
    }

    /// Writes these lines to the input of its init process, and closes it.
    ///
    /// # Panics
    /// When it takes no input.
    pub fn feed(&mut self, lines: &str) {
        std::io::Write::write_all(&mut self.input.take().unwrap(), lines.as_bytes()).unwrap();
    }

    /// Waits for its exit, after which runc deletes it. Returns the exit code of the init process, from runc. Kills other
    /// processes in it, because runc does not wait long for them.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn wait(&mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        remove_everywhere(&self.path);
        code
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let mut delete = self.runc.runc();
            let _ = delete.args(["delete", "--force", &self.id]).status();
            let _ = self.child.wait();
        }
    }
}
