//! `cargo xtask release`: everything that is published for a version, without a network, the same bytes wherever it is made.

mod check;
mod date;
mod deb;
mod krew;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum as _};

use self::date::ReleaseDate;
use crate::{
    build::{self, Programs},
    command,
    files::{self, File},
    image::{self, Arch},
    workspace,
};

/// The version of all packages.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The list of all other files, with their SHA-256.
const SUMS: &str = "SHA256SUMS";
const SIGNATURE: &str = "SHA256SUMS.asc";

/// Make the files of a release in target/dist: archives, Debian packages, an image for two architectures, the chart, a manifest for
/// krew, SBOMs and their SHA-256 sums. Tools that are missing are installed; apart from that no network is needed.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Name of the image in the archive.
    #[arg(long, default_value = image::REFERENCE)]
    reference: String,
    /// Sign the sums with this key of gpg: SHA256SUMS.asc.
    #[arg(long, value_name = "KEY")]
    sign_key: Option<String>,
    /// Architecture; can be repeated [default: all].
    #[arg(long, value_enum)]
    arch: Vec<Arch>,
    /// Install from the archive and the Debian packages in a bare Debian, have helm lint the chart and skopeo copy the image. Needs root.
    #[arg(long)]
    check_packages: bool,
    /// Make everything again from a copy of the sources in another folder, and compare the bytes. Takes as long as the release.
    #[arg(long)]
    check_bytes: bool,
}

/// Completions and manual pages, by their paths below `usr/share`.
#[derive(Default)]
struct Documents {
    command: Vec<File>,
    agent: Vec<File>,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = workspace::target_dir().join("dist");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let arches = if options.arch.is_empty() { Arch::value_variants() } else { &options.arch };
    let date = ReleaseDate::find()?;
    let files = make(&options.reference, arches, date)?;
    for file in files.iter().chain([&sums(&files)]) {
        write(&folder.join(&file.path), &file.content)?;
        println!("release: {} ({} KiB)", folder.join(&file.path).display(), file.content.len() / 1024);
    }
    if let Some(key) = &options.sign_key {
        command::run(&mut signing(&folder, key))?;
        println!("release: {}", folder.join(SIGNATURE).display());
    }
    if options.check_packages {
        check::packages(&folder, arches, date)?;
    }
    if options.check_bytes {
        check::afresh(&folder, options, date)?;
    }
    Ok(())
}

/// All files of a release but the sums.
fn make(reference: &str, arches: &[Arch], date: ReleaseDate) -> Result<Vec<File>> {
    let built = arches.iter().map(|arch| Ok((*arch, build::build_for(arch.rust_name())?)));
    let built = built.collect::<Result<Vec<(Arch, Programs)>>>()?;
    let documents = documents(&build::build()?)?;
    let (mut all, mut images, mut archives) = (Vec::new(), Vec::new(), Vec::new());
    for (arch, programs) in &built {
        let sbom = image::workspace_sbom(arch.rust_name())?;
        images.push(image::contents(reference, *arch, programs, &sbom)?);
        let archive = archive(*arch, programs, &documents, &sbom, date)?;
        archives.push((*arch, archive.clone()));
        all.push(archive);
        all.extend(deb::packages(*arch, VERSION, programs, &documents, date)?);
        all.push(File::text(&format!("sbom-{}.cdx.json", arch.rust_name()), sbom));
    }
    let image = workspace::target_dir().join("image");
    fs::create_dir_all(&image).with_context(|| format!("cannot create {}", image.display()))?;
    let image = image.join("snug-agent.tar");
    image::write_all(&images, &image)?;
    all.push(File::text(&format!("snug-agent-{VERSION}.oci.tar"), read(&image)?));
    all.push(File::text(&format!("snug-agent-{VERSION}.tgz"), chart(date)?));
    all.push(File::text("snug.yaml", krew::manifest(&archives)?));
    Ok(all)
}

/// The sums of files, in the format of `sha256sum`.
fn sums(files: &[File]) -> File {
    let mut lines: Vec<String> =
        files.iter().map(|file| format!("{}  {}\n", files::sha256(&file.content), file.path)).collect();
    lines.sort_by(|one, other| one.split(' ').next_back().cmp(&other.split(' ').next_back()));
    File::text(SUMS, lines.concat().into_bytes())
}

/// A command that signs the sums in a folder with a key of gpg.
fn signing(folder: &Path, key: &str) -> Command {
    let mut gpg = command::new("gpg");
    gpg.args(["--batch", "--yes", "--armor", "--detach-sign", "--local-user", key, "--output"]);
    gpg.arg(folder.join(SIGNATURE)).arg(folder.join(SUMS));
    gpg
}

/// The documents that programs for this host write.
fn documents(programs: &Programs) -> Result<Documents> {
    let mut command = Vec::new();
    for (shell, path) in [
        ("bash", "bash-completion/completions/snug"),
        ("zsh", "zsh/vendor-completions/_snug"),
        ("fish", "fish/vendor_completions.d/snug.fish"),
    ] {
        let text = command::capture(Command::new(&programs.cli).args(["completions", shell]))?;
        command.push(File::text(path, text.into_bytes()));
    }
    let folder = tempfile::tempdir().context("no temporary folder")?;
    command::run(Command::new(&programs.cli).args(["man", "--dir"]).arg(folder.path()))?;
    for page in fs::read_dir(folder.path())? {
        let page = page?;
        let path = format!("man/man1/{}.gz", page.file_name().display());
        command.push(File::text(&path, files::gzip(&read(&page.path())?)?));
    }
    ensure!(command.len() > 8, "snug writes {} completions and pages", command.len());
    let page = command::capture(Command::new(&programs.agent).arg("--man"))?;
    let agent = vec![File::text("man/man8/snug-agent.8.gz", files::gzip(page.as_bytes())?)];
    Ok(Documents { command, agent })
}

/// The name of an architecture's archive, without the extension.
fn archive_name(arch: Arch) -> String {
    format!("snug-{VERSION}-{}-linux", arch.rust_name())
}

/// An archive with the programs and all that belongs to them.
fn archive(
    arch: Arch,
    programs: &Programs,
    documents: &Documents,
    sbom: &[u8],
    date: ReleaseDate,
) -> Result<File> {
    let name = archive_name(arch);
    let mut all = vec![
        File::program(&format!("{name}/snug"), read(&programs.cli)?),
        File::program(&format!("{name}/snug-agent"), read(&programs.agent)?),
        File::text(&format!("{name}/sbom.cdx.json"), sbom.to_vec()),
    ];
    for file in ["README.md", "CHANGELOG.md", "deploy/systemd/snug-agent.service"] {
        let last = file.rsplit('/').next().unwrap_or(file);
        all.push(File::text(&format!("{name}/{last}"), read(&workspace::root().join(file))?));
    }
    all.extend(image::licenses(&name)?);
    let share = |file: &File| File::text(&format!("{name}/share/{}", file.path), file.content.clone());
    all.extend(documents.command.iter().chain(&documents.agent).map(share));
    Ok(File::text(&format!("{name}.tar.gz"), files::gzip(&files::tar(&all, date.0)?)?))
}

/// The chart's package, as `helm package` makes it, but of the release's time: a chart has no file that is not in `deploy/helm`.
fn chart(date: ReleaseDate) -> Result<Vec<u8>> {
    fn collect(folder: &Path, path: &str, files: &mut Vec<File>) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let path = format!("{path}/{}", entry.file_name().display());
            if entry.file_type()?.is_dir() {
                collect(&entry.path(), &path, files)?;
            } else {
                files.push(File::text(&path, read(&entry.path())?));
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    collect(&workspace::root().join("deploy/helm/snug-agent"), "snug-agent", &mut files)?;
    files::gzip(&files::tar_without_folders(&files, date.0)?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &PathBuf, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_sha256sum() {
        let files = [File::text("b", b"two".to_vec()), File::text("a", b"one".to_vec())];
        let folder = tempfile::tempdir().unwrap();
        for file in files.iter().chain([&sums(&files)]) {
            write(&folder.path().join(&file.path), &file.content).unwrap();
        }
        let mut check = Command::new("sha256sum");
        let printed =
            command::capture(check.args(["--check", "--strict", SUMS]).current_dir(folder.path())).unwrap();
        assert_eq!(printed, "a: OK\nb: OK\n");
    }

    #[test]
    fn only_the_signed_sums_are_verified() {
        if command::find("gpg").is_none() {
            println!("skipped: there is no gpg");
            return;
        }
        let keys = tempfile::tempdir().unwrap();
        let folder = keys.path();
        let in_folder = |gpg: &mut Command| {
            let output = gpg.env("GNUPGHOME", folder).current_dir(folder).output().unwrap();
            output.status.success()
        };
        let gpg =
            |arguments: &[&str]| in_folder(Command::new("gpg").args(["--batch", "--quiet"]).args(arguments));
        let of_key = ["--quick-generate-key", "snug-test", "ed25519", "sign", "never"];
        assert!(gpg(&[&["--passphrase", ""], &of_key[..]].concat()));
        write(&folder.join(SUMS), b"sums").unwrap();
        assert!(!in_folder(&mut signing(folder, "nobody")) && in_folder(&mut signing(folder, "snug-test")));
        assert!(gpg(&["--verify", SIGNATURE, SUMS]));
        write(&folder.join(SUMS), b"others").unwrap();
        assert!(!gpg(&["--verify", SIGNATURE, SUMS]));
    }

    #[test]
    fn packages_of_the_same_files_have_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, b"\x7fELF").unwrap();
        let programs = Programs { agent: program.clone(), cli: program };
        let documents = Documents {
            command: vec![File::text("man/man1/snug.1.gz", b"page".to_vec())],
            agent: Vec::new(),
        };
        let date = ReleaseDate(1);
        let make = || {
            let mut files = vec![archive(Arch::Amd64, &programs, &documents, b"{}", date).unwrap()];
            files.extend(deb::packages(Arch::Amd64, VERSION, &programs, &documents, date).unwrap());
            files.push(File::text("chart", chart(date).unwrap()));
            files
        };
        let (one, two) = (make(), make());
        assert_eq!(sums(&one).content, sums(&two).content);
    }

    #[test]
    fn the_chart_has_the_version_of_the_programs() {
        let text = read(&workspace::root().join("deploy/helm/snug-agent/Chart.yaml")).unwrap();
        let text = String::from_utf8(text).unwrap();
        for field in ["version", "appVersion"] {
            assert!(text.contains(&format!("\n{field}: {VERSION}\n")), "{field}");
        }
    }
}
