//! Commands of each stage.

use std::{
    cell::OnceCell,
    fs,
    path::{Path, PathBuf},
    process::Command,
    slice,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::Stage;
use crate::{
    browser,
    build::{self, Built, Kind, OBJECT_VARIABLE},
    build_ebpf::{self, Toolchain},
    cluster, command, containers, deny, elf,
    emulator::{Arch, Series},
    libtest::{self, Groups},
    manifests, metadata, otlp, pages, setup, toolchain, vm, workspace,
};

/// Test targets with their own stage.
const STAGE_TARGETS: [&str; 9] =
    ["kernel", "system", "manifests", "gitops", "monitoring", "dashboards", "browser", "cluster", "fuzz"];

const NO_PROMETHEUS: &str = "promtool or victoria-metrics not found: run `cargo xtask setup prometheus`";

/// Tests of the agent as a process that compare no rates and no counts of windows.
const SYSTEM_GROUPS: Groups = Groups {
    together: &[
        "alerts::",
        "api_server::",
        "events::",
        "history::a_",
        "metrics_servers::",
        "otlp::",
        "pages::",
        "pods_file::",
        "recommend::",
    ],
    threads: 3,
};

/// Build results that several stages use.
#[derive(Default)]
pub(super) struct Products {
    object: OnceCell<Result<PathBuf, String>>,
    built: OnceCell<Built>,
}

impl Products {
    /// Uses the results of an earlier build.
    pub(super) fn from_build(built: Built) -> Self {
        Self { object: OnceCell::new(), built: OnceCell::from(built) }
    }

    /// Builds all programs and tests, and saves the messages of the build for stages in the background.
    pub(super) fn build(&mut self) -> Result<()> {
        let built = build::build_all(self.object()?)?;
        built.save(&self.saved()?)?;
        self.built = OnceCell::from(built);
        Ok(())
    }

    /// Path of the saved messages of the build.
    pub(super) fn saved(&self) -> Result<PathBuf> {
        let folder = workspace::target_dir().join("test");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder.join("built.json"))
    }

    pub(super) fn run(&self, stage: Stage) -> Result<()> {
        match stage {
            Stage::Fmt => command::run(command::cargo().args(["fmt", "--all", "--check"])),
            Stage::Clippy => {
                // No code is specific to an architecture, so linting for one is enough. The other one also proves that it builds.
                let mut lint = self.for_other_architecture("clippy")?;
                command::run(lint.args(["--workspace", "--all-targets", "--", "-D", "warnings"]))?;
                build_ebpf::clippy()
            }
            Stage::Docs => {
                // The target of the clippy stage, so that both share the build of dependencies.
                let mut doc = self.for_other_architecture("doc")?;
                doc.args(["--no-deps", "--workspace", "--document-private-items"]);
                command::run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))
            }
            Stage::Unit => self.unit(),
            Stage::Toolchain => {
                compare_builds()?;
                compare_toolchains()
            }
            Stage::Kernel => self.kernel_on_host(),
            Stage::Vm => self.kernel_in_vms(),
            Stage::System => self.system(),
            Stage::Manifests => {
                let promtool = setup::prometheus_folder()?.context(NO_PROMETHEUS)?;
                for name in ["manifests", "gitops", "monitoring", "dashboards"] {
                    let mut tests = command::new(self.test(name)?);
                    tests.env("PATH", command::path_with(slice::from_ref(&promtool))?);
                    command::run(tests.env(manifests::VARIABLE, manifests::folder()?))?;
                }
                Ok(())
            }
            Stage::Browser => {
                let mut tests = command::new(self.test("browser")?);
                tests.env("SNUG_CLI_BIN", &self.built()?.programs()?.cli);
                command::run(tests.arg("--test-threads=1").env(browser::VARIABLE, browser::axe()?))
            }
            Stage::Deny => deny::check(),
            Stage::Pages => pages::make(),
            Stage::Fuzz => command::run(
                command::new(self.test("fuzz")?).arg("--nocapture").env("SNUG_FUZZ_SECONDS", "2.5"),
            ),
            Stage::Cluster => cluster::test(self.built()?, None),
        }
    }

    fn for_other_architecture(&self, subcommand: &str) -> Result<Command> {
        let target = toolchain::target_of(toolchain::OTHER_ARCHITECTURE);
        let mut cargo = build::cargo_for(&target, subcommand);
        cargo.env(OBJECT_VARIABLE, self.object()?);
        Ok(cargo)
    }

    fn unit(&self) -> Result<()> {
        let mut chosen = vec!["--lib".to_owned(), "--bins".to_owned()];
        for name in metadata::test_targets()? {
            if !STAGE_TARGETS.contains(&name.as_str()) {
                chosen.extend(["--test".to_owned(), name]);
            }
        }
        let tests = || Ok::<_, anyhow::Error>(build::tests_of_all(self.object()?));
        command::run(tests()?.args(chosen))?;
        command::run(tests()?.arg("--doc"))
    }

    /// Path of the eBPF object, which is built once for all stages.
    fn object(&self) -> Result<&Path> {
        match self.object.get_or_init(|| build_ebpf::build_default().map_err(|error| format!("{error:#}"))) {
            Ok(path) => Ok(path),
            Err(error) => Err(anyhow!("{error}")),
        }
    }

    fn built(&self) -> Result<&Built> {
        self.built.get().context("the stage needs a build of the workspace")
    }

    fn test(&self, name: &str) -> Result<PathBuf> {
        self.built()?.find(Kind::Test, name)
    }

    fn kernel_on_host(&self) -> Result<()> {
        let (program, root) = (self.test("kernel")?, containers::root_file_system()?);
        libtest::run_with_second_chance("kernel", |arguments| {
            let mut tests = command::new(&program);
            tests.arg("--test-threads=1").args(arguments).env(containers::ROOTFS_VARIABLE, &root);
            libtest::run(&mut tests)
        })
    }

    fn kernel_in_vms(&self) -> Result<()> {
        let mut guest = vm::Guest::new(Arch::Amd64, &self.test("kernel")?, &["--test-threads=1".to_owned()])?;
        // The tests take ten minutes on a slow machine, and longer in the background.
        guest.timeout = Duration::from_secs(3600);
        guest.add_containers()?;
        guest.env("SNUG_TEST_OWN_MACHINE", "1")?;
        for name in ["CI", "RUST_BACKTRACE"] {
            if let Ok(value) = std::env::var(name) {
                guest.env(name, &value)?;
            }
        }
        guest.run_tests_on_each("vm", &Series::CHECKED)
    }

    fn system(&self) -> Result<()> {
        let programs = self.built()?.programs()?;
        let folders = [
            setup::prometheus_folder()?.context(NO_PROMETHEUS)?,
            setup::victoria_metrics_folder()?.context(NO_PROMETHEUS)?,
        ];
        let (program, root) = (self.test("system")?, containers::root_file_system()?);
        let (path, decoder) = (command::path_with(&folders)?, otlp::python()?);
        SYSTEM_GROUPS.run("system", |arguments| {
            let mut tests = command::new(&program);
            tests.args(arguments);
            tests.env("SNUG_AGENT_BIN", &programs.agent).env("SNUG_CLI_BIN", &programs.cli);
            tests.env(containers::ROOTFS_VARIABLE, &root);
            tests.env("PATH", &path).env(otlp::VARIABLE, &decoder);
            libtest::run(&mut tests)
        })
    }
}

/// Builds the eBPF programs twice, in different folders, and compares the objects byte by byte.
fn compare_builds() -> Result<()> {
    let first = build_ebpf::build_default()?;
    let second = workspace::target_dir().join("ebpf/afresh.o");
    build_ebpf::build_afresh(std::env::consts::ARCH, &second)?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    ensure!(read(&first)? == read(&second)?, "{} and {} differ", first.display(), second.display());
    println!("two builds of the eBPF programs are the same, byte by byte");
    Ok(())
}

/// Builds the eBPF programs with both toolchains and compares their programs.
fn compare_toolchains() -> Result<()> {
    let mut objects = Vec::new();
    for (toolchain, name) in [(Toolchain::Prebuilt, "prebuilt"), (Toolchain::BuildStd, "build-std")] {
        let out = workspace::target_dir().join(format!("ebpf/{name}.o"));
        build_ebpf::build(Some(toolchain), std::env::consts::ARCH, &out)?;
        let object = elf::inspect_bpf(&out)?;
        ensure!(!object.programs.is_empty(), "the {name} object has no programs");
        ensure!(object.has_btf, "the {name} object has no BTF");
        objects.push(object);
    }
    let [prebuilt, build_std] = objects.as_slice() else { bail!("expected two objects") };
    ensure!(
        prebuilt.programs == build_std.programs,
        "the toolchains build different programs: prebuilt {:?}, build-std {:?}",
        prebuilt.programs,
        build_std.programs,
    );
    for program in &prebuilt.programs {
        println!("  {program}");
    }
    println!("both toolchains build the same {} programs, with BTF", prebuilt.programs.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_targets_exist() {
        let targets = metadata::test_targets().unwrap();
        assert!(STAGE_TARGETS.iter().all(|name| targets.iter().any(|target| target == name)), "{targets:?}");
        assert!(targets.iter().any(|target| target == "architecture"), "{targets:?}");
    }

    #[test]
    fn a_product_is_built_once_even_if_it_fails() {
        let products = Products::default();
        products.object.set(Err("broken".to_owned())).unwrap();
        assert_eq!(products.object().unwrap_err().to_string(), "broken");
        assert_eq!(products.object().unwrap_err().to_string(), "broken");
    }
}
