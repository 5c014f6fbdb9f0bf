//! `cargo xtask doctor`: checks the prerequisites and prints a remedy for each missing one.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Result, bail};
use clap::Parser;

use crate::{
    command, emulator,
    host::{self, CgroupLayout},
    setup,
    toolchain::{self, DEBIAN_RUSTC},
    version::{Version, llvm_mismatch},
};

/// The oldest kernel with the cgroup iterator.
const OLDEST_KERNEL: Version = Version { major: 6, minor: 1, patch: 0 };

/// Check the prerequisites for building and testing. Exits with 1 if a required one is missing.
#[derive(Debug, Parser)]
pub(crate) struct Options {}

/// One prerequisite.
struct Check {
    name: &'static str,
    /// Tasks and features that need it.
    needed_by: &'static str,
    /// Version or path if found, else the problem.
    outcome: Result<String, String>,
    remedy: &'static str,
    required: bool,
}

impl Check {
    fn new(
        name: &'static str,
        needed_by: &'static str,
        outcome: Result<String, String>,
        remedy: &'static str,
    ) -> Self {
        Self { name, needed_by, outcome, remedy, required: true }
    }

    fn optional(self) -> Self {
        Self { required: false, ..self }
    }

    fn is_obstacle(&self) -> bool {
        self.required && self.outcome.is_err()
    }

    fn lines(&self) -> String {
        match &self.outcome {
            Ok(found) => format!("ok       {:<18} {found}", self.name),
            Err(wrong) => {
                let state = if self.required { "MISSING" } else { "without" };
                format!(
                    "{state}  {:<18} {wrong}\n         {:<18} needed by: {}; remedy: {}",
                    self.name, "", self.needed_by, self.remedy
                )
            }
        }
    }
}

/// Runs the task.
pub(crate) fn run(_options: &Options) -> Result<()> {
    let sections = [("Tools", tools()), ("Kernel", kernel())];
    let mut obstacles = 0;
    for (title, checks) in &sections {
        println!("{title}");
        for check in checks {
            println!("{}", check.lines());
            obstacles += usize::from(check.is_obstacle());
        }
    }
    if obstacles > 0 {
        bail!("{obstacles} prerequisites for building and testing are missing");
    }
    println!("All prerequisites for building and testing are present.");
    Ok(())
}

fn tools() -> Vec<Check> {
    let setup_ebpf = "cargo xtask setup ebpf";
    vec![
        Check::new("rust", "everything", version_of("rustc", "--version"), "install Rust with rustup"),
        Check::new(
            "rustfmt",
            "test --only fmt",
            version_of("rustfmt", "--version"),
            "rustup component add rustfmt",
        ),
        Check::new(
            "clippy",
            "test --only clippy",
            version_of("cargo-clippy", "--version"),
            "rustup component add clippy",
        ),
        Check::new("rustc for BPF", "build-ebpf", debian_rustc(), setup_ebpf),
        Check::new("bpf-linker", "build-ebpf", linker(), setup_ebpf),
        Check::new("LLVM versions", "build-ebpf", llvm_pair(&[DEBIAN_RUSTC]), setup_ebpf),
        Check::new("core source", "build-ebpf --toolchain build-std", library_source(), setup_ebpf),
        Check::new(
            "nightly for BPF",
            "build-ebpf --toolchain build-std with rustup (optional if Debian's rustc is installed)",
            nightly(),
            "rustup toolchain install nightly --component rust-src; its LLVM must not be newer than bpf-linker's",
        )
        .optional(),
        Check::new(
            "clippy for BPF",
            "test --only clippy",
            version_of(toolchain::DEBIAN_CARGO_CLIPPY, "--version"),
            "cargo xtask setup lint",
        ),
        Check::new(
            "runc",
            "kernel and system tests, demo",
            version_of("runc", "--version"),
            "cargo xtask setup containers",
        ),
        Check::new("busybox", "kernel, system and VM tests", busybox(), "cargo xtask setup containers"),
        Check::new("prometheus", "test --only system, demo", prometheus(), "cargo xtask setup prometheus"),
        Check::new("qemu", "vm, test --only vm", qemu(), "cargo xtask setup vm"),
        Check::new("kernels for VMs", "vm, test --only vm", kernels(), "cargo xtask setup vm"),
    ]
}

fn kernel() -> Vec<Check> {
    vec![
        Check::new(
            "version",
            "the cgroup iterator (without it the agent reads cgroup files)",
            kernel_version(),
            "Linux 6.1 or newer; the kernel tests can still run in VMs",
        ),
        Check::new(
            "BTF",
            "the eBPF programs, to find fields of kernel structures",
            readable(Path::new("/sys/kernel/btf/vmlinux")),
            "a kernel with CONFIG_DEBUG_INFO_BTF",
        ),
        Check::new(
            "eBPF",
            "test --only kernel, demo",
            bpf_support(),
            "a kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF",
        ),
        Check::new(
            "capabilities",
            "test --only kernel, demo",
            capabilities(),
            "run as root, or in a container with --cap-add for each capability",
        ),
        Check::new("cgroups", "everything the agent measures", cgroups(), "mount cgroup2 on /sys/fs/cgroup"),
        Check::new(
            "PSI",
            "pressure measurements",
            readable(Path::new("/proc/pressure/cpu")),
            "boot with psi=1, on a kernel with CONFIG_PSI",
        )
        .optional(),
    ]
}

/// The first line of the program's version output.
fn version_of(program: &str, argument: &str) -> Result<String, String> {
    let path = if program.contains('/') {
        Some(program.into()).filter(|path: &std::path::PathBuf| command::is_executable(path))
    } else {
        command::find(program)
    };
    let path = path.ok_or_else(|| format!("no {program}"))?;
    let printed = command::capture(command::new(&path).arg(argument)).map_err(with_causes)?;
    Ok(format!("{} ({})", printed.lines().next().unwrap_or("silent"), path.display()))
}

fn debian_rustc() -> Result<String, String> {
    let version = version_of(DEBIAN_RUSTC, "--version")?;
    if toolchain::has_prebuilt_core(DEBIAN_RUSTC) {
        Ok(format!("{version}, with core for {}", toolchain::BPF_TARGET))
    } else {
        Err(format!("{version} has no core for {}", toolchain::BPF_TARGET))
    }
}

fn linker() -> Result<String, String> {
    let linker = toolchain::linker().map_err(with_causes)?;
    version_of(&linker.to_string_lossy(), "--version")
}

fn llvm_pair(rustc: &[&str]) -> Result<String, String> {
    let rustc = toolchain::rustc_llvm(rustc).map_err(with_causes)?;
    let linker = toolchain::linker_llvm().map_err(with_causes)?;
    match llvm_mismatch(rustc, linker) {
        None => Ok(format!("rustc {rustc}, bpf-linker {linker}: compatible")),
        Some(mismatch) => Err(mismatch),
    }
}

fn library_source() -> Result<String, String> {
    if toolchain::has_library_source(&[DEBIAN_RUSTC]) {
        Ok(format!("installed for {DEBIAN_RUSTC}"))
    } else {
        Err(format!("no library source for {DEBIAN_RUSTC}"))
    }
}

fn nightly() -> Result<String, String> {
    let rustc = ["rustup", "run", toolchain::NIGHTLY, "rustc"];
    let pair = llvm_pair(&rustc)?;
    if toolchain::has_library_source(&rustc) {
        Ok(pair)
    } else {
        Err("rustup's nightly has no rust-src".to_owned())
    }
}

fn busybox() -> Result<String, String> {
    let found = version_of(toolchain::BUSYBOX, "--help")?;
    let needed = crate::elf::needed_libraries(Path::new(toolchain::BUSYBOX)).map_err(with_causes)?;
    match needed.as_slice() {
        [] => Ok(format!("static, {found}")),
        _ => Err(format!("{} is not static", toolchain::BUSYBOX)),
    }
}

fn prometheus() -> Result<String, String> {
    match setup::prometheus_folder() {
        Ok(Some(folder)) => version_of(&folder.join("promtool").to_string_lossy(), "--version"),
        Ok(None) => Err("no prometheus and promtool".to_owned()),
        Err(error) => Err(with_causes(error)),
    }
}

fn qemu() -> Result<String, String> {
    let found = emulator::Qemu::find(emulator::Arch::Amd64).map_err(with_causes)?;
    let qemu = found.ok_or_else(|| format!("no {}", toolchain::QEMU_PROGRAM))?;
    let version = qemu.version().map_err(with_causes)?;
    Ok(format!("{version} ({})", qemu.program().display()))
}

fn kernels() -> Result<String, String> {
    let mut found = Vec::new();
    for series in emulator::Series::CHECKED {
        match (emulator::Kernel { series, arch: emulator::Arch::Amd64 }).cached() {
            Ok(Some(kernel)) => found.push(kernel.image.display().to_string()),
            Ok(None) => return Err(format!("no kernel of series {}", series.name())),
            Err(error) => return Err(with_causes(error)),
        }
    }
    Ok(found.join(", "))
}

fn kernel_version() -> Result<String, String> {
    let release = host::kernel_release().ok_or("no /proc/sys/kernel/osrelease")?;
    match host::kernel_version() {
        Some(version) if version >= OLDEST_KERNEL => Ok(release),
        Some(_) => Err(format!("{release} is older than {OLDEST_KERNEL}")),
        None => Err(format!("cannot parse the version {release}")),
    }
}

fn readable(path: &Path) -> Result<String, String> {
    if host::is_readable(path) {
        Ok(path.display().to_string())
    } else {
        Err(format!("no {}", path.display()))
    }
}

fn with_causes(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

/// Functions of the kernel behind what the eBPF programs use, by what it is.
const KERNEL_FUNCTIONS: [(&str, &str); 2] =
    [("ring buffers", "ringbuf_map_alloc"), ("cgroup_skb programs", "__cgroup_bpf_run_filter_skb")];

fn bpf_support() -> Result<String, String> {
    let path = Path::new("/proc/kallsyms");
    let symbols =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    has_functions(&symbols)
}

fn has_functions(symbols: &str) -> Result<String, String> {
    let names: BTreeSet<&str> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    for (what, function) in KERNEL_FUNCTIONS {
        if !names.contains(function) {
            return Err(format!("the kernel does not support {what}"));
        }
    }
    Ok("ring buffers and cgroup_skb programs are supported".to_owned())
}

fn capabilities() -> Result<String, String> {
    let missing = host::missing_capabilities();
    if missing.is_empty() {
        let names: Vec<&str> = host::CAPABILITIES.iter().map(|(name, _)| *name).collect();
        Ok(names.join(", "))
    } else {
        Err(format!("missing: {}", missing.join(", ")))
    }
}

fn cgroups() -> Result<String, String> {
    match host::cgroup_layout() {
        CgroupLayout::Unified { root } => Ok(format!("v2 at {root}")),
        CgroupLayout::Hybrid { v2_root } => {
            Ok(format!("hybrid: controllers on v1, v2 at {v2_root} (full v2 is tested in VMs)"))
        }
        CgroupLayout::Legacy => Err("v1 only: no network measurements, no v2 CPU accounting".to_owned()),
        CgroupLayout::Absent => Err("none mounted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_requirement_is_an_obstacle() {
        let missing = || Check::new("runc", "demo", Err("no runc".into()), "cargo xtask setup containers");
        assert!(missing().is_obstacle());
        assert!(!missing().optional().is_obstacle());
        assert!(!Check::new("runc", "demo", Ok("1.1".into()), "").is_obstacle());
    }

    #[test]
    fn a_missing_prerequisite_is_printed_with_use_and_remedy() {
        let check = Check::new("runc", "demo", Err("no runc".into()), "cargo xtask setup containers");
        let lines = check.lines();
        for part in ["MISSING", "no runc", "needed by: demo", "remedy: cargo xtask setup containers"] {
            assert!(lines.contains(part), "{lines}");
        }
    }

    #[test]
    fn a_kernel_without_ring_buffers_is_found() {
        let skb = "0000000000000000 T __cgroup_bpf_run_filter_skb\n";
        assert!(has_functions(skb).unwrap_err().contains("ring buffers"));
        assert!(has_functions(&format!("{skb}0000000000000000 t ringbuf_map_alloc\n")).is_ok());
    }

    #[test]
    fn a_missing_tool_is_named() {
        assert_eq!(version_of("snug-no-such-tool", "--version"), Err("no snug-no-such-tool".into()));
        assert_eq!(version_of("/nonexistent/tool", "--version"), Err("no /nonexistent/tool".into()));
        assert!(version_of("cargo", "--version").unwrap().starts_with("cargo 1."));
    }
}
