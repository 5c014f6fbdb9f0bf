//! Starts and stops the agent of the demo.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use snug_client::agent::{Agent as Client, Scrape};

use super::scenario::{Scenario, wait};
use crate::command;

/// The default of the option `listen`.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9750";
/// How long the agent may take to serve its first metrics.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the agent may take to exit.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running agent. Dropping it stops the agent.
#[derive(Debug)]
pub(super) struct Agent {
    process: Child,
    client: Client,
    address: SocketAddr,
    log: PathBuf,
}

impl Agent {
    /// Starts the agent and waits for its first metrics.
    pub(super) fn start(program: &Path, scenario: &Scenario) -> Result<Self> {
        let address = available_address()?;
        // An empty file, so that the agent does not read the host's configuration.
        let config = scenario.path("agent.toml");
        fs::write(&config, "").with_context(|| format!("cannot write {}", config.display()))?;
        let log = scenario.path("logs/agent.log");
        let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut start = command::new(program);
        start.env_clear().arg("--config").arg(&config);
        start.arg("--listen").arg(address.to_string()).arg("--ebpf-stats=on");
        start.arg("--pods-file").arg(scenario.pods_file()).arg("--data-dir").arg(scenario.path("agent"));
        start.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        start.process_group(0);
        let process = start.spawn().with_context(|| format!("cannot start `{}`", command::line(&start)))?;
        let client =
            Client::new(&format!("http://{address}"), &snug_client::http::RootCertificates::default());
        let mut agent = Self { process, client, address, log };
        agent.await_metrics()?;
        Ok(agent)
    }

    fn await_metrics(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let error = match self.client.scrape() {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let ended = self.process.try_wait().context("cannot wait for the agent")?;
            if let Some(status) = ended {
                bail!("the agent exited with {status}: {}", self.log_tail());
            }
            if Instant::now() >= deadline {
                bail!("the agent serves no metrics: {error}; its log: {}", self.log_tail());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// URL of the metrics.
    pub(super) fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// Whether the agent listens on another port, because the default one is taken.
    pub(super) fn uses_other_port(&self) -> bool {
        self.address.to_string() != DEFAULT_ADDRESS
    }

    /// Scrapes the agent.
    pub(super) fn scrape(&self) -> Result<Scrape> {
        self.client.scrape().with_context(|| format!("cannot scrape the agent; its log: {}", self.log_tail()))
    }

    /// The last ten lines of the log.
    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
    }

    /// Stops the agent with SIGTERM, as a kubelet does.
    pub(super) fn stop(&mut self) -> Result<()> {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.process), Signal::TERM).context("cannot end the agent")?;
        if wait(&mut self.process, STOP_TIMEOUT) {
            return Ok(());
        }
        bail!("the agent did not exit within {} s of SIGTERM", STOP_TIMEOUT.as_secs())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// The default address, or one with another port if that is taken.
fn available_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(DEFAULT_ADDRESS)
        .or_else(|_| TcpListener::bind("127.0.0.1:0"))
        .context("no port of 127.0.0.1 is free")?;
    Ok(listener.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_replaces_a_taken_one() {
        // If binding fails, another program already has the port: the test holds either way.
        let _held = TcpListener::bind(DEFAULT_ADDRESS);
        let address = available_address().unwrap();
        assert_ne!(address.to_string(), DEFAULT_ADDRESS);
        assert_ne!(address.port(), 0);
    }
}
