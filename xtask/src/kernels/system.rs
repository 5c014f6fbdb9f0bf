//! `cargo xtask kernels --system`: tests of the agent as a process, on kernels with cgroup v2 alone.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build::{self, OBJECT_VARIABLE},
    build_ebpf, command,
    emulator::{Arch, Series},
    setup::{self, Need},
    vm::Guest,
    workspace,
};

/// What the names of tests begin with that need more than a guest has, and what they need. docs/kernels.md shows it.
const NOT_IN_GUESTS: &str = "tests/fixtures/not-in-guests.json";

/// Programs of the host that tests run; the guest's busybox has fewer options.
const PROGRAMS: [&str; 6] = ["ip", "mount", "prlimit", "setpriv", "umount", "unshare"];

/// Runs the tests on these kernels. One that cannot run there fails.
pub(super) fn run(series: &[Series], filter: &[String]) -> Result<()> {
    setup::ensure_all(&[Need::Ebpf, Need::Containers, Need::Vm])?;
    let mut cargo = command::cargo();
    cargo.args(["build", "--workspace", "--bins", "--test", "system"]);
    let built = build::Built::from_cargo(cargo.env(OBJECT_VARIABLE, build_ebpf::build_default()?))?;
    let tests = built.find(build::Kind::Test, "system")?;
    let mut arguments = vec!["--test-threads=1".to_owned()];
    for name in not_in_guests(&tests)? {
        arguments.extend(["--skip".to_owned(), name]);
    }
    arguments.extend_from_slice(filter);

    let mut guest = Guest::new(Arch::Amd64, &tests, &arguments)?;
    for name in PROGRAMS {
        let program = command::find(name).with_context(|| format!("there is no {name} on this host"))?;
        guest.files.program(&program, &Path::new("/bin").join(name))?;
    }
    let programs = built.programs()?;
    for (variable, program) in [("SNUG_AGENT_BIN", &programs.agent), ("SNUG_CLI_BIN", &programs.cli)] {
        let name = program.file_name().context("a program has a name")?;
        let inside = Path::new("/usr/bin").join(name);
        guest.files.program(program, &inside)?;
        guest.env(variable, &inside.to_string_lossy())?;
    }
    guest.add_containers()?;
    // A test that cannot run fails.
    guest.env("CI", "1")?;
    guest.memory_mib = 3072;
    guest.timeout = Duration::from_secs(2 * 3600);
    // One guest after the other: tests compare times.
    series.iter().try_for_each(|series| guest.run_tests_on_each("system", &[*series]))
}

/// The beginnings of the names of tests to leave out. Each has a test.
fn not_in_guests(program: &Path) -> Result<Vec<String>> {
    let path = workspace::root().join(NOT_IN_GUESTS);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let reasons: BTreeMap<String, String> =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let tests = command::capture(command::new(program).arg("--list"))?;
    for name in reasons.keys() {
        ensure!(
            tests.lines().any(|test| test.starts_with(name)),
            "{NOT_IN_GUESTS}: no test begins with {name}"
        );
    }
    Ok(reasons.into_keys().collect())
}
