//! `cargo xtask release --check`: the release is reproducible, and its packages do what they should.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use super::{Options, SUMS, VERSION, deb, documents, read, write};
use crate::{
    build, command, host,
    image::Arch,
    manifests,
    setup::{self, Need},
    workspace,
};

/// The script that runs inside of a bare Debian. A stage removes what the one before has left.
const IN_DEBIAN: &str = include_str!("debian.sh");
/// The suite of the bare Debian.
const SUITE: &str = "bookworm";

/// Checks the files of a release in a folder.
pub(super) fn run(folder: &Path, options: &Options) -> Result<()> {
    ensure!(host::is_root(), "--check needs root: it makes a bare Debian and changes into it");
    setup::ensure_all(&[Need::Manifests, Need::Release])?;
    chart(folder)?;
    debian(folder)?;
    afresh(folder, options)
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

/// Installs, starts, upgrades, removes and purges the packages in a bare Debian.
fn debian(folder: &Path) -> Result<()> {
    let started = Instant::now();
    let root = tempfile::tempdir().context("no temporary folder")?;
    let system = root.path().join("debian");
    println!("check: making a bare Debian {SUITE} in {}", system.display());
    let mut bootstrap = command::new("debootstrap");
    command::capture(bootstrap.args(["--variant=minbase", SUITE]).arg(&system))?;
    let packages = system.join("packages");
    fs::create_dir(&packages).with_context(|| format!("cannot create {}", packages.display()))?;
    let programs = build::build()?;
    let documents = documents(&programs.cli)?;
    for (name, version) in [("old", VERSION.to_owned()), ("new", format!("{VERSION}+upgrade"))] {
        fs::create_dir(packages.join(name))?;
        for file in deb::packages(Arch::host(), &version, &programs, &documents)? {
            if name == "old" {
                // What is installed first is what the release has.
                ensure!(file.content == read(&folder.join(&file.path))?, "{} differs", file.path);
            }
            write(&packages.join(name).join(&file.path), &file.content)?;
        }
    }
    let mut inside = command::new("unshare");
    inside.args(["--mount", "--net", "bash", "-eu", "-c", IN_DEBIAN, "bash"]).arg(&system);
    command::run(inside.stdin(Stdio::null()))?;
    println!("check: the packages work in a bare Debian ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

/// Makes the release again from a copy of the sources elsewhere, from scratch, and compares the sums.
fn afresh(folder: &Path, options: &Options) -> Result<()> {
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
    command::run(
        command::remove_cargo_variables(&mut cargo).env("CARGO_TARGET_DIR", copy.path().join("target")),
    )?;
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
