//! The agent as the demo runs it.

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
use snug_client::agent::{Agent as Client, Scrape};

use super::stage::{Stage, wait};
use crate::command;

/// Where an agent listens unless it is told otherwise.
const USUAL: &str = "127.0.0.1:9750";
/// How long the agent may take to serve its first metrics.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end.
const END: Duration = Duration::from_secs(5);

/// A running agent. It ends with this value.
#[derive(Debug)]
pub(super) struct Agent {
    process: Child,
    client: Client,
    address: SocketAddr,
    log: PathBuf,
}

impl Agent {
    /// Starts the agent and waits for its first metrics.
    pub(super) fn start(program: &Path, stage: &Stage) -> Result<Self> {
        let address = free_address()?;
        // A file of its own, so that one of the host's does not count.
        let config = stage.path("agent.toml");
        fs::write(&config, "").with_context(|| format!("cannot write {}", config.display()))?;
        let log = stage.path("logs/agent.log");
        let output = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut start = command::new(program);
        start.env_clear().arg("--config").arg(&config);
        start.arg("--listen").arg(address.to_string());
        start.arg("--pods-file").arg(stage.pods_file()).arg("--data-dir").arg(stage.path("agent"));
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
        let give_up = Instant::now() + START;
        loop {
            let error = match self.client.scrape() {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let ended = self.process.try_wait().context("cannot wait for the agent")?;
            if let Some(status) = ended {
                bail!("the agent ended with {status}: {}", self.said());
            }
            if Instant::now() >= give_up {
                bail!("the agent serves no metrics: {error}; it said: {}", self.said());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where its metrics are.
    pub(super) fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// Whether another program has the usual port.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.address.to_string() != USUAL
    }

    /// Asks for its metrics.
    pub(super) fn scrape(&self) -> Result<Scrape> {
        self.client.scrape().with_context(|| format!("the agent said: {}", self.said()))
    }

    /// The end of its log.
    fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
    }

    /// Asks it to end, as a kubelet does.
    pub(super) fn stop(&mut self) -> Result<()> {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return Ok(());
        }
        command::capture(command::new("kill").args(["-TERM", &self.process.id().to_string()]))?;
        if wait(&mut self.process, END) {
            return Ok(());
        }
        bail!("the agent did not end within {} s of SIGTERM", END.as_secs())
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

/// The usual address, or one with another port if that is taken.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(USUAL)
        .or_else(|_| TcpListener::bind("127.0.0.1:0"))
        .context("no port of 127.0.0.1 can be had")?;
    Ok(listener.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_gone_round() {
        // Held by this test, or by whoever has it already.
        let _held = TcpListener::bind(USUAL);
        let address = free_address().unwrap();
        assert_ne!(address.to_string(), USUAL);
        assert_ne!(address.port(), 0);
    }
}
