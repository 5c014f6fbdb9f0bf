//! `cargo xtask cluster`: a real Kubernetes node on this machine, in namespaces of its own, with Snug deployed on it.

mod binaries;
mod node;
mod pki;
mod teardown;

use std::{path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};

pub(crate) use self::binaries::Binaries;
use self::node::Node;
use crate::{
    build::{self, Built, Kind},
    build_ebpf, command, host,
    image::{self, Contents, File},
    manifests,
    setup::{self, Need},
    toolchain, workspace,
};

/// The variable by which tests learn where the cluster's files are.
const CLUSTER_VARIABLE: &str = "SNUG_TEST_CLUSTER";
/// The variables that name the `snug` command, and the kubeconfig of the cluster's administrator.
const CLI_VARIABLE: &str = "SNUG_CLI_BIN";
const KUBECONFIG_VARIABLE: &str = "SNUG_TEST_KUBECONFIG";
/// What pods of tests run; the sandbox's image beside it.
const BUSYBOX_IMAGE: &str = "snug.example/busybox:1";
const PAUSE_IMAGE: &str = "snug.example/pause:1";

/// Bring a real Kubernetes node up on this machine, deploy Snug on it as a user would, and test it there. Needs root
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// What to do.
    #[arg(value_enum, default_value = "test")]
    action: Action,
    /// Run only the tests with this in their names.
    #[arg(long)]
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Bring it up, test, take it down.
    Test,
    /// Bring it up, with Snug's image loaded, and leave it.
    Up,
    /// Take down what was left.
    Down,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.action == Action::Down {
        return teardown::down(&folder());
    }
    setup::ensure_all(&[Need::Ebpf, Need::Manifests, Need::Cluster])?;
    if options.action == Action::Up {
        let node = up(&build_all()?)?;
        println!("cluster: up; use {}", node.kubectl_script().display());
        println!("cluster: `{} apply -k deploy/base` installs Snug", node.kubectl_script().display());
        println!("cluster: `cargo xtask cluster down` ends it");
        node.leave();
        return Ok(());
    }
    test(&build_all()?, options.filter.as_deref())
}

fn build_all() -> Result<Built> {
    build::build_all(&build_ebpf::build_default()?)
}

/// Brings a node up, runs the tests of `tests/tests/cluster` on it, takes it down.
pub(crate) fn test(built: &Built, filter: Option<&str>) -> Result<()> {
    let tests = built.find(Kind::Test, "cluster")?;
    let node = up(built)?;
    let mut run = node.inside(&tests);
    run.arg("--test-threads=1").args(filter);
    run.env(CLUSTER_VARIABLE, folder());
    run.env(CLI_VARIABLE, built.programs()?.cli).env(KUBECONFIG_VARIABLE, node.kubeconfig());
    run.env(manifests::VARIABLE, manifests::folder()?);
    let tested = command::run(&mut run);
    if tested.is_err() {
        node.say_what_was_logged();
    }
    drop(node);
    tested
}

fn folder() -> PathBuf {
    workspace::target_dir().join("cluster")
}

fn up(built: &Built) -> Result<Node> {
    ensure!(host::is_root(), "a node needs root: namespaces, cgroups and containers are made");
    let folder = folder();
    teardown::down(&folder)?;
    teardown::ensure_no_pods()?;
    let started = Instant::now();
    let images = images(&folder, built)?;
    let node = Node::up(&folder, &Binaries::cached()?, PAUSE_IMAGE, &images)?;
    println!(
        "cluster: Kubernetes {} is up ({:.1} s)",
        toolchain::KUBERNETES_VERSION,
        started.elapsed().as_secs_f64()
    );
    Ok(node)
}

/// The images that the node has: Snug's own, and those that pods of tests run.
fn images(folder: &std::path::Path, built: &Built) -> Result<Vec<PathBuf>> {
    let made = image::pack(image::REFERENCE, image::Arch::host(), &built.programs()?)?;
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
    let mut archives = vec![made.archive];
    for (reference, files, entrypoint) in
        [(BUSYBOX_IMAGE, files, vec![]), (PAUSE_IMAGE, pause, vec!["/pause".to_owned()])]
    {
        let name = reference.rsplit('/').next().unwrap_or(reference).replace(':', "-");
        let archive = images.join(format!("{name}.tar"));
        let arch = image::Arch::host().of_oci();
        let labels = Vec::new();
        Contents { reference: reference.to_owned(), arch, files, entrypoint, labels }.write(&archive)?;
        archives.push(archive);
    }
    Ok(archives)
}
