//! Virtual machines: qemu and stock kernels, found or put into the cache.

mod kernel;
mod qemu;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub(crate) use self::{
    kernel::{Arch, Kernel, Series},
    qemu::{Boot, End, Qemu},
};
use crate::{apt::Suites, toolchain, workspace};

/// Installs qemu and downloads the kernels of each run of all checks unless they are present.
pub(crate) fn ensure() -> Result<()> {
    qemu::ensure_host_fits()?;
    Qemu::ensure(Arch::Amd64)?;
    for series in Series::CHECKED {
        Kernel { series, arch: Arch::Amd64 }.ensure()?;
    }
    Ok(())
}

/// A static busybox for guests, downloaded if it is not this host's.
pub(crate) fn busybox(arch: Arch) -> Result<PathBuf> {
    let installed = Path::new(toolchain::BUSYBOX);
    if arch == Arch::Amd64 {
        return Ok(installed.to_owned());
    }
    let folder = workspace::cache_dir()?.join(format!("busybox-{}", arch.name()));
    let program = ["usr/bin/busybox", "bin/busybox"].map(|path| folder.join(path));
    let found = || program.iter().find(|program| program.is_file()).cloned();
    if let Some(program) = found() {
        return Ok(program);
    }
    let lists = workspace::cache_dir()?.join(format!("apt-bookworm-{}", arch.name()));
    let suites = Suites::update(&lists, "deb", &["bookworm"], Some(arch.name()))?;
    println!("setup: unpacking busybox for {} into {}", arch.name(), folder.display());
    suites.unpack(&["busybox-static"], &folder)?;
    found().ok_or_else(|| anyhow::anyhow!("the package busybox-static contains no busybox"))
}
