//! Data types shared by all layers: cgroups, containers, pods, workloads, events and the agent's own metrics.
//!
//! Every other module may use these types. This module uses only [`values`](crate::values). Samplers create the data, the
//! store keeps it, exporters encode it.

mod advice;
mod event;
mod identity;
mod oom;
pub mod pod;
mod pods;
#[cfg(test)]
pub(crate) mod samples;
mod termination;
mod view;
mod workload;

pub(crate) use self::advice::AgentRule;
pub use self::{
    event::{Event, EventCounts, EventCursor, EventDetails, EventKind, Severity, Subject, Throttled},
    identity::{ContainerKind, ContainerSpec, Identity, Level, Names, PathIdentity, Qos, Runtime},
    oom::{OomKill, OomScope},
    pods::Pods,
    termination::{
        Exit, ExitStatus, Init, TerminatedContainer, Termination, TerminationCounts, TerminationReason,
    },
    view::{
        AgentRow, BudgetRow, CgroupRow, HistoryRow, HostRow, KubernetesRow, Machine, MapRow, ProgramRow,
        SourceRow, Verdict, View,
    },
    workload::{WorkloadKey, WorkloadRow},
};
