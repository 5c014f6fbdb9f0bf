//! What cargo says of the workspace: `cargo metadata`.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command;

/// Runs `cargo metadata` with these arguments.
pub(crate) fn read(arguments: &[&str]) -> Result<Value> {
    let mut cargo = command::cargo();
    cargo.args(["metadata", "--format-version", "1"]).args(arguments);
    serde_json::from_str(&command::capture(&mut cargo)?).context("cannot parse the output of cargo metadata")
}

/// The names of all test targets.
pub(crate) fn test_targets() -> Result<Vec<String>> {
    let metadata = read(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("the output of cargo metadata has no packages")?;
    let targets = packages.iter().flat_map(|package| package["targets"].as_array()).flatten();
    let tests = targets.filter(|target| target["kind"][0] == "test");
    Ok(tests.filter_map(|target| target["name"].as_str()).map(str::to_owned).collect())
}
