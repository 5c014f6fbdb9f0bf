//! Folders: the workspace, its build output, and the cache that outlives both.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command;

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Cargo's output folder, absolute.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => root().join(dir),
        _ => root().join("target"),
    }
}

/// Downloads and tools that are worth keeping: `$SNUG_CACHE_DIR`, else `~/.cache/snug`.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let chosen = std::env::var_os("SNUG_CACHE_DIR").filter(|dir| !dir.is_empty());
    if let Some(dir) = chosen {
        return std::path::absolute(&dir)
            .with_context(|| format!("SNUG_CACHE_DIR={} is no path", dir.display()));
    }
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    Ok(home.context("neither SNUG_CACHE_DIR nor HOME is set: no place for the cache")?.join(".cache/snug"))
}

/// What cargo tells of the workspace's packages, asked for with these arguments.
pub(crate) fn metadata(arguments: &[&str]) -> Result<Value> {
    let mut cargo = command::cargo();
    cargo.args(["metadata", "--format-version", "1"]).args(arguments);
    serde_json::from_str(&command::capture(&mut cargo)?).context("cargo metadata printed no JSON")
}

/// The names of all test targets.
pub(crate) fn test_targets() -> Result<Vec<String>> {
    let metadata = metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let targets = packages.iter().flat_map(|package| package["targets"].as_array()).flatten();
    let tests = targets.filter(|target| target["kind"][0] == "test");
    Ok(tests.filter_map(|target| target["name"].as_str()).map(str::to_owned).collect())
}
