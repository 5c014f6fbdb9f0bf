//! `cargo xtask build`: the agent with its kernel half, and the command-line tool, as static programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::{build_ebpf, command, elf, toolchain, workspace};

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
    let object = build_ebpf::build_default()?;
    let mut cargo = command::cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "snug-agent", "--package", "snug"]);
    command::run(make_static(&mut cargo).env(OBJECT_VARIABLE, object))?;
    let folder = workspace::target_dir().join(toolchain::host_target()).join("release");
    let programs = Programs { agent: folder.join("snug-agent"), cli: folder.join("snug") };
    for program in [&programs.agent, &programs.cli] {
        ensure_static(program)?;
    }
    Ok(programs)
}

/// Builds a test target of `snug-tests` as a static program, and tells where it is.
pub(crate) fn build_test(name: &str, object: &Path) -> Result<PathBuf> {
    let mut cargo = command::cargo();
    cargo.args(["test", "--no-run", "--quiet", "--package", "snug-tests", "--test", name]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    make_static(&mut cargo).env(OBJECT_VARIABLE, object);
    // The program goes into virtual machines: names of functions are enough for a backtrace.
    cargo.env("CARGO_PROFILE_TEST_STRIP", "debuginfo");
    // Emulated processors are slow.
    cargo.env("CARGO_PROFILE_TEST_OPT_LEVEL", "1");
    cargo.stderr(std::process::Stdio::inherit());
    let printed = command::capture(&mut cargo)?;
    let program = executable_of(&printed, name)
        .with_context(|| format!("`{}` reported no program", command::line(&cargo)))?;
    ensure_static(&program)?;
    Ok(program)
}

/// Links the C library in. A named target keeps the flag from build scripts and macros, which must be dynamic.
fn make_static(cargo: &mut Command) -> &mut Command {
    let target = toolchain::host_target();
    let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env(variable, "-C target-feature=+crt-static").args(["--target", &target])
}

fn ensure_static(program: &Path) -> Result<()> {
    let needed = elf::needed_libraries(program)?;
    ensure!(needed.is_empty(), "{} should be static, and needs {}", program.display(), needed.join(", "));
    Ok(())
}

/// The program of a test target in cargo's messages.
fn executable_of(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let target = message.get("target")?;
        let is_test = target.get("kind")?.as_array()?.iter().any(|kind| kind == "test");
        let found = is_test && target.get("name")? == name;
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
        assert_eq!(executable_of(messages, "kernel"), Some(PathBuf::from("/t/kernel-2")));
        assert_eq!(executable_of(messages, "cluster"), None);
    }

    #[test]
    fn the_flag_is_the_target_s_alone() {
        let mut cargo = Command::new("cargo");
        let line = command::line(make_static(cargo.arg("build")));
        let target = toolchain::host_target();
        assert!(line.ends_with(&format!("cargo build --target {target}")), "{line}");
        assert!(line.contains("_UNKNOWN_LINUX_GNU_RUSTFLAGS='-C target-feature=+crt-static'"), "{line}");
    }
}
