//! Asks a Prometheus, or what speaks its query API: Thanos, Mimir, VictoriaMetrics.

mod gather;
mod windows;

use std::{collections::BTreeMap, io::Read as _, time::Duration};

use serde::Deserialize;
use snug_client::http::{self, RootCertificates};

/// Far above the answer to a day of a thousand containers.
const MAX_RESPONSE_BYTES: u64 = 1 << 30;
const TIMEOUT: Duration = Duration::from_secs(120);

/// A server and how to ask it.
#[derive(Debug)]
pub struct Prometheus {
    base: String,
    headers: Vec<Header>,
    client: ureq::Agent,
}

/// A header of requests, for authentication or a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    name: String,
    value: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// No connection, or it broke.
    #[error(
        "cannot reach Prometheus at {base}: {source}; is the address right, and can it be reached from here?"
    )]
    Unreachable {
        /// The server.
        base: String,
        /// What failed.
        source: Box<ureq::Error>,
    },
    /// Not the answer of its query API.
    #[error(
        "{base} answers {status} to a query: {text}; --prometheus takes the address before /api/v1, and --header what it wants for authentication"
    )]
    Status {
        /// The server.
        base: String,
        /// The status.
        status: u16,
        /// The beginning of what it says.
        text: String,
    },
    /// Something else than a result.
    #[error("{base} does not answer as Prometheus does: {source}")]
    Answer {
        /// The server.
        base: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It does not scrape what is needed.
    #[error(
        "{base} has no {metric} of containers in the last ten minutes; let it scrape the kubelets' /metrics/cadvisor or the agents'"
    )]
    NoContainers {
        /// The server.
        base: String,
        /// What it lacks.
        metric: &'static str,
    },
}

/// Labels of a series.
pub type Labels = BTreeMap<String, String>;

/// Times in seconds, and values.
type Points = Vec<(u64, f64)>;

/// Labels by which series of one container are found.
const BY: &str = "namespace, pod, container";

/// A container: namespace, pod, name.
type ContainerKey = (String, String, String);

fn container_key(labels: &Labels) -> ContainerKey {
    let label = |name| labels.get(name).cloned().unwrap_or_default();
    (label("namespace"), label("pod"), label("container"))
}

/// A series, with its times in seconds and values.
#[derive(Clone, Debug, Deserialize)]
struct Series {
    metric: Labels,
    #[serde(default)]
    values: Vec<(f64, String)>,
    value: Option<(f64, String)>,
    /// In the container_key of a value.
    histogram: Option<(f64, NativeHistogram)>,
}

/// A native histogram as the query API writes it.
#[derive(Clone, Debug, Deserialize)]
struct NativeHistogram {
    /// KubeContext bounds belong to it, lower and upper bound, and count.
    #[serde(default)]
    buckets: Vec<(u8, String, String, String)>,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

/// Checks `--prometheus`: an address of HTTP or HTTPS, with a path where the server has one before `/api/v1`.
///
/// # Errors
/// With what is wrong and what is allowed.
pub fn parse_address(text: &str) -> Result<String, String> {
    const WANTED: &str = "allowed is http[s]://HOST:PORT[/PATH], such as http://127.0.0.1:9090";
    Ok(http::parse_address(text, WANTED)?.1)
}

/// Checks `--header`.
///
/// # Errors
/// With what is wrong.
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
    /// Of an address that [`parse_address`] has let through.
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
            // What cannot be read says nothing.
            let _ = body.take(300).read_to_string(&mut text);
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            return Err(PrometheusError::Status { base: base(), status, text });
        }
        let answer: Answer = serde_json::from_reader(std::io::BufReader::new(body))
            .map_err(|source| PrometheusError::Answer { base: base(), source })?;
        Ok(answer.data.result)
    }

    /// Values now; what is no number is left out.
    fn instant(&self, query: &str) -> Result<Vec<(Labels, f64)>, PrometheusError> {
        let series = self.get("query", &[("query", query)])?;
        let finite = |it: Series| Some((it.metric, number(&it.value?.1)?));
        Ok(series.into_iter().filter_map(finite).collect())
    }

    /// Series as they were at a time in seconds.
    fn instant_at(&self, query: &str, at: u64) -> Result<Vec<Series>, PrometheusError> {
        self.get("query", &[("query", query), ("time", &at.to_string())])
    }

    /// Values at `from`, a step later and so on until `to`, all in seconds; what is no number is left out.
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
    fn what_is_no_number_is_none() {
        assert_eq!(["1.5", "NaN", "+Inf", "x"].map(number), [Some(1.5), None, None, None]);
    }
}
