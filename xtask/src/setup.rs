//! `cargo xtask setup`: installs what the build and the tests use, and nothing twice.

use std::{collections::BTreeSet, fs, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::{apt, cluster::Binaries, command, manifests, otlp, toolchain, vm, workspace};

/// What a task needs beyond Rust itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Need {
    /// Building the kernel half: a rustc for BPF and bpf-linker.
    Ebpf,
    /// Linting the kernel half.
    Lint,
    /// Building for the other architecture: its C compiler, and Rust's target for it by rustup.
    Cross,
    /// Running real containers: runc and a busybox to run in them.
    Containers,
    /// Measuring: a load of context switches.
    Bench,
    /// prometheus and promtool, unpacked into the cache; no service is installed.
    Prometheus,
    /// helm, kustomize and Kubernetes' schemas, fetched into the cache by pip; nothing is installed.
    Manifests,
    /// A decoder of OTLP, fetched into the cache by pip; nothing is installed.
    Otlp,
    /// A Kubernetes node: built and unpacked into the cache; no service is installed.
    Cluster,
    /// qemu and stock Debian kernels, in the cache.
    Vm,
}

impl Need {
    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn packages(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Ebpf => (toolchain::EBPF_PACKAGES, "to build the kernel half"),
            Self::Lint => (toolchain::LINT_PACKAGES, "to lint the kernel half"),
            Self::Cross => (toolchain::CROSS_PACKAGES, "to build for the other architecture"),
            Self::Containers => (toolchain::CONTAINER_PACKAGES, "to run containers in tests"),
            Self::Bench => (toolchain::BENCH_PACKAGES, "to measure under context switches"),
            Self::Prometheus => (&[], ""),
            Self::Manifests => (toolchain::PYTHON_PACKAGES, "to fetch helm and kustomize"),
            Self::Otlp => (toolchain::PYTHON_PACKAGES, "to fetch a decoder of OTLP"),
            Self::Cluster => (toolchain::CLUSTER_PACKAGES, "to bring a Kubernetes node up"),
            Self::Vm => (toolchain::GUEST_PACKAGES, "as the user space of virtual machines"),
        }
    }
}

/// Install what the build and the tests need; what is there stays as it is.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// What to install for; everything if none is given.
    #[arg(value_enum)]
    needs: Vec<Need>,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let needs = if options.needs.is_empty() { Need::value_variants() } else { &options.needs };
    ensure_all(needs)?;
    println!("setup: everything is there ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

/// Makes sure that everything these needs name is there; silent if it is.
pub(crate) fn ensure_all(needs: &[Need]) -> Result<()> {
    let needs: BTreeSet<Need> = needs.iter().copied().collect();
    install_packages(&needs)?;
    for need in needs {
        match need {
            Need::Ebpf => ensure_linker()?,
            Need::Cross => ensure_cross_target()?,
            Need::Prometheus => ensure_prometheus()?,
            Need::Manifests => manifests::ensure()?,
            Need::Otlp => otlp::ensure()?,
            Need::Cluster => Binaries::cached()?.ensure()?,
            Need::Vm => vm::ensure()?,
            Need::Lint | Need::Containers | Need::Bench => {}
        }
    }
    Ok(())
}

/// Installs the packages of Debian that these needs name and that are missing.
pub(crate) fn install_packages(needs: &BTreeSet<Need>) -> Result<()> {
    let mut wanted = Vec::new();
    for need in needs {
        let (packages, purpose) = need.packages();
        let missing: Vec<&str> =
            apt::missing(packages)?.into_iter().filter(|package| !wanted.contains(package)).collect();
        if !missing.is_empty() {
            println!("setup: installing {} {purpose}", missing.join(" "));
            wanted.extend(missing);
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    apt::install(&wanted)?;
    println!("setup: packages installed ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

fn ensure_linker() -> Result<()> {
    ensure!(
        toolchain::has_prebuilt_core(toolchain::DEBIAN_RUSTC),
        "{} has no core for {}: libstd-rust-web-dev-bpf and rustc-web are of different versions",
        toolchain::DEBIAN_RUSTC,
        toolchain::BPF_TARGET,
    );
    if command::is_executable(&toolchain::linker()?) {
        return Ok(());
    }
    let root = toolchain::linker_root()?;
    let version = toolchain::BPF_LINKER_VERSION;
    println!(
        "setup: building bpf-linker {version} into {} to link the eBPF programs with the LLVM of Debian's rustc \
         (about a minute)",
        root.display(),
    );
    let started = Instant::now();
    let features = format!("llvm-{}", toolchain::LLVM_MAJOR);
    let mut install = command::cargo();
    install.args(["install", "--locked", "--no-default-features", "--features", &features]);
    install.arg("--version").arg(format!("={version}")).arg("--root").arg(&root).arg("bpf-linker");
    install.env("LLVM_PREFIX", toolchain::LLVM_PREFIX).env_remove("CARGO_TARGET_DIR");
    // All its work is LLVM's, a library that is there: the program itself need not be optimised.
    for (name, value) in [("OPT_LEVEL", "0"), ("DEBUG", "0"), ("CODEGEN_UNITS", "16")] {
        install.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    // Outside the workspace, whose settings would link it without shared libraries.
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    command::run(install.current_dir(&root))?;
    println!("setup: bpf-linker built ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

fn ensure_cross_target() -> Result<()> {
    let target = toolchain::target_of(toolchain::OTHER_ARCHITECTURE);
    let printed =
        command::capture(command::new("rustc").args(["--print", "target-libdir", "--target", &target]))?;
    if Path::new(printed.trim()).is_dir() {
        return Ok(());
    }
    println!("setup: adding Rust's target {target} by rustup");
    command::run(command::new("rustup").args(["target", "add", &target]))
        .with_context(|| format!("Rust has no standard library for {target}, and rustup cannot add it"))
}

/// The folder that holds `prometheus` and `promtool`: on the PATH, else in the cache.
pub(crate) fn prometheus_folder() -> Result<Option<std::path::PathBuf>> {
    let complete = |folder: &Path| {
        ["prometheus", "promtool"].iter().all(|program| command::is_executable(&folder.join(program)))
    };
    let installed = command::find("promtool").and_then(|tool| tool.parent().map(Path::to_path_buf));
    let cached = workspace::cache_dir()?.join("prometheus/usr/bin");
    Ok(installed.into_iter().chain([cached]).find(|folder| complete(folder)))
}

fn ensure_prometheus() -> Result<()> {
    if prometheus_folder()?.is_some() {
        return Ok(());
    }
    let folder = workspace::cache_dir()?.join("prometheus");
    println!(
        "setup: unpacking prometheus into {} to test what it scrapes (not installed: no service starts)",
        folder.display(),
    );
    apt::unpack(&[toolchain::PROMETHEUS_PACKAGE], &folder)?;
    prometheus_folder()?.context("the prometheus package brought no prometheus and promtool")?;
    Ok(())
}
