//! The last events.

use schemars::JsonSchema;
use serde::Serialize;

use super::{EventQuery, OomKill, VERSION, Who};
use crate::exporters::query::matches_filter;
use crate::model::{Event, EventDetails, EventKind, Throttled, View};

/// The last events that match the query.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Events<'a> {
    /// `v1`.
    version: &'static str,
    /// Name of the node.
    node: &'a str,
    /// The start of the agent, in seconds since the Unix epoch. Numbers of events restart with the agent.
    agent_started: f64,
    /// Oldest first.
    events: Vec<EventRow<'a>>,
    /// The number to continue after; `null` on the last page. The last number also works for newer events.
    next: Option<u64>,
}

/// An event. Times are seconds since the Unix epoch; unknown values are `null`.
#[derive(Debug, Serialize, JsonSchema)]
struct EventRow<'a> {
    /// The number of the event since the agent started.
    sequence: u64,
    at: f64,
    /// `oom_kill`, `termination`, `throttling_start`, `throttling_end`, `eviction` or `image_pull_failure`.
    kind: &'static str,
    /// `INFO`, `WARN` or `ERROR`.
    severity: &'static str,
    /// The reason in the terms of Kubernetes, such as `OOMKilled`.
    reason: Option<&'a str>,
    /// A human-readable message.
    message: String,
    #[serde(flatten)]
    who: Who<'a>,
    pod_uid: &'a str,
    container_id: &'a str,
    oom_kill: Option<OomKill<'a>>,
    termination: Option<Termination<'a>>,
    throttling: Option<Throttling>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Termination<'a> {
    exit_code: u8,
    signal: Option<u8>,
    pid: Option<u32>,
    name: Option<&'a str>,
    run_seconds: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Throttling {
    seconds: f64,
    periods: u64,
    throttled_periods: u64,
}

/// Checks that the kind exists.
pub(super) fn check(query: &EventQuery) -> Result<(), String> {
    let Some(kind) = &query.kind else { return Ok(()) };
    if EventKind::ALL.iter().any(|one| one.as_str() == kind) {
        return Ok(());
    }
    let kinds = EventKind::ALL.map(EventKind::as_str).join(", ");
    Err(format!("unknown kind of events {kind:?}; known kinds: {kinds}"))
}

impl<'a> Events<'a> {
    pub(super) fn new(view: &'a View, query: &EventQuery) -> Self {
        let matches = |event: &&Event| {
            let names = event.subject.names.as_deref();
            event.sequence > query.after
                && matches_filter(&query.kind, Some(event.kind().as_str()))
                && matches_filter(&query.namespace, names.map(|names| names.namespace.as_str()))
                && matches_filter(&query.pod, names.map(|names| names.pod.as_str()))
        };
        let rows = view.events.iter().map(|event| &**event).filter(matches).map(EventRow::new);
        let (events, more) = super::page(rows, query.limit, |row| row.sequence.to_string());
        let next = more.and_then(|_| events.last()).map(|last| last.sequence);
        let agent = &view.agent;
        Self { version: VERSION, node: &agent.node, agent_started: agent.started_unix, events, next }
    }
}

impl<'a> EventRow<'a> {
    fn new(event: &'a Event) -> Self {
        let throttling = |throttled: &Throttled| Throttling {
            seconds: throttled.seconds,
            periods: throttled.periods,
            throttled_periods: throttled.throttled_periods,
        };
        Self {
            sequence: event.sequence,
            at: event.at_unix,
            kind: event.kind().as_str(),
            severity: event.severity().as_str(),
            reason: event.reason(),
            message: event.to_string(),
            who: Who::new(event.subject.names.as_deref()),
            pod_uid: &event.subject.pod_uid,
            container_id: &event.subject.id,
            oom_kill: match &event.details {
                EventDetails::OomKill(kill) => Some(OomKill::new(kill)),
                _ => None,
            },
            termination: match &event.details {
                EventDetails::Termination(ended) => Some(Termination {
                    exit_code: ended.exit_code,
                    signal: ended.signal,
                    pid: ended.init.as_ref().map(|init| init.pid),
                    name: ended.init.as_ref().map(|init| init.comm.as_str()),
                    run_seconds: ended.run_seconds(),
                }),
                _ => None,
            },
            throttling: match &event.details {
                EventDetails::ThrottlingStart(throttled) | EventDetails::ThrottlingEnd(throttled) => {
                    Some(throttling(throttled))
                }
                _ => None,
            },
        }
    }
}
