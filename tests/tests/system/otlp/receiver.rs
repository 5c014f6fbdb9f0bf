//! An OTLP receiver that shares no code with the agent, and an agent that sends to it.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use snug_tests::agent::{Agent, Process, command, eventually};

/// The variable with the path of a Python interpreter that has the definitions.
const PYTHON: &str = "SNUG_TEST_OTLP_PYTHON";
/// How long data that is sent each second may take to arrive.
pub(crate) const ARRIVES: Duration = Duration::from_secs(30);

/// A data point, as the receiver decoded it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Point {
    pub(crate) resource: BTreeMap<String, Value>,
    pub(crate) scope: String,
    pub(crate) schema: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) kind: String,
    pub(crate) temporality: Option<String>,
    pub(crate) monotonic: Option<bool>,
    pub(crate) attributes: BTreeMap<String, Value>,
    pub(crate) start: u64,
    pub(crate) time: u64,
    /// For a histogram, its count.
    #[serde(alias = "count")]
    pub(crate) value: f64,
    #[serde(flatten)]
    pub(crate) histogram: Option<Histogram>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Histogram {
    pub(crate) sum: f64,
    pub(crate) scale: i32,
    pub(crate) zero_count: u64,
    pub(crate) offset: i32,
    pub(crate) buckets: Vec<u64>,
}

impl Point {
    pub(crate) fn is(&self, metric: &str, resource: &[(&str, &str)]) -> bool {
        self.metric == metric && resource.iter().all(|(name, value)| self.of(name) == *value)
    }

    /// The attributes of its resource.
    pub(crate) fn of(&self, name: &str) -> &str {
        self.resource.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// A request, as the receiver decoded it.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) protocol: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) answer: String,
    pub(crate) points: Vec<Point>,
    records: Vec<Record>,
}

/// A log record, as the receiver decoded it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) resource: BTreeMap<String, Value>,
    pub(crate) scope: String,
    pub(crate) schema: String,
    pub(crate) event: String,
    pub(crate) severity: String,
    pub(crate) number: String,
    pub(crate) body: String,
    pub(crate) attributes: BTreeMap<String, Value>,
    pub(crate) time: u64,
    pub(crate) observed: u64,
}

pub(crate) struct Receiver {
    pub(crate) process: Process,
    pub(crate) port: u16,
}

impl Receiver {
    pub(crate) fn start(protocol: &str, arguments: &[&str]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("otlp/receiver.py");
        let mut command = Command::new(env::var_os(PYTHON).context(PYTHON)?);
        command.arg(script).arg(protocol).args(arguments).stdin(Stdio::null());
        let mut process = Process::spawn(&mut command)?;
        let port = eventually(ARRIVES, "the receiver listens", || {
            if process.has_ended()?.is_some() {
                bail!("the receiver ended: {}", process.log());
            }
            let log = process.log();
            let line = log.lines().find_map(|line| line.strip_prefix("listening "));
            Ok(line.map(str::parse).transpose()?)
        })?;
        Ok(Self { process, port })
    }

    /// The requests with metrics so far.
    pub(crate) fn requests(&self) -> Result<Vec<Request>> {
        Ok(self.all()?.into_iter().filter(|request| request.records.is_empty()).collect())
    }

    /// The log records so far.
    pub(crate) fn records(&self) -> Result<Vec<Record>> {
        Ok(self.all()?.into_iter().flat_map(|request| request.records).collect())
    }

    fn all(&self) -> Result<Vec<Request>> {
        let log = self.process.log();
        let whole = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        if let Some(wrong) = whole.lines().find(|line| line.starts_with("AssertionError")) {
            bail!("the receiver found: {wrong}");
        }
        // The output also has messages of gRPC.
        let lines = whole.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).with_context(|| format!("the receiver said: {line}")))
            .collect()
    }

    pub(crate) fn points(&self) -> Result<Vec<Point>> {
        Ok(self.requests()?.into_iter().flat_map(|request| request.points).collect())
    }

    pub(crate) fn endpoint(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.port)
    }
}

/// Whether a receiver can run; the error is the reason why not.
pub(crate) fn prepared() -> bool {
    let there = env::var_os(PYTHON).is_some_and(|python| PathBuf::from(python).exists());
    if !there {
        snug_tests::cannot_run(
            "no decoder of OTLP in $SNUG_TEST_OTLP_PYTHON; `cargo xtask setup otlp` fetches it",
        );
    }
    there
}

/// An agent that sends each second, configured by the variables of OpenTelemetry's specification.
pub(crate) fn agent(variables: &[(&str, &str)], arguments: &[&str]) -> Result<Agent> {
    let mut command = command(["--listen", "127.0.0.1:0"])?;
    command.args(arguments).env("OTEL_METRIC_EXPORT_INTERVAL", "1000").envs(variables.iter().copied());
    Agent::launch(command)
}
