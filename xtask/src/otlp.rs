//! What tests of OTLP use: OpenTelemetry's own definitions as Google's compiler makes Python of them, and gRPC.

use std::{path::PathBuf, time::Instant};

use anyhow::Result;

use crate::{python, toolchain};

/// The variable by which tests learn which Python has them.
pub(crate) const VARIABLE: &str = "SNUG_TEST_OTLP_PYTHON";

fn root() -> Result<PathBuf> {
    python::root("otlp", toolchain::OTLP_PACKAGES)
}

/// The Python that has them.
pub(crate) fn python() -> Result<PathBuf> {
    Ok(root()?.join("bin/python"))
}

/// Fetches what is missing.
pub(crate) fn ensure() -> Result<()> {
    let root = root()?;
    if python::is_complete(&root) {
        return Ok(());
    }
    println!("setup: fetching a decoder of OTLP into {}, for tests (not installed)", root.display());
    let started = Instant::now();
    python::make(&root, toolchain::OTLP_PACKAGES)?;
    python::set_complete(&root)?;
    println!("setup: the decoder of OTLP is there ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}
