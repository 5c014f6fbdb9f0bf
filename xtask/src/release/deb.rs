//! Debian packages: `snug` with the command, `snug-agent` with the agent and its systemd unit.

use anyhow::{Context as _, Result, ensure};

use super::{Documents, ReleaseDate, read};
use crate::{
    build::Programs,
    files::{self, File},
    image::{self, Arch},
    workspace,
};

/// What `dh_installsystemd` would write: enables the unit at the first installation, keeps the user's choice at upgrades.
const POSTINST: &str = r#"#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
deb-systemd-helper unmask snug-agent.service > /dev/null
if deb-systemd-helper --quiet was-enabled snug-agent.service; then
    deb-systemd-helper enable snug-agent.service > /dev/null
else
    deb-systemd-helper update-state snug-agent.service > /dev/null
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    deb-systemd-invoke restart snug-agent.service
fi
"#;
const PRERM: &str = r#"#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    deb-systemd-invoke stop snug-agent.service
fi
"#;
/// Usage history goes with `purge`, not with `remove`.
const POSTRM: &str = r#"#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ "$1" = remove ]; then
    deb-systemd-helper mask snug-agent.service > /dev/null
elif [ "$1" = purge ]; then
    deb-systemd-helper purge snug-agent.service > /dev/null
    deb-systemd-helper unmask snug-agent.service > /dev/null
    rm -rf /var/lib/snug
fi
"#;

const MAINTAINER: &str = "Snug <snug@users.noreply.github.com>";

/// The machine-readable copyright file that Debian wants in each package.
const COPYRIGHT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Snug
Source: @SOURCE@

Files: *
Copyright: 2026 The Snug authors
License: Apache-2.0 or Expat
Comment:
 The texts are beside this file. The eBPF programs in snug-agent are under the Expat
 licence or GPL-2 (LICENSE-GPL-2.0). The archive of the release has a list of all
 crates that are linked, with their licences: sbom.cdx.json.
";

struct Package<'p> {
    name: &'p str,
    summary: &'p str,
    description: &'p str,
    recommends: &'p str,
    files: Vec<File>,
    scripts: &'p [(&'p str, &'p str)],
}

/// The packages of an architecture.
pub(super) fn packages(
    arch: Arch,
    version: &str,
    programs: &Programs,
    documents: &Documents,
    date: ReleaseDate,
) -> Result<Vec<File>> {
    let share = |file: &File| File::text(&format!("usr/share/{}", file.path), file.content.clone());
    let mut command = vec![File::program("usr/bin/snug", read(&programs.cli)?)];
    command.push(File::link("usr/bin/kubectl-snug", "snug"));
    command.push(File::link("usr/share/man/man1/kubectl-snug.1.gz", "snug.1.gz"));
    command.extend(documents.command.iter().map(share));
    let mut agent = vec![
        File::program("usr/bin/snug-agent", read(&programs.agent)?),
        File::text("usr/lib/systemd/system/snug-agent.service", unit()?.into_bytes()),
    ];
    agent.extend(documents.agent.iter().map(share));
    let packages = [
        Package {
            name: "snug",
            summary: "recommends CPU and memory requests and limits of containers",
            description: "Reads usage from agents, from a Prometheus, or from a file.",
            recommends: "",
            files: command,
            scripts: &[],
        },
        Package {
            name: "snug-agent",
            summary: "measures CPU, memory and network usage of containers with eBPF",
            description: "Serves metrics for Prometheus and keeps the usage history that snug reads.",
            recommends: "snug",
            files: agent,
            scripts: &[("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)],
        },
    ];
    packages.into_iter().map(|package| package.file(arch, version, date)).collect()
}

/// A changelog as Debian's tools read it: the version and its date. The changes are in CHANGELOG.md, which has another form.
fn changelog(package: &str, version: &str, date: ReleaseDate) -> Result<Vec<u8>> {
    let date = date.as_in_mail()?;
    let text = format!(
        "{package} ({version}) stable; urgency=medium\n\n  * Changes: CHANGELOG.md.gz beside this file.\n\n -- {MAINTAINER}  {date}\n"
    );
    files::gzip(text.as_bytes())
}

/// The unit, with the agent where packages put it.
fn unit() -> Result<String> {
    let text = read(&workspace::root().join("deploy/systemd/snug-agent.service"))?;
    let text = String::from_utf8(text).context("the unit is no text")?;
    let (manual, packaged) = ("ExecStart=/usr/local/bin/", "ExecStart=/usr/bin/");
    ensure!(text.contains(manual), "the unit has no {manual}");
    let is_comment = |line: &&str| line.starts_with('#') && !line.contains("Capabilities");
    let lines = text.lines().skip_while(is_comment).map(|line| format!("{line}\n"));
    Ok(lines.collect::<String>().replace(manual, packaged))
}

impl Package<'_> {
    fn file(mut self, arch: Arch, version: &str, date: ReleaseDate) -> Result<File> {
        let documents = format!("usr/share/doc/{}", self.name);
        self.files.extend(image::licenses(&documents)?);
        let copyright = COPYRIGHT.replace("@SOURCE@", env!("CARGO_PKG_REPOSITORY"));
        self.files.push(File::text(&format!("{documents}/copyright"), copyright.into_bytes()));
        let changes = files::gzip(&read(&workspace::root().join("CHANGELOG.md"))?)?;
        self.files.push(File::text(&format!("{documents}/CHANGELOG.md.gz"), changes));
        let changelog = changelog(self.name, version, date)?;
        self.files.push(File::text(&format!("{documents}/changelog.gz"), changelog));
        let size: usize = self.files.iter().map(|file| file.content.len().div_ceil(1024)).sum();
        let arch = arch.oci_name();
        let recommends = if self.recommends.is_empty() {
            String::new()
        } else {
            format!("Recommends: {}\n", self.recommends)
        };
        let control = format!(
            "Package: {}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: {MAINTAINER}\nInstalled-Size: {size}\n\
             {recommends}Section: admin\nPriority: optional\nHomepage: {}\nDescription: {}\n {}\n",
            self.name,
            env!("CARGO_PKG_REPOSITORY"),
            self.summary,
            self.description,
        );
        let mut metadata = vec![File::text("control", control.into_bytes())];
        let script = |(name, text): &(&str, &str)| File::program(name, text.as_bytes().to_vec());
        metadata.extend(self.scripts.iter().map(script));
        let members = [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.gz", files::gzip(&files::tar(&metadata, date.0)?)?),
            ("data.tar.gz", files::gzip(&files::tar(&self.files, date.0)?)?),
        ];
        let package = ar(&members, date);
        Ok(File::text(&format!("{}_{version}_{arch}.deb", self.name), package))
    }
}

/// An archive in the format of `ar` (deb(5)).
fn ar(members: &[(&str, Vec<u8>)], date: ReleaseDate) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let (time, owner, group, mode) = (date.0, 0, 0, "100644");
        let size = content.len();
        archive.extend(format!("{name:<16}{time:<12}{owner:<6}{group:<6}{mode:<8}{size:<10}`\n").bytes());
        archive.extend(content);
        if size % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::command;

    #[test]
    fn dpkg_reads_the_packages() {
        if command::find("dpkg-deb").is_none() {
            println!("skipped: there is no dpkg-deb");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, b"program").unwrap();
        let programs = Programs { agent: path.clone(), cli: path };
        let page = |path: &str| vec![File::text(path, b"page".to_vec())];
        let documents =
            Documents { command: page("man/man1/snug.1.gz"), agent: page("man/man8/snug-agent.8.gz") };
        let date = ReleaseDate(1_796_136_149);
        for file in packages(Arch::Arm64, "1.2.3", &programs, &documents, date).unwrap() {
            let package = folder.path().join(&file.path);
            std::fs::write(&package, &file.content).unwrap();
            let dpkg =
                |option: &str| command::capture(Command::new("dpkg-deb").arg(option).arg(&package)).unwrap();
            let name = file.path.split('_').next().unwrap();
            assert_eq!(file.path, format!("{name}_1.2.3_arm64.deb"));
            let control = dpkg("--field");
            assert!(
                control.contains(&format!("Package: {name}\nVersion: 1.2.3\nArchitecture: arm64\n")),
                "{control}"
            );
            let contents = dpkg("--contents");
            let documents = format!("usr/share/doc/{name}");
            for path in [
                format!("usr/bin/{name}"),
                format!("{documents}/copyright"),
                format!("{documents}/changelog.gz"),
            ] {
                assert!(contents.contains(&format!(" {path}\n")), "{contents}");
            }
            assert!(contents.contains(&format!("/{name}.")), "a manual page: {contents}");
            assert!(contents.lines().all(|line| line.contains(" 2026-12-01 ")), "{contents}");
            assert!(
                contents.lines().all(|line| line.contains("root/root") || line.contains(" 0/0 ")),
                "{contents}"
            );
        }
    }

    #[test]
    fn the_unit_starts_the_packaged_agent() {
        let unit = unit().unwrap();
        assert!(unit.starts_with("[Unit]\n") && unit.contains("\nExecStart=/usr/bin/snug-agent "), "{unit}");
        assert!(!unit.contains("/usr/local"), "{unit}");
    }
}
