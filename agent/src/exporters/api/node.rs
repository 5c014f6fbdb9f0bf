//! The node, and the agent on it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::VERSION;
use crate::model::{Level, View};

/// The node. What the host does not say is `null` or empty.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Node<'a> {
    /// `v1`.
    version: &'static str,
    /// Its name.
    node: &'a str,
    machine_id: &'a str,
    boot_id: &'a str,
    /// CPUs that are online.
    cpus: Option<u64>,
    memory_bytes: Option<u64>,
    swap_bytes: Option<u64>,
    /// Containers that exist now, sandboxes not counted.
    containers: usize,
    /// Pods that are known.
    pods: usize,
    agent: Agent<'a>,
}

/// The agent.
#[derive(Debug, Serialize, JsonSchema)]
struct Agent<'a> {
    /// Its version.
    version: &'static str,
    /// When it started, seconds since the Unix epoch.
    started: f64,
    cpu_seconds: f64,
    resident_bytes: u64,
    /// Where each measurement comes from.
    sources: Vec<Source<'a>>,
    /// How each kernel program fares.
    programs: Vec<Program<'a>>,
    /// Whether this node's pods were ever listed completely; `null` where they are not watched.
    pods_synced: Option<bool>,
    /// Bytes of the history; `null` where none is kept.
    history_bytes: Option<u64>,
    /// Events so far, by kind.
    events: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Source<'a> {
    measurement: &'static str,
    /// `kernel`, `files` or `none`.
    source: &'static str,
    /// Why; empty for the usual one.
    reason: &'a str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Program<'a> {
    name: &'static str,
    /// `running`, `unsupported` or `failed`.
    verdict: &'static str,
    /// Why it does not run.
    reason: &'a str,
    runs: u64,
    run_seconds: f64,
}

impl<'a> Node<'a> {
    /// Of what was published last.
    pub(super) fn of(published: &'a View) -> Self {
        let (agent, machine) = (&published.agent, &published.host.machine);
        let levels = published.cgroups.iter().map(|row| row.identity.of_path.level);
        let sources = agent.sources.iter().map(|row| Source {
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
            pods: published.pods.len(),
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
