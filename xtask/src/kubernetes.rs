//! The programs of a Kubernetes node: from Debian's packages, else built from Debian's sources.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{apt, command, toolchain, workspace};

/// Programs built from Debian's source package `kubernetes`.
const BUILT: [&str; 4] = ["kubelet", "kube-apiserver", "kube-scheduler", "kube-controller-manager"];
/// Build tags that leave out cloud providers and dockershim, which no test needs.
const BUILD_TAGS: &str = "providerless,dockerless";
/// Programs from packages, relative to the folder that these are unpacked into.
const PACKAGED: [&str; 7] = [
    "usr/bin/etcd",
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
    "usr/bin/kubectl",
    "usr/sbin/runc",
    "usr/lib/cni/bridge",
];

/// The programs in the cache.
pub(crate) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Refers to the programs in the cache, which may not exist yet.
    pub(crate) fn cached() -> Result<Self> {
        let version = toolchain::KUBERNETES_VERSION;
        Ok(Self { folder: workspace::cache_dir()?.join(format!("kubernetes-{version}")) })
    }

    /// Path of a program built from source.
    pub(super) fn built(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// Path of a file from a package.
    pub(super) fn packaged(&self, path: &str) -> PathBuf {
        self.folder.join("root").join(path)
    }

    fn is_complete(&self) -> bool {
        BUILT
            .iter()
            .map(|name| self.built(name))
            .chain(PACKAGED.iter().map(|path| self.packaged(path)))
            .all(|program| command::is_executable(&program))
    }

    /// Unpacks and builds the programs unless they are in the cache.
    pub(crate) fn ensure(&self) -> Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        println!(
            "setup: building Kubernetes {} from Debian's sources into {} for tests on a real node (three to six minutes; \
             nothing is installed)",
            toolchain::KUBERNETES_VERSION,
            self.folder.display(),
        );
        let started = Instant::now();
        let packages = self.folder.join("root");
        apt::unpack(toolchain::NODE_PACKAGES, &packages)?;
        let work = self.folder.join("build");
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
        }
        build(&work, &self.folder.join("bin"))?;
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
        ensure!(self.is_complete(), "programs of a Kubernetes node are missing in {}", self.folder.display());
        println!("setup: Kubernetes built ({:.1} s)", started.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Builds the programs without the source package's shell scripts, because these download files.
fn build(work: &Path, into: &Path) -> Result<()> {
    let go = work.join("go");
    apt::unpack(toolchain::GO_PACKAGES, &go)?;
    let source = work.join("path/src/k8s.io/kubernetes");
    fs::create_dir_all(source.parent().unwrap_or(work)).context("cannot make a folder for the sources")?;
    apt::unpack_source("kubernetes", &work.join("apt"), &source)?;
    let version = source_version(&source)?;
    ensure!(
        version.starts_with(toolchain::KUBERNETES_VERSION),
        "Debian's source package has Kubernetes {version}, not {}: change KUBERNETES_VERSION",
        toolchain::KUBERNETES_VERSION,
    );
    fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
    let goroot = go.join(toolchain::GO_ROOT);
    let run = |program: PathBuf| -> Command {
        let mut command = Command::new(program);
        command.current_dir(&source);
        command.env("GOROOT", &goroot).env("GOPATH", work.join("path")).env("GOCACHE", work.join("cache"));
        command.env("GOENV", "off").env("GOFLAGS", "").env("GOPROXY", "off").env("GO111MODULE", "off");
        command.env("CGO_ENABLED", "0");
        command
    };
    let go = |output: &Path, package: &str, flags: &[&str]| -> Result<()> {
        let mut build = run(goroot.join("bin/go"));
        build.arg("build").args(flags).arg("-o").arg(output).arg(package);
        command::capture(&mut build).map(|_| ())
    };

    // The API server serves its OpenAPI schema: generate it first.
    let generator = work.join("openapi-gen");
    go(&generator, "k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen", &[])?;
    let mut generate = run(generator);
    generate.args(["--logtostderr", "-i", &openapi_packages(&source)?.join(",")]);
    generate.args(["-p", "k8s.io/kubernetes/pkg/generated/openapi", "-O", "zz_generated.openapi"]);
    generate.args(["-h", "hack/boilerplate/boilerplate.generatego.txt", "-r", "/dev/null"]);
    command::capture(&mut generate)?;

    let package = "k8s.io/kubernetes/vendor/k8s.io/component-base/version";
    let (major, minor) = version.split_once('.').context("the Kubernetes version has no dot")?;
    let minor = minor.split('.').next().unwrap_or(minor);
    let flags = format!(
        "-s -w -X {package}.gitMajor={major} -X {package}.gitMinor={minor} -X {package}.gitVersion=v{version}"
    );
    // One call for all programs compiles shared packages once, and links while it compiles.
    let mut programs = run(goroot.join("bin/go"));
    programs.args(["build", "-v", "-tags", BUILD_TAGS, "-ldflags", &flags, "-o"]).arg(into);
    programs.args(BUILT.map(|program| format!("k8s.io/kubernetes/cmd/{program}")));
    command::run_counting(&mut programs, "setup: compiled packages of Kubernetes")
}

/// The upstream version in the first line of debian/changelog: `kubernetes (1.20.5+really1.20.2-1.1+deb12u1) …`.
fn source_version(source: &Path) -> Result<String> {
    let changelog = source.join("debian/changelog");
    let text =
        fs::read_to_string(&changelog).with_context(|| format!("cannot read {}", changelog.display()))?;
    parse_version(&text).with_context(|| format!("no version in {}", changelog.display()))
}

fn parse_version(changelog: &str) -> Option<String> {
    let (_, rest) = changelog.lines().next()?.split_once('(')?;
    let version = rest.split_once(')')?.0;
    let upstream = version.rsplit_once('-').map_or(version, |(upstream, _)| upstream);
    Some(upstream.rsplit_once("really").map_or(upstream, |(_, really)| really).to_owned())
}

/// Packages whose types are part of the OpenAPI schema: their sources have the marker `+k8s:openapi-gen=`.
fn openapi_packages(source: &Path) -> Result<Vec<String>> {
    const MARKER: &str = "+k8s:openapi-gen=";
    let mut found = Vec::new();
    let vendored = [
        "api",
        "apimachinery",
        "apiserver",
        "client-go",
        "component-base",
        "controller-manager",
        "cloud-provider",
        "kube-proxy",
        "kubelet",
        "kube-scheduler",
        "kube-controller-manager",
        "metrics",
        "apiextensions-apiserver",
        "kube-aggregator",
        "kubectl",
    ];
    let mut folders: Vec<PathBuf> = ["cmd", "pkg", "plugin"].map(|folder| source.join(folder)).into();
    folders.extend(vendored.map(|module| source.join("vendor/k8s.io").join(module)));
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut marked = false;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            // Vendored modules are symbolic links into the source tree.
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".go") && !name.ends_with("_test.go") && !marked {
                marked = fs::read_to_string(&path).is_ok_and(|text| text.contains(MARKER));
            }
        }
        let relative = folder.strip_prefix(source).unwrap_or(&folder).display().to_string();
        if marked && !relative.contains("generated/openapi") {
            found.push(format!("k8s.io/kubernetes/{relative}"));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_really_in_it() {
        let first = |version: &str| format!("kubernetes ({version}) bookworm; urgency=medium\n\n  * x\n");
        let parsed = |version: &str| parse_version(&first(version)).unwrap();
        assert_eq!(parsed("1.20.5+really1.20.2-1.1+deb12u1"), "1.20.2");
        assert_eq!(parsed("1.32.1-1"), "1.32.1");
        assert_eq!(parse_version("nothing"), None);
    }
}
