//! Responses of an agent, as far as `snug top` uses them.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read},
};

use flate2::read::MultiGzDecoder;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};

/// Rows per page of a list: the most that an agent serves.
const PAGE: u32 = 10_000;
/// Upper bound of a response, not packed. 10,000 containers have 10 MB.
const MAX_BYTES: u64 = 256 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// `/api/v1/containers`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Containers {
    pub(crate) node: String,
    /// When the values were measured, in seconds since the Unix epoch; `None` with an older agent.
    #[serde(default)]
    pub(crate) at: Option<f64>,
    pub(crate) containers: Vec<Container>,
    #[serde(default)]
    pub(crate) next: Option<String>,
}

/// A container. Counters start at its creation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) level: String,
    pub(crate) kind: Option<String>,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) container_id: String,
    /// The name that docker, podman or nerdctl gave it.
    pub(crate) name: String,
    pub(crate) runtime: String,
    pub(crate) workload_kind: String,
    pub(crate) workload: String,
    pub(crate) cpu_request_cores: Option<f64>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) cpu_quota_cores: Option<f64>,
    pub(crate) cfs_periods: Option<u64>,
    pub(crate) cfs_throttled_periods: Option<u64>,
    pub(crate) memory_working_set_bytes: Option<f64>,
    pub(crate) memory_peak_bytes: Option<f64>,
    pub(crate) memory_request_bytes: Option<f64>,
    pub(crate) memory_limit_bytes: Option<f64>,
    pub(crate) oom_kills: Option<f64>,
    pub(crate) network: Option<Traffic>,
}

/// Traffic of sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Traffic {
    pub(crate) receive_bytes: u64,
    pub(crate) transmit_bytes: u64,
}

/// `/api/v1/workloads`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Workloads {
    pub(crate) workloads: Vec<Workload>,
}

/// Counters of a workload on this node since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Workload {
    pub(crate) workload_kind: String,
    pub(crate) container: String,
    pub(crate) restarts: u64,
    pub(crate) oom_kills: Option<BTreeMap<String, u64>>,
}

/// `/api/v1/terminations`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Terminations {
    /// Newest first.
    pub(crate) terminations: Vec<Termination>,
}

/// The final record of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Termination {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) workload_kind: String,
    pub(crate) workload: String,
    /// Seconds since the Unix epoch.
    pub(crate) removed: f64,
    pub(crate) process: Option<Process>,
}

/// The init process of a terminated container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    pub(crate) exit_code: Option<u8>,
    pub(crate) reason: Option<String>,
}

/// `/api/v1/events`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Events {
    /// Oldest first.
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    /// Seconds since the Unix epoch.
    pub(crate) at: f64,
    pub(crate) kind: String,
    /// `INFO`, `WARN` or `ERROR`.
    pub(crate) severity: String,
    pub(crate) message: String,
    pub(crate) container: String,
    pub(crate) container_id: String,
}

/// Path and query of a list, with filters. Empty filters count.
pub(crate) fn path(resource: &str, filters: &[(&str, &str)]) -> String {
    let mut path = format!("/api/v1/{resource}");
    for (number, (name, value)) in filters.iter().enumerate() {
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        path += &format!("{}{name}={value}", if number == 0 { '?' } else { '&' });
    }
    path
}

/// The path of all containers after `after`, perhaps of one namespace.
pub(crate) fn containers_path(namespace: Option<&str>, after: Option<&str>) -> String {
    let limit = PAGE.to_string();
    let mut filters = vec![("limit", limit.as_str())];
    filters.extend(namespace.map(|namespace| ("namespace", namespace)));
    filters.extend(after.map(|after| ("after", after)));
    path("containers", &filters)
}

/// Parses a response, compressed by gzip or not.
pub(crate) fn parse<T: DeserializeOwned>(body: impl Read) -> io::Result<T> {
    let mut body = BufReader::new(body.take(MAX_BYTES));
    let mut text = Vec::new();
    if body.fill_buf()?.starts_with(&GZIP) {
        MultiGzDecoder::new(body).take(MAX_BYTES).read_to_end(&mut text)?;
    } else {
        body.read_to_end(&mut text)?;
    }
    // From memory: reading JSON byte by byte takes several times as long.
    serde_json::from_slice(&text).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn names_are_escaped_in_paths() {
        assert_eq!(
            path("events", &[("namespace", "a&b"), ("pod", "")]),
            "/api/v1/events?namespace=a%26b&pod="
        );
        let next = containers_path(None, Some("/a b"));
        assert_eq!(next, "/api/v1/containers?limit=10000&after=%2Fa%20b");
    }

    #[test]
    fn packed_and_unknown_fields_are_read() {
        let text = br#"{"version":"v1","node":"n","at":1.5,"new":{},"containers":[{"id":"/a","cpu_seconds":null,"memory_peak_bytes":7}],"next":null}"#;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).unwrap();
        let packed = packed.finish().unwrap();
        let plain: Containers = parse(&text[..]).unwrap();
        assert_eq!((plain.at, plain.containers[0].memory_peak_bytes), (Some(1.5), Some(7.0)));
        assert_eq!(parse::<Containers>(&packed[..]).unwrap(), plain);
        assert!(parse::<Containers>(&packed[..20]).is_err());
        assert!(parse::<Containers>(&b"<html>"[..]).is_err());
    }
}
