//! The view: what the store knows at one moment, which exporters read without waiting for another thread.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{Event, EventCounts, Identity, Pods, TerminatedContainer, WorkloadRow};
use crate::values::{Measurement, SourceKind, Values};

/// One cgroup that exists now.
#[derive(Clone, Debug)]
pub struct CgroupRow {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// When the agent believes it was created, in seconds since the Unix epoch (the directory's birth).
    pub created_unix: f64,
    /// Its values. Counters never go back while the row exists.
    pub values: Values,
}

/// How a kernel program fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Loaded and attached.
    Running,
    /// This kernel or host cannot do it; why.
    Unsupported(String),
    /// It should have worked; what went wrong.
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

    /// Why it does not run; empty when it does.
    pub fn reason(&self) -> &str {
        match self {
            Self::Running => "",
            Self::Unsupported(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// A kernel program and what it cost so far.
#[derive(Clone, Debug)]
pub struct ProgramRow {
    /// Its name, the same in the kernel half.
    pub name: &'static str,
    /// How it fares.
    pub verdict: Verdict,
    /// Nanoseconds that the kernel spent in it (0 where the kernel does not count).
    pub run_time_ns: u64,
    pub run_count: u64,
}

/// How full a kernel map is.
#[derive(Clone, Debug)]
pub struct MapRow {
    /// Its name, the same in the kernel half.
    pub name: &'static str,
    /// Entries (bytes for a ring) in use when last looked at.
    pub used: u64,
    /// Entries (bytes for a ring) that fit.
    pub capacity: u64,
}

/// Where a measurement comes from, and why.
#[derive(Clone, Debug)]
pub struct SourceRow {
    pub measurement: Measurement,
    pub source: SourceKind,
    /// Why this source; empty for the usual one.
    pub reason: String,
    /// When it was last sampled.
    pub sampled_at: Option<Instant>,
}

/// What the agent says of itself.
#[derive(Clone, Debug, Default)]
pub struct AgentRow {
    /// Name of the node.
    pub node: Arc<str>,
    /// Kernel programs.
    pub programs: Vec<ProgramRow>,
    /// Kernel maps.
    pub maps: Vec<MapRow>,
    /// Measurements and their sources.
    pub sources: Vec<SourceRow>,
    /// Events lost in the kernel half, by kind.
    pub lost_events: Vec<(&'static str, u64)>,
    /// Things skipped because they could not be used, by kind (unreadable cgroup files, bad pods, …).
    pub skipped: Vec<(&'static str, u64)>,
    /// Cgroups whose path is not known yet.
    pub unresolved_cgroups: u64,
    /// Pod containers without names (no metadata has arrived for them).
    pub unnamed_containers: u64,
    /// Events so far, by kind.
    pub events: EventCounts,
    /// Times that a raw counter went back and was held.
    pub counter_regressions: u64,
    /// Passes over all cgroups, all hierarchies together.
    pub passes: u64,
    /// Seconds spent in passes.
    pub pass_seconds: f64,
    /// Seconds spent bringing the kernel's counters up to date.
    pub flush_seconds: f64,
    /// Cgroup records of the last pass.
    pub pass_cgroups: u64,
    /// Seconds between the last heartbeat of the previous agent on this boot and this one's start; 0 = none known.
    pub downtime_seconds: f64,
    /// Times that an agent started with this data directory, this one included.
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
    /// How the watch of pods fares; `None` where there is none.
    pub kubernetes: Option<KubernetesRow>,
    /// How the history fares; `None` where there is none.
    pub history: Option<HistoryRow>,
    /// How the tracing of the run queue fares; `None` where it is off.
    pub runqueue: Option<RunqueueRow>,
}

/// How the tracing of the run queue fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunqueueRow {
    /// Time that it took, nanoseconds, all CPUs together.
    pub cost_ns: u64,
    /// Whether it pauses because it costs too much.
    pub paused: bool,
    /// Times that it had to pause.
    pub times_paused: u64,
}

/// How the watch of pods fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KubernetesRow {
    /// Whether the pods were ever listed completely.
    pub synced: bool,
    /// Whether the API server answered when it was last asked.
    pub connected: bool,
    /// Pods that are known.
    pub pods: u64,
    /// Events of the watch, the pods of lists included.
    pub events: u64,
    /// Times that the pods were listed.
    pub relists: u64,
    /// Times that the API server could not be asked, or refused.
    pub errors: u64,
    /// Owners that were read.
    pub owner_reads: u64,
}

/// How the history fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryRow {
    /// Bytes of its files, when last looked at.
    pub bytes: u64,
    /// Times that the history could not be written.
    pub failed_writes: u64,
    /// Records that were given up because it could not be written for long.
    pub lost: u64,
    /// Records that failed their checksum and were left out.
    pub damaged: u64,
    /// Files that were moved aside.
    pub moved_aside: u64,
}

/// The machine. What the host does not say is empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Content of `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's id of the machine, else its `machine_id`.
    pub system_uuid: String,
    /// CPUs that are online.
    pub cpus: Option<u64>,
    /// Cores that these CPUs are threads of.
    pub cores: Option<u64>,
    /// Sockets that these cores are in.
    pub sockets: Option<u64>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Swap space, bytes.
    pub swap_bytes: Option<u64>,
}

/// What is known of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRow {
    pub machine: Machine,
    /// Paths of block devices by major and minor number; empty for those that have none.
    pub devices: BTreeMap<(u32, u32), String>,
}

/// Everything that the store knows at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// When it was published.
    pub at: Instant,
    /// Cgroups that exist, sorted by path.
    pub cgroups: Vec<CgroupRow>,
    /// The state of its cgroup that each row shows; as many as there are rows, for the store that made them.
    pub(crate) stamps: Vec<u64>,
    /// Workloads, sorted by namespace, kind, name and container.
    pub workloads: Arc<[WorkloadRow]>,
    /// Containers that terminated last, newest last.
    pub terminated: Arc<[Arc<TerminatedContainer>]>,
    /// The last events, newest last.
    pub events: Arc<[Arc<Event>]>,
    /// Pods that are known: all of this node, or those of the pods file.
    pub pods: Arc<Pods>,
    pub agent: AgentRow,
    pub host: Arc<HostRow>,
}
