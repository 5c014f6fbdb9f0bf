//! `cargo xtask build-ebpf`: compiles the eBPF programs into one object file.

use std::{
    ffi::OsString,
    fs, io,
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

/// Build the eBPF programs.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Toolchain to use [default: the first that works].
    #[arg(long, value_enum)]
    toolchain: Option<Toolchain>,
    /// Architecture of the kernels that load the programs: x86_64 or aarch64.
    #[arg(long, default_value = std::env::consts::ARCH)]
    arch: String,
    /// Path of the object file [default: snug-ebpf.o in cargo's target folder].
    #[arg(long)]
    out: Option<PathBuf>,
}

/// How to get `core` for the BPF target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Toolchain {
    /// Debian's rustc with its packaged `core`.
    Prebuilt,
    /// Build `core` from source, with rustup's nightly or Debian's rustc.
    BuildStd,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let out = match &options.out {
        Some(out) => std::path::absolute(out).with_context(|| format!("{} is not a path", out.display()))?,
        None => default_object(),
    };
    build(options.toolchain, &options.arch, &out)?;
    println!("build-ebpf: {}", out.display());
    Ok(())
}

/// The default path of the object file.
pub(crate) fn default_object() -> PathBuf {
    workspace::target_dir().join("snug-ebpf.o")
}

/// Builds the object file for this host's architecture at the default path.
pub(crate) fn build_default() -> Result<PathBuf> {
    let out = default_object();
    build(None, std::env::consts::ARCH, &out)?;
    Ok(out)
}

/// Builds the object file `out` with this toolchain, or with the first that works.
pub(crate) fn build(toolchain: Option<Toolchain>, arch: &str, out: &Path) -> Result<()> {
    let compiler = match toolchain {
        Some(toolchain) => Compiler::from_toolchain(toolchain)?,
        None => Compiler::first_that_works()?,
    };
    println!("build-ebpf: {}", compiler.description());
    build_in(compiler, arch, &workspace::target_dir().join("ebpf").join(compiler.folder()), out)
}

/// Builds the object file with the first toolchain that works, without anything of an earlier build.
pub(crate) fn build_afresh(arch: &str, out: &Path) -> Result<()> {
    let target_dir = workspace::target_dir().join("ebpf/afresh");
    let removed = fs::remove_dir_all(&target_dir);
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("cannot remove {}", target_dir.display()));
    }
    build_in(Compiler::first_that_works()?, arch, &target_dir, out)
}

fn build_in(compiler: Compiler, arch: &str, target_dir: &Path, out: &Path) -> Result<()> {
    let mut cargo = compiler.cargo(&["build"], arch, target_dir)?;
    command::run(cargo.args(["--package", "snug-ebpf", "--bin", "snug-ebpf"]))?;
    let built = target_dir.join(toolchain::BPF_TARGET).join("release/snug-ebpf");
    replace_if_different(&built, out)
}

/// Lints the eBPF programs for the BPF target.
pub(crate) fn clippy() -> Result<()> {
    setup::ensure_all(&[Need::Ebpf, Need::Lint])?;
    let target_dir = workspace::target_dir().join("ebpf/clippy");
    let compiler = Compiler::DebianPrebuilt;
    let mut clippy = compiler.cargo(&["clippy"], std::env::consts::ARCH, &target_dir)?;
    command::run(clippy.args(["--package", "snug-ebpf", "--", "-D", "warnings"]))
}

/// A compiler for BPF, and how it gets `core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compiler {
    DebianPrebuilt,
    DebianBuildStd,
    RustupBuildStd,
}

impl Compiler {
    fn from_toolchain(toolchain: Toolchain) -> Result<Self> {
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

    /// The reason why this compiler cannot be used here, if any.
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

    /// A cargo command for the BPF target, in the release profile.
    fn cargo(self, subcommand: &[&str], arch: &str, target_dir: &Path) -> Result<Command> {
        let mut cargo = match self {
            Self::DebianPrebuilt | Self::DebianBuildStd => {
                // The cargo-clippy on the PATH belongs to another compiler.
                let is_clippy = subcommand == ["clippy"];
                command::new(if is_clippy { toolchain::DEBIAN_CARGO_CLIPPY } else { DEBIAN_CARGO })
            }
            Self::RustupBuildStd => command::new("rustup"),
        };
        command::remove_cargo_variables(&mut cargo);
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

/// Flags of rustc in the form of `CARGO_ENCODED_RUSTFLAGS`, which allows spaces in paths.
fn flags(arch: &str, linker: &Path) -> OsString {
    let mut flags = OsString::from(format!("--cfg=bpf_target_arch=\"{arch}\""));
    for flag in ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Clinker="] {
        flags.push("\x1f");
        flags.push(flag);
    }
    flags.push(linker);
    for flag in workspace::without_paths() {
        flags.push("\x1f");
        flags.push(flag);
    }
    flags
}

/// Copies the object file only if it has changed, so that cargo does not rebuild the agent without need.
fn replace_if_different(built: &Path, out: &Path) -> Result<()> {
    let object = fs::read(built).with_context(|| format!("the build did not produce {}", built.display()))?;
    if fs::read(out).is_ok_and(|present| present == object) {
        return Ok(());
    }
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
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
        let (first, rest) = flags.split_at(expected.join("\x1f").len());
        assert_eq!(first.split('\x1f').collect::<Vec<_>>(), expected);
        assert_eq!(rest.matches("\x1f--remap-path-prefix=").count(), 2, "{rest}");
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
