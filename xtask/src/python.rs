//! Python environments in the cache, for tools of tests that PyPI has and Debian has not.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::{command, toolchain, workspace};

/// A file that is made last.
const COMPLETE: &str = "complete";

/// An environment's place in the cache: another for other versions of anything in it.
pub(crate) fn root(name: &str, versions: &[&str]) -> Result<PathBuf> {
    let digest = Sha256::digest(versions.join(" "));
    let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(workspace::cache_dir()?.join(format!("{name}-{short}")))
}

/// Makes an environment anew and fetches packages into it, from wherever this host's pip is told to look.
pub(crate) fn make(root: &Path, packages: &[&str]) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    command::capture(command::new(toolchain::PYTHON).args(["-m", "venv"]).arg(root))?;
    let mut pip = command::new(root.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
    command::capture(pip.args(packages))?;
    Ok(())
}

/// Whether all that was to be in the environment is there.
pub(crate) fn is_complete(root: &Path) -> bool {
    root.join(COMPLETE).exists()
}

/// Notes that all is there: whoever was cut off before begins anew.
pub(crate) fn set_complete(root: &Path) -> Result<()> {
    let mark = root.join(COMPLETE);
    fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))
}
