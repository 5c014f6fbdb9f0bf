//! `cargo xtask image`: builds the container image reproducibly, without a daemon or base image.

mod archive;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

pub(crate) use self::{
    archive::{Contents, write_all},
    sbom::workspace_sbom,
};
use crate::{
    build::{self, Programs},
    files::File,
    workspace,
};

/// Default reference of the image, which deploy/ uses, too.
pub(crate) const REFERENCE: &str = "snug.example/snug-agent:0.1.0";

/// Architecture of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// x86-64
    Amd64,
    /// 64-bit Arm
    Arm64,
}

impl Arch {
    /// Architecture of this host.
    pub(crate) fn host() -> Self {
        if std::env::consts::ARCH == "aarch64" { Self::Arm64 } else { Self::Amd64 }
    }

    /// The architecture in image configurations.
    pub(crate) const fn oci_name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Name of the architecture in Rust's target triples.
    pub(crate) const fn rust_name(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

/// Build the container image as an OCI archive in target/image, with an SBOM. Needs no container daemon.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Image reference: name and tag.
    #[arg(long, default_value = REFERENCE)]
    reference: String,
    /// Architecture of the image [default: this host's]. Missing cross-compilation tools are installed.
    #[arg(long, value_enum)]
    arch: Option<Arch>,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let arch = options.arch.unwrap_or_else(Arch::host);
    let packed = pack(&options.reference, arch, &build::build_for(arch.rust_name())?)?;
    println!(
        "image: {} ({} KiB), {}",
        packed.archive.display(),
        packed.archive.metadata()?.len() / 1024,
        packed.digest
    );
    println!("image: {}", packed.sbom.display());
    println!(
        "image: load with `ctr -n k8s.io images import {0}` or `podman load -i {0}`",
        packed.archive.display()
    );
    Ok(())
}

/// Paths of the image archive and its SBOM.
pub(crate) struct PackedImage {
    pub(crate) archive: PathBuf,
    sbom: PathBuf,
    digest: String,
}

/// The image of programs that were built for `arch`, with this SBOM.
pub(crate) fn contents(reference: &str, arch: Arch, programs: &Programs, sbom: &[u8]) -> Result<Contents> {
    let mut files = vec![
        File::program("usr/bin/snug-agent", read(&programs.agent)?),
        File::program("usr/bin/snug", read(&programs.cli)?),
        File::text("usr/share/doc/snug/sbom.cdx.json", sbom.to_vec()),
    ];
    files.extend(licenses("usr/share/doc/snug")?);
    Ok(Contents {
        reference: reference.to_owned(),
        arch: arch.oci_name(),
        files,
        entrypoint: vec!["/usr/bin/snug-agent".to_owned()],
        labels: vec![
            ("org.opencontainers.image.title", "snug-agent"),
            ("org.opencontainers.image.description", "Measures what containers really need"),
            ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION")),
            ("org.opencontainers.image.licenses", "Apache-2.0 OR MIT"),
            ("org.opencontainers.image.source", env!("CARGO_PKG_REPOSITORY")),
        ],
    })
}

/// The texts of the licenses, as files in a folder.
pub(crate) fn licenses(folder: &str) -> Result<Vec<File>> {
    let license = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        Ok(File::text(&format!("{folder}/{name}"), read(&workspace::root().join(path))?))
    };
    ["LICENSE-APACHE", "LICENSE-MIT", "agent-ebpf/LICENSE-GPL-2.0"].into_iter().map(license).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Packs programs that were built for `arch` into an image.
pub(crate) fn pack(reference: &str, arch: Arch, programs: &Programs) -> Result<PackedImage> {
    let sbom = workspace_sbom(arch.rust_name())?;
    let image = contents(reference, arch, programs, &sbom)?;
    let folder = workspace::target_dir().join("image");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let packed = PackedImage {
        archive: folder.join(format!("snug-agent-{}.tar", arch.rust_name())),
        sbom: folder.join("sbom.cdx.json"),
        digest: String::new(),
    };
    let digest = image.write(&packed.archive)?;
    fs::write(&packed.sbom, sbom).with_context(|| format!("cannot write {}", packed.sbom.display()))?;
    Ok(PackedImage { digest, ..packed })
}
