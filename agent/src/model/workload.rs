//! Workloads: what replicas and restarts of the same containers add up to.

use std::sync::Arc;

use super::{Identity, Names, OomScope, TerminationCounts};
use crate::values::{MemoryEvents, Network, Tcp};

/// What a workload's row is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    pub(crate) namespace: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) container: Arc<str>,
}

impl WorkloadKey {
    /// Of a container of a known workload.
    pub fn named(names: &Names) -> Self {
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

    /// Where a container goes that ended before its workload was known: to its pod, if that was.
    pub(crate) fn without_workload(identity: &Identity) -> Self {
        identity.names.as_deref().map_or_else(Self::unnamed, |names| Self {
            namespace: names.namespace.as_str().into(),
            kind: "Pod".into(),
            name: names.pod.as_str().into(),
            container: names.container.as_str().into(),
        })
    }

    pub(crate) fn unnamed() -> Self {
        let empty: Arc<str> = "".into();
        Self { namespace: empty.clone(), kind: "Unknown".into(), name: empty.clone(), container: empty }
    }

    /// Where workloads go when there are too many.
    pub(crate) fn folded() -> Self {
        Self { name: "_folded".into(), ..Self::unnamed() }
    }
}

/// What the containers of one workload did since the agent started, ended ones included.
///
/// Containers that were running when the agent started count from that moment. Counters start at 0 with the agent,
/// so that a restart of the agent is a counter reset like any other and `rate()` counts nothing twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkloadRow {
    /// Namespace; empty on a host without pods.
    pub namespace: Arc<str>,
    /// Kind of the workload.
    pub workload_kind: Arc<str>,
    /// Name of the workload.
    pub workload: Arc<str>,
    /// Name of the container in its pods.
    pub container: Arc<str>,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// CFS periods, throttled periods, throttled nanoseconds.
    pub periods: u64,
    /// Throttled periods.
    pub throttled_periods: u64,
    /// Throttled time in nanoseconds.
    pub throttled_ns: u64,
    /// memory.events.
    pub memory_events: MemoryEvents,
    /// The highest memory peak of any of its containers that was alive while the agent ran, bytes.
    pub memory_peak_bytes: u64,
    /// Containers that appeared (those present at the agent's start not included).
    pub containers_started: u64,
    /// Containers that went away.
    pub containers_ended: u64,
    /// Containers that appeared in the place of one that had ended: the same name in the same pod, or the same path.
    pub restarts: u64,
    /// Ends of init processes.
    pub terminations: TerminationCounts,
    /// OOM kills, in the order of [`OomScope::ALL`]; `None` if nobody tells.
    pub oom_kills: Option<[u64; OomScope::ALL.len()]>,
    /// What went through their sockets; `None` if that was never measured.
    pub network: Option<Network>,
    /// How their TCP connections fared; `None` if that was never measured.
    pub tcp: Option<Tcp>,
}
