//! `cargo xtask kernels`: boots kernels from the oldest supported to the newest, and records what the agent reports there.

mod system;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use serde_json::Value;

use crate::{
    build::{self, OBJECT_VARIABLE},
    build_ebpf, command,
    emulator::{Arch, Kernel, Series},
    setup::{self, Need},
    toolchain,
    vm::{Cgroups, Guest},
    workspace,
};

/// A guest: kernel and hierarchies.
type Configuration = (Series, Arch, Cgroups);

/// The guests of the page, from the oldest kernel to the newest.
const GUESTS: [Configuration; 8] = [
    (Series::V5_10, Arch::Amd64, Cgroups::V2),
    (Series::V5_10, Arch::Amd64, Cgroups::V1),
    (Series::V6_1, Arch::Amd64, Cgroups::V2),
    (Series::V6_12, Arch::Amd64, Cgroups::V2),
    (Series::V6_12, Arch::Arm64, Cgroups::V2),
    (Series::V6_19, Arch::Amd64, Cgroups::V2),
    (Series::V6_19Pages16k, Arch::Arm64, Cgroups::V2),
    (Series::Newest, Arch::Amd64, Cgroups::V2),
];

/// The test whose output is recorded.
const REPORT_TEST: &str = "support::this_kernel_has_what_the_page_says_and_programs_keep_their_budget";
/// What the line of the report begins with.
const REPORT: &str = "@@SNUG-KERNEL ";
/// Tests that are worth their time on an emulated processor of another architecture.
const FEW_TESTS: [&str; 5] = ["support::", "sources::", "short_lived::", "sample::", "terminations::an_oom"];

/// Boot stock kernels from the oldest supported to the newest, on both architectures, and compare what the agent reports with docs/kernels.md.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Kernel series, separated by commas [default: all].
    #[arg(long, value_enum, value_delimiter = ',')]
    kernel: Vec<Series>,
    /// Architecture [default: both].
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Record what the agent reports in docs/kernels.md.
    #[arg(long, conflicts_with = "tests")]
    write: bool,
    /// Run the kernel tests, of which few on another architecture, instead of the report alone.
    #[arg(long)]
    tests: bool,
    /// Run the tests of the agent as a process, on kernels with cgroup v2 [default: those of each run of all checks].
    #[arg(long, conflicts_with_all = ["write", "tests", "arch"])]
    system: bool,
    /// Part of the names of tests to run instead of the report.
    #[arg(long, value_name = "NAME", conflicts_with = "write")]
    filter: Vec<String>,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.system {
        let series = if options.kernel.is_empty() { &Series::CHECKED } else { options.kernel.as_slice() };
        return system::run(series, &options.filter);
    }
    let chosen = |(series, arch, _): &&Configuration| {
        (options.kernel.is_empty() || options.kernel.contains(series))
            && options.arch.is_none_or(|only| only == *arch)
    };
    let guests: Vec<&Configuration> = GUESTS.iter().filter(chosen).collect();
    ensure!(!guests.is_empty(), "no guest has this kernel on this architecture");
    setup::ensure_all(&[Need::Ebpf, Need::Containers, Need::Vm])?;
    let mut programs: BTreeMap<&str, PathBuf> = BTreeMap::new();
    let (mut failed, mut reports) = (Vec::new(), BTreeMap::new());
    for (series, arch, cgroups) in guests {
        let program = match programs.get(arch.name()) {
            Some(program) => program.clone(),
            None => programs.entry(arch.name()).or_insert(build_tests(*arch)?).clone(),
        };
        let mut guest = Guest::new(*arch, &program, &arguments(options, *arch))?;
        guest.cgroups = *cgroups;
        guest.timeout = Duration::from_secs(if options.tests { 3600 } else { 600 });
        guest.env("SNUG_TEST_OWN_MACHINE", "1")?;
        if *arch == Arch::Amd64 {
            guest.add_containers()?;
        }
        if options.write {
            guest.env("SNUG_BLESS", "1")?;
        }
        let name = guest.name_on(Kernel { series: *series, arch: *arch });
        let run = match guest.run_on(*series, &[]) {
            Ok(run) => run,
            Err(error) => {
                failed.push(format!("{name}: {error:#}"));
                continue;
            }
        };
        if let Err(error) = run.outcome {
            failed.push(format!("{error:#}"));
        }
        if let Some(line) = run.output.lines().find_map(|line| line.split_once(REPORT)) {
            let report: Value = serde_json::from_str(line.1.trim())
                .with_context(|| format!("{name}: the report was cut off: {}", line.1))?;
            reports.insert(name, report);
        }
    }
    if options.write {
        record(reports)?;
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

fn arguments(options: &Options, arch: Arch) -> Vec<String> {
    let mut arguments = vec!["--test-threads=1".to_owned()];
    if !options.filter.is_empty() {
        arguments.extend(options.filter.iter().cloned());
    } else if !options.tests {
        arguments.extend(["--nocapture", "--exact", REPORT_TEST].map(str::to_owned));
    } else if arch != Arch::Amd64 {
        arguments.extend(FEW_TESTS.map(str::to_owned));
    }
    arguments
}

/// Builds the kernel tests with all programs of the workspace, so that they share their dependencies with other tests.
fn build_tests(arch: Arch) -> Result<PathBuf> {
    let rust_arch = match arch {
        Arch::Amd64 => "x86_64",
        Arch::Arm64 => "aarch64",
    };
    let target = toolchain::target_of(rust_arch);
    let object = if target == toolchain::host_target() {
        build_ebpf::build_default()?
    } else {
        setup::ensure_all(&[Need::Cross])?;
        let object = workspace::target_dir().join(format!("snug-ebpf-{target}.o"));
        build_ebpf::build(None, rust_arch, &object)?;
        object
    };
    let mut cargo = build::cargo_for(&target, "test");
    cargo.args(["--no-run", "--workspace", "--test", "kernel"]).env(OBJECT_VARIABLE, object);
    build::Built::from_cargo(&mut cargo)?.find(build::Kind::Test, "kernel")
}

/// Adds the reports to the recorded ones, and writes the page.
fn record(reports: BTreeMap<String, Value>) -> Result<()> {
    if reports.is_empty() {
        bail!("no guest has reported anything");
    }
    let path = workspace::root().join("tests/fixtures/kernels.json");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut recorded: BTreeMap<String, Value> =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    recorded.extend(reports);
    let text = serde_json::to_string_pretty(&recorded)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let mut bless = command::cargo();
    bless.args([
        "test",
        "--quiet",
        "--workspace",
        "--test",
        "architecture",
        "the_page_has_what_was_recorded",
    ]);
    command::run(bless.env("SNUG_BLESS", "1").env(OBJECT_VARIABLE, build_ebpf::build_default()?))
}
