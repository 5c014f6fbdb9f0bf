//! Python environment for the OTLP tests: OpenTelemetry's protobuf definitions compiled for Python, and gRPC.

use std::{path::PathBuf, time::Instant};

use anyhow::Result;

use crate::{python, toolchain};

/// Environment variable with the path of the Python interpreter, for tests.
pub(crate) const VARIABLE: &str = "SNUG_TEST_OTLP_PYTHON";

fn root() -> Result<PathBuf> {
    python::root("otlp", toolchain::OTLP_PACKAGES)
}

/// Path of the Python interpreter of the environment.
pub(crate) fn python() -> Result<PathBuf> {
    Ok(root()?.join("bin/python"))
}

/// Downloads the packages unless they are in the cache.
pub(crate) fn ensure() -> Result<()> {
    let root = root()?;
    if python::is_complete(&root) {
        return Ok(());
    }
    println!("setup: downloading an OTLP decoder to {} for tests (not installed)", root.display());
    let started = Instant::now();
    python::make(&root, toolchain::OTLP_PACKAGES)?;
    python::set_complete(&root)?;
    println!("setup: downloaded the OTLP decoder ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}
