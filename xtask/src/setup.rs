//! `cargo xtask setup`: installs the tools for building and testing.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::{
    apt, browser, command, emulator, kubernetes::Binaries, manifests, mkdocs, otlp, toolchain, workspace,
};

/// A group of tools that a task needs besides Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Need {
    /// rustc for BPF and bpf-linker, to build the eBPF programs.
    Ebpf,
    /// clippy for BPF.
    Lint,
    /// C cross compiler and Rust target (from rustup) for the architecture that is not this host's.
    Cross,
    /// runc and busybox.
    Containers,
    /// tmux.
    Terminal,
    /// stress-ng, for `cargo xtask bench`.
    Bench,
    /// prometheus, promtool and victoria-metrics, unpacked into the cache. No service is installed.
    Prometheus,
    /// helm, kustomize and Kubernetes schemas, downloaded into the cache. Nothing is installed.
    Manifests,
    /// OTLP decoder, downloaded into the cache. Nothing is installed.
    Otlp,
    /// Programs of a Kubernetes node, built and unpacked into the cache. No service is installed.
    Cluster,
    /// qemu and stock Debian kernels, in the cache.
    Vm,
    /// Chromium, and axe in the cache, for tests of pages.
    Browser,
    /// MkDocs, downloaded into the cache. Nothing is installed.
    Pages,
    /// debootstrap and skopeo, for `cargo xtask release --check-packages`.
    Release,
}

impl Need {
    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn packages(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Ebpf => (toolchain::EBPF_PACKAGES, "to build the eBPF programs"),
            Self::Lint => (toolchain::LINT_PACKAGES, "to lint the eBPF programs"),
            Self::Cross => (toolchain::CROSS_PACKAGES, "to build for the other architecture"),
            Self::Containers => (toolchain::CONTAINER_PACKAGES, "to run containers in tests"),
            Self::Terminal => (toolchain::TERMINAL_PACKAGES, "to test programs in a terminal"),
            Self::Bench => (toolchain::BENCH_PACKAGES, "to measure the cost of context switches"),
            Self::Prometheus => (&[], ""),
            Self::Manifests => (toolchain::PYTHON_PACKAGES, "to download helm and kustomize"),
            Self::Otlp => (toolchain::PYTHON_PACKAGES, "to download an OTLP decoder"),
            Self::Cluster => (toolchain::CLUSTER_PACKAGES, "to run a Kubernetes node"),
            Self::Vm => (toolchain::GUEST_PACKAGES, "for virtual machines"),
            Self::Browser => (toolchain::BROWSER_PACKAGES, "to test pages"),
            Self::Pages => (toolchain::PYTHON_PACKAGES, "to download MkDocs"),
            Self::Release => (toolchain::RELEASE_PACKAGES, "to check a release"),
        }
    }
}

/// Install the tools for building and testing. Existing tools are kept.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Groups of tools to install [default: all].
    #[arg(value_enum, value_name = "GROUP")]
    needs: Vec<Need>,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let needs = if options.needs.is_empty() { Need::value_variants() } else { &options.needs };
    ensure_all(needs)?;
    println!("setup: all tools are installed ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

/// Installs the missing tools of these groups. Prints nothing if none is missing.
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
            Need::Vm => emulator::ensure()?,
            Need::Browser => browser::ensure()?,
            Need::Pages => mkdocs::ensure()?,
            Need::Lint | Need::Containers | Need::Terminal | Need::Bench | Need::Release => {}
        }
    }
    Ok(())
}

/// Installs the missing Debian packages of these groups.
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
        "{} has no core for {}: libstd-rust-web-dev-bpf and rustc-web must have the same version",
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
    // bpf-linker spends its time in LLVM, a prebuilt library: optimising the program itself gains nothing.
    for (name, value) in [("OPT_LEVEL", "0"), ("DEBUG", "0"), ("CODEGEN_UNITS", "16")] {
        install.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    // Build outside of the workspace, whose cargo configuration links statically.
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    command::run(install.current_dir(&root))?;
    println!("setup: bpf-linker built ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

/// Path of a cargo subcommand in the cache, which is built on first use.
pub(crate) fn ensure_cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let root = workspace::cache_dir()?.join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if !command::is_executable(&program) {
        println!("setup: building {name} {version} into {} (one to two minutes)", root.display());
        let started = Instant::now();
        let mut install = command::cargo();
        install
            .args(["install", "--locked", "--version", &format!("={version}"), "--root"])
            .arg(&root)
            .arg(name);
        // It runs for seconds, so optimising it gains nothing.
        for (name, value) in [("OPT_LEVEL", "0"), ("DEBUG", "0"), ("LTO", "off"), ("CODEGEN_UNITS", "16")] {
            install.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
        }
        // Build outside of the workspace, whose cargo configuration links statically.
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        command::run(install.env_remove("CARGO_TARGET_DIR").current_dir(&root))?;
        println!("setup: {name} built ({:.1} s)", started.elapsed().as_secs_f64());
    }
    Ok(program)
}

fn ensure_cross_target() -> Result<()> {
    let target = toolchain::target_of(toolchain::OTHER_ARCHITECTURE);
    let printed =
        command::capture(command::new("rustc").args(["--print", "target-libdir", "--target", &target]))?;
    if Path::new(printed.trim()).is_dir() {
        return Ok(());
    }
    println!("setup: adding the Rust target {target} with rustup");
    command::run(command::new("rustup").args(["target", "add", &target]))
        .with_context(|| format!("no Rust standard library for {target}, and rustup cannot add it"))
}

/// Folder of `prometheus` and `promtool`: from the PATH, else in the cache.
pub(crate) fn prometheus_folder() -> Result<Option<PathBuf>> {
    folder_of(&["promtool", "prometheus"], toolchain::PROMETHEUS_PACKAGE)
}

/// Folder of `victoria-metrics`: from the PATH, else in the cache.
pub(crate) fn victoria_metrics_folder() -> Result<Option<PathBuf>> {
    folder_of(&["victoria-metrics"], toolchain::VICTORIA_METRICS_PACKAGE)
}

fn folder_of(programs: &[&str], package: &str) -> Result<Option<PathBuf>> {
    let complete =
        |folder: &Path| programs.iter().all(|program| command::is_executable(&folder.join(program)));
    let first = programs.first().and_then(|program| command::find(program));
    let installed = first.and_then(|tool| tool.parent().map(Path::to_path_buf));
    let cached = workspace::cache_dir()?.join(package).join("usr/bin");
    Ok(installed.into_iter().chain([cached]).find(|folder| complete(folder)))
}

fn ensure_prometheus() -> Result<()> {
    type Find = fn() -> Result<Option<PathBuf>>;
    let packages: [(&str, Find); 2] = [
        (toolchain::PROMETHEUS_PACKAGE, prometheus_folder),
        (toolchain::VICTORIA_METRICS_PACKAGE, victoria_metrics_folder),
    ];
    for (package, find) in packages {
        if find()?.is_some() {
            continue;
        }
        let folder = workspace::cache_dir()?.join(package);
        println!(
            "setup: unpacking {package} into {} for tests of metrics (not installed: no service starts)",
            folder.display(),
        );
        apt::unpack(&[package], &folder)?;
        find()?.with_context(|| format!("the package {package} lacks its programs"))?;
    }
    Ok(())
}
