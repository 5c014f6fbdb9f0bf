//! Workloads: the sums over replicas and restarts of the same container.

use std::sync::Arc;

use super::{Identity, Names, OomScope, TerminationCounts};
use crate::values::{MemoryEvents, Network, Tcp};

/// Identifies a container of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    pub(crate) namespace: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) container: Arc<str>,
}

impl WorkloadKey {
    /// The key of a container whose workload is known.
    pub fn from_names(names: &Names) -> Self {
        Self {
            namespace: names.namespace.as_str().into(),
            kind: names.workload_kind.as_str().into(),
            name: names.workload.as_str().into(),
            container: names.container.as_str().into(),
        }
    }

    /// Namespace, kind and name of the workload, and the name of the container.
    pub fn parts(&self) -> (&str, &str, &str, &str) {
        (&self.namespace, &self.kind, &self.name, &self.container)
    }

    /// The key for a container whose workload was never known: the names that the runtime gave it. Its pod is no workload,
    /// because a pod mostly has an owner.
    pub(crate) fn without_workload(identity: &Identity) -> Self {
        identity.names.as_deref().map_or_else(Self::unnamed, |names| Self {
            namespace: names.namespace.as_str().into(),
            container: names.container.as_str().into(),
            ..Self::unnamed()
        })
    }

    pub(crate) fn unnamed() -> Self {
        let empty: Arc<str> = "".into();
        Self { namespace: empty.clone(), kind: "Unknown".into(), name: empty.clone(), container: empty }
    }

    /// The key of the row that counts all workloads beyond the maximum.
    pub(crate) fn folded() -> Self {
        Self { name: "_folded".into(), ..Self::unnamed() }
    }
}

/// Counters of one container of a workload since the agent started, summed over replicas and restarts.
///
/// Containers that ran when the agent started count from that moment. Counters start at 0 with the agent: its restart is a
/// counter reset like any other, and `rate()` counts nothing twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkloadRow {
    /// Namespace; empty on a host without pods.
    pub namespace: Arc<str>,
    pub workload_kind: Arc<str>,
    /// Name of the workload.
    pub workload: Arc<str>,
    /// Name of the container in its pods.
    pub container: Arc<str>,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// CFS periods.
    pub periods: u64,
    pub throttled_periods: u64,
    /// Throttled time in nanoseconds.
    pub throttled_ns: u64,
    /// memory.events.
    pub memory_events: MemoryEvents,
    /// The highest memory peak of its containers while the agent ran, bytes.
    pub memory_peak_bytes: u64,
    /// Containers that appeared after the agent started.
    pub containers_started: u64,
    /// Containers that were removed.
    pub containers_ended: u64,
    /// Containers that replaced a removed one: the same name in the same pod, or the same path.
    pub restarts: u64,
    /// Terminations by reason and exit code.
    pub terminations: TerminationCounts,
    /// OOM kills, in the order of [`OomScope::ALL`]; `None` if no eBPF program reports them.
    pub oom_kills: Option<[u64; OomScope::ALL.len()]>,
    /// Traffic of their sockets; `None` if it was never measured.
    pub network: Option<Network>,
    /// Counters of their TCP connections; `None` if they were never measured.
    pub tcp: Option<Tcp>,
}
