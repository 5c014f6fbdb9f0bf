//! `cargo xtask soak`: the tests of endurance, for long.

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::{
    build::{self, Kind, OBJECT_VARIABLE},
    build_ebpf, command,
    setup::{self, Need},
};

/// Tests that take as long as their variables say.
const TESTS: [&str; 3] =
    ["endurance::", "faults::a_stopped_agent_makes_no_burst_in_the_windows", "alerts::leak::"];

/// Run the agent with a thousand containers beside which short ones come and go, stop it for a minute, kill it twenty times, and
/// wait until the alert about a leak fires.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// How long containers come and go. 30 per second are made.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Run a release build of the agent, whose use of CPU time counts.
    #[arg(long)]
    release: bool,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure_all(&[Need::Ebpf, Need::Prometheus])?;
    let object = build_ebpf::build_default()?;
    let mut cargo = command::cargo();
    cargo.args(["build", "--workspace", "--bins", "--test", "system"]).env(OBJECT_VARIABLE, object);
    let built = build::Built::from_cargo(&mut cargo)?;
    let agent = if options.release { build::build()?.agent } else { built.find(Kind::Bin, "snug-agent")? };
    let mut tests = command::new(built.find(Kind::Test, "system")?);
    tests.args(["--test-threads=1", "--nocapture"]).args(TESTS);
    let prometheus = setup::prometheus_folder()?.context("no prometheus")?;
    tests.env("SNUG_AGENT_BIN", agent).env("PATH", command::path_with(&[prometheus])?);
    tests.env("SNUG_TEST_SOAK_SECONDS", (options.minutes * 60).to_string());
    tests.env("SNUG_TEST_KILLS", "20").env("SNUG_TEST_STOP_SECONDS", "60").env("SNUG_TEST_LEAK", "1");
    command::run(&mut tests)
}
