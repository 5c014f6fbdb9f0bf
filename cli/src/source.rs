//! Where evidence comes from.

use std::{
    fs::File,
    io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    agent::{self, Agent},
    prometheus::{self, Prometheus},
    recording::Recording,
};

/// As much as tells the days of a week apart.
const OF_PROMETHEUS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where from, and which part of it.
#[derive(Debug, Args)]
pub struct Source {
    /// Address of an agent; may be given several times, and what they know is put together.
    #[arg(long, value_name = "URL", value_parser = agent::parse_address, default_value = "http://127.0.0.1:9750")]
    agent: Vec<String>,
    /// Address of a Prometheus, or of what speaks its query API, that scrapes the kubelets' /metrics/cadvisor or the agents'; instead of
    /// agents. With kube-state-metrics it also knows requests and owners.
    #[arg(long, value_name = "URL", conflicts_with_all = ["agent", "file"], value_parser = prometheus::parse_address)]
    prometheus: Option<String>,
    /// A header for that Prometheus, such as 'Authorization: Bearer …' or 'X-Scope-OrgID: …'; may be given several times.
    #[arg(long, value_name = "NAME: VALUE", requires = "prometheus", value_parser = prometheus::parse_header)]
    header: Vec<prometheus::Header>,
    /// A recording that `snug snapshot` wrote, instead of agents; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "agent")]
    file: Option<PathBuf>,
    /// Only what was seen since so long ago, such as 7d. Without it: all, and of a Prometheus 7 days.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Only these namespaces, separated by commas.
    #[arg(short = 'n', long, value_name = "NAMESPACE,…", value_delimiter = ',')]
    namespace: Vec<String>,
    /// All namespaces, which is what happens anyway.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
}

impl Source {
    /// Reads all of it. An agent that does not answer is told on standard error, and is an error if none does.
    ///
    /// # Errors
    /// When there is nothing to be had, or not what is asked for.
    pub fn read(&self) -> Result<Recording> {
        let mut recording = Recording::default();
        if let Some(address) = &self.prometheus {
            let since = self.since.unwrap_or(OF_PROMETHEUS);
            return Ok(Prometheus::new(address, &self.header).evidence(since, &self.namespace)?);
        }
        match &self.file {
            Some(file) if file.as_os_str() == "-" => recording.read("standard input", io::stdin().lock())?,
            Some(file) => {
                let name = file.display().to_string();
                let open = File::open(file).with_context(|| format!("cannot open {name}"))?;
                recording.read(&name, open)?;
            }
            None => self.ask(&mut recording)?,
        }
        if let Some(since) = self.since {
            recording.since(recording.at.saturating_sub(since.as_secs()));
        }
        if !self.namespace.is_empty() {
            recording.retain(|evidence| self.namespace.contains(&evidence.workload.namespace));
        }
        Ok(recording)
    }

    fn ask(&self, recording: &mut Recording) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let since = self.since.map(|since| now.saturating_sub(since.as_secs()));
        let mut failed = 0;
        for address in &self.agent {
            // What an agent said before it broke off must not count.
            let mut answer = Recording::default();
            let result = Agent::new(address)
                .evidence(since)
                .map_err(anyhow::Error::from)
                .and_then(|body| Ok(answer.read(address, body)?));
            match result {
                Ok(()) => recording.merge(answer),
                Err(error) if self.agent.len() == 1 => return Err(error),
                Err(error) => {
                    failed += 1;
                    eprintln!("snug: {error:#}; its containers are missing");
                }
            }
        }
        if failed == self.agent.len() {
            bail!("none of {failed} agents answers");
        }
        Ok(())
    }
}
