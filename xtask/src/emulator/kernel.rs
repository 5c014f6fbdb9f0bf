//! Stock Debian kernels in the cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{apt, version::Version, workspace};

/// A series of Debian 12 kernels for virtual machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// The default kernel of Debian 12, and the oldest with the cgroup iterator.
    #[value(name = "6.1")]
    V6_1,
    /// The newer kernel in Debian 12.
    #[value(name = "6.12")]
    V6_12,
}

impl Series {
    /// Name of the series on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The meta package that depends on the newest kernel of the series.
    fn meta_package(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-cloud-amd64",
            Self::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }

    fn folder(self) -> Result<PathBuf> {
        Ok(workspace::cache_dir()?.join("kernels").join(format!("bookworm-{}", self.name())))
    }
}

/// The cached kernel of the series, the newest if there are several.
pub(crate) fn cached(series: Series) -> Result<Option<PathBuf>> {
    let folder = series.folder()?;
    let Ok(packages) = fs::read_dir(&folder) else { return Ok(None) };
    let mut found: Vec<(Version, PathBuf)> =
        packages.flatten().filter_map(|package| image_in(&package.path())).collect();
    found.sort();
    Ok(found.pop().map(|(_, image)| image))
}

/// Downloads the newest kernel of the series unless one is cached. `cargo xtask vm --refresh` updates the cache.
pub(crate) fn ensure(series: Series) -> Result<PathBuf> {
    match cached(series)? {
        Some(image) => Ok(image),
        None => download(series),
    }
}

/// Downloads the newest kernel of the series, if it is not the cached one.
pub(crate) fn download(series: Series) -> Result<PathBuf> {
    let package = apt::first_dependency(series.meta_package())?;
    let folder = series.folder()?.join(&package);
    if let Some((_, image)) = image_in(&folder) {
        return Ok(image);
    }
    println!("setup: unpacking {package} into {} for tests on that kernel", folder.display());
    apt::unpack(&[&package], &folder)?;
    let (_, image) =
        image_in(&folder).with_context(|| format!("package {package} contains no boot/vmlinuz-<version>"))?;
    Ok(image)
}

/// Path and file name of a module of the kernel with this image.
pub(crate) fn module(image: &Path, name: &str) -> Result<(PathBuf, String)> {
    let package = image.ancestors().nth(2).context("a kernel image must be in the folder of its package")?;
    let found = find_module(&package.join("lib/modules"), &format!("{name}.ko"));
    found.with_context(|| format!("no module {name} in {}", package.display()))
}

fn find_module(folder: &Path, prefix: &str) -> Option<(PathBuf, String)> {
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_module(&entry.path(), prefix)
        } else {
            name.starts_with(prefix).then(|| (entry.path(), name))
        }
    })
}

/// The kernel image in an unpacked package, with its version. `None` for an incomplete download.
fn image_in(package: &Path) -> Option<(Version, PathBuf)> {
    fs::read_dir(package.join("boot")).ok()?.flatten().find_map(|entry| {
        let version = version_of_image(&entry.file_name().to_string_lossy())?;
        Some((version, entry.path()))
    })
}

fn version_of_image(name: &str) -> Option<Version> {
    // "6.1.0-56" is ABI 56 of 6.1. The patch is always 0 there, so the ABI orders the builds.
    let release = name.strip_prefix("vmlinuz-")?;
    let version = Version::find(release)?;
    let abi = release.split('-').nth(1).and_then(|abi| abi.parse().ok());
    Some(Version { patch: abi.unwrap_or(version.patch), ..version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_ordered_by_abi_or_patch() {
        let version = |name| version_of_image(name).unwrap();
        assert!(version("vmlinuz-6.1.0-56-cloud-amd64") > version("vmlinuz-6.1.0-9-cloud-amd64"));
        assert!(version("vmlinuz-6.12.117+deb12-cloud-amd64") > version("vmlinuz-6.12.96+deb12-cloud-amd64"));
        assert_eq!(version_of_image("System.map-6.1.0-56-cloud-amd64"), None);
    }

    #[test]
    fn only_a_finished_download_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(image_in(folder.path()), None);
        let boot = folder.path().join("boot");
        fs::create_dir(&boot).unwrap();
        fs::write(boot.join("config-6.1.0-56-cloud-amd64"), "").unwrap();
        assert_eq!(image_in(folder.path()), None);
        let image = boot.join("vmlinuz-6.1.0-56-cloud-amd64");
        fs::write(&image, "").unwrap();
        assert_eq!(image_in(folder.path()).unwrap().1, image);
    }
}
