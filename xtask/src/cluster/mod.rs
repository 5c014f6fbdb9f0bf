//! `cargo xtask cluster`: runs a Kubernetes node in separate namespaces on this machine, and tests Snug on it.

mod node;
mod pki;
mod teardown;

use std::{path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};

use self::node::Node;
use crate::{
    build::{self, Built, Kind},
    build_ebpf, command,
    files::File,
    host,
    image::{self, Contents},
    kubernetes::Binaries,
    libtest::{self, Groups},
    manifests,
    setup::{self, Need},
    toolchain, workspace,
};

/// Environment variable with the folder of the cluster's files, for tests.
const CLUSTER_VARIABLE: &str = "SNUG_TEST_CLUSTER";
/// Environment variables with the paths of the `snug` command and of the cluster administrator's kubeconfig.
const CLI_VARIABLE: &str = "SNUG_CLI_BIN";
const KUBECONFIG_VARIABLE: &str = "SNUG_TEST_KUBECONFIG";
/// Tests with pods of their own that leave the agent and the API server alone. Most of their time they wait for the kubelet. They need
/// neither the node's free CPUs, as rollouts do, nor that no other pod starts or ends.
const GROUPS: Groups = Groups {
    together: &[
        "names::a_rollout",
        "names::every_kind",
        "terminations::a_container",
        "terminations::a_killed",
        "terminations::repeated",
    ],
    threads: 3,
};
/// Images of test pods, and of their sandboxes.
const BUSYBOX_IMAGE: &str = "snug.example/busybox:1";
const PAUSE_IMAGE: &str = "snug.example/pause:1";

/// Run a Kubernetes node on this machine, deploy Snug on it, and test it. Needs root.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Action to run.
    #[arg(value_enum, default_value = "test")]
    action: Action,
    /// Run only tests whose names contain this text.
    #[arg(long)]
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Start the node, run the tests, stop the node.
    Test,
    /// Start the node with Snug's image loaded, and keep it running.
    Up,
    /// Stop the node, and remove its files and cgroups.
    Down,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.action == Action::Down {
        return teardown::down(&folder());
    }
    setup::ensure_all(&[Need::Ebpf, Need::Manifests, Need::Cluster, Need::Prometheus])?;
    if options.action == Action::Up {
        let node = up(&build_all()?)?;
        println!("cluster: the node is up; kubectl: {}", node.kubectl_script().display());
        println!("cluster: to install Snug, run `{} apply -k deploy/base`", node.kubectl_script().display());
        println!("cluster: to stop the node, run `cargo xtask cluster down`");
        node.keep_running();
        return Ok(());
    }
    test(&build_all()?, options.filter.as_deref())
}

fn build_all() -> Result<Built> {
    build::build_all(&build_ebpf::build_default()?)
}

/// Starts a node, runs the tests of `tests/tests/cluster` on it, and stops the node.
pub(crate) fn test(built: &Built, filter: Option<&str>) -> Result<()> {
    let tests = built.find(Kind::Test, "cluster")?;
    let node = up(built)?;
    let prometheus =
        setup::prometheus_folder()?.context("no prometheus: run `cargo xtask setup prometheus`")?;
    let path = node.path_with(&prometheus);
    let (cli, manifests) = (built.programs()?.cli, manifests::folder()?);
    let run = |arguments: &[&str]| {
        let mut run = node.inside(&tests);
        run.args(arguments).env(CLUSTER_VARIABLE, folder()).env(manifests::VARIABLE, &manifests);
        run.env(CLI_VARIABLE, &cli).env(KUBECONFIG_VARIABLE, node.kubeconfig()).env("PATH", &path);
        libtest::run(&mut run)
    };
    let tested = match filter {
        Some(filter) => run(&["--test-threads=1", filter]).and_then(|run| run.outcome),
        None => GROUPS.run("cluster", run),
    };
    if tested.is_err() {
        node.print_logs();
    }
    drop(node);
    tested
}

fn folder() -> PathBuf {
    workspace::target_dir().join("cluster")
}

fn up(built: &Built) -> Result<Node> {
    ensure!(
        host::is_root(),
        "run this as root: a Kubernetes node creates namespaces, cgroups and containers"
    );
    let folder = folder();
    teardown::down(&folder)?;
    teardown::ensure_no_pods()?;
    let started = Instant::now();
    let images = images(&folder, built)?;
    let pki_maker = built.find(Kind::Bin, "snug-test-pki")?;
    let node = Node::up(&folder, &Binaries::cached()?, &pki_maker, PAUSE_IMAGE, &images)?;
    println!(
        "cluster: Kubernetes {} is up ({:.1} s)",
        toolchain::KUBERNETES_VERSION,
        started.elapsed().as_secs_f64()
    );
    Ok(node)
}

/// Archives of the images to load: Snug's, and those of test pods.
fn images(folder: &std::path::Path, built: &Built) -> Result<Vec<PathBuf>> {
    let packed = image::pack(image::REFERENCE, image::Arch::host(), &built.programs()?)?;
    let images = folder.join("images");
    std::fs::create_dir_all(&images).with_context(|| format!("cannot create {}", images.display()))?;
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let busybox = std::path::Path::new(toolchain::BUSYBOX);
    let applets = command::capture(Command::new(busybox).arg("--list"))?;
    let mut files = vec![File::program("bin/busybox", read(busybox)?)];
    let names = applets.lines().filter(|name| *name != "busybox");
    files.extend(names.map(|name| File::link(&format!("bin/{name}"), "busybox")));
    let workload = built.find(Kind::Bin, "snug-workload")?;
    files.push(File::program("bin/snug-workload", read(&workload)?));
    files.extend(["tmp/.keep", "etc/passwd"].map(|path| File::text(path, Vec::new())));
    let pause = built.find(Kind::Bin, "pause")?;
    let pause = vec![File::program("pause", read(&pause)?)];
    let mut archives = vec![packed.archive];
    for (reference, files, entrypoint) in
        [(BUSYBOX_IMAGE, files, vec![]), (PAUSE_IMAGE, pause, vec!["/pause".to_owned()])]
    {
        let name = reference.rsplit('/').next().unwrap_or(reference).replace(':', "-");
        let archive = images.join(format!("{name}.tar"));
        let arch = image::Arch::host().oci_name();
        let labels = Vec::new();
        Contents { reference: reference.to_owned(), arch, files, entrypoint, labels }.write(&archive)?;
        archives.push(archive);
    }
    Ok(archives)
}
