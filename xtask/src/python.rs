//! Python environments in the cache, for test tools that are in PyPI but not in Debian.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::{command, toolchain, workspace};

/// File that marks a complete environment.
const COMPLETE: &str = "complete";

/// Path of an environment in the cache. It depends on the versions of all packages.
pub(crate) fn root(name: &str, versions: &[&str]) -> Result<PathBuf> {
    let digest = Sha256::digest(versions.join(" "));
    let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(workspace::cache_dir()?.join(format!("{name}-{short}")))
}

/// Creates an environment, replacing an existing one, and downloads packages into it with the host's pip configuration.
pub(crate) fn make(root: &Path, packages: &[&str]) -> Result<()> {
    download(root, packages, &[])
}

/// As [`make`], with one package and without those that it depends on.
pub(crate) fn make_alone(root: &Path, package: &str) -> Result<()> {
    download(root, &[package], &["--no-deps"])
}

fn download(root: &Path, packages: &[&str], options: &[&str]) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    command::capture(command::new(toolchain::PYTHON).args(["-m", "venv"]).arg(root))?;
    let mut pip = command::new(root.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
    command::capture(pip.args(options).args(packages))?;
    Ok(())
}

/// Whether the environment is complete.
pub(crate) fn is_complete(root: &Path) -> bool {
    root.join(COMPLETE).exists()
}

/// Marks the environment as complete. Without the mark, the next run creates it again.
pub(crate) fn set_complete(root: &Path) -> Result<()> {
    let mark = root.join(COMPLETE);
    fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))
}
