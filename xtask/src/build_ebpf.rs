//! `cargo xtask build-ebpf`: compiles the kernel half into one object.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::{
    command,
    setup::{self, Need},
    toolchain::{self, DEBIAN_CARGO, DEBIAN_RUSTC},
    version::llvm_mismatch,
    workspace,
};

/// Build the kernel half for BPF.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Which compiler to take; the first that works if not given.
    #[arg(long, value_enum)]
    toolchain: Option<Toolchain>,
    /// Architecture of the kernels that will load it, as Rust names it.
    #[arg(long, default_value = std::env::consts::ARCH)]
    arch: String,
    /// Where to put the object [default: snug-ebpf.o in cargo's target folder].
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Where the `core` of the kernel half comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Toolchain {
    /// Debian's rustc with the `core` that is packaged for it.
    Prebuilt,
    /// A compiler with the library's source: rustup's nightly, else Debian's.
    BuildStd,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let out = match &options.out {
        Some(out) => std::path::absolute(out).with_context(|| format!("{} is no path", out.display()))?,
        None => default_object(),
    };
    build(options.toolchain, &options.arch, &out)?;
    println!("build-ebpf: {}", out.display());
    Ok(())
}

/// Where the object lies unless another place is given.
pub(crate) fn default_object() -> PathBuf {
    workspace::target_dir().join("snug-ebpf.o")
}

/// Builds the object for this host's architecture in its usual place.
pub(crate) fn build_default() -> Result<PathBuf> {
    let out = default_object();
    build(None, std::env::consts::ARCH, &out)?;
    Ok(out)
}

/// Builds the object with this toolchain (the first that works if none is given) and puts it at `out`.
pub(crate) fn build(toolchain: Option<Toolchain>, arch: &str, out: &Path) -> Result<()> {
    let compiler = match toolchain {
        Some(toolchain) => Compiler::of(toolchain)?,
        None => Compiler::first_that_works()?,
    };
    println!("build-ebpf: {}", compiler.description());
    let target_dir = workspace::target_dir().join("ebpf").join(compiler.folder());
    let mut cargo = compiler.cargo(&["build"], arch, &target_dir)?;
    command::run(cargo.args(["--package", "snug-ebpf", "--bin", "snug-ebpf"]))?;
    let built = target_dir.join(toolchain::BPF_TARGET).join("release/snug-ebpf");
    replace_if_different(&built, out)
}

/// Lints the kernel half for the target it is built for.
pub(crate) fn clippy() -> Result<()> {
    setup::ensure_all(&[Need::Ebpf, Need::Lint])?;
    let target_dir = workspace::target_dir().join("ebpf/clippy");
    let compiler = Compiler::DebianPrebuilt;
    let mut clippy = compiler.cargo(&["clippy"], std::env::consts::ARCH, &target_dir)?;
    command::run(clippy.args(["--package", "snug-ebpf", "--", "-D", "warnings"]))
}

/// A compiler that can build for BPF, and how it comes by `core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compiler {
    DebianPrebuilt,
    DebianBuildStd,
    RustupBuildStd,
}

impl Compiler {
    fn of(toolchain: Toolchain) -> Result<Self> {
        if toolchain == Toolchain::BuildStd && Self::RustupBuildStd.obstacle().is_none() {
            return Ok(Self::RustupBuildStd);
        }
        setup::ensure_all(&[Need::Ebpf])?;
        let compiler = match toolchain {
            Toolchain::Prebuilt => Self::DebianPrebuilt,
            Toolchain::BuildStd => Self::DebianBuildStd,
        };
        compiler.ensure_works()
    }

    fn first_that_works() -> Result<Self> {
        for compiler in [Self::DebianPrebuilt, Self::RustupBuildStd] {
            if compiler.obstacle().is_none() {
                return Ok(compiler);
            }
        }
        setup::ensure_all(&[Need::Ebpf])?;
        Self::DebianPrebuilt.ensure_works()
    }

    fn ensure_works(self) -> Result<Self> {
        let obstacle = self.obstacle();
        ensure!(obstacle.is_none(), "{}: {}", self.description(), obstacle.unwrap_or_default());
        Ok(self)
    }

    /// Why this compiler cannot be used here, if so.
    fn obstacle(self) -> Option<String> {
        let rustc = self.rustc();
        let check = || -> Result<Option<String>> {
            let mismatch = llvm_mismatch(toolchain::rustc_llvm(rustc)?, toolchain::linker_llvm()?);
            Ok(match self {
                _ if mismatch.is_some() => mismatch,
                Self::DebianPrebuilt if !toolchain::has_prebuilt_core(DEBIAN_RUSTC) => {
                    Some(format!("{DEBIAN_RUSTC} has no core for {}", toolchain::BPF_TARGET))
                }
                Self::DebianBuildStd | Self::RustupBuildStd if !toolchain::has_library_source(rustc) => {
                    Some(format!("`{}` has no library source (rust-src)", rustc.join(" ")))
                }
                _ => None,
            })
        };
        check().unwrap_or_else(|error| Some(format!("{error:#}")))
    }

    fn rustc(self) -> &'static [&'static str] {
        match self {
            Self::DebianPrebuilt | Self::DebianBuildStd => &[DEBIAN_RUSTC],
            Self::RustupBuildStd => &["rustup", "run", toolchain::NIGHTLY, "rustc"],
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::DebianPrebuilt => "prebuilt",
            Self::DebianBuildStd => "build-std",
            Self::RustupBuildStd => "nightly",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::DebianPrebuilt => "Debian's rustc with its packaged core for BPF",
            Self::DebianBuildStd => "Debian's rustc, core built from source",
            Self::RustupBuildStd => "rustup's nightly, core built from source",
        }
    }

    /// A release build or check of the kernel half: the cargo subcommand, set up for the BPF target.
    fn cargo(self, subcommand: &[&str], arch: &str, target_dir: &Path) -> Result<Command> {
        let mut cargo = match self {
            Self::DebianPrebuilt | Self::DebianBuildStd => {
                // The PATH's cargo-clippy belongs to another compiler.
                let is_clippy = subcommand == ["clippy"];
                command::new(if is_clippy { toolchain::DEBIAN_CARGO_CLIPPY } else { DEBIAN_CARGO })
            }
            Self::RustupBuildStd => command::new("rustup"),
        };
        command::forget_cargo_settings(&mut cargo);
        match self {
            Self::DebianPrebuilt | Self::DebianBuildStd => {
                cargo.env("CARGO", DEBIAN_CARGO).env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            }
            Self::RustupBuildStd => {
                cargo.args(["run", toolchain::NIGHTLY, "cargo"]);
            }
        }
        cargo.args(subcommand);
        if self != Self::DebianPrebuilt {
            cargo.args(["-Z", "build-std=core"]);
        }
        cargo.args(["--quiet", "--release", "--target", toolchain::BPF_TARGET]);
        cargo.arg("--target-dir").arg(target_dir);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(arch, &toolchain::linker()?));
        Ok(cargo)
    }
}

/// rustc's flags, separated as cargo wants them: a path may hold spaces.
fn flags(arch: &str, linker: &Path) -> OsString {
    let mut flags = OsString::from(format!("--cfg=bpf_target_arch=\"{arch}\""));
    for flag in ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Clinker="] {
        flags.push("\x1f");
        flags.push(flag);
    }
    flags.push(linker);
    flags
}

/// Copies the object unless it is the same: what embeds it is rebuilt only for a change.
fn replace_if_different(built: &Path, out: &Path) -> Result<()> {
    let object = fs::read(built).with_context(|| format!("the build left no {}", built.display()))?;
    if fs::read(out).is_ok_and(|present| present == object) {
        return Ok(());
    }
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(out, object).with_context(|| format!("cannot write {}", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_keep_a_linker_with_spaces_in_one_piece() {
        let flags = flags("aarch64", Path::new("/home/a b/bpf-linker")).into_string().unwrap();
        let expected = [
            "--cfg=bpf_target_arch=\"aarch64\"",
            "-Cdebuginfo=2",
            "-Clink-arg=--btf",
            "-Clinker=/home/a b/bpf-linker",
        ];
        assert_eq!(flags.split('\x1f').collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let (built, out) = (folder.path().join("built"), folder.path().join("sub/out.o"));
        assert!(replace_if_different(&built, &out).unwrap_err().to_string().contains("built"));
        fs::write(&built, "one").unwrap();
        replace_if_different(&built, &out).unwrap();
        let written = fs::metadata(&out).unwrap().modified().unwrap();
        replace_if_different(&built, &out).unwrap();
        assert_eq!(fs::metadata(&out).unwrap().modified().unwrap(), written);
        fs::write(&built, "two").unwrap();
        replace_if_different(&built, &out).unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "two");
    }
}
