//! Virtual machines: qemu and stock kernels, found or put into the cache.

mod kernel;
mod qemu;

use anyhow::Result;
use clap::ValueEnum as _;

pub(crate) use self::{
    kernel::{Series, cached as cached_kernel, download, ensure as ensure_kernel, module},
    qemu::{Boot, End, Qemu},
};

/// Installs qemu and downloads the kernels unless they are present.
pub(crate) fn ensure() -> Result<()> {
    qemu::ensure_host_fits()?;
    Qemu::ensure()?;
    for series in Series::value_variants() {
        kernel::ensure(*series)?;
    }
    Ok(())
}
