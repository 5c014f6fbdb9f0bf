//! Checks of a release: its packages do what they should, and it is reproducible.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Options, ReleaseDate, SUMS, VERSION, archive_name, date, deb, documents, read, write};
use crate::{
    build, command, host,
    image::Arch,
    manifests,
    setup::{self, Need},
    workspace,
};

/// The script for a bare Debian. A stage removes what the one before has left.
const IN_DEBIAN: &str = include_str!("debian.sh");
/// The headings in docs/packages.md above commands that are run here, and the names of the files that have them.
const RUN_HERE: [(&str, &str); 2] =
    [("## From the archive", "from-archive"), ("## From the Debian packages", "from-packages")];
/// The suite of the bare Debian.
const SUITE: &str = "bookworm";

/// Checks the packages of a release in a folder.
pub(super) fn packages(folder: &Path, arches: &[Arch], date: ReleaseDate) -> Result<()> {
    ensure!(
        arches.contains(&Arch::host()),
        "--check-packages installs the packages of this host's architecture"
    );
    ensure!(host::is_root(), "--check-packages needs root: it makes a bare Debian and changes into it");
    setup::ensure_all(&[Need::Manifests, Need::Release])?;
    chart(folder)?;
    image(folder, arches)?;
    debian(folder, date)
}

fn chart(folder: &Path) -> Result<()> {
    let helm = manifests::folder()?.join("helm");
    let package = folder.join(format!("snug-agent-{VERSION}.tgz"));
    command::run(Command::new(&helm).args(["lint", "--strict"]).arg(&package))?;
    let rendered = command::capture(Command::new(&helm).args(["template", "snug-agent"]).arg(&package))?;
    ensure!(rendered.contains("kind: DaemonSet"), "the packaged chart renders no DaemonSet");
    println!("check: helm accepts and renders the packaged chart");
    Ok(())
}

/// Has skopeo copy the image for each architecture, which verifies its digests.
fn image(folder: &Path, arches: &[Arch]) -> Result<()> {
    let archive = format!("oci-archive:{}", folder.join(format!("snug-agent-{VERSION}.oci.tar")).display());
    for arch in arches {
        let copy = tempfile::tempdir().context("no temporary folder")?;
        let mut skopeo = command::new("skopeo");
        skopeo.args([
            "--override-os",
            "linux",
            "--override-arch",
            arch.oci_name(),
            "copy",
            "--quiet",
            &archive,
        ]);
        command::run(skopeo.arg(format!("dir:{}", copy.path().display())))?;
        let manifest: Value = serde_json::from_slice(&read(&copy.path().join("manifest.json"))?)?;
        let digest = manifest["config"]["digest"].as_str().unwrap_or_default();
        let config: Value =
            serde_json::from_slice(&read(&copy.path().join(digest.trim_start_matches("sha256:")))?)?;
        ensure!(
            config["architecture"] == arch.oci_name(),
            "the image for {} is of {config}",
            arch.oci_name()
        );
    }
    println!("check: skopeo copies the image for each architecture");
    Ok(())
}

/// The first commands below a heading of docs/packages.md, for this host.
fn commands_below(heading: &str) -> Result<String> {
    let page = String::from_utf8(read(&workspace::root().join("docs/packages.md"))?).context("no text")?;
    let (_, behind) =
        page.split_once(heading).with_context(|| format!("no {heading:?} in docs/packages.md"))?;
    let (_, behind) = behind.split_once("\n```sh\n").context("no commands")?;
    let (commands, _) = behind.split_once("\n```\n").context("a block does not end")?;
    ensure!(commands.contains(VERSION), "docs/packages.md is of another version");
    let (page, host) = (Arch::Amd64, Arch::host());
    let commands = commands.replace(page.rust_name(), host.rust_name());
    Ok(commands.replace(&format!("_{}.deb", page.oci_name()), &format!("_{}.deb", host.oci_name())))
}

/// Installs from the archive, and installs, starts, upgrades, removes and purges the packages in a bare Debian.
fn debian(folder: &Path, date: ReleaseDate) -> Result<()> {
    let started = Instant::now();
    let root = tempfile::tempdir().context("no temporary folder")?;
    let system = root.path().join("debian");
    println!("check: making a bare Debian {SUITE} in {}", system.display());
    let mut bootstrap = command::new("debootstrap");
    command::capture(bootstrap.args(["--variant=minbase", SUITE]).arg(&system))?;
    let archive = system.join("archive");
    fs::create_dir(&archive).with_context(|| format!("cannot create {}", archive.display()))?;
    for (heading, file) in RUN_HERE {
        write(&system.join(file), commands_below(heading)?.as_bytes())?;
    }
    for name in [SUMS.to_owned(), format!("{}.tar.gz", archive_name(Arch::host()))] {
        write(&archive.join(&name), &read(&folder.join(&name))?)?;
    }
    let packages = system.join("packages");
    fs::create_dir(&packages).with_context(|| format!("cannot create {}", packages.display()))?;
    let programs = build::build()?;
    let documents = documents(&programs)?;
    for (name, version) in [("old", VERSION.to_owned()), ("new", format!("{VERSION}+upgrade"))] {
        fs::create_dir(packages.join(name))?;
        for file in deb::packages(Arch::host(), &version, &programs, &documents, date)? {
            if name == "old" {
                // What is installed first is what the release has.
                ensure!(file.content == read(&folder.join(&file.path))?, "{} differs", file.path);
            }
            write(&packages.join(name).join(&file.path), &file.content)?;
        }
    }
    let mut inside = command::new("unshare");
    inside.args(["--mount", "--net", "bash", "-eu", "-c", IN_DEBIAN, "bash"]).arg(&system);
    inside.arg(format!("snug-test-{}", std::process::id()));
    command::run(inside.stdin(Stdio::null()))?;
    println!(
        "check: the archive and the packages work in a bare Debian ({:.1} s)",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Makes the release again from a copy of the sources elsewhere, from scratch, and compares the sums.
pub(super) fn afresh(folder: &Path, options: &Options, date: ReleaseDate) -> Result<()> {
    let started = Instant::now();
    let copy = tempfile::tempdir_in(workspace::target_dir()).context("no temporary folder")?;
    let sources = copy.path().join("elsewhere");
    let files = command::capture(command::new("git").args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    for file in files.split('\0').filter(|file| !file.is_empty()) {
        let to = sources.join(file);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let from = workspace::root().join(file);
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let mut cargo = command::new("cargo");
    cargo.args(["xtask", "release", "--reference", &options.reference]).current_dir(&sources);
    for arch in &options.arch {
        cargo.args(["--arch", arch.oci_name()]);
    }
    let cargo = command::remove_cargo_variables(&mut cargo);
    // The copy is no clone, which would have a time.
    cargo.env("CARGO_TARGET_DIR", copy.path().join("target")).env(date::VARIABLE, date.0.to_string());
    command::run(cargo)?;
    let sums =
        |path: &Path| Ok::<_, anyhow::Error>(String::from_utf8_lossy(&read(&path.join(SUMS))?).into_owned());
    let (one, two) = (sums(folder)?, sums(&copy.path().join("target/dist"))?);
    let different: Vec<&str> = one.lines().filter(|line| !two.contains(line)).collect();
    ensure!(
        different.is_empty() && one == two,
        "made again elsewhere, these differ:\n{}",
        different.join("\n")
    );
    println!(
        "check: made again from scratch in another folder, all files have the same bytes ({:.0} s)",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_installs_this_version() {
        let lines = RUN_HERE.map(|(heading, _)| commands_below(heading).unwrap().lines().count());
        assert!(lines[0] > 2 && lines[1] > 0, "{lines:?}");
    }
}
