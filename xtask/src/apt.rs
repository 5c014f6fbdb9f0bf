//! Debian packages: which are installed, simulating an installation, and unpacking without installing.

mod suites;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

pub(crate) use self::suites::Suites;
use crate::{command, host};

/// Result of `apt-get install --simulate`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Simulation {
    pub(crate) install: Vec<String>,
    pub(crate) upgrade: Vec<String>,
    pub(crate) remove: Vec<String>,
}

/// Reads apt's lines `Inst name (new …)`, `Inst name [old] (new …)` and `Remv name [old]`.
fn parse_simulation(printed: &str) -> Simulation {
    let mut simulation = Simulation::default();
    for line in printed.lines() {
        let mut words = line.split_whitespace();
        let (Some(verb), Some(name)) = (words.next(), words.next()) else { continue };
        let has_old_version = words.next().is_some_and(|word| word.starts_with('['));
        let list = match verb {
            "Inst" if has_old_version => &mut simulation.upgrade,
            "Inst" => &mut simulation.install,
            "Remv" | "Purg" => &mut simulation.remove,
            _ => continue,
        };
        list.push(name.to_owned());
    }
    simulation
}

/// The packages that are not installed.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    if command::find("dpkg-query").is_none() {
        return Ok(packages.to_vec());
    }
    let mut query = command::new("dpkg-query");
    query.args(["-W", "-f", "${Package} ${db:Status-Abbrev}\n"]).args(packages);
    // dpkg-query exits with an error if a package is unknown, but still lists the others.
    let output = query.output().with_context(|| format!("cannot start `{}`", command::line(&query)))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    Ok(packages.iter().copied().filter(|package| !is_installed(&printed, package)).collect())
}

fn is_installed(printed: &str, package: &str) -> bool {
    printed.lines().filter_map(|line| line.split_once(' ')).any(|(name, state)| {
        // Desired state, then actual state: "ii", or "hi" for one on hold.
        name == package && state.chars().nth(1) == Some('i')
    })
}

/// Installs the packages.
///
/// # Errors
///
/// Fails without installing anything if apt would remove a package.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !host::is_root() {
        bail!("installing packages requires root. Run: sudo apt-get install --no-install-recommends {list}");
    }
    let simulation = simulate(packages)?;
    if !simulation.remove.is_empty() {
        let remove = simulation.remove.join(", ");
        bail!("installing {list} would remove {remove}: install by hand (`apt-get install {list}`)");
    }
    // An installation that was cut off is finished first; until then apt refuses to work.
    let mut finish = command::new("dpkg");
    command::capture(finish.env("DEBIAN_FRONTEND", "noninteractive").args(["--configure", "--pending"]))?;
    with_updated_lists(|| {
        let mut install = apt_get();
        install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
        command::capture(&mut install)
    })?;
    Ok(())
}

/// Simulates installing the packages.
pub(crate) fn simulate(packages: &[&str]) -> Result<Simulation> {
    let printed = with_updated_lists(|| {
        command::capture(apt_get().args(["install", "--simulate", "--no-install-recommends"]).args(packages))
    })?;
    Ok(parse_simulation(&printed))
}

/// The first dependency of a package. That of a kernel's meta package is the newest kernel.
pub(crate) fn first_dependency(package: &str) -> Result<String> {
    with_updated_lists(|| {
        let printed = command::capture(command::new("apt-cache").args(["depends", package]))?;
        parse_first_dependency(&printed).with_context(|| format!("package {package} has no dependencies"))
    })
}

fn parse_first_dependency(printed: &str) -> Option<String> {
    let name = printed.lines().find_map(|line| line.trim().strip_prefix("Depends:"))?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Downloads the packages and unpacks their files into a folder, without installing. A failure leaves the folder unchanged.
pub(crate) fn unpack(packages: &[&str], into: &Path) -> Result<()> {
    with_updated_lists(|| unpack_with(apt_get, packages, into))
}

fn unpack_with(apt: impl Fn() -> Command, packages: &[&str], into: &Path) -> Result<()> {
    let partial = partial_folder(into)?;
    let downloads = partial.join("debs");
    let root = partial.join("root");
    for folder in [&downloads, &root] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut download = apt();
    // The unprivileged download user cannot write to a private folder.
    download.args(["download", "--quiet", "-o", "APT::Sandbox::User=root"]).args(packages);
    command::capture(download.current_dir(&downloads))?;
    for entry in fs::read_dir(&downloads).with_context(|| format!("cannot read {}", downloads.display()))? {
        command::run(command::new("dpkg").arg("--extract").arg(entry?.path()).arg(&root))?;
    }
    if into.exists() {
        fs::remove_dir_all(into).with_context(|| format!("cannot remove {}", into.display()))?;
    }
    fs::rename(&root, into).with_context(|| format!("cannot move {} into place", into.display()))?;
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))
}

/// Downloads a source package of Debian 12 and unpacks it.
///
/// `scratch` holds separate package lists, because apt's sources rarely include `deb-src`.
pub(crate) fn unpack_source(package: &str, scratch: &Path, into: &Path) -> Result<()> {
    let suites = Suites::update(scratch, "deb-src", &["bookworm"], None)?;
    let description = suites.download_source(package)?;
    // apt has verified the files against the signed list.
    let mut extract = command::new("dpkg-source");
    extract.args(["--no-check", "--extract"]).arg(description).arg(into);
    command::capture(&mut extract)?;
    Ok(())
}

/// A temporary folder next to `into`, with the process id in its name. Removes leftovers of an interrupted run.
fn partial_folder(into: &Path) -> Result<PathBuf> {
    let name = into.file_name().with_context(|| format!("{} has no file name", into.display()))?;
    let partial = into.with_file_name(format!("{}.partial-{}", name.display(), std::process::id()));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    Ok(partial)
}

/// Runs `attempt`; if it fails, updates the package lists and runs it again. The lists may be empty on a new machine, or
/// name versions that the mirror no longer has.
fn with_updated_lists<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    if command::find("apt-get").is_none() {
        bail!(
            "apt-get not found: `cargo xtask setup` supports Debian 12 only. On other systems, install by hand \
             everything that `cargo xtask doctor` reports as missing"
        );
    }
    let first = match attempt() {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    if !host::is_root() {
        return Err(
            first.context("the package lists may be outdated; updating them requires root (apt-get update)")
        );
    }
    println!("  updating package lists (apt-get update)");
    command::capture(apt_get().args(["update", "--quiet"]))?;
    attempt().context(
        "failed with updated package lists: apt's sources must include bookworm and bookworm-security",
    )
}

fn apt_get() -> Command {
    let mut apt = command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_simulation_separates_new_upgraded_and_removed() {
        let printed = "Reading package lists...\n\
            The following packages will be REMOVED:\n  qemu-utils\n\
            Remv qemu-utils [1:10.0.2+ds-2]\n\
            Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n\
            Inst libc6 [2.36-9] (2.36-9+deb12u10 Debian:12.15/oldstable [amd64]) []\n\
            Conf libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n\
            Inst\n";
        let expected = Simulation {
            install: vec!["libfdt1".into()],
            upgrade: vec!["libc6".into()],
            remove: vec!["qemu-utils".into()],
        };
        assert_eq!(parse_simulation(printed), expected);
        assert_eq!(parse_simulation(""), Simulation::default());
    }

    #[test]
    fn only_the_state_installed_counts() {
        let printed = "runc ii \nprometheus rc \nlibc6 hi \nlibhalf iF \n";
        assert!(is_installed(printed, "runc"));
        assert!(is_installed(printed, "libc6"));
        for absent in ["prometheus", "libhalf", "run", "cpio"] {
            assert!(!is_installed(printed, absent), "{absent}");
        }
    }

    #[test]
    fn a_meta_package_names_its_kernel() {
        let printed = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(parse_first_dependency(printed).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(parse_first_dependency("linux-image-cloud-amd64\n"), None);
    }

    proptest! {
        #[test]
        fn no_output_of_apt_panics(printed in "((Inst|Remv|Purg|Conf| Depends:)? ?[a-z\\[\\]() ]{0,12}\n){0,6}") {
            let _ = parse_simulation(&printed);
            let _ = parse_first_dependency(&printed);
            let _ = is_installed(&printed, "a");
        }
    }
}
