//! The view: a copy of the store at one moment. Exporters read it without waiting for another thread.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{Event, EventCounts, Identity, Pods, TerminatedContainer, WorkloadRow};
use crate::values::{Measurement, SourceKind, Values};

/// A cgroup that exists now.
#[derive(Clone, Debug)]
pub struct CgroupRow {
    pub identity: Arc<Identity>,
    /// When the cgroup was created (the birth time of its directory), seconds since the Unix epoch.
    pub created_unix: f64,
    /// Its values. Counters never decrease while the row exists.
    pub values: Values,
}

/// Whether an eBPF program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Loaded and attached.
    Running,
    /// This kernel or host does not support the program. Holds the reason.
    Unsupported(String),
    /// The program should run but does not. Holds the error.
    Failed(String),
}

impl Verdict {
    /// The name in the `verdict` label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Unsupported(_) => "unsupported",
            Self::Failed(_) => "failed",
        }
    }

    /// Why the program does not run; empty if it runs.
    pub fn reason(&self) -> &str {
        match self {
            Self::Running => "",
            Self::Unsupported(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// An eBPF program and its run time.
#[derive(Clone, Debug)]
pub struct ProgramRow {
    /// Its name in `agent-ebpf`.
    pub name: &'static str,
    pub verdict: Verdict,
    /// CPU time of the program, nanoseconds; 0 if the kernel does not measure it.
    pub run_time_ns: u64,
    pub run_count: u64,
    /// Instructions that the verifier followed on all paths; `None` before Linux 5.16.
    pub verified_instructions: Option<u32>,
}

/// How full an eBPF map is.
#[derive(Clone, Debug)]
pub struct MapRow {
    /// Its name in `agent-ebpf`.
    pub name: &'static str,
    /// Entries (bytes for a ring buffer) in use at the last check.
    pub used: u64,
    /// Entries (bytes for a ring buffer) that fit.
    pub capacity: u64,
}

/// The source of a measurement.
#[derive(Clone, Debug)]
pub struct SourceRow {
    pub measurement: Measurement,
    pub source: SourceKind,
    /// Why this source is used; empty for the preferred one.
    pub reason: String,
    /// When it was last sampled.
    pub sampled_at: Option<Instant>,
}

/// Metrics of the agent itself.
#[derive(Clone, Debug, Default)]
pub struct AgentRow {
    /// Name of the node.
    pub node: Arc<str>,
    pub programs: Vec<ProgramRow>,
    pub maps: Vec<MapRow>,
    /// Measurements and their sources.
    pub sources: Vec<SourceRow>,
    /// Events that the eBPF programs lost, by kind.
    pub lost_events: Vec<(&'static str, u64)>,
    /// Inputs that were skipped because they are unusable, by kind (cgroup files, pods, …).
    pub skipped: Vec<(&'static str, u64)>,
    /// Cgroups whose path is not known yet.
    pub unresolved_cgroups: u64,
    /// Pod containers without names (no metadata has arrived for them).
    pub unnamed_containers: u64,
    /// Events since the start, by kind.
    pub events: EventCounts,
    /// How often a raw counter decreased and was held.
    pub counter_regressions: u64,
    /// Passes over all cgroups, all hierarchies together.
    pub passes: u64,
    /// Seconds spent in passes.
    pub pass_seconds: f64,
    /// Seconds spent flushing the kernel's counters.
    pub flush_seconds: f64,
    /// Cgroup records of the last pass.
    pub pass_cgroups: u64,
    /// Seconds between the last heartbeat of the previous agent in this boot and the start of this one; 0 if there was none.
    pub downtime_seconds: f64,
    /// How often an agent started with this data directory, including this one.
    pub starts: u64,
    /// Own CPU time in seconds.
    pub cpu_seconds: f64,
    /// Own resident memory in bytes.
    pub resident_bytes: u64,
    /// Kernel memory of the agent's eBPF maps, bytes.
    pub map_bytes: u64,
    /// Seconds since the Unix epoch at which the agent started.
    pub started_unix: f64,
    /// Workloads folded into one because there were too many.
    pub workloads_folded: u64,
    /// The watch of pods; `None` if there is none.
    pub kubernetes: Option<KubernetesRow>,
    /// The history; `None` if there is none.
    pub history: Option<HistoryRow>,
    /// The tracing of the run queue; `None` if it is off.
    pub runqueue: Option<BudgetRow>,
    /// The counting of packets; `None` without eBPF.
    pub network: Option<BudgetRow>,
    /// The factor by which the interval between samples is longer than configured; 0 before the first round.
    pub slowdown: u32,
}

/// State of a part of the eBPF programs that has a budget of CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetRow {
    /// CPU time of the part, nanoseconds, summed over all CPUs.
    pub cost_ns: u64,
    /// Whether it is paused because it costs too much.
    pub paused: bool,
    /// How often it was paused.
    pub times_paused: u64,
}

/// State of the watch of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KubernetesRow {
    /// Whether at least one list was complete.
    pub synced: bool,
    /// Whether the last request to the API server succeeded.
    pub connected: bool,
    pub pods: u64,
    /// Watch events, including the pods of lists.
    pub events: u64,
    /// How often the pods were listed.
    pub relists: u64,
    /// Failed requests to the API server.
    pub errors: u64,
    pub owner_reads: u64,
}

/// State of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryRow {
    /// Size of its files at the last check, bytes.
    pub bytes: u64,
    pub failed_writes: u64,
    /// Records that were dropped because writes kept failing.
    pub lost: u64,
    /// Records that failed their checksum and were skipped.
    pub damaged: u64,
    /// Files that were moved aside.
    pub moved_aside: u64,
}

/// The machine. Unknown fields are empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Content of `/etc/machine-id`.
    pub machine_id: String,
    /// The UUID that the firmware gives the machine, else its `machine_id`.
    pub system_uuid: String,
    /// Online CPUs.
    pub cpus: Option<u64>,
    /// Cores of the online CPUs.
    pub cores: Option<u64>,
    /// Sockets of the online CPUs.
    pub sockets: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// Swap space, bytes.
    pub swap_bytes: Option<u64>,
}

/// The machine and its block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRow {
    pub machine: Machine,
    /// Paths of block devices by major and minor number; empty for devices without a path.
    pub devices: BTreeMap<(u32, u32), String>,
}

/// A coherent copy of the store.
#[derive(Clone, Debug)]
pub struct View {
    /// When the view was built.
    pub at: Instant,
    /// Cgroups that exist, sorted by path.
    pub cgroups: Vec<CgroupRow>,
    /// The stamp of each row, for the store that made the view: see [`crate::store::Store::recycle`].
    pub(crate) stamps: Vec<u64>,
    /// Workloads, sorted by namespace, kind, name and container.
    pub workloads: Arc<[WorkloadRow]>,
    /// The last terminated containers, newest last.
    pub terminated: Arc<[Arc<TerminatedContainer>]>,
    /// The last events, newest last.
    pub events: Arc<[Arc<Event>]>,
    /// Pods of this node, or of the pods file.
    pub pods: Arc<Pods>,
    pub agent: AgentRow,
    pub host: Arc<HostRow>,
}
