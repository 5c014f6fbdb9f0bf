//! Stock Debian kernels in the cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{
    apt::{self, Suites},
    command,
    version::Version,
    workspace,
};

/// A series of Debian's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// The kernel of Debian 11, without the cgroup iterator.
    #[value(name = "5.10")]
    V5_10,
    /// The default kernel of Debian 12, and the oldest with the cgroup iterator.
    #[value(name = "6.1")]
    V6_1,
    /// The newer kernel in Debian 12.
    #[value(name = "6.12")]
    V6_12,
    /// Of the backports to Debian 13.
    #[value(name = "6.19")]
    V6_19,
    /// The same with pages of 16 KiB, for arm64 only.
    #[value(name = "6.19-16k")]
    V6_19Pages16k,
    /// The newest of the backports to Debian 13.
    Newest,
}

/// The architecture of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    #[default]
    Amd64,
    Arm64,
}

impl Arch {
    /// Debian's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) series: Series,
    pub(crate) arch: Arch,
}

/// An unpacked kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unpacked {
    version: Version,
    /// The folder of its packages.
    folder: PathBuf,
    pub(crate) image: PathBuf,
}

impl Series {
    /// The kernels of each run of all checks.
    pub(crate) const CHECKED: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// Name of the series on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V6_19 => "6.19",
            Self::V6_19Pages16k => "6.19-16k",
            Self::Newest => "newest",
        }
    }

    const fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye-security",
            Self::V6_1 | Self::V6_12 => "bookworm-security",
            Self::V6_19 | Self::V6_19Pages16k | Self::Newest => "trixie-backports",
        }
    }

    fn includes(self, version: Version) -> bool {
        match self {
            Self::V5_10 => (version.major, version.minor) == (5, 10),
            Self::V6_1 => (version.major, version.minor) == (6, 1),
            Self::V6_12 => (version.major, version.minor) == (6, 12),
            Self::V6_19 | Self::V6_19Pages16k => (version.major, version.minor) == (6, 19),
            Self::Newest => true,
        }
    }

    /// The meta package that depends on the newest kernel of the series, if apt's sources have it.
    const fn meta_package(self) -> Option<&'static str> {
        match self {
            Self::V6_1 => Some("linux-image-cloud-amd64"),
            Self::V6_12 => Some("linux-image-6.12-cloud-amd64"),
            Self::V5_10 | Self::V6_19 | Self::V6_19Pages16k | Self::Newest => None,
        }
    }

    /// How the names of its packages end.
    fn flavour(self, arch: Arch) -> String {
        match self {
            Self::V6_19Pages16k => format!("{}-16k", arch.name()),
            _ => format!("cloud-{}", arch.name()),
        }
    }
}

impl Kernel {
    /// Name of files about it.
    pub(crate) fn name(self) -> String {
        match self.arch {
            Arch::Amd64 => self.series.name().to_owned(),
            Arch::Arm64 => format!("{}-arm64", self.series.name()),
        }
    }

    fn folder(self) -> Result<PathBuf> {
        let suite = self.series.suite().split('-').next().unwrap_or_default();
        Ok(workspace::cache_dir()?.join("kernels").join(format!("{suite}-{}", self.name())))
    }

    /// The cached kernel, the newest if there are several.
    pub(crate) fn cached(self) -> Result<Option<Unpacked>> {
        let Ok(packages) = fs::read_dir(self.folder()?) else { return Ok(None) };
        Ok(packages.flatten().filter_map(|package| Unpacked::in_folder(&package.path())).max())
    }

    /// Downloads the kernel unless one is cached. `cargo xtask vm --refresh` updates the cache.
    pub(crate) fn ensure(self) -> Result<Unpacked> {
        match self.cached()? {
            Some(kernel) => Ok(kernel),
            None => self.download(),
        }
    }

    /// Downloads the newest kernel of the series, if it is not the cached one.
    pub(crate) fn download(self) -> Result<Unpacked> {
        if let (Arch::Amd64, Some(meta)) = (self.arch, self.series.meta_package()) {
            let package = apt::first_dependency(meta)?;
            return self.unpack(&[&package], apt::unpack);
        }
        let lists = workspace::cache_dir()?.join(format!("apt-{}-{}", self.series.suite(), self.arch.name()));
        let suites = Suites::update(&lists, "deb", &[self.series.suite()], Some(self.arch.name()))?;
        // Since Linux 6.19 the image and the modules have packages of their own, and the package linux-image is empty.
        let found = suites.search(&format!(
            "^linux-(image|binary|modules)-[0-9][^-]*(-[0-9]+)?-{}$",
            self.series.flavour(self.arch)
        ))?;
        let newest = found.iter().filter_map(|name| name.strip_prefix("linux-image-"));
        let newest = newest
            .filter_map(|release| Some((version_of_release(release)?, release)))
            .filter(|(version, _)| self.series.includes(*version))
            .max();
        let Some((_, release)) = newest else {
            bail!("{} has no kernel {} for {}", self.series.suite(), self.series.name(), self.arch.name())
        };
        let packages = ["image", "binary", "modules"].map(|kind| format!("linux-{kind}-{release}"));
        let packages: Vec<&str> =
            packages.iter().filter(|package| found.contains(package)).map(String::as_str).collect();
        self.unpack(&packages, |packages, into| suites.unpack(packages, into))
    }

    fn unpack(
        self,
        packages: &[&str],
        unpack: impl FnOnce(&[&str], &Path) -> Result<()>,
    ) -> Result<Unpacked> {
        let first = packages.first().context("a kernel has a package")?;
        let folder = self.folder()?.join(first);
        if let Some(kernel) = Unpacked::in_folder(&folder) {
            return Ok(kernel);
        }
        println!("setup: unpacking {first} into {} for tests on that kernel", folder.display());
        unpack(packages, &folder)?;
        Unpacked::in_folder(&folder)
            .with_context(|| format!("the packages {} contain no vmlinuz", packages.join(", ")))
    }
}

impl Unpacked {
    /// The kernel in the folder of its packages. `None` for an incomplete download.
    fn in_folder(folder: &Path) -> Option<Self> {
        let found = |version, image| Some(Self { version, folder: folder.to_owned(), image });
        let in_boot = fs::read_dir(folder.join("boot")).into_iter().flatten().flatten().find_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((version_of_release(name.strip_prefix("vmlinuz-")?)?, entry.path()))
        });
        if let Some((version, image)) = in_boot {
            return found(version, image);
        }
        fs::read_dir(folder.join("usr/lib/modules")).ok()?.flatten().find_map(|entry| {
            let image = entry.path().join("vmlinuz");
            let version = version_of_release(&entry.file_name().to_string_lossy())?;
            image.is_file().then(|| found(version, image)).flatten()
        })
    }

    /// The content of a module.
    pub(crate) fn module(&self, name: &str) -> Result<Vec<u8>> {
        let folders = ["lib/modules", "usr/lib/modules"];
        let file = format!("{name}.ko");
        let found = folders.iter().find_map(|modules| find_module(&self.folder.join(modules), &file));
        let path = found.with_context(|| format!("no module {name} in {}", self.folder.display()))?;
        // A guest's busybox cannot unpack modules.
        if path.extension().is_some_and(|extension| extension == "xz") {
            return command::capture_bytes(command::new("xz").args(["--decompress", "--stdout"]).arg(&path));
        }
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

fn find_module(folder: &Path, prefix: &str) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_module(&entry.path(), prefix)
        } else {
            entry.file_name().to_string_lossy().starts_with(prefix).then(|| entry.path())
        }
    })
}

/// "6.1.0-56" is ABI 56 of 6.1. The patch is always 0 there, so the ABI orders the builds.
fn version_of_release(release: &str) -> Option<Version> {
    let version = Version::find(release)?;
    let abi = release.split('-').nth(1).and_then(|abi| abi.parse().ok());
    Some(Version { patch: abi.unwrap_or(version.patch), ..version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_ordered_by_abi_or_patch() {
        let version = |name| version_of_release(name).unwrap();
        assert!(version("6.1.0-56-cloud-amd64") > version("6.1.0-9-cloud-amd64"));
        assert!(version("6.12.117+deb12-cloud-amd64") > version("6.12.96+deb12-cloud-amd64"));
        assert_eq!(version_of_release("cloud-amd64"), None);
    }

    #[test]
    fn only_a_finished_download_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Unpacked::in_folder(folder.path()), None);
        let boot = folder.path().join("boot");
        fs::create_dir(&boot).unwrap();
        fs::write(boot.join("config-6.1.0-56-cloud-amd64"), "").unwrap();
        assert_eq!(Unpacked::in_folder(folder.path()), None);
        let image = boot.join("vmlinuz-6.1.0-56-cloud-amd64");
        fs::write(&image, "").unwrap();
        assert_eq!(Unpacked::in_folder(folder.path()).unwrap().image, image);
    }

    #[test]
    fn an_image_beside_its_modules_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join("usr/lib/modules/7.3.4+deb13-cloud-amd64");
        fs::create_dir_all(modules.join("kernel/drivers")).unwrap();
        assert_eq!(Unpacked::in_folder(folder.path()), None);
        fs::write(modules.join("vmlinuz"), "").unwrap();
        fs::write(modules.join("kernel/drivers/brd.ko"), "module").unwrap();
        let kernel = Unpacked::in_folder(folder.path()).unwrap();
        assert_eq!(kernel.version, Version { major: 7, minor: 3, patch: 4 });
        assert_eq!(kernel.module("brd").unwrap(), b"module");
        assert!(kernel.module("veth").is_err());
    }
}
