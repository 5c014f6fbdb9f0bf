//! Processes of the bench: workers in containers, and the agent under test.

use std::{
    fs, io,
    io::Read as _,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use snug_agent::{
    cgroupfs::{Measurements, mounts::Hierarchies, reader::CgroupReader},
    values::Measurement,
};

use crate::{
    cgroups::{Container, Tree, pod_uid},
    client::Client,
    interrupt,
};

/// Argument that makes the bench program a worker.
const WORKER: &str = "worker";
/// Argument that makes the bench program enter cgroups and execute another program.
const ENTER: &str = "enter";

/// Option of the agent that has the kernel count the run time of eBPF programs.
pub(crate) const STATISTICS: &str = "--ebpf-stats=on";

/// Time between two bursts of a worker.
const PERIOD: Duration = Duration::from_millis(50);
/// Length of a burst: 0.1 % of [`PERIOD`].
const BURST: Duration = Duration::from_micros(50);

/// Runs as a worker or launcher if the arguments ask for it. Returns if this is the bench itself.
pub(crate) fn run_as_child() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(part) if part == WORKER => work(),
        Some(part) if part == ENTER => {
            for home in arguments.by_ref().take_while(|argument| argument != "--") {
                let file = Path::new(&home).join("cgroup.procs");
                fs::write(&file, "0").with_context(|| format!("cannot enter {}", file.display()))?;
            }
            let program = arguments.next().context("no program given")?;
            let error = Command::new(&program).args(arguments).exec();
            Err(error).with_context(|| format!("cannot run {}", program.display()))
        }
        _ => Ok(()),
    }
}

/// Runs bursts until the bench closes the pipe or exits.
fn work() -> Result<()> {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    loop {
        thread::sleep(PERIOD);
        let begun = Instant::now();
        while begun.elapsed() < BURST {}
    }
}

/// Workers in containers. Dropping this value ends them.
#[derive(Default)]
pub(crate) struct Workers(Vec<Running>);

impl Workers {
    /// Starts a worker in each container of `homes`; a container is given by its cgroup directories.
    pub(crate) fn start<'a>(tree: &Tree, containers: impl Iterator<Item = &'a Container>) -> Result<Self> {
        let mut workers = Self::default();
        let program = std::env::current_exe()?;
        for container in containers {
            interrupt::check()?;
            let mut command = Command::new(&program);
            command.arg(ENTER).args(tree.homes(&container.path)).arg("--").arg(&program).arg(WORKER);
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            workers.0.push(Running(command.spawn().context("cannot start a worker")?));
        }
        Ok(workers)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// A child process. Dropping it kills the process and waits for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The agent under test, in separate cgroups. Dropping it ends the agent.
pub(crate) struct Agent {
    process: Running,
    port: u16,
    path: String,
    reader: CgroupReader,
    _directory: tempfile::TempDir,
}

/// Memory of the agent in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// `VmRSS`.
    pub(crate) resident: u64,
    /// Anonymous part of it: `RssAnon`.
    pub(crate) anonymous: u64,
    /// Memory charged to the agent's cgroup: pages, eBPF maps and kernel objects.
    pub(crate) charged: u64,
}

impl Agent {
    /// Starts `binary` in cgroups of `tree`, with a pods file that names `containers`, and waits until it serves metrics.
    pub(crate) fn start(binary: &Path, tree: &Tree, containers: &[Container]) -> Result<Self> {
        Self::start_with(binary, tree, containers, &[])
    }

    /// As [`Self::start`], with more options.
    pub(crate) fn start_with(
        binary: &Path,
        tree: &Tree,
        containers: &[Container],
        options: &[String],
    ) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let cgroup = format!("agent-{port}");
        tree.make(&cgroup)?;
        let path = tree.path(&cgroup);
        let directory = tempfile::tempdir()?;
        let pods = directory.path().join("pods.json");
        fs::write(&pods, pods_file(containers))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ENTER).args(tree.homes(&path)).arg("--").arg(binary);
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--pods-file").arg(&pods);
        command.arg("--data-dir").arg(directory.path().join("data")).args(["--log", "warn"]).args(options);
        for (name, _) in std::env::vars_os() {
            if ["SNUG_", "OTEL_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        let process = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        let reader = CgroupReader::new(tree.hierarchies())?;
        let mut agent = Self { process, port, path, reader, _directory: directory };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let client = self.client();
        let deadline = Instant::now() + Duration::from_secs(30);
        while client.get("/readyz", &[]).is_err() {
            if let Some(status) = self.process.0.try_wait()? {
                bail!("the agent exited with {status}");
            }
            if Instant::now() > deadline {
                bail!("the agent serves no metrics after 30 s");
            }
            interrupt::sleep(Duration::from_millis(100))?;
        }
        Ok(())
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.port)
    }

    /// CPU time of the process so far, from its cgroup, which is exact.
    pub(crate) fn cpu(&mut self) -> Result<Duration> {
        let reading = self.reader.read(&self.path, Measurements::new(&[Measurement::Cpu]))?;
        let cpu = reading.values.cpu.context("no cgroup hierarchy has the agent's CPU time")?;
        Ok(Duration::from_nanos(cpu.usage_ns))
    }

    pub(crate) fn memory(&mut self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let row = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        let reading = self.reader.read(&self.path, Measurements::new(&[Measurement::Memory]))?;
        Ok(Memory {
            resident: row("VmRSS").context("no VmRSS")?,
            anonymous: row("RssAnon").context("no RssAnon")?,
            charged: reading.values.memory.context("no cgroup hierarchy has the agent's memory")?.usage_bytes,
        })
    }
}

/// Path of the agent under test, from `SNUG_AGENT_BIN`.
pub(crate) fn agent_binary() -> Result<PathBuf> {
    let binary = std::env::var_os("SNUG_AGENT_BIN")
        .map(PathBuf::from)
        .context("SNUG_AGENT_BIN is not set: run `cargo xtask bench`")?;
    binary.canonicalize().with_context(|| format!("cannot find {}", binary.display()))
}

/// A pod list as of the API server, so that series have names as in a cluster.
fn pods_file(containers: &[Container]) -> String {
    let pods = containers.iter().map(|container| container.pod + 1).max().unwrap_or(0);
    let items: Vec<serde_json::Value> = (0..pods)
        .map(|pod| {
            let own: Vec<_> = containers.iter().filter(|container| container.pod == pod).collect();
            let name = |index: usize| format!("container-{index}");
            let image = |index: usize| format!("registry.example/team-{}/service-{pod}-{index}:1.4.2", pod % 9);
            let replica_set = format!("service-{pod}-7d4b9c6f5d");
            json!({
                "metadata": {
                    "name": format!("{replica_set}-x{pod:04}"), "namespace": format!("team-{}", pod % 9),
                    "uid": pod_uid(pod), "labels": {"pod-template-hash": "7d4b9c6f5d"},
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set, "uid": "1", "controller": true
                    }],
                },
                "spec": {"containers": own.iter().enumerate().map(|(index, _)| json!({
                    "name": name(index), "image": image(index),
                })).collect::<Vec<_>>()},
                "status": {"containerStatuses": own.iter().enumerate().map(|(index, container)| json!({
                    "name": name(index), "image": image(index), "imageID": "", "ready": true, "restartCount": 0,
                    "started": true, "containerID": format!("containerd://{}", container.id),
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                })).collect::<Vec<_>>()},
            })
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Description of this host's cgroup hierarchies, which determine the number of passes.
pub(crate) fn layout(hierarchies: &Hierarchies) -> &'static str {
    match (&hierarchies.unified, hierarchies.v1.is_empty()) {
        (Some(_), true) => "cgroup v2",
        (Some(_), false) => "hybrid: controllers on cgroup v1, CPU time and pressure on v2",
        (None, _) => "cgroup v1",
    }
}
