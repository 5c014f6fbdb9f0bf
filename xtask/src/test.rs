//! `cargo xtask test`: everything that is checked, in stages.

use std::{
    cell::OnceCell,
    collections::BTreeSet,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::{Parser, ValueEnum};

use crate::{
    build::{self, OBJECT_VARIABLE},
    build_ebpf::{self, Toolchain},
    cluster, command, containers, elf, manifests, otlp,
    setup::{self, Need},
    toolchain, vm, workspace,
};

/// Check everything: format, lints, documentation, and tests from units to whole systems.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Run these stages only.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Stage>,
}

/// One kind of check. They run in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Stage {
    /// The code is formatted.
    Fmt,
    /// No lint complains, neither on the host's half nor on the kernel's.
    Clippy,
    /// The documentation builds without a warning.
    Docs,
    /// Tests beside the code.
    Unit,
    /// The kernel half builds in both ways, with the same programs in it.
    Toolchain,
    /// The kernel half on this host's kernel.
    Kernel,
    /// The kernel half on stock kernels in virtual machines.
    Vm,
    /// The agent and what scrapes it.
    System,
    /// What installs it: kustomize and helm render the same, valid for many versions of Kubernetes.
    Manifests,
    /// The agent on a real Kubernetes node.
    Cluster,
}

impl Stage {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Self::Fmt => &[],
            Self::Clippy => &[Need::Ebpf, Need::Lint, Need::Cross],
            Self::Docs | Self::Toolchain => &[Need::Ebpf],
            // A unit test packs a guest's files, busybox among them.
            Self::Unit | Self::Kernel => &[Need::Ebpf, Need::Containers],
            Self::Vm => &[Need::Ebpf, Need::Containers, Need::Vm],
            Self::Manifests => &[Need::Ebpf, Need::Manifests],
            Self::Cluster => &[Need::Ebpf, Need::Manifests, Need::Cluster],
            Self::System => &[Need::Ebpf, Need::Containers, Need::Prometheus, Need::Otlp],
        }
    }
}

/// Test targets that have a stage of their own.
const WHOLE_SYSTEM: [&str; 4] = ["kernel", "system", "manifests", "cluster"];

/// What came of a stage.
#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(anyhow::Error),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(error) => write!(f, "FAILED: {error:#}"),
        }
    }
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let chosen: BTreeSet<Stage> = if options.only.is_empty() {
        Stage::value_variants().iter().copied().collect()
    } else {
        options.only.iter().copied().collect()
    };
    let products = Products::default();
    let mut report = Vec::new();
    for stage in chosen {
        println!("== {}", stage.name());
        let started = Instant::now();
        let outcome = setup::ensure_all(stage.needs())
            .and_then(|()| products.run(stage))
            .map_or_else(Outcome::Failed, |()| Outcome::Passed);
        let elapsed = started.elapsed();
        println!("== {} {outcome} ({:.1} s)", stage.name(), elapsed.as_secs_f64());
        report.push((stage, outcome, elapsed));
    }
    summarize(&report)
}

fn summarize(report: &[(Stage, Outcome, Duration)]) -> Result<()> {
    println!("== summary");
    for (stage, outcome, elapsed) in report {
        println!("{:<10} {:>7.1} s  {outcome}", stage.name(), elapsed.as_secs_f64());
    }
    let failed: Vec<String> = report
        .iter()
        .filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)))
        .map(|(stage, ..)| stage.name())
        .collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// What several stages use, built when the first asks for it.
#[derive(Default)]
struct Products {
    object: OnceCell<Result<PathBuf, String>>,
    kernel_tests: OnceCell<Result<PathBuf, String>>,
}

impl Products {
    fn run(&self, stage: Stage) -> Result<()> {
        match stage {
            Stage::Fmt => command::run(command::cargo().args(["fmt", "--all", "--check"]))?,
            Stage::Clippy => {
                let lint = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
                command::run(self.cargo()?.args(lint))?;
                build_ebpf::clippy()?;
                // What is shipped builds for the other architecture, too.
                let other = toolchain::target_of(toolchain::OTHER_ARCHITECTURE);
                let mut lint = build::static_cargo_for(&other, "clippy");
                lint.args(["--quiet", "--package", "snug-agent", "--package", "snug"]);
                command::run(lint.args(["--", "-D", "warnings"]).env(OBJECT_VARIABLE, self.object()?))?;
            }
            Stage::Docs => {
                let mut doc = self.cargo()?;
                doc.args(["doc", "--quiet", "--no-deps", "--workspace", "--document-private-items"]);
                command::run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))?;
            }
            Stage::Unit => {
                let tests = || Ok::<_, anyhow::Error>(build::static_cargo("test", self.object()?));
                let mut chosen = vec!["--lib".to_owned(), "--bins".to_owned()];
                for name in workspace::test_targets()? {
                    if !WHOLE_SYSTEM.contains(&name.as_str()) {
                        chosen.extend(["--test".to_owned(), name]);
                    }
                }
                command::run(tests()?.args(build::STATIC_PACKAGES).args(chosen))?;
                command::run(tests()?.args(build::STATIC_PACKAGES).arg("--doc"))?;
                // The tasks themselves are no static program, and some of their tests look at their own.
                command::run(self.cargo()?.args(["test", "--package", "xtask"]))?;
            }
            Stage::Toolchain => compare_toolchains()?,
            Stage::Kernel => self.kernel_on_host()?,
            Stage::Vm => self.kernel_in_machines()?,
            Stage::System => self.system()?,
            Stage::Manifests => {
                let mut tests = command::new(&build::build_test("manifests", self.object()?)?);
                command::run(tests.env(manifests::VARIABLE, manifests::folder()?))?;
            }
            Stage::Cluster => cluster::test(self.object()?, None)?,
        }
        Ok(())
    }

    /// Cargo with the object to embed: the same for all stages, so that none rebuilds what another built.
    fn cargo(&self) -> Result<Command> {
        let mut cargo = command::cargo();
        cargo.env(OBJECT_VARIABLE, self.object()?);
        Ok(cargo)
    }

    fn object(&self) -> Result<&Path> {
        built_once(&self.object, build_ebpf::build_default)
    }

    fn kernel_tests(&self) -> Result<&Path> {
        let object = self.object()?;
        built_once(&self.kernel_tests, || build::build_test("kernel", object))
    }

    fn kernel_on_host(&self) -> Result<()> {
        let mut tests = command::new(self.kernel_tests()?);
        tests.arg("--test-threads=1");
        tests.env(containers::ROOTFS_VARIABLE, containers::root_file_system()?);
        command::run(&mut tests)
    }

    fn kernel_in_machines(&self) -> Result<()> {
        let mut guest = vm::Guest::new(self.kernel_tests()?, &["--test-threads=1".to_owned()])?;
        // Ten minutes on an emulated processor of a slow machine, and more beside other work.
        guest.timeout = Duration::from_secs(1200);
        guest.add_containers()?;
        guest.env("SNUG_TEST_OWN_MACHINE", "1")?;
        for name in ["CI", "RUST_BACKTRACE"] {
            if let Ok(value) = std::env::var(name) {
                guest.env(name, &value)?;
            }
        }
        guest.run_on_each(vm::Series::value_variants())
    }

    fn system(&self) -> Result<()> {
        let programs = build::build()?;
        let folder =
            setup::prometheus_folder()?.context("no promtool: run `cargo xtask setup prometheus`")?;
        let mut tests = command::new(&build::build_test("system", self.object()?)?);
        tests.arg("--test-threads=1");
        tests.env("SNUG_AGENT_BIN", &programs.agent).env("SNUG_CLI_BIN", &programs.cli);
        tests.env(containers::ROOTFS_VARIABLE, containers::root_file_system()?);
        tests.env("PATH", path_with(&folder)?).env(otlp::VARIABLE, otlp::python()?);
        command::run(&mut tests)
    }
}

/// Builds at the first call; later ones get the same product, or the same error.
fn built_once(
    cell: &OnceCell<Result<PathBuf, String>>,
    build: impl FnOnce() -> Result<PathBuf>,
) -> Result<&Path> {
    match cell.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(error) => Err(anyhow!("{error}")),
    }
}

fn path_with(folder: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).with_context(|| format!("{} cannot be on the PATH", folder.display()))
}

/// Builds the kernel half in both ways and compares what the loader would find.
fn compare_toolchains() -> Result<()> {
    let mut objects = Vec::new();
    for (toolchain, name) in [(Toolchain::Prebuilt, "prebuilt"), (Toolchain::BuildStd, "build-std")] {
        let out = workspace::target_dir().join(format!("ebpf/{name}.o"));
        build_ebpf::build(Some(toolchain), std::env::consts::ARCH, &out)?;
        let object = elf::inspect_bpf(&out)?;
        ensure!(!object.programs.is_empty(), "the {name} object has no program in it");
        ensure!(object.has_btf, "the {name} object has no BTF");
        objects.push(object);
    }
    let [prebuilt, build_std] = objects.as_slice() else { bail!("two objects were expected") };
    ensure!(
        prebuilt.programs == build_std.programs,
        "the two ways build different programs: prebuilt {:?}, build-std {:?}",
        prebuilt.programs,
        build_std.programs,
    );
    for program in &prebuilt.programs {
        println!("  {program}");
    }
    println!("both ways build the same {} programs, with BTF", prebuilt.programs.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_stage_fails_the_run_and_is_named() {
        let second = Duration::from_secs(1);
        let passed = (Stage::Fmt, Outcome::Passed, second);
        let failed = (Stage::Unit, Outcome::Failed(anyhow!("a test failed")), second);
        assert!(summarize(&[passed]).is_ok());
        let error = summarize(&[(Stage::Fmt, Outcome::Passed, second), failed]).unwrap_err();
        assert_eq!(error.to_string(), "failed: unit");
    }

    #[test]
    fn a_product_is_built_once_even_if_it_fails() {
        let cell = OnceCell::new();
        assert_eq!(built_once(&cell, || bail!("broken")).unwrap_err().to_string(), "broken");
        assert_eq!(built_once(&cell, || Ok(PathBuf::from("/x"))).unwrap_err().to_string(), "broken");
    }

    #[test]
    fn tests_of_whole_systems_are_targets() {
        let targets = workspace::test_targets().unwrap();
        assert!(WHOLE_SYSTEM.iter().all(|name| targets.iter().any(|target| target == name)), "{targets:?}");
        assert!(targets.iter().any(|target| target == "architecture"), "{targets:?}");
    }

    #[test]
    fn stages_are_chosen_by_name() {
        let options = Options::try_parse_from(["test", "--only", "vm,fmt"]).unwrap();
        assert_eq!(options.only, [Stage::Vm, Stage::Fmt]);
        assert!(Options::try_parse_from(["test", "--only", "vms"]).is_err());
    }
}
