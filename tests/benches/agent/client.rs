//! Scrapes the agent as Prometheus does: with its headers, over a persistent connection.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// `Accept` header of Prometheus 3 without native histograms.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
     text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
/// `Accept` header of Prometheus 3 with native histograms.
const NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
     application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
     application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
     text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
/// `Accept` header for text 0.0.4 only.
pub(crate) const TEXT: &str = "text/plain;version=0.0.4";

/// Format of a scrape: `Accept` header, and whether to accept gzip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScrapeFormat {
    pub(crate) accept: &'static str,
    pub(crate) gzip: bool,
}

impl ScrapeFormat {
    /// As Prometheus scrapes by default.
    pub(crate) const PROMETHEUS: Self = Self { accept: OPEN_METRICS, gzip: true };
    /// As Prometheus scrapes with native histograms.
    pub(crate) const WITH_NATIVE: Self = Self { accept: NATIVE, gzip: true };
}

/// A client of one agent.
pub(crate) struct Client {
    http: ureq::Agent,
    base: String,
}

/// Size and latency of a scrape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scraped {
    pub(crate) took: Duration,
    pub(crate) bytes: usize,
}

impl Client {
    pub(crate) fn new(port: u16) -> Self {
        let http = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).build();
        Self { http: http.into(), base: format!("http://127.0.0.1:{port}") }
    }

    /// Requests `path` and returns the body.
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Vec<u8>> {
        let mut request = self.http.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().with_context(|| format!("cannot get {path}"))?;
        let limit = 1 << 30;
        response
            .body_mut()
            .with_config()
            .limit(limit)
            .read_to_vec()
            .with_context(|| format!("the response for {path} is incomplete"))
    }

    pub(crate) fn scrape(&self, path: &str, format: ScrapeFormat) -> Result<Scraped> {
        let encoding = if format.gzip { "gzip" } else { "identity" };
        let begun = Instant::now();
        let body = self.get(path, &[("Accept", format.accept), ("Accept-Encoding", encoding)])?;
        let took = begun.elapsed();
        ensure!(
            format.gzip == body.starts_with(&[0x1f, 0x8b]),
            "the response for {path} has another encoding than requested"
        );
        Ok(Scraped { took, bytes: body.len() })
    }

    /// The current `/metrics` in text 0.0.4.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics(String::from_utf8(self.get("/metrics", &[("Accept", TEXT)])?)?))
    }
}

/// A response in text 0.0.4.
pub(crate) struct Metrics(String);

impl Metrics {
    /// Sum of the series with this name, or name and labels; 0 if there are none.
    pub(crate) fn sum(&self, series: &str) -> f64 {
        self.0
            .lines()
            .filter(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}
