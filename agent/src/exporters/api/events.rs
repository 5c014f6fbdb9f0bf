//! What happened.

use schemars::JsonSchema;
use serde::Serialize;

use super::{EventQuery, OomKill, VERSION, Who};
use crate::exporters::query::is_wanted;
use crate::model::{Event, EventDetails, EventKind, Throttled, View};

/// The last events that were asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Events<'a> {
    /// `v1`.
    version: &'static str,
    /// Name of the node.
    node: &'a str,
    /// When the agent started, seconds since the Unix epoch: with it the numbers begin anew.
    agent_started: f64,
    /// Oldest first.
    events: Vec<Row<'a>>,
    /// The number to go on after; `null` if these are all. What was told after them comes by the same number.
    next: Option<u64>,
}

/// An event. Times are seconds since the Unix epoch; what is not known is `null`.
#[derive(Debug, Serialize, JsonSchema)]
struct Row<'a> {
    /// Its number since the agent started.
    sequence: u64,
    at: f64,
    /// `oom_kill`, `termination`, `throttling_start`, `throttling_end`, `eviction` or `image_pull_failure`.
    kind: &'static str,
    /// `INFO`, `WARN` or `ERROR`.
    severity: &'static str,
    /// Kubernetes' word.
    reason: Option<&'a str>,
    /// A sentence for people.
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

/// Whether there are such events.
pub(super) fn check(asked: &EventQuery) -> Result<(), String> {
    let Some(kind) = &asked.kind else { return Ok(()) };
    if EventKind::ALL.iter().any(|one| one.as_str() == kind) {
        return Ok(());
    }
    let kinds = EventKind::ALL.map(EventKind::as_str).join(", ");
    Err(format!("there is no kind {kind:?} of events; there are {kinds}"))
}

impl<'a> Events<'a> {
    /// Of what was published last.
    pub(super) fn of(published: &'a View, asked: &EventQuery) -> Self {
        let wanted = |event: &&Event| {
            let names = event.subject.names.as_deref();
            event.sequence > asked.after
                && is_wanted(&asked.kind, Some(event.kind().as_str()))
                && is_wanted(&asked.namespace, names.map(|names| names.namespace.as_str()))
                && is_wanted(&asked.pod, names.map(|names| names.pod.as_str()))
        };
        let rows = published.events.iter().map(|event| &**event).filter(wanted).map(Row::of);
        let (events, more) = super::page(rows, asked.limit, |row| row.sequence.to_string());
        let next = more.and_then(|_| events.last()).map(|last| last.sequence);
        let agent = &published.agent;
        Self { version: VERSION, node: &agent.node, agent_started: agent.started_unix, events, next }
    }
}

impl<'a> Row<'a> {
    fn of(event: &'a Event) -> Self {
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
            who: Who::of(event.subject.names.as_deref()),
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
