//! `cargo-deny`: licences, banned crates and sources of all dependencies.

use anyhow::Result;

use crate::{command, setup, toolchain, workspace};

/// Checks the dependencies by `deny.toml`. Advisories are left out: their database is a git repository, and a check that depends on
/// the day would fail without a change.
pub(crate) fn check() -> Result<()> {
    let program = setup::ensure_cargo_tool("cargo-deny", toolchain::CARGO_DENY_VERSION)?;
    let mut deny = command::new(program);
    // Two versions of a crate are shown on request only.
    deny.args(["--locked", "check", "--allow", "duplicate", "licenses", "bans", "sources"]);
    command::run(deny.current_dir(workspace::root()))
}
