//! Tests of the agent as a process, with real cgroups and a real Prometheus.
//!
//! A test that cannot run on a host prints the reason and passes; with `CI` set it fails.

mod access;
mod alerts;
mod api_server;
mod configuration;
mod container;
mod events;
mod exposition;
mod faults;
mod history;
mod http;
mod kernel_log;
mod kubelet;
mod limits;
mod metrics_servers;
mod otlp;
mod pages;
mod pods_file;
mod privileges;
mod prometheus;
mod queries;
mod recommend;
mod slow_readers;
mod sources;
mod stopping;
mod top;

use std::{
    fmt::Display,
    io::{ErrorKind, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use self::container::Container;

/// Ends a test that cannot run on this host; with `CI` set it fails.
fn cannot_run(why: impl Display) -> Result<()> {
    snug_tests::cannot_run(&why.to_string());
    Ok(())
}

/// Creates a container; the error is the reason why this host does not allow it.
fn container() -> Result<Container, String> {
    Container::make().map_err(|error| format!("no cgroups can be created: {error:#}"))
}

/// Whether a program is installed on the host.
fn has_program(name: &str) -> bool {
    let started = Command::new(name)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    !started.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// The complaints of `promtool check metrics`, line by line.
fn promtool(exposition: &str) -> Result<Vec<String>> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start promtool")?;
    // It reads all before it writes anything.
    promtool.stdin.take().context("no standard input")?.write_all(exposition.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let complaints = String::from_utf8(output.stderr)?;
    // 3: could be read, but is not as it should be.
    if !output.status.success() && output.status.code() != Some(3) {
        bail!("promtool: {}: {complaints}", output.status);
    }
    Ok(complaints.lines().map(str::to_owned).collect())
}
