//! The client of a Prometheus-compatible query API: Prometheus, Thanos, Mimir, VictoriaMetrics.

mod gather;
mod windows;

use std::{collections::BTreeMap, io::Read as _, time::Duration};

use serde::Deserialize;
use snug_client::http::{self, RootCertificates};

/// Upper bound of a response, far above a day of a thousand containers.
const MAX_RESPONSE_BYTES: u64 = 1 << 30;
const TIMEOUT: Duration = Duration::from_secs(120);

/// A Prometheus-compatible server and its HTTP client.
#[derive(Debug)]
pub struct Prometheus {
    base: String,
    headers: Vec<Header>,
    client: ureq::Agent,
}

/// An HTTP header of requests, for authentication or a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    name: String,
    value: String,
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// The connection failed or broke.
    #[error(
        "cannot reach Prometheus at {base}: {source}; is the address right, and can it be reached from here?"
    )]
    Unreachable { base: String, source: Box<ureq::Error> },
    /// An unexpected HTTP status.
    #[error(
        "{base} responds to a query with status {status}: {text}; --prometheus takes the address without /api/v1, --header sets authentication"
    )]
    Status {
        base: String,
        status: u16,
        /// The beginning of the response.
        text: String,
    },
    /// A response that is not a query result.
    #[error("the response of {base} is not that of a Prometheus query API: {source}")]
    Response { base: String, source: serde_json::Error },
    /// The necessary metrics are missing.
    #[error(
        "{base} has no {metric} of containers in the last ten minutes; scrape /metrics/cadvisor of the kubelets or of the agents"
    )]
    NoContainers { base: String, metric: &'static str },
}

/// Labels of a series.
pub type Labels = BTreeMap<String, String>;

/// Points of a series: time in seconds and value.
type Points = Vec<(u64, f64)>;

/// Labels that identify a container in queries.
const BY: &str = "namespace, pod, container";

/// A container: namespace, pod, name.
type ContainerKey = (String, String, String);

fn container_key(labels: &Labels) -> ContainerKey {
    let label = |name| labels.get(name).cloned().unwrap_or_default();
    (label("namespace"), label("pod"), label("container"))
}

/// A series of a query result; times are in seconds.
#[derive(Clone, Debug, Deserialize)]
struct Series {
    metric: Labels,
    #[serde(default)]
    values: Vec<(f64, String)>,
    value: Option<(f64, String)>,
    /// Set instead of `value` for native histograms.
    histogram: Option<(f64, NativeHistogram)>,
}

/// A native histogram of the query API.
#[derive(Clone, Debug, Deserialize)]
struct NativeHistogram {
    /// Boundary rule, lower bound, upper bound and count of each bucket.
    #[serde(default)]
    buckets: Vec<(u8, String, String, String)>,
}

#[derive(Deserialize)]
struct QueryResponse {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

/// Parses `--prometheus`: an HTTP or HTTPS address, with a path if the server has one before `/api/v1`.
///
/// # Errors
/// A text that says what is wrong and what is allowed.
pub fn parse_address(text: &str) -> Result<String, String> {
    const ALLOWED: &str = "allowed is http[s]://HOST:PORT[/PATH], such as http://127.0.0.1:9090";
    Ok(http::parse_address(text, ALLOWED)?.1)
}

/// Parses `--header`.
///
/// # Errors
/// A text that says what is wrong.
pub fn parse_header(text: &str) -> Result<Header, String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME: VALUE")?;
    let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(is_name) || value.chars().any(char::is_control) {
        return Err("a header is NAME: VALUE, in letters, digits and '-'".to_owned());
    }
    Ok(Header { name, value })
}

impl Prometheus {
    /// From an address that [`parse_address`] has returned.
    pub fn new(base: &str, headers: &[Header], trust: &RootCertificates) -> Self {
        Self { base: base.to_owned(), headers: headers.to_vec(), client: http::client(TIMEOUT, trust) }
    }

    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Vec<Series>, PrometheusError> {
        let base = || self.base.clone();
        let mut request = self.client.get(format!("{}/api/v1/{path}", self.base));
        for Header { name, value } in &self.headers {
            request = request.header(name, value);
        }
        let request = request.query_pairs(parameters.iter().copied());
        let unreachable = |source| PrometheusError::Unreachable { base: base(), source: Box::new(source) };
        let response = request.call().map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(MAX_RESPONSE_BYTES).reader();
        if status != 200 {
            let mut text = String::new();
            // An unreadable body is left out of the message.
            let _ = body.take(300).read_to_string(&mut text);
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            return Err(PrometheusError::Status { base: base(), status, text });
        }
        let response: QueryResponse = serde_json::from_reader(std::io::BufReader::new(body))
            .map_err(|source| PrometheusError::Response { base: base(), source })?;
        Ok(response.data.result)
    }

    /// Current values, without NaN and infinity.
    fn instant(&self, query: &str) -> Result<Vec<(Labels, f64)>, PrometheusError> {
        let series = self.get("query", &[("query", query)])?;
        let finite = |it: Series| Some((it.metric, number(&it.value?.1)?));
        Ok(series.into_iter().filter_map(finite).collect())
    }

    /// The result of an instant query at a time in seconds.
    fn instant_at(&self, query: &str, at: u64) -> Result<Vec<Series>, PrometheusError> {
        self.get("query", &[("query", query), ("time", &at.to_string())])
    }

    /// Values from `from` to `to` in steps, all in seconds, without NaN and infinity.
    fn range(
        &self,
        query: &str,
        from: u64,
        to: u64,
        step: u64,
    ) -> Result<Vec<(Labels, Points)>, PrometheusError> {
        let [from, to, step] = [from, to, step].map(|seconds| seconds.to_string());
        let series =
            self.get("query_range", &[("query", query), ("start", &from), ("end", &to), ("step", &step)])?;
        let finite = |values: Vec<(f64, String)>| -> Points {
            // `as` saturates.
            values.iter().filter_map(|(at, value)| Some((*at as u64, number(value)?))).collect()
        };
        Ok(series.into_iter().map(|it| (it.metric, finite(it.values))).collect())
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_headers() {
        assert_eq!(parse_address("http://mimir:8080/prometheus/").unwrap(), "http://mimir:8080/prometheus");
        for bad in ["prometheus:9090", "http://p/?x=1"] {
            assert!(parse_address(bad).unwrap_err().contains("allowed is"), "{bad}");
        }
        let header = parse_header("X-Scope-OrgID: shop").unwrap();
        assert_eq!((&*header.name, &*header.value), ("X-Scope-OrgID", "shop"));
        for bad in ["X-Scope-OrgID", ": a", "a b: c", "a: b\nc: d"] {
            assert!(parse_header(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nan_and_infinity_are_no_values() {
        assert_eq!(["1.5", "NaN", "+Inf", "x"].map(number), [Some(1.5), None, None, None]);
    }
}
