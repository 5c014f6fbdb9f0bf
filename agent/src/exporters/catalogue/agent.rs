//! `snug_agent_*`: metrics of the agent itself. Series limits never cut them.

use std::time::Instant;

use super::{Emit, Family, Samples::Agent, Value, seconds};
use crate::{
    exporters::series::{EndpointSeries, Progress, ServerRow, Signal},
    model::{AgentRow, KubernetesRow},
};

/// The agent's row, with values that are only known at the time of the export.
#[derive(Clone, Copy, Debug)]
pub struct AgentView<'a> {
    /// The agent's row of the view.
    pub row: &'a AgentRow,
    /// The time of the export.
    pub now: Instant,
    /// Series counts of endpoints that were scraped.
    pub endpoints: &'a [EndpointSeries],
    /// Progress of the OTLP export by signal; empty without OTLP.
    pub otlp: &'a [(Signal, Progress)],
    /// The state of the HTTP server.
    pub server: ServerRow,
}

pub(super) static FAMILIES: &[Family] = &[
    Family::gauge(
        "snug_agent_build_info",
        "Always 1; version and architecture of the agent, and the name of the node",
        Agent(|view, emit| {
            let labels = [env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, &*view.row.node];
            emit(&labels, Value::Int(1));
        }),
    )
    .labels(&["version", "arch", "node"]),
    Family::gauge(
        "snug_agent_sample_age_seconds",
        "Age of the values of a measurement: of the oldest one, where cgroups are read at different times; absent until there are any",
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
        "Always 1; source of a measurement: eBPF programs (kernel), cgroup files (files), or none, with the reason for not \
         using eBPF",
        Agent(|view, emit| {
            for source in &view.row.sources {
                let labels = [source.measurement.as_str(), source.source.as_str(), &*source.reason];
                emit(&labels, Value::Int(1));
            }
        }),
    )
    .labels(&["measurement", "source", "reason"]),
    Family::gauge(
        "snug_agent_sampling_slowdown",
        "Factor by which the interval between samples is longer than configured, because rounds took too much of the time",
        Agent(|view, emit| emit(&[], Value::Int(view.row.slowdown.max(1).into()))),
    ),
    Family::counter(
        "snug_agent_lost_events",
        "Events that the eBPF programs lost",
        Agent(|view, emit| {
            for (kind, count) in &view.row.lost_events {
                emit(&[kind], Value::Int(*count));
            }
        }),
    )
    .labels(&["kind"]),
    Family::counter(
        "snug_agent_skipped",
        "Inputs that were skipped because they could not be read or used",
        Agent(|view, emit| {
            for (what, count) in &view.row.skipped {
                emit(&[what], Value::Int(*count));
            }
        }),
    )
    .labels(&["what"]),
    Family::counter(
        "snug_agent_events",
        "Events of containers, by kind, such as OOM kills and terminations",
        Agent(|view, emit| {
            for (kind, count) in view.row.events.iter() {
                emit(&[kind.as_str()], Value::Int(count));
            }
        }),
    )
    .labels(&["kind"]),
    Family::gauge(
        "snug_agent_map_used",
        "Used entries of an eBPF map (bytes for a ring buffer)",
        Agent(|view, emit| {
            for map in &view.row.maps {
                emit(&[map.name], Value::Int(map.used));
            }
        }),
    )
    .labels(&["map"]),
    Family::gauge(
        "snug_agent_map_capacity",
        "Capacity of an eBPF map in entries (bytes for a ring buffer)",
        Agent(|view, emit| {
            for map in &view.row.maps {
                emit(&[map.name], Value::Int(map.capacity));
            }
        }),
    )
    .labels(&["map"]),
    Family::gauge(
        "snug_agent_map_bytes",
        "Kernel memory that the eBPF maps of the agent use",
        Agent(|view, emit| emit(&[], Value::Int(view.row.map_bytes))),
    ),
    Family::gauge(
        "snug_agent_unresolved_cgroups",
        "Cgroups whose path is not resolved yet",
        Agent(|view, emit| emit(&[], Value::Int(view.row.unresolved_cgroups))),
    ),
    Family::gauge(
        "snug_agent_unnamed_containers",
        "Pod containers without metadata (names, workload) yet",
        Agent(|view, emit| emit(&[], Value::Int(view.row.unnamed_containers))),
    ),
    Family::gauge(
        "snug_agent_program_info",
        "Always 1; whether an eBPF program is running, with the reason if it is not",
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
        "Run time of an eBPF program; 0 without kernel statistics for eBPF (ebpf-stats)",
        Agent(|view, emit| {
            for program in &view.row.programs {
                emit(&[program.name], seconds(program.run_time_ns));
            }
        }),
    )
    .labels(&["program"]),
    Family::counter(
        "snug_agent_program_runs",
        "Runs of an eBPF program; 0 without kernel statistics for eBPF (ebpf-stats)",
        Agent(|view, emit| {
            for program in &view.row.programs {
                emit(&[program.name], Value::Int(program.run_count));
            }
        }),
    )
    .labels(&["program"]),
    Family::counter(
        "snug_agent_passes",
        "Passes over all cgroups: full walks, and passes over the cgroups of the last walk",
        Agent(|view, emit| emit(&[], Value::Int(view.row.passes))),
    ),
    Family::counter(
        "snug_agent_pass_seconds",
        "Time spent in passes over all cgroups",
        Agent(|view, emit| emit(&[], Value::Float(view.row.pass_seconds))),
    ),
    Family::counter(
        "snug_agent_flush_seconds",
        "Time spent flushing cgroup statistics in the kernel (rstat flush)",
        Agent(|view, emit| emit(&[], Value::Float(view.row.flush_seconds))),
    ),
    Family::gauge(
        "snug_agent_pass_cgroups",
        "Cgroups in the last pass over all cgroups",
        Agent(|view, emit| emit(&[], Value::Int(view.row.pass_cgroups))),
    ),
    Family::counter(
        "snug_agent_cpu_seconds",
        "CPU time of the agent process, user and system; snug_agent_program_run_seconds_total has the time of eBPF programs",
        Agent(|view, emit| emit(&[], Value::Float(view.row.cpu_seconds))),
    ),
    Family::gauge(
        "snug_agent_resident_bytes",
        "Resident memory of the agent process",
        Agent(|view, emit| emit(&[], Value::Int(view.row.resident_bytes))),
    ),
    Family::gauge(
        "snug_agent_start_time_seconds",
        "When the agent started, in seconds since the Unix epoch",
        Agent(|view, emit| emit(&[], Value::Float(view.row.started_unix))),
    ),
    Family::gauge(
        "snug_agent_downtime_seconds",
        "Time without an agent since the node booted, from the last heartbeat of the previous agent to the start of this one; 0 if unknown",
        Agent(|view, emit| emit(&[], Value::Float(view.row.downtime_seconds))),
    ),
    Family::gauge(
        "snug_agent_away_seconds",
        "Deprecated: the same as snug_agent_downtime_seconds, which replaces it in the next version",
        Agent(|view, emit| emit(&[], Value::Float(view.row.downtime_seconds))),
    ),
    Family::counter(
        "snug_agent_starts",
        "Starts of an agent with this data directory",
        Agent(|view, emit| emit(&[], Value::Int(view.row.starts))),
    ),
    Family::counter(
        "snug_agent_regressions",
        "Raw counters that went backwards; the exported counter keeps its last value",
        Agent(|view, emit| emit(&[], Value::Int(view.row.counter_regressions))),
    ),
    Family::gauge(
        "snug_agent_workloads_folded",
        "Rows of snug_workload_* above max-workloads, which share one row",
        Agent(|view, emit| emit(&[], Value::Int(view.row.workloads_folded))),
    ),
    Family::gauge(
        "snug_agent_kubernetes_connected",
        "Whether the last request to the API server succeeded: 1 or 0; absent if pods are not watched",
        Agent(|view, emit| watch(view, emit, |watch| u64::from(watch.connected))),
    ),
    Family::gauge(
        "snug_agent_kubernetes_synced",
        "Whether the pods on this node were listed completely at least once: 1 or 0",
        Agent(|view, emit| watch(view, emit, |watch| u64::from(watch.synced))),
    ),
    Family::gauge(
        "snug_agent_kubernetes_pods",
        "Known pods on this node",
        Agent(|view, emit| watch(view, emit, |watch| watch.pods)),
    ),
    Family::counter(
        "snug_agent_kubernetes_events",
        "Watch events of pods, including the pods of lists",
        Agent(|view, emit| watch(view, emit, |watch| watch.events)),
    ),
    Family::counter(
        "snug_agent_kubernetes_relists",
        "Lists of the pods on this node",
        Agent(|view, emit| watch(view, emit, |watch| watch.relists)),
    ),
    Family::counter(
        "snug_agent_kubernetes_errors",
        "Failed requests to the API server",
        Agent(|view, emit| watch(view, emit, |watch| watch.errors)),
    ),
    Family::counter(
        "snug_agent_kubernetes_owner_reads",
        "Owners read from the API server because pods do not name their workload",
        Agent(|view, emit| watch(view, emit, |watch| watch.owner_reads)),
    ),
    Family::gauge(
        "snug_agent_history_bytes",
        "Size of the usage history on disk, updated once an hour",
        Agent(|view, emit| view.row.history.iter().for_each(|row| emit(&[], Value::Int(row.bytes)))),
    ),
    Family::counter(
        "snug_agent_history_failed_writes",
        "Failed writes to the usage history; the agent retries them",
        Agent(|view, emit| view.row.history.iter().for_each(|row| emit(&[], Value::Int(row.failed_writes)))),
    ),
    Family::counter(
        "snug_agent_history_records_lost",
        "Records of the usage history dropped after repeated failures to write them",
        Agent(|view, emit| view.row.history.iter().for_each(|row| emit(&[], Value::Int(row.lost)))),
    ),
    Family::counter(
        "snug_agent_history_damaged_records",
        "Records of the usage history that are ignored because of a wrong checksum; a damaged section of a file counts at least once",
        Agent(|view, emit| view.row.history.iter().for_each(|row| emit(&[], Value::Int(row.damaged)))),
    ),
    Family::counter(
        "snug_agent_history_files_moved_aside",
        "Damaged files of the usage history, renamed to .unusable-… in the data directory",
        Agent(|view, emit| view.row.history.iter().for_each(|row| emit(&[], Value::Int(row.moved_aside)))),
    ),
    Family::counter(
        "snug_agent_runqueue_seconds",
        "CPU time of the eBPF programs that trace the run queue, estimated from one run in 64",
        Agent(|view, emit| view.row.runqueue.iter().for_each(|row| emit(&[], seconds(row.cost_ns)))),
    ),
    Family::gauge(
        "snug_agent_runqueue_paused",
        "Whether run queue tracing is paused because its CPU time exceeds runqueue-millicores: 1 or 0",
        Agent(|view, emit| view.row.runqueue.iter().for_each(|row| emit(&[], Value::Int(row.paused.into())))),
    ),
    Family::counter(
        "snug_agent_runqueue_pauses",
        "Pauses of run queue tracing",
        Agent(|view, emit| view.row.runqueue.iter().for_each(|row| emit(&[], Value::Int(row.times_paused)))),
    ),
    Family::counter(
        "snug_agent_network_seconds",
        "CPU time of the eBPF programs that count packets, estimated from one run in 64",
        Agent(|view, emit| view.row.network.iter().for_each(|row| emit(&[], seconds(row.cost_ns)))),
    ),
    Family::gauge(
        "snug_agent_network_paused",
        "Whether counting packets is paused because its CPU time exceeds network-millicores: 1 or 0",
        Agent(|view, emit| view.row.network.iter().for_each(|row| emit(&[], Value::Int(row.paused.into())))),
    ),
    Family::counter(
        "snug_agent_network_pauses",
        "Pauses of counting packets",
        Agent(|view, emit| view.row.network.iter().for_each(|row| emit(&[], Value::Int(row.times_paused)))),
    ),
    Family::counter(
        "snug_agent_otlp_items",
        "Data points and log records of the OTLP export: sent, rejected by the receiver, or dropped because the buffer was full",
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
        "Failed OTLP requests, including those whose retry succeeded",
        Agent(|view, emit| {
            for (signal, progress) in view.otlp {
                emit(&[signal.as_str()], Value::Int(progress.failures));
            }
        }),
    )
    .labels(&["signal"]),
    Family::gauge(
        "snug_agent_otlp_waiting_bytes",
        "Data that waits for OTLP export",
        Agent(|view, emit| {
            for (signal, progress) in view.otlp {
                emit(&[signal.as_str()], Value::Int(progress.waiting_bytes));
            }
        }),
    )
    .labels(&["signal"]),
    Family::counter(
        "snug_agent_http_limited",
        "Connections closed, requests refused and responses cut off by the HTTP server, by reason",
        Agent(|view, emit| {
            for (reason, count) in view.server.limited {
                emit(&[reason.as_str()], Value::Int(count));
            }
        }),
    )
    .labels(&["reason"]),
    Family::gauge(
        "snug_agent_certificate_expiration_timestamp_seconds",
        "When the certificate of tls-listen, or one of its intermediate authorities, expires first, in seconds since the Unix \
         epoch; absent without a usable certificate",
        Agent(|view, emit| {
            view.server.certificate_expires.iter().for_each(|at| emit(&[], Value::Int(*at)));
        }),
    ),
    Family::counter(
        "snug_agent_token_reviews",
        "Reviews of tokens that the API server was asked for; tokens with a current verdict need none; absent if token-review is off",
        Agent(|view, emit| view.server.reviews.iter().for_each(|row| emit(&[], Value::Int(row.made)))),
    ),
    Family::counter(
        "snug_agent_token_review_errors",
        "Reviews of tokens without a verdict, because the API server did not answer or refused; absent if token-review is off",
        Agent(|view, emit| view.server.reviews.iter().for_each(|row| emit(&[], Value::Int(row.failed)))),
    ),
    Family::gauge(
        "snug_agent_series",
        "Series in the last scrape of an endpoint, without snug_agent_*",
        Agent(|view, emit| {
            for endpoint in view.endpoints {
                emit(&[endpoint.endpoint], Value::Int(endpoint.counts.written));
            }
        }),
    )
    .labels(&["endpoint"]),
    Family::gauge(
        "snug_agent_series_cut",
        "Series that limits left out of the last scrape of an endpoint",
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
