//! `snug_agent_*`: what the agent says of itself. Never cut by limits.

use std::time::Instant;

use super::{
    Emit, Family,
    Samples::Agent,
    Unit::{Bytes, None, Seconds},
    Value, seconds,
};
use crate::{
    exporters::series::{EndpointSeries, Progress, Signal},
    model::{AgentRow, KubernetesRow},
};

/// The agent's row, and what only the moment of the export tells.
#[derive(Clone, Copy, Debug)]
pub struct AgentView<'a> {
    /// What the store published.
    pub row: &'a AgentRow,
    /// The moment of the export.
    pub now: Instant,
    /// Endpoints that were scraped.
    pub endpoints: &'a [EndpointSeries],
    /// How the push by OTLP fares; `None` where there is none.
    pub otlp: &'a [(Signal, Progress)],
}

pub(super) static FAMILIES: &[Family] = &[
    Family::gauge(
        "snug_agent_build_info",
        "Always 1; version and architecture of the agent, name of its node",
        None,
        Agent(|view, emit| {
            let labels = [env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, &*view.row.node];
            emit(&labels, Value::Int(1));
        }),
    )
    .labels(&["version", "arch", "node"]),
    Family::gauge(
        "snug_agent_sample_age_seconds",
        "Age of the newest sample of a measurement; absent until there is one",
        Seconds,
        Agent(|view, emit| {
            for source in &view.row.sources {
                if let Some(at) = source.sampled_at {
                    let age = view.now.saturating_duration_since(at).as_secs_f64();
                    emit(&[source.measurement.as_str()], Value::Float(age));
                }
            }
        }),
    )
    .labels(&["measurement"]),
    Family::gauge(
        "snug_agent_measurement_source",
        "Always 1; where a measurement comes from: the eBPF snapshot (kernel), cgroup files, or none, and why not from \
         the first",
        None,
        Agent(|view, emit| {
            for source in &view.row.sources {
                let labels = [source.measurement.as_str(), source.source.as_str(), &*source.reason];
                emit(&labels, Value::Int(1));
            }
        }),
    )
    .labels(&["measurement", "source", "reason"]),
    Family::counter(
        "snug_agent_lost_events",
        "Events lost in the kernel half",
        None,
        Agent(|view, emit| {
            for (kind, count) in &view.row.lost_events {
                emit(&[kind], Value::Int(*count));
            }
        }),
    )
    .labels(&["kind"]),
    Family::counter(
        "snug_agent_skipped",
        "Things skipped because they could not be used",
        None,
        Agent(|view, emit| {
            for (what, count) in &view.row.skipped {
                emit(&[what], Value::Int(*count));
            }
        }),
    )
    .labels(&["what"]),
    Family::counter(
        "snug_agent_events",
        "Things that happened to containers and were told as events",
        None,
        Agent(|view, emit| {
            for (kind, count) in view.row.events.iter() {
                emit(&[kind.as_str()], Value::Int(count));
            }
        }),
    )
    .labels(&["kind"]),
    Family::gauge(
        "snug_agent_map_used",
        "Entries in use in an eBPF map (bytes for a ring buffer)",
        None,
        Agent(|view, emit| {
            for map in &view.row.maps {
                emit(&[map.name], Value::Int(map.used));
            }
        }),
    )
    .labels(&["map"]),
    Family::gauge(
        "snug_agent_map_capacity",
        "Entries that fit in an eBPF map (bytes for a ring buffer)",
        None,
        Agent(|view, emit| {
            for map in &view.row.maps {
                emit(&[map.name], Value::Int(map.capacity));
            }
        }),
    )
    .labels(&["map"]),
    Family::gauge(
        "snug_agent_map_bytes",
        "Kernel memory of the agent's eBPF maps",
        Bytes,
        Agent(|view, emit| emit(&[], Value::Int(view.row.map_bytes))),
    ),
    Family::gauge(
        "snug_agent_unresolved_cgroups",
        "Cgroups whose path is not known yet",
        None,
        Agent(|view, emit| emit(&[], Value::Int(view.row.unresolved_cgroups))),
    ),
    Family::gauge(
        "snug_agent_unnamed_containers",
        "Pod containers for which no metadata has arrived yet",
        None,
        Agent(|view, emit| emit(&[], Value::Int(view.row.unnamed_containers))),
    ),
    Family::gauge(
        "snug_agent_program_info",
        "Always 1; whether a kernel program runs, and why not if it does not",
        None,
        Agent(|view, emit| {
            for program in &view.row.programs {
                let verdict = &program.verdict;
                emit(&[program.name, verdict.as_str(), verdict.reason()], Value::Int(1));
            }
        }),
    )
    .labels(&["program", "verdict", "reason"]),
    Family::counter(
        "snug_agent_program_run_seconds",
        "Time the kernel spent in a program (0 where the kernel does not count it)",
        Seconds,
        Agent(|view, emit| {
            for program in &view.row.programs {
                emit(&[program.name], seconds(program.run_time_ns));
            }
        }),
    )
    .labels(&["program"]),
    Family::counter(
        "snug_agent_program_runs",
        "Runs of a kernel program (0 where the kernel does not count them)",
        None,
        Agent(|view, emit| {
            for program in &view.row.programs {
                emit(&[program.name], Value::Int(program.run_count));
            }
        }),
    )
    .labels(&["program"]),
    Family::counter(
        "snug_agent_passes",
        "Passes over all cgroups, by walking them or by seeing again what a walk has met",
        None,
        Agent(|view, emit| emit(&[], Value::Int(view.row.passes))),
    ),
    Family::counter(
        "snug_agent_pass_seconds",
        "Time spent in passes over all cgroups",
        Seconds,
        Agent(|view, emit| emit(&[], Value::Float(view.row.pass_seconds))),
    ),
    Family::counter(
        "snug_agent_flush_seconds",
        "Time spent bringing the kernel's counters up to date",
        Seconds,
        Agent(|view, emit| emit(&[], Value::Float(view.row.flush_seconds))),
    ),
    Family::gauge(
        "snug_agent_pass_cgroups",
        "Cgroups in the last pass of the snapshot",
        None,
        Agent(|view, emit| emit(&[], Value::Int(view.row.pass_cgroups))),
    ),
    Family::counter(
        "snug_agent_cpu_seconds",
        "CPU time of the agent's process, user and system; its programs in the kernel are in snug_agent_program_run_seconds",
        Seconds,
        Agent(|view, emit| emit(&[], Value::Float(view.row.cpu_seconds))),
    ),
    Family::gauge(
        "snug_agent_resident_bytes",
        "Resident memory of the agent itself",
        Bytes,
        Agent(|view, emit| emit(&[], Value::Int(view.row.resident_bytes))),
    ),
    Family::gauge(
        "snug_agent_start_time_seconds",
        "When the agent started, in seconds since the Unix epoch",
        Seconds,
        Agent(|view, emit| emit(&[], Value::Float(view.row.started_unix))),
    ),
    Family::gauge(
        "snug_agent_downtime_seconds",
        "Time without an agent on this boot: from the last heartbeat of the previous one to the start of this one; 0 = none known",
        Seconds,
        Agent(|view, emit| emit(&[], Value::Float(view.row.downtime_seconds))),
    ),
    Family::gauge(
        "snug_agent_away_seconds",
        "Deprecated: the same as snug_agent_downtime_seconds, which replaces it in the next version",
        Seconds,
        Agent(|view, emit| emit(&[], Value::Float(view.row.downtime_seconds))),
    ),
    Family::counter(
        "snug_agent_starts",
        "Times that an agent started with this data directory",
        None,
        Agent(|view, emit| emit(&[], Value::Int(view.row.starts))),
    ),
    Family::counter(
        "snug_agent_regressions",
        "Times that a raw value that must only grow went back and was held",
        None,
        Agent(|view, emit| emit(&[], Value::Int(view.row.counter_regressions))),
    ),
    Family::gauge(
        "snug_agent_workloads_folded",
        "Workloads folded into one because there were too many",
        None,
        Agent(|view, emit| emit(&[], Value::Int(view.row.workloads_folded))),
    ),
    Family::gauge(
        "snug_agent_kubernetes_connected",
        "Whether the API server answered when it was last asked: 1 or 0; absent where pods are not watched",
        None,
        Agent(|view, emit| watch(view, emit, |watch| u64::from(watch.connected))),
    ),
    Family::gauge(
        "snug_agent_kubernetes_synced",
        "Whether this node's pods have ever been listed completely: 1 or 0",
        None,
        Agent(|view, emit| watch(view, emit, |watch| u64::from(watch.synced))),
    ),
    Family::gauge(
        "snug_agent_kubernetes_pods",
        "Pods of this node that are known",
        None,
        Agent(|view, emit| watch(view, emit, |watch| watch.pods)),
    ),
    Family::counter(
        "snug_agent_kubernetes_events",
        "Events of the watch, the pods of lists included",
        None,
        Agent(|view, emit| watch(view, emit, |watch| watch.events)),
    ),
    Family::counter(
        "snug_agent_kubernetes_relists",
        "Times that the pods were listed",
        None,
        Agent(|view, emit| watch(view, emit, |watch| watch.relists)),
    ),
    Family::counter(
        "snug_agent_kubernetes_errors",
        "Times that the API server could not be asked, or refused",
        None,
        Agent(|view, emit| watch(view, emit, |watch| watch.errors)),
    ),
    Family::counter(
        "snug_agent_kubernetes_owner_reads",
        "Owners that were read because pods did not tell their workload",
        None,
        Agent(|view, emit| watch(view, emit, |watch| watch.owner_reads)),
    ),
    Family::gauge(
        "snug_agent_history_bytes",
        "Size of the history's files when last looked at, once an hour",
        Bytes,
        Agent(|view, emit| {
            if let Some(history) = view.row.history {
                emit(&[], Value::Int(history.bytes));
            }
        }),
    ),
    Family::counter(
        "snug_agent_history_failed_writes",
        "Times that the history could not be written; what was to be written is tried again",
        None,
        Agent(|view, emit| {
            if let Some(history) = view.row.history {
                emit(&[], Value::Int(history.failed_writes));
            }
        }),
    ),
    Family::counter(
        "snug_agent_history_records_lost",
        "Records given up because the history could not be written for long",
        None,
        Agent(|view, emit| {
            if let Some(history) = view.row.history {
                emit(&[], Value::Int(history.lost));
            }
        }),
    ),
    Family::counter(
        "snug_agent_history_damaged_records",
        "Records of the history that failed their checksum and are left out; where a whole piece of a file is damaged, at least one for each piece",
        None,
        Agent(|view, emit| {
            if let Some(history) = view.row.history {
                emit(&[], Value::Int(history.damaged));
            }
        }),
    ),
    Family::counter(
        "snug_agent_history_files_moved_aside",
        "Damaged files of the history that were kept under another name (.unusable-…) in the data directory",
        None,
        Agent(|view, emit| {
            if let Some(history) = view.row.history {
                emit(&[], Value::Int(history.moved_aside));
            }
        }),
    ),
    Family::counter(
        "snug_agent_runqueue_seconds",
        "CPU time that tracing the run queue took inside of its programs, one run in 64 timed",
        Seconds,
        Agent(|view, emit| {
            if let Some(runqueue) = view.row.runqueue {
                emit(&[], seconds(runqueue.cost_ns));
            }
        }),
    ),
    Family::gauge(
        "snug_agent_runqueue_paused",
        "One while tracing of the run queue pauses because it costs more than runqueue-millicores",
        None,
        Agent(|view, emit| {
            if let Some(runqueue) = view.row.runqueue {
                emit(&[], Value::Int(runqueue.paused.into()));
            }
        }),
    ),
    Family::counter(
        "snug_agent_runqueue_pauses",
        "Times that tracing of the run queue had to pause",
        None,
        Agent(|view, emit| {
            if let Some(runqueue) = view.row.runqueue {
                emit(&[], Value::Int(runqueue.times_paused));
            }
        }),
    ),
    Family::counter(
        "snug_agent_otlp_items",
        "Data points and log records pushed by OTLP: sent, rejected by the receiver, or dropped for want of room",
        None,
        Agent(|view, emit| {
            for (signal, Progress { sent, rejected, dropped, .. }) in view.otlp {
                for (outcome, count) in [("sent", sent), ("rejected", rejected), ("dropped", dropped)] {
                    emit(&[signal.as_str(), outcome], Value::Int(*count));
                }
            }
        }),
    )
    .labels(&["signal", "outcome"]),
    Family::counter(
        "snug_agent_otlp_failures",
        "OTLP requests that failed, those that succeeded when tried again included",
        None,
        Agent(|view, emit| {
            for (signal, progress) in view.otlp {
                emit(&[signal.as_str()], Value::Int(progress.failures));
            }
        }),
    )
    .labels(&["signal"]),
    Family::gauge(
        "snug_agent_otlp_waiting_bytes",
        "What waits to be pushed by OTLP",
        Bytes,
        Agent(|view, emit| {
            for (signal, progress) in view.otlp {
                emit(&[signal.as_str()], Value::Int(progress.waiting_bytes));
            }
        }),
    )
    .labels(&["signal"]),
    Family::gauge(
        "snug_agent_series",
        "Series in the last scrape of an endpoint, the agent's own not counted",
        None,
        Agent(|view, emit| {
            for endpoint in view.endpoints {
                emit(&[endpoint.endpoint], Value::Int(endpoint.counts.written));
            }
        }),
    )
    .labels(&["endpoint"]),
    Family::gauge(
        "snug_agent_series_cut",
        "Series that limits kept out of the last scrape of an endpoint",
        None,
        Agent(series_cut),
    )
    .labels(&["endpoint", "reason"]),
];

fn series_cut(view: &AgentView<'_>, emit: &mut Emit<'_>) {
    for EndpointSeries { endpoint, counts } in view.endpoints {
        for (reason, count) in counts.cut() {
            emit(&[endpoint, reason], Value::Int(count));
        }
    }
}

fn watch(view: &AgentView<'_>, emit: &mut Emit<'_>, value: impl Fn(&KubernetesRow) -> u64) {
    if let Some(watch) = &view.row.kubernetes {
        emit(&[], Value::Int(value(watch)));
    }
}
