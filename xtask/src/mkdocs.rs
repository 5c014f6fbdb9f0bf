//! MkDocs, which makes a site of the pages, in a Python environment in the cache.

use std::{path::PathBuf, time::Instant};

use anyhow::Result;

use crate::{python, toolchain};

fn root() -> Result<PathBuf> {
    python::root("pages", toolchain::PAGES_PACKAGES)
}

pub(crate) fn program() -> Result<PathBuf> {
    Ok(root()?.join("bin/mkdocs"))
}

/// Downloads the packages unless they are in the cache.
pub(crate) fn ensure() -> Result<()> {
    let root = root()?;
    if python::is_complete(&root) {
        return Ok(());
    }
    println!("setup: downloading MkDocs to {} for the site of the pages (not installed)", root.display());
    let started = Instant::now();
    python::make(&root, toolchain::PAGES_PACKAGES)?;
    python::set_complete(&root)?;
    println!("setup: downloaded MkDocs ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}
