//! The client of an agent's HTTP API.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use crate::{
    exposition::{self, Sample},
    http::{self, RootCertificates},
};

/// The text format of Prometheus, the only one that this client requests.
const ACCEPT: &str = "text/plain;version=0.0.4";
/// Upper bound of a response, far above the largest page that an agent serves by default (200,000 series).
const MAX_PAGE_BYTES: u64 = 256 << 20;
/// Upper bound of a usage history. An agent keeps 256 MiB by default.
const MAX_HISTORY_BYTES: u64 = 1 << 30;
const TIMEOUT: Duration = Duration::from_secs(10);

/// An agent and its HTTP client.
#[derive(Debug)]
pub struct Agent {
    address: String,
    /// The value of the header `Authorization`.
    authorization: Option<String>,
    client: ureq::Agent,
}

/// One scrape of an agent's metrics.
#[derive(Debug)]
pub struct Scrape {
    /// When the response began.
    pub at: Instant,
    /// The samples of the page.
    pub samples: Vec<Sample>,
}

/// Why a request to an agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No response.
    #[error(
        "cannot reach the agent at {url}: {source}; is snug-agent running there, and does its `listen` address take connections from here?"
    )]
    Unreachable { url: String, source: Box<ureq::Error> },
    /// An unexpected HTTP status.
    #[error(
        "{url} responds with status {status}; --agent takes the agent's address without a path, such as http://127.0.0.1:9750"
    )]
    Status { url: String, status: u16 },
    /// The agent starts, or cannot review a token at the moment, as it says itself.
    #[error("{url} is not ready (status 503): {text}")]
    NotReady { url: String, text: String },
    /// The agent does not know the client, or does not let it read.
    #[error(
        "{url} responds with status {status}: it wants a token that it accepts (--token-file or $SNUG_TOKEN), or a client certificate, \
         which this command cannot send"
    )]
    Denied { url: String, status: u16 },
    /// The server does not have this path.
    #[error("{url} does not exist: is the server a snug-agent, and at least as new as this command?")]
    NoSuchPath { url: String },
    /// A response that is not in the text format.
    #[error("{url} is not a page of metrics: {source}; is the server a snug-agent?")]
    Format { url: String, source: exposition::ParseError },
    /// Metrics of another program.
    #[error(
        "{url} has no snug_… metrics; is the server a snug-agent, and do its options `metrics-allow` and `metrics-deny` allow them?"
    )]
    NotSnug { url: String },
}

impl AgentError {
    /// Bytes that are read of a response without the requested content.
    const MAX_TEXT_BYTES: u64 = 1024;

    fn from_response(url: String, mut response: ureq::http::Response<ureq::Body>) -> Self {
        match response.status().as_u16() {
            status @ (401 | 403) => Self::Denied { url, status },
            503 => {
                let body = response.body_mut().with_config().limit(Self::MAX_TEXT_BYTES);
                let text = body.read_to_string().unwrap_or_default();
                let line = text.lines().next().unwrap_or("try again in a second");
                Self::NotReady { url, text: line.chars().filter(|c| !c.is_control()).collect() }
            }
            status => Self::Status { url, status },
        }
    }
}

/// Parses `--agent`: an HTTP address, or an HTTPS address if a proxy before the agent terminates TLS.
///
/// # Errors
/// A text that says what is wrong and what is allowed.
pub fn parse_address(text: &str) -> Result<String, String> {
    const ALLOWED: &str = "allowed is http[s]://HOST:PORT, such as http://127.0.0.1:9750";
    let (uri, address) = http::parse_address(text, ALLOWED)?;
    if uri.path() != "/" {
        return Err(format!("a path is not allowed; {ALLOWED}"));
    }
    Ok(address)
}

impl Agent {
    /// From an address that [`parse_address`] has returned.
    pub fn new(address: &str, trust: &RootCertificates) -> Self {
        Self::with_timeout(address, trust, TIMEOUT)
    }

    /// As [`Self::new`], with the time that a whole response may take.
    pub fn with_timeout(address: &str, trust: &RootCertificates, timeout: Duration) -> Self {
        Self { address: address.to_owned(), authorization: None, client: http::client(timeout, trust) }
    }

    /// With a bearer token in all requests.
    #[must_use]
    pub fn with_token(self, token: Option<&str>) -> Self {
        Self { authorization: token.map(|token| format!("Bearer {token}")), ..self }
    }

    fn request(&self, path: &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        let request = self.client.get(self.address.clone() + path);
        match &self.authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        }
    }

    /// Requests the usage history, of all hours or since a time in seconds since the Unix epoch.
    ///
    /// # Errors
    /// When there is no response, or not the response of an agent.
    pub fn evidence(&self, since: Option<u64>) -> Result<impl Read + use<>, AgentError> {
        let query = since.map(|since| format!("?since={since}")).unwrap_or_default();
        self.get(&format!("/api/v1/evidence{query}"))
    }

    /// Requests a path of the API, with its query.
    ///
    /// # Errors
    /// When there is no response, or not the response of an agent.
    pub fn get(&self, path: &str) -> Result<impl Read + use<>, AgentError> {
        let url = http::without_password(&self.address) + path;
        let response = self
            .request(path)
            .call()
            .map_err(|source| AgentError::Unreachable { url: url.clone(), source: Box::new(source) })?;
        match response.status().as_u16() {
            200 => Ok(response.into_body().into_with_config().limit(MAX_HISTORY_BYTES).reader()),
            404 => Err(AgentError::NoSuchPath { url }),
            _ => Err(AgentError::from_response(url, response)),
        }
    }

    /// Scrapes the metrics.
    ///
    /// # Errors
    /// When there is no response, or not the response of an agent.
    pub fn scrape(&self) -> Result<Scrape, AgentError> {
        let url = &(http::without_password(&self.address) + "/metrics");
        let unreachable = |source| AgentError::Unreachable { url: url.clone(), source: Box::new(source) };
        let mut response = self.request("/metrics").header("Accept", ACCEPT).call().map_err(unreachable)?;
        let at = Instant::now();
        if response.status() != 200 {
            return Err(AgentError::from_response(url.clone(), response));
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
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    #[test]
    fn an_agent_that_is_not_ready_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let agent =
            Agent::new(&format!("http://{}", listener.local_addr().unwrap()), &RootCertificates::default());
        let server = thread::spawn(move || {
            for _ in 0..2 {
                let mut stream = listener.accept().unwrap().0;
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                lines.map(Result::unwrap).take_while(|line| !line.is_empty()).for_each(drop);
                let text = "no measurement yet\nand more";
                let length = text.len();
                write!(
                    stream,
                    "HTTP/1.1 503 x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
                )
                .unwrap();
            }
        });
        for error in [agent.evidence(None).map(drop).unwrap_err(), agent.scrape().unwrap_err()] {
            assert!(error.to_string().ends_with(" is not ready (status 503): no measurement yet"), "{error}");
        }
        server.join().unwrap();
    }

    #[test]
    fn addresses() {
        assert_eq!(parse_address("http://127.0.0.1:9750").unwrap(), "http://127.0.0.1:9750");
        assert_eq!(parse_address("http://[::1]:9750/").unwrap(), "http://[::1]:9750");
        for (bad, why) in [
            ("127.0.0.1:9750", "allowed is"),
            ("ftp://node:9750", "ftp is not supported"),
            ("http://node:9750/metrics", "a path is not allowed"),
            ("", "allowed is"),
        ] {
            assert!(parse_address(bad).unwrap_err().contains(why), "{bad}");
        }
    }
}
