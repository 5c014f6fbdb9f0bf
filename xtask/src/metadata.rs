//! What cargo says of the workspace: `cargo metadata`.

use anyhow::{Context as _, Result};
use cargo_metadata::{Metadata, MetadataCommand, Target};

use crate::command;

/// Runs `cargo metadata` with these arguments.
pub(crate) fn read(arguments: &[&str]) -> Result<Metadata> {
    let mut cargo = command::cargo();
    cargo.args(["metadata", "--format-version", "1"]).args(arguments);
    MetadataCommand::parse(command::capture(&mut cargo)?).context("cannot parse the output of cargo metadata")
}

/// The names of all test targets.
pub(crate) fn test_targets() -> Result<Vec<String>> {
    let targets = read(&["--no-deps"])?.packages.into_iter().flat_map(|package| package.targets);
    Ok(targets.filter(Target::is_test).map(|target| target.name).collect())
}
