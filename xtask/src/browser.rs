//! What tests of pages need besides the browser: axe, which finds what keeps people from using a page.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};

use crate::{python, toolchain};

/// Environment variable with the path of axe's script, for tests.
pub(crate) const VARIABLE: &str = "SNUG_TEST_AXE";

fn root() -> Result<PathBuf> {
    python::root("browser", &[toolchain::AXE_PACKAGE])
}

/// Path of axe's script.
pub(crate) fn axe() -> Result<PathBuf> {
    find(&root()?.join("lib")).context("axe is missing: run `cargo xtask setup browser`")
}

/// The script in the folder of some version of Python.
fn find(lib: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(lib).ok()?.filter_map(Result::ok);
    let scripts = versions.map(|it| it.path().join("site-packages/axe_playwright_python/axe.min.js"));
    scripts.into_iter().find(|script| script.is_file())
}

/// Downloads axe unless it is in the cache.
pub(crate) fn ensure() -> Result<()> {
    let root = root()?;
    if python::is_complete(&root) {
        return Ok(());
    }
    println!("setup: downloading axe to {} for tests of pages (not installed)", root.display());
    let started = Instant::now();
    // The package is for a browser of its own, which is not needed.
    python::make_alone(&root, toolchain::AXE_PACKAGE)?;
    axe()?;
    python::set_complete(&root)?;
    println!("setup: downloaded axe ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}
