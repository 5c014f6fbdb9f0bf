//! Folders of the workspace, the build output and the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Root of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Flags of rustc that replace the paths of the sources and of cargo's registry in programs.
pub(crate) fn without_paths() -> [String; 2] {
    let below_home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(below_home).unwrap_or_default();
    [(cargo.as_path(), "/cargo"), (root(), "/snug")]
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
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
