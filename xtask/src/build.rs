//! `cargo xtask build`: the agent with its kernel half, and the command-line tool, as static programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::{
    build_ebpf, command, elf,
    setup::{self, Need},
    toolchain, workspace,
};

/// The variable by which the agent's build script learns what to embed.
pub(crate) const OBJECT_VARIABLE: &str = "SNUG_EBPF_OBJECT";

/// Build agent and command-line tool in release, static, with the kernel half embedded.
#[derive(Debug, Parser)]
pub(crate) struct Options {}

/// What was built.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// `snug-agent`
    pub(crate) agent: PathBuf,
    /// `snug`
    pub(crate) cli: PathBuf,
}

/// Runs the task.
pub(crate) fn run(_options: &Options) -> Result<()> {
    let programs = build()?;
    for program in [&programs.agent, &programs.cli] {
        println!("build: {} ({} KiB)", program.display(), program.metadata()?.len() / 1024);
    }
    Ok(())
}

/// Builds everything and tells where it is.
pub(crate) fn build() -> Result<Programs> {
    build_for(std::env::consts::ARCH)
}

/// As [`build`], for another architecture too.
pub(crate) fn build_for(arch: &str) -> Result<Programs> {
    let object = if arch == std::env::consts::ARCH {
        build_ebpf::build_default()?
    } else {
        setup::ensure_all(&[Need::Cross])?;
        let object = workspace::target_dir().join(format!("snug-ebpf-{arch}.o"));
        build_ebpf::build(None, arch, &object)?;
        object
    };
    let target = toolchain::target_of(arch);
    let mut cargo = static_cargo_for(&target, "build");
    cargo.args(["--quiet", "--release", "--package", "snug-agent", "--package", "snug"]);
    command::run(cargo.env(OBJECT_VARIABLE, &object))?;
    let folder = workspace::target_dir().join(target).join("release");
    let programs = Programs { agent: folder.join("snug-agent"), cli: folder.join("snug") };
    for program in [&programs.agent, &programs.cli] {
        ensure_static(program)?;
    }
    Ok(programs)
}

/// Builds a program of the package `snug-workload`, which need no kernel half, and tells where it is.
pub(crate) fn build_workload(name: &str) -> Result<PathBuf> {
    let target = toolchain::host_target();
    let mut cargo = static_cargo_for(&target, "build");
    cargo.args(["--quiet", "--release", "--package", "snug-workload", "--bin", name]);
    command::run(&mut cargo)?;
    let program = workspace::target_dir().join(target).join("release").join(name);
    ensure_static(&program)?;
    Ok(program)
}

/// Builds a test target of `snug-tests` as a static program, and tells where it is.
pub(crate) fn build_test(name: &str, object: &Path) -> Result<PathBuf> {
    build_target("test", name, &STATIC_PACKAGES, object)
}

/// Builds a bench of `snug-tests` as a static program, optimised, and tells where it is.
pub(crate) fn build_bench(name: &str, object: &Path) -> Result<PathBuf> {
    build_target("bench", name, &["--package", "snug-tests"], object)
}

/// The packages whose tests are static programs, which are all but the tasks. Which features the dependencies have depends
/// on the packages chosen: with the same choice, one build of them serves all tests.
pub(crate) const STATIC_PACKAGES: [&str; 3] = ["--workspace", "--exclude", "xtask"];

/// Builds a target of this kind, which is also the name of cargo's subcommand and flag for it.
fn build_target(kind: &str, name: &str, packages: &[&str], object: &Path) -> Result<PathBuf> {
    let mut cargo = static_cargo(kind, object);
    cargo.args(["--no-run", "--quiet", &format!("--{kind}"), name]).args(packages);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    cargo.stderr(std::process::Stdio::inherit());
    let printed = command::capture(&mut cargo)?;
    let program = executable_of(&printed, kind, name)
        .with_context(|| format!("`{}` reported no program", command::line(&cargo)))?;
    ensure_static(&program)?;
    Ok(program)
}

/// A cargo command that links the C library in and embeds the kernel half. All tests are built like this, so that the
/// programs run in virtual machines too.
///
/// A named target keeps the flag from build scripts and macros, which must be dynamic.
pub(crate) fn static_cargo(subcommand: &str, object: &Path) -> Command {
    let mut cargo = static_cargo_for(&toolchain::host_target(), subcommand);
    cargo.env(OBJECT_VARIABLE, object);
    cargo
}

/// As [`static_cargo`], for any target that there is a compiler for, and without the kernel half.
pub(crate) fn static_cargo_for(target: &str, subcommand: &str) -> Command {
    let of_target = |what: &str| format!("CARGO_TARGET_{}_{what}", target.to_uppercase().replace('-', "_"));
    let mut cargo = command::cargo();
    cargo.args([subcommand, "--target", target]);
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env(of_target("RUSTFLAGS"), "-C target-feature=+crt-static");
    if target != toolchain::host_target() {
        // Debian's cross compilers are called by the triple without a vendor.
        let gcc = format!("{}-gcc", target.replace("-unknown", ""));
        cargo.env(of_target("LINKER"), &gcc).env(format!("CC_{}", target.replace('-', "_")), &gcc);
    }
    // What goes into virtual machines should be small; names of functions are enough for a backtrace.
    cargo.env("CARGO_PROFILE_TEST_STRIP", "debuginfo");
    // Emulated processors are slow.
    cargo.env("CARGO_PROFILE_TEST_OPT_LEVEL", "1");
    cargo
}

fn ensure_static(program: &Path) -> Result<()> {
    let needed = elf::needed_libraries(program)?;
    ensure!(needed.is_empty(), "{} should be static, and needs {}", program.display(), needed.join(", "));
    Ok(())
}

/// The program of a target of this kind in cargo's messages.
fn executable_of(messages: &str, kind: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let target = message.get("target")?;
        let of_kind = target.get("kind")?.as_array()?.iter().any(|own| own == kind);
        let found = of_kind && target.get("name")? == name;
        found.then(|| message.get("executable")?.as_str().map(PathBuf::from)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_test_target_s_own() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"kernel"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"kernel"},"executable":"/t/kernel-bin"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"system"},"executable":"/t/system-1"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel"},"executable":"/t/kernel-2"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable_of(messages, "test", "kernel"), Some(PathBuf::from("/t/kernel-2")));
        assert_eq!(executable_of(messages, "test", "cluster"), None);
    }

    #[test]
    fn the_flag_is_the_target_s_alone() {
        let line = command::line(&static_cargo("build", Path::new("/o")));
        let target = toolchain::host_target();
        assert!(line.ends_with(&format!("cargo build --target {target}")), "{line}");
        assert!(line.contains("_UNKNOWN_LINUX_GNU_RUSTFLAGS='-C target-feature=+crt-static'"), "{line}");
    }
}
