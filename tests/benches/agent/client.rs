//! Scrapes as Prometheus makes them: over a connection that is kept, with its headers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// What Prometheus 3 asks for without native histograms.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
     text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
/// What it asks for with them.
const NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
     application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
     application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
     text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
/// What asks for text 0.0.4 only.
pub(crate) const TEXT: &str = "text/plain;version=0.0.4";

/// A way to ask for something: `Accept`, and whether gzip is welcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) accept: &'static str,
    pub(crate) gzip: bool,
}

impl Wish {
    /// As Prometheus asks.
    pub(crate) const PROMETHEUS: Self = Self { accept: OPEN_METRICS, gzip: true };
    /// As it asks where it reads native histograms.
    pub(crate) const WITH_NATIVE: Self = Self { accept: NATIVE, gzip: true };
}

/// A client of one agent.
pub(crate) struct Client {
    http: ureq::Agent,
    base: String,
}

/// What a scrape cost its client.
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

    /// The body of a successful response.
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
            .with_context(|| format!("{path} was cut"))
    }

    /// One scrape.
    pub(crate) fn scrape(&self, path: &str, wish: Wish) -> Result<Scraped> {
        let encoding = if wish.gzip { "gzip" } else { "identity" };
        let begun = Instant::now();
        let body = self.get(path, &[("Accept", wish.accept), ("Accept-Encoding", encoding)])?;
        let took = begun.elapsed();
        ensure!(
            wish.gzip == body.starts_with(&[0x1f, 0x8b]),
            "{path} came in another encoding than asked for"
        );
        Ok(Scraped { took, bytes: body.len() })
    }

    /// What `/metrics` says now.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics(String::from_utf8(self.get("/metrics", &[("Accept", TEXT)])?)?))
    }
}

/// One exposition in text 0.0.4.
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of the series whose name, or name and labels, are these; 0 if there are none.
    pub(crate) fn sum(&self, series: &str) -> f64 {
        self.0
            .lines()
            .filter(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}
