//! Packages of suites and architectures that apt's sources do not have, from the mirrors of these sources.
//!
//! The package lists are in a folder of their own: the system's lists and its dpkg state stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{apt_get, unpack_with, with_updated_lists};
use crate::command;

/// Keys of all Debian releases.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package lists in a folder of their own.
#[derive(Debug)]
pub(crate) struct Suites {
    folder: PathBuf,
    architecture: Option<&'static str>,
}

impl Suites {
    /// Gets the lists of these suites. `kind`: `deb` or `deb-src`. `architecture`: by Debian's name; `None` for this host's.
    pub(crate) fn update(
        folder: &Path,
        kind: &str,
        suites: &[&str],
        architecture: Option<&'static str>,
    ) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial", "none"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let mut sources = String::new();
        for suite in suites {
            let mirror =
                mirror_of(if suite.ends_with("-security") { "bookworm-security" } else { "bookworm" })?;
            sources.push_str(&format!("{kind} [signed-by={KEYRING}] {mirror} {suite} main\n"));
        }
        for (name, content) in [("sources.list", sources.as_str()), ("status", "")] {
            let file = folder.join(name);
            fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let own = Self { folder: folder.to_owned(), architecture };
        command::capture(own.command(apt_get()).args(["update", "--quiet"]))?;
        Ok(own)
    }

    /// The names of packages that match a regular expression.
    pub(crate) fn search(&self, pattern: &str) -> Result<Vec<String>> {
        let mut search = self.command(command::new("apt-cache"));
        let printed = command::capture(search.args(["search", "--names-only", pattern]))?;
        Ok(printed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// As [`super::unpack`].
    pub(crate) fn unpack(&self, packages: &[&str], into: &Path) -> Result<()> {
        unpack_with(|| self.command(apt_get()), packages, into)
    }

    /// Downloads the files of a source package, and returns the path of its description.
    pub(crate) fn download_source(&self, package: &str) -> Result<PathBuf> {
        let downloads = self.folder.join("download");
        fs::create_dir_all(&downloads).with_context(|| format!("cannot create {}", downloads.display()))?;
        let mut source = self.command(apt_get());
        source.args(["source", "--download-only", "--quiet", package]).current_dir(&downloads);
        command::capture(&mut source)?;
        let entries =
            fs::read_dir(&downloads).with_context(|| format!("cannot read {}", downloads.display()))?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "dsc"))
            .with_context(|| format!("the source package {package} has no .dsc file"))
    }

    fn command(&self, mut apt: Command) -> Command {
        for (name, path) in [
            ("Dir::State::Lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "none"),
            ("Dir::Etc::preferencesparts", "none"),
        ] {
            apt.arg("-o").arg(format!("{name}={}", self.folder.join(path).display()));
        }
        if let Some(architecture) = self.architecture {
            apt.arg("-o").arg(format!("APT::Architecture={architecture}"));
            apt.arg("-o").arg(format!("APT::Architectures={architecture}"));
        }
        // The unprivileged download user cannot write to a private folder.
        apt.args(["-o", "APT::Sandbox::User=root"]);
        apt
    }
}

/// The mirror of a suite of Debian 12 in apt's sources.
fn mirror_of(suite: &str) -> Result<String> {
    with_updated_lists(|| {
        let mut targets = apt_get();
        targets.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
        let printed = command::capture(targets.arg(format!("Codename: {suite}")))?;
        let first = printed.lines().next().map(str::to_owned);
        first.with_context(|| format!("no mirror of Debian 12 ({suite}) in apt's sources"))
    })
}
