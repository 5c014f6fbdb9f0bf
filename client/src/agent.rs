//! Talks to an agent.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use crate::{
    exposition::{self, Sample},
    http::{self, RootCertificates},
};

/// The text format that Prometheus has read since 2016, and the only one asked for.
const ACCEPT: &str = "text/plain;version=0.0.4";
/// Far above the largest page that an agent serves by default (200,000 series).
const MAX_PAGE_BYTES: u64 = 256 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where an agent is and how to ask it.
#[derive(Debug)]
pub struct Agent {
    address: String,
    client: ureq::Agent,
}

/// One look at the metrics.
#[derive(Debug)]
pub struct Scrape {
    /// When the answer began.
    pub at: Instant,
    /// Every line with a value.
    pub samples: Vec<Sample>,
}

/// Why an agent's metrics could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No answer.
    #[error(
        "cannot reach the agent at {url}: {source}; is snug-agent running there, and does its `listen` address take connections from here?"
    )]
    Unreachable {
        /// The address that was asked.
        url: String,
        /// What failed.
        source: Box<ureq::Error>,
    },
    /// Not the metrics' address.
    #[error(
        "{url} answers {status}; --agent takes the agent's address without a path, such as http://127.0.0.1:9750"
    )]
    Status {
        /// The address that was asked.
        url: String,
        /// The status of its answer.
        status: u16,
    },
    /// An agent without a history, or another server.
    #[error("{url} is not there: is it a snug-agent, and not older than this command?")]
    NoHistory {
        /// The address that was asked.
        url: String,
    },
    /// Not the text format.
    #[error("{url}: {source}; is it a snug-agent?")]
    Format {
        /// The address that was asked.
        url: String,
        /// The line.
        source: exposition::ParseError,
    },
    /// Somebody else's metrics.
    #[error(
        "{url} has no snug_… metrics; is it a snug-agent, and do its `metrics-allow` and `metrics-deny` let them through?"
    )]
    NotSnug {
        /// The address that was asked.
        url: String,
    },
}

/// Checks `--agent`: an address of HTTP, or of HTTPS where something before the agent speaks it.
///
/// # Errors
/// With what is wrong and what is allowed.
pub fn parse_address(text: &str) -> Result<String, String> {
    const WANTED: &str = "allowed is http[s]://HOST:PORT, such as http://127.0.0.1:9750";
    let (uri, address) = http::parse_address(text, WANTED)?;
    if uri.path() != "/" {
        return Err(format!("it has a path; {WANTED}"));
    }
    Ok(address)
}

impl Agent {
    /// Of an address that [`parse_address`] has let through.
    pub fn new(address: &str, trust: &RootCertificates) -> Self {
        Self { address: address.to_owned(), client: http::client(TIMEOUT, trust) }
    }

    /// Asks for its evidence, of all hours or since a time in seconds.
    ///
    /// # Errors
    /// When there is no answer, or not the answer of an agent.
    pub fn evidence(&self, since: Option<u64>) -> Result<impl Read + use<>, AgentError> {
        self.ask_evidence(&since.map(|since| format!("?since={since}")).unwrap_or_default())
    }

    /// Asks for its evidence since a time in seconds, with the course of the last hours minute by minute.
    ///
    /// # Errors
    /// As [`Self::evidence`].
    pub fn minutes(&self, since: u64) -> Result<impl Read + use<>, AgentError> {
        self.ask_evidence(&format!("?since={since}&minutes=true"))
    }

    fn ask_evidence(&self, query: &str) -> Result<impl Read + use<>, AgentError> {
        let url = format!("{}/api/v1/evidence{query}", self.address);
        let response = self
            .client
            .get(&url)
            .call()
            .map_err(|source| AgentError::Unreachable { url: url.clone(), source: Box::new(source) })?;
        match response.status().as_u16() {
            200 => Ok(response.into_body().into_reader()),
            404 => Err(AgentError::NoHistory { url }),
            status => Err(AgentError::Status { url, status }),
        }
    }

    /// Asks for its metrics.
    ///
    /// # Errors
    /// When there is no answer, or not the answer of an agent.
    pub fn scrape(&self) -> Result<Scrape, AgentError> {
        let Self { address, client } = self;
        let url = &format!("{address}/metrics");
        let unreachable = |source| AgentError::Unreachable { url: url.clone(), source: Box::new(source) };
        let mut response = client.get(url).header("Accept", ACCEPT).call().map_err(unreachable)?;
        let at = Instant::now();
        if response.status() != 200 {
            return Err(AgentError::Status { url: url.clone(), status: response.status().as_u16() });
        }
        let body =
            response.body_mut().with_config().limit(MAX_PAGE_BYTES).read_to_string().map_err(unreachable)?;
        let samples =
            exposition::parse(&body).map_err(|source| AgentError::Format { url: url.clone(), source })?;
        if !samples.iter().any(|sample| sample.name.starts_with("snug_")) {
            return Err(AgentError::NotSnug { url: url.clone() });
        }
        Ok(Scrape { at, samples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(parse_address("http://127.0.0.1:9750").unwrap(), "http://127.0.0.1:9750");
        assert_eq!(parse_address("http://[::1]:9750/").unwrap(), "http://[::1]:9750");
        for (bad, why) in [
            ("127.0.0.1:9750", "allowed is"),
            ("ftp://node:9750", "ftp is not supported"),
            ("http://node:9750/metrics", "has a path"),
            ("", "allowed is"),
        ] {
            assert!(parse_address(bad).unwrap_err().contains(why), "{bad}");
        }
    }
}
