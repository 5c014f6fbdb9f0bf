//! Folders of the workspace, the build output and the cache; cargo metadata.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command;

/// Root of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Absolute path of cargo's target folder.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => root().join(dir),
        _ => root().join("target"),
    }
}

/// Cache of downloads and tools: `$SNUG_CACHE_DIR`, else `~/.cache/snug`.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let chosen = std::env::var_os("SNUG_CACHE_DIR").filter(|dir| !dir.is_empty());
    if let Some(dir) = chosen {
        return std::path::absolute(&dir)
            .with_context(|| format!("SNUG_CACHE_DIR={} is not a path", dir.display()));
    }
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    Ok(home.context("set SNUG_CACHE_DIR or HOME, for the cache")?.join(".cache/snug"))
}

/// Runs `cargo metadata` with these arguments.
pub(crate) fn metadata(arguments: &[&str]) -> Result<Value> {
    let mut cargo = command::cargo();
    cargo.args(["metadata", "--format-version", "1"]).args(arguments);
    serde_json::from_str(&command::capture(&mut cargo)?).context("cannot parse the output of cargo metadata")
}

/// The names of all test targets.
pub(crate) fn test_targets() -> Result<Vec<String>> {
    let metadata = metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("the output of cargo metadata has no packages")?;
    let targets = packages.iter().flat_map(|package| package["targets"].as_array()).flatten();
    let tests = targets.filter(|target| target["kind"][0] == "test");
    Ok(tests.filter_map(|target| target["name"].as_str()).map(str::to_owned).collect())
}
