//! `cargo xtask build`: builds static executables of the agent, with its eBPF programs, and of the command-line tool.

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

/// Environment variable that gives the agent's build script the path of the eBPF object to embed.
pub(crate) const OBJECT_VARIABLE: &str = "SNUG_EBPF_OBJECT";

/// Build release executables of the agent and the command-line tool: static, with the eBPF programs embedded.
#[derive(Debug, Parser)]
pub(crate) struct Options {}

/// The executables of Snug.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// `snug-agent`
    pub(crate) agent: PathBuf,
    /// `snug`
    pub(crate) cli: PathBuf,
}

/// How programs that run outside of tests are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// For releases and measurements.
    Release,
    /// For the demo: dependencies as in tests, some of which the tasks have built. Only the agent, whose cost the demo shows, is
    /// optimised: for all dependencies that would take longer than everything else.
    Demo,
}

/// Settings of cargo for [`Profile::Demo`].
const DEMO_SETTINGS: &[&str] = &[
    "profile.dev.incremental=false",
    "profile.dev.package.snug-agent.codegen-units=16",
    "profile.dev.package.snug-agent.debug-assertions=false",
    "profile.dev.package.snug-agent.opt-level=2",
    "profile.dev.package.snug-agent.overflow-checks=false",
];

impl Profile {
    fn apply(self, cargo: &mut Command) -> &mut Command {
        match self {
            Self::Release => cargo.args(["--release", "--config", &without_paths()]),
            Self::Demo => cargo.args(DEMO_SETTINGS.iter().flat_map(|setting| ["--config", setting])),
        }
    }

    /// Name of the folder of the programs.
    const fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Demo => "debug",
        }
    }
}

/// A setting of cargo that keeps this machine's paths out of programs: they are the same wherever they are built.
fn without_paths() -> String {
    let flags = workspace::without_paths().map(|flag| format!("\"{flag}\""));
    format!("target.'cfg(target_os = \"linux\")'.rustflags = [{}]", flags.join(", "))
}

/// Runs the task.
pub(crate) fn run(_options: &Options) -> Result<()> {
    let programs = build()?;
    for program in [&programs.agent, &programs.cli] {
        println!("build: {} ({} KiB)", program.display(), program.metadata()?.len() / 1024);
    }
    Ok(())
}

/// Builds the release executables for this host's architecture, and returns their paths.
pub(crate) fn build() -> Result<Programs> {
    build_for(std::env::consts::ARCH)
}

/// As [`build`], for any supported architecture.
pub(crate) fn build_for(arch: &str) -> Result<Programs> {
    let target = toolchain::target_of(arch);
    let [agent, cli] =
        build_packages(&target, Profile::Release, ["snug-agent", "snug"], ["snug-agent", "snug"])?;
    Ok(Programs { agent, cli })
}

/// Builds the agent and the workload program for the demo, and returns their paths.
pub(crate) fn build_for_demo() -> Result<[PathBuf; 2]> {
    let names = ["snug-agent", "snug-workload"];
    build_packages(&toolchain::host_target(), Profile::Demo, names, names)
}

fn build_packages<const N: usize>(
    target: &str,
    profile: Profile,
    packages: [&str; N],
    programs: [&str; N],
) -> Result<[PathBuf; N]> {
    let host = target == toolchain::host_target();
    let object = if host {
        build_ebpf::build_default()?
    } else {
        setup::ensure_all(&[Need::Cross])?;
        let object = workspace::target_dir().join(format!("snug-ebpf-{target}.o"));
        build_ebpf::build(None, toolchain::OTHER_ARCHITECTURE, &object)?;
        object
    };
    let mut cargo = cargo_for(target, "build");
    profile.apply(&mut cargo).args(packages.iter().flat_map(|name| ["--package", name]));
    command::run(cargo.env(OBJECT_VARIABLE, &object))?;
    let folder = workspace::target_dir().join(target).join(profile.folder());
    let programs = programs.map(|name| folder.join(name));
    programs.iter().try_for_each(|program| ensure_static(program))?;
    Ok(programs)
}

/// Builds a bench of `snug-tests` with optimisation, and returns its path.
pub(crate) fn build_bench(name: &str, object: &Path) -> Result<PathBuf> {
    let mut cargo = cargo_for(&toolchain::host_target(), "bench");
    cargo.args(["--no-run", "--bench", name, "--package", "snug-tests"]).env(OBJECT_VARIABLE, object);
    Built::from_cargo(&mut cargo)?.find(Kind::Bench, name)
}

/// Builds all programs and tests of the workspace in one go, so that every dependency is built once, with one set of features.
pub(crate) fn build_all(object: &Path) -> Result<Built> {
    let mut cargo = command::cargo();
    cargo.args(["build", "--workspace", "--lib", "--bins", "--tests"]).env(OBJECT_VARIABLE, object);
    Built::from_cargo(&mut cargo)
}

/// A cargo command that runs the tests that [`build_all`] has built.
pub(crate) fn tests_of_all(object: &Path) -> Command {
    let mut cargo = command::cargo();
    cargo.args(["test", "--workspace"]).env(OBJECT_VARIABLE, object);
    cargo
}

/// A cargo command for `target`, with its cross compiler if needed. `.cargo/config.toml` links the C library statically.
pub(crate) fn cargo_for(target: &str, subcommand: &str) -> Command {
    let mut cargo = command::cargo();
    cargo.args([subcommand, "--target", target]);
    if target != toolchain::host_target() {
        // Debian names cross compilers by the target triple without the vendor.
        let gcc = format!("{}-gcc", target.replace("-unknown", ""));
        let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
        cargo.env(variable, &gcc).env(format!("CC_{}", target.replace('-', "_")), &gcc);
    }
    cargo
}

/// Kind of a cargo target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A program.
    Bin,
    /// A target of integration tests.
    Test,
    Bench,
}

/// Executables, from the messages of a cargo build.
#[derive(Debug)]
pub(crate) struct Built {
    messages: String,
}

impl Built {
    /// Runs cargo. Its progress goes to standard error.
    pub(crate) fn from_cargo(cargo: &mut Command) -> Result<Self> {
        cargo.args(["--message-format", "json-render-diagnostics"]);
        cargo.stderr(std::process::Stdio::inherit());
        Ok(Self { messages: command::capture(cargo)? })
    }

    /// Reads the messages of an earlier build, which [`Self::save`] wrote.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let messages =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { messages })
    }

    /// Writes the messages to a file, for another process.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, &self.messages).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Path of the static executable of this kind and name.
    pub(crate) fn find(&self, kind: Kind, name: &str) -> Result<PathBuf> {
        let program = executable_of(&self.messages, kind, name)
            .with_context(|| format!("the build produced no executable for {kind:?} {name}"))?;
        ensure_static(&program)?;
        Ok(program)
    }

    /// The agent and the command-line tool.
    pub(crate) fn programs(&self) -> Result<Programs> {
        Ok(Programs { agent: self.find(Kind::Bin, "snug-agent")?, cli: self.find(Kind::Bin, "snug")? })
    }
}

fn ensure_static(program: &Path) -> Result<()> {
    let needed = elf::needed_libraries(program)?;
    ensure!(needed.is_empty(), "{} must be static, but needs {}", program.display(), needed.join(", "));
    Ok(())
}

/// Path of the executable of a target in cargo's messages.
fn executable_of(messages: &str, kind: Kind, name: &str) -> Option<PathBuf> {
    let kind_name = match kind {
        Kind::Bin => "bin",
        Kind::Test => "test",
        Kind::Bench => "bench",
    };
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let target = message.get("target")?;
        let of_kind = target.get("kind")?.as_array()?.iter().any(|own| own == kind_name);
        // The unit tests of a program are an executable of the same kind and name.
        let tests_of_bin = kind == Kind::Bin && message["profile"]["test"] == true;
        let found = of_kind && !tests_of_bin && target.get("name")? == name;
        found.then(|| message.get("executable")?.as_str().map(PathBuf::from)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_target_s_own() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"kernel"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"kernel"},"profile":{"test":true},"executable":"/t/kernel-bin-tests"}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"kernel"},"profile":{"test":false},"executable":"/t/kernel-bin"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"system"},"executable":"/t/system-1"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel"},"profile":{"test":true},"executable":"/t/kernel-2"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable_of(messages, Kind::Test, "kernel"), Some(PathBuf::from("/t/kernel-2")));
        assert_eq!(executable_of(messages, Kind::Bin, "kernel"), Some(PathBuf::from("/t/kernel-bin")));
        assert_eq!(executable_of(messages, Kind::Test, "cluster"), None);
    }

    #[test]
    fn another_target_gets_its_own_c_compiler() {
        let line = command::line(&cargo_for("aarch64-unknown-linux-gnu", "build"));
        if toolchain::host_target() == "aarch64-unknown-linux-gnu" {
            return assert!(!line.contains("gcc"), "{line}");
        }
        assert!(line.ends_with("cargo build --target aarch64-unknown-linux-gnu"), "{line}");
        assert!(
            line.contains("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc"),
            "{line}"
        );
        assert!(line.contains("CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc"), "{line}");
        let line = command::line(&cargo_for(&toolchain::host_target(), "build"));
        assert!(!line.contains("LINKER"), "{line}");
    }
}
