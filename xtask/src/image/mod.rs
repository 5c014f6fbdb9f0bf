//! `cargo xtask image`: the container image, made from files alone: no daemon, no base image, the same bytes each time.

mod archive;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

pub(crate) use self::archive::{Contents, File};
use crate::{
    build::{self, Programs},
    workspace,
};

/// The reference of the image unless another is asked for; deploy/ names the same.
pub(crate) const REFERENCE: &str = "snug.example/snug-agent:0.1.0";

/// A machine that images are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// x86-64
    Amd64,
    /// 64-bit Arm
    Arm64,
}

impl Arch {
    /// The one of this host.
    pub(crate) fn host() -> Self {
        if std::env::consts::ARCH == "aarch64" { Self::Arm64 } else { Self::Amd64 }
    }

    /// The name in image configurations.
    pub(crate) fn of_oci(self) -> oci_spec::image::Arch {
        match self {
            Self::Amd64 => oci_spec::image::Arch::Amd64,
            Self::Arm64 => oci_spec::image::Arch::ARM64,
        }
    }

    /// The name in Rust's targets.
    pub(crate) const fn of_rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

/// Make the container image as an OCI archive in target/image, with its bill of materials. Needs no daemon
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Name and tag that the image goes by when it is loaded.
    #[arg(long, default_value = REFERENCE)]
    reference: String,
    /// The machine it is for; this host's unless told. For another, what is missing to build for it is installed.
    #[arg(long, value_enum)]
    arch: Option<Arch>,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let arch = options.arch.unwrap_or_else(Arch::host);
    let made = pack(&options.reference, arch, &build::build_for(arch.of_rust())?)?;
    println!(
        "image: {} ({} KiB), {}",
        made.archive.display(),
        made.archive.metadata()?.len() / 1024,
        made.digest
    );
    println!("image: {}", made.bill.display());
    println!("load it: `ctr -n k8s.io images import {0}`, `podman load -i {0}`", made.archive.display());
    Ok(())
}

/// What was made.
pub(crate) struct Made {
    pub(crate) archive: PathBuf,
    bill: PathBuf,
    digest: String,
}

/// Packs the programs, which were built for that machine.
pub(crate) fn pack(reference: &str, arch: Arch, programs: &Programs) -> Result<Made> {
    let bill = sbom::of_workspace(arch.of_rust())?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let root = workspace::root();
    let mut files = vec![
        File::program("usr/bin/snug-agent", read(&programs.agent)?),
        File::program("usr/bin/snug", read(&programs.cli)?),
        File::text("usr/share/doc/snug/sbom.cdx.json", bill.clone()),
    ];
    for license in ["LICENSE-APACHE", "LICENSE-MIT", "agent-ebpf/LICENSE-GPL-2.0"] {
        let name = license.rsplit('/').next().unwrap_or(license);
        files.push(File::text(&format!("usr/share/doc/snug/{name}"), read(&root.join(license))?));
    }
    let image = Contents {
        reference: reference.to_owned(),
        arch: arch.of_oci(),
        files,
        entrypoint: vec!["/usr/bin/snug-agent".to_owned()],
        labels: vec![
            ("org.opencontainers.image.title", "snug-agent"),
            ("org.opencontainers.image.description", "Measures what containers really need"),
            ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION")),
            ("org.opencontainers.image.licenses", "Apache-2.0 OR MIT"),
            ("org.opencontainers.image.source", env!("CARGO_PKG_REPOSITORY")),
        ],
    };
    let folder = workspace::target_dir().join("image");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let made = Made {
        archive: folder.join(format!("snug-agent-{}.tar", arch.of_rust())),
        bill: folder.join("sbom.cdx.json"),
        digest: String::new(),
    };
    let digest = image.write(&made.archive)?;
    fs::write(&made.bill, bill).with_context(|| format!("cannot write {}", made.bill.display()))?;
    Ok(Made { digest, ..made })
}
