//! `cargo xtask fuzz`: runs the fuzz targets with libFuzzer, which follows the branches of the code.
//!
//! The tests of `fuzz/` run the same targets on stable Rust.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;

use crate::{build::OBJECT_VARIABLE, build_ebpf, command, setup, toolchain, workspace};

/// Fuzz parsers of foreign input with libFuzzer. Requires a nightly toolchain; cargo-fuzz is built on first use.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Targets [default: all].
    targets: Vec<String>,
    /// Time for each target, seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let nightly = toolchain::NIGHTLY;
    if command::capture(command::new("rustc").arg(format!("+{nightly}")).arg("-vV")).is_err() {
        bail!(
            "libFuzzer needs unstable options of rustc, and there is no toolchain {nightly:?}: run `rustup toolchain install \
             {nightly}`. The same targets run on stable Rust with `cargo test -p snug-fuzz`"
        );
    }
    let cargo_fuzz = ensure_cargo_fuzz()?;
    let object = build_ebpf::build_default()?;
    let program = program(&object)?;
    let listed = command::capture(&mut command::new(&program))?;
    let all: Vec<String> = listed.lines().map(str::to_owned).collect();
    ensure!(!all.is_empty(), "snug-fuzz lists no targets");
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown:?}; targets: {}", all.join(" "));
    }
    let target = toolchain::host_target();
    for name in if options.targets.is_empty() { &all } else { &options.targets } {
        println!("== {name}, for {} s", options.seconds);
        let inputs = workspace::target_dir().join("fuzz").join(name);
        fs::create_dir_all(&inputs).with_context(|| format!("cannot create {}", inputs.display()))?;
        command::run(command::new(&program).args([name, "--write"]).arg(&inputs))?;
        let mut fuzz = command::new(&cargo_fuzz);
        fuzz.args(["fuzz", "run", "--fuzz-dir", "fuzz", "--target", &target, "snug-fuzz"]).arg(&inputs);
        // The process may have more memory than an input may take: libFuzzer keeps inputs, and the sanitizer memory that was freed.
        fuzz.args(["--", "-rss_limit_mb=2048", "-timeout=10", "-max_len=65536"]);
        fuzz.arg(format!("-max_total_time={}", options.seconds));
        // The profile for releases, without what only makes them smaller.
        fuzz.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        fuzz.env("RUSTUP_TOOLCHAIN", nightly).env("SNUG_FUZZ_TARGET", name);
        fuzz.env(OBJECT_VARIABLE, &object).current_dir(workspace::root());
        command::run(&mut fuzz).with_context(|| {
            format!("{name}: keep the input in fuzz/corpus/{name} once it is understood, so that tests run it, too")
        })?;
    }
    Ok(())
}

/// Builds the program that lists targets and writes their samples, with the features of the whole workspace as tests do.
fn program(object: &Path) -> Result<PathBuf> {
    let mut build = command::cargo();
    // Dependencies have the features of tests only if a test is built, too.
    build.args(["build", "--workspace", "--bin", "snug-fuzz", "--test", "fuzz"]).env(OBJECT_VARIABLE, object);
    command::run(&mut build)?;
    Ok(workspace::target_dir().join(toolchain::host_target()).join("debug/snug-fuzz"))
}

fn ensure_cargo_fuzz() -> Result<PathBuf> {
    setup::ensure_cargo_tool("cargo-fuzz", toolchain::CARGO_FUZZ_VERSION)
}
