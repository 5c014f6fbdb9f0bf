//! The programs of a Kubernetes node, from Debian's packages alone: those it does not ship are built from its sources.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{apt, command, toolchain, workspace};

/// Built from Debian's source package `kubernetes`.
const BUILT: [&str; 4] = ["kubelet", "kube-apiserver", "kube-scheduler", "kube-controller-manager"];
/// What no test needs is left out: clients of clouds, and Docker beside containerd.
const LEFT_OUT: &str = "providerless,dockerless";
/// Taken from packages, below the root that they are unpacked into.
const TAKEN: [&str; 7] = [
    "usr/bin/etcd",
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
    "usr/bin/kubectl",
    "usr/sbin/runc",
    "usr/lib/cni/bridge",
];

/// Where the programs are.
pub(crate) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Those in the cache, whether they are there or not.
    pub(crate) fn cached() -> Result<Self> {
        let version = toolchain::KUBERNETES_VERSION;
        Ok(Self { folder: workspace::cache_dir()?.join(format!("kubernetes-{version}")) })
    }

    /// A program that was built.
    pub(super) fn built(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// A file of a package.
    pub(super) fn packaged(&self, path: &str) -> PathBuf {
        self.folder.join("root").join(path)
    }

    fn complete(&self) -> bool {
        BUILT
            .iter()
            .map(|name| self.built(name))
            .chain(TAKEN.iter().map(|path| self.packaged(path)))
            .all(|program| command::is_executable(&program))
    }

    /// Unpacks and builds what is missing.
    pub(crate) fn ensure(&self) -> Result<()> {
        if self.complete() {
            return Ok(());
        }
        println!(
            "setup: building Kubernetes {} from Debian's sources into {}, to test on a real node (three to six minutes; \
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
        ensure!(self.complete(), "not all programs of a node are in {}", self.folder.display());
        println!("setup: Kubernetes built ({:.1} s)", started.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Builds what the source package's own build makes, without its shell scripts, which fetch.
fn build(work: &Path, into: &Path) -> Result<()> {
    let go = work.join("go");
    apt::unpack(toolchain::GO_PACKAGES, &go)?;
    let source = work.join("path/src/k8s.io/kubernetes");
    fs::create_dir_all(source.parent().unwrap_or(work)).context("cannot make a folder for the sources")?;
    apt::unpack_source("kubernetes", &work.join("apt"), &source)?;
    let version = source_version(&source)?;
    ensure!(
        version.starts_with(toolchain::KUBERNETES_VERSION),
        "Debian's source is Kubernetes {version}, not {}: change KUBERNETES_VERSION",
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

    // The API server serves its own schema, which is generated before it is built.
    let generator = work.join("openapi-gen");
    go(&generator, "k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen", &[])?;
    let mut generate = run(generator);
    generate.args(["--logtostderr", "-i", &described(&source)?.join(",")]);
    generate.args(["-p", "k8s.io/kubernetes/pkg/generated/openapi", "-O", "zz_generated.openapi"]);
    generate.args(["-h", "hack/boilerplate/boilerplate.generatego.txt", "-r", "/dev/null"]);
    command::capture(&mut generate)?;

    let package = "k8s.io/kubernetes/vendor/k8s.io/component-base/version";
    let (major, minor) = version.split_once('.').context("a version without a dot")?;
    let minor = minor.split('.').next().unwrap_or(minor);
    let flags = format!(
        "-s -w -X {package}.gitMajor={major} -X {package}.gitMinor={minor} -X {package}.gitVersion=v{version}"
    );
    // One call for all of them: what they share is compiled once, and one is linked while another is compiled.
    let mut programs = run(goroot.join("bin/go"));
    programs.args(["build", "-v", "-tags", LEFT_OUT, "-ldflags", &flags, "-o"]).arg(into);
    programs.args(BUILT.map(|program| format!("k8s.io/kubernetes/cmd/{program}")));
    command::run_counting(&mut programs, "setup: packages of Kubernetes that are compiled")
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

/// Packages with types that are part of the schema, as the marker in their sources says.
fn described(source: &Path) -> Result<Vec<String>> {
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
            // Modules are vendored by symbolic links into the tree.
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
