//! The containers that terminated last.

use schemars::JsonSchema;
use serde::Serialize;

use super::{OomKill, Traffic, VERSION, Who, seconds};
use crate::model::{self, Init, Termination, View};

/// The containers that terminated last.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Terminations<'a> {
    /// `v1`.
    version: &'static str,
    /// Name of the node.
    node: &'a str,
    /// Newest first; the last ones that the agent keeps in memory.
    terminations: Vec<TerminatedContainer<'a>>,
}

/// The response of `/api/v1/terminations` under its previous name.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ends<'a> {
    /// `v1`.
    version: &'static str,
    /// Name of the node.
    node: &'a str,
    /// Newest first; the last ones that the agent keeps in memory.
    ends: Vec<TerminatedContainer<'a>>,
}

/// The final record of a container. Times are seconds since the Unix epoch; unknown values are `null`.
#[derive(Debug, Serialize, JsonSchema)]
struct TerminatedContainer<'a> {
    /// The cgroup's path.
    id: &'a str,
    #[serde(flatten)]
    who: Who<'a>,
    pod_uid: Option<&'a str>,
    container_id: &'a str,
    created: f64,
    removed: f64,
    lifetime_seconds: f64,
    process: Option<Process<'a>>,
    oom_kills: u64,
    last_oom_kill: Option<LastOomKill<'a>>,
    cpu_seconds: Option<f64>,
    throttled_periods: Option<u64>,
    memory_peak_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    network: Option<Traffic>,
}

/// The container's init process.
#[derive(Debug, Serialize, JsonSchema)]
struct Process<'a> {
    pid: u32,
    name: &'a str,
    started: f64,
    ended: Option<f64>,
    run_seconds: Option<f64>,
    exit_code: Option<u8>,
    signal: Option<u8>,
    reason: Option<&'static str>,
}

/// The last OOM kill in the container.
#[derive(Debug, Serialize, JsonSchema)]
struct LastOomKill<'a> {
    at: f64,
    #[serde(flatten)]
    kill: OomKill<'a>,
}

impl<'a> Terminations<'a> {
    pub(super) fn new(view: &'a View) -> Self {
        Self { version: VERSION, node: &view.agent.node, terminations: rows(view) }
    }
}

impl<'a> Ends<'a> {
    pub(super) fn new(view: &'a View) -> Self {
        Self { version: VERSION, node: &view.agent.node, ends: rows(view) }
    }
}

fn rows(view: &View) -> Vec<TerminatedContainer<'_>> {
    view.terminated.iter().rev().map(|row| TerminatedContainer::new(row)).collect()
}

impl<'a> TerminatedContainer<'a> {
    fn new(row: &'a model::TerminatedContainer) -> Self {
        let values = &row.values;
        Self {
            id: &row.identity.path,
            who: Who::new(row.identity.names.as_deref()),
            pod_uid: row.identity.of_path.pod_uid.as_deref(),
            container_id: &row.identity.of_path.id,
            created: row.created_unix,
            removed: row.removed_unix,
            lifetime_seconds: (row.removed_unix - row.created_unix).max(0.0),
            process: row.init.as_ref().map(|init| process(init, row)),
            oom_kills: row.oom_kills,
            last_oom_kill: row
                .last_oom_kill
                .as_ref()
                .map(|kill| LastOomKill { at: kill.at_unix, kill: OomKill::new(kill) }),
            cpu_seconds: values.cpu.map(|cpu| seconds(cpu.usage_ns)),
            throttled_periods: values.throttling.map(|throttling| throttling.throttled_periods),
            memory_peak_bytes: values.memory.and_then(|memory| memory.peak_bytes),
            memory_limit_bytes: values.memory.and_then(|memory| memory.limit_bytes),
            network: values.network.as_ref().map(Traffic::new),
        }
    }
}

fn process<'a>(init: &'a Init, row: &'a model::TerminatedContainer) -> Process<'a> {
    let termination = row.termination.as_ref();
    Process {
        pid: init.pid,
        name: &init.comm,
        started: init.started_unix,
        ended: termination.map(|termination| termination.ended_unix),
        run_seconds: termination.and_then(Termination::run_seconds),
        exit_code: termination.map(|termination| termination.exit_code),
        signal: termination.and_then(|termination| termination.signal),
        reason: termination.map(|termination| termination.reason.as_str()),
    }
}
