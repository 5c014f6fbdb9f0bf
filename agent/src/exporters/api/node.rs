//! The node, and the agent on it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::VERSION;
use crate::model::{Level, View};

/// The node. Values that the host does not provide are `null` or empty.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Node<'a> {
    /// `v1`.
    version: &'static str,
    /// Name of the node.
    node: &'a str,
    machine_id: &'a str,
    boot_id: &'a str,
    /// Online CPUs.
    cpus: Option<u64>,
    memory_bytes: Option<u64>,
    swap_bytes: Option<u64>,
    /// Containers that exist now, without sandboxes.
    containers: usize,
    /// Known pods.
    pods: usize,
    agent: Agent<'a>,
}

/// The agent.
#[derive(Debug, Serialize, JsonSchema)]
struct Agent<'a> {
    /// Version of the agent.
    version: &'static str,
    /// The start of the agent, in seconds since the Unix epoch.
    started: f64,
    cpu_seconds: f64,
    resident_bytes: u64,
    /// The source of each measurement.
    sources: Vec<MeasurementSource<'a>>,
    /// The state of each eBPF program.
    programs: Vec<Program<'a>>,
    /// Whether the pods of this node were listed completely at least once; `null` if pods are not watched.
    pods_synced: Option<bool>,
    /// Size of the usage history in bytes; `null` without one.
    history_bytes: Option<u64>,
    /// Events so far, by kind.
    events: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct MeasurementSource<'a> {
    measurement: &'static str,
    /// `kernel`, `files` or `none`.
    source: &'static str,
    /// The reason for this source; empty for the preferred one.
    reason: &'a str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Program<'a> {
    name: &'static str,
    /// `running`, `unsupported` or `failed`.
    verdict: &'static str,
    /// The reason if the program is not running.
    reason: &'a str,
    runs: u64,
    run_seconds: f64,
    /// Instructions that the kernel's verifier followed on all paths of the program; `null` before Linux 5.16.
    verified_instructions: Option<u32>,
}

impl<'a> Node<'a> {
    pub(super) fn new(view: &'a View) -> Self {
        let (agent, machine) = (&view.agent, &view.host.machine);
        let levels = view.cgroups.iter().map(|row| row.identity.of_path.level);
        let sources = agent.sources.iter().map(|row| MeasurementSource {
            measurement: row.measurement.as_str(),
            source: row.source.as_str(),
            reason: &row.reason,
        });
        let programs = agent.programs.iter().map(|row| Program {
            name: row.name,
            verdict: row.verdict.as_str(),
            reason: row.verdict.reason(),
            runs: row.run_count,
            run_seconds: super::seconds(row.run_time_ns),
            verified_instructions: row.verified_instructions,
        });
        Self {
            version: VERSION,
            node: &agent.node,
            machine_id: &machine.machine_id,
            boot_id: &machine.boot_id,
            cpus: machine.cpus,
            memory_bytes: machine.memory_bytes,
            swap_bytes: machine.swap_bytes,
            containers: levels.filter(|level| *level == Level::Container).count(),
            pods: view.pods.len(),
            agent: Agent {
                version: env!("CARGO_PKG_VERSION"),
                started: agent.started_unix,
                cpu_seconds: agent.cpu_seconds,
                resident_bytes: agent.resident_bytes,
                sources: sources.collect(),
                programs: programs.collect(),
                pods_synced: agent.kubernetes.map(|watch| watch.synced),
                history_bytes: agent.history.map(|history| history.bytes),
                events: agent.events.iter().map(|(kind, count)| (kind.as_str(), count)).collect(),
            },
        }
    }
}
