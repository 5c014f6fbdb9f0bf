//! Facts: what is known of cgroups, containers, pods, workloads and the agent, without how it came to be known.
//!
//! Every other module may use these types, and this one uses none but [`values`](crate::values). Each fact is defined here once;
//! samplers make it, the store keeps it, exporters encode it.

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

pub use self::{
    event::{Event, EventCounts, EventCursor, EventDetails, EventKind, Severity, Subject, Throttled},
    identity::{ContainerKind, Identity, Level, Names, PathIdentity, Qos, Runtime},
    oom::{OomKill, OomScope},
    pods::Pods,
    termination::{
        Exit, ExitStatus, Init, TerminatedContainer, Termination, TerminationCounts, TerminationReason,
    },
    view::{
        AgentRow, CgroupRow, HistoryRow, HostRow, KubernetesRow, Machine, MapRow, ProgramRow, RunqueueRow,
        SourceRow, Verdict, View,
    },
    workload::{WorkloadKey, WorkloadRow},
};
