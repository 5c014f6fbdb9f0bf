//! Events as log records.

use std::{pin::pin, time::Duration};

use hyper::body::Bytes;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
};
use prost::Message as _;
use tokio::time::MissedTickBehavior;

use super::{
    convention::SCHEMA_URL,
    own_log::OwnLog,
    queue::Batch,
    resources::{attribute, resource, scope},
    sender::Sender,
};
use crate::{
    clock,
    exporters::{
        events::{Field, attributes},
        limits::SeriesLimits,
        resource::Common,
    },
    model::{Event, EventCursor, Severity, View},
    views::CurrentView,
};

/// Interval between checks for new events: the default delay of OpenTelemetry's own processors
/// (`OTEL_BLRP_SCHEDULE_DELAY`).
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The sources of log records.
#[derive(Debug)]
pub(super) struct Logged {
    pub(super) events: bool,
    pub(super) own_log: Option<OwnLog>,
}

/// Sends events as log records until `stop` completes.
pub(super) async fn export(
    sender: &Sender,
    logged: &Logged,
    views: &CurrentView,
    limits: &SeriesLimits,
    stop: impl Future<Output = ()>,
) {
    let settings = sender.settings();
    tracing::info!(endpoint = settings.endpoint, "sending log records by OTLP");
    let common = Common { given: settings.resource_attributes.clone() };
    let mut cursor = EventCursor::default();
    let mut queue_new = || {
        let Some(view) = views.last() else { return };
        let (new, missed) = cursor.new_events(&view.events);
        sender.give_up(if logged.events { missed } else { 0 });
        let new: Vec<&Event> = new.iter().map(|event| &**event).filter(|event| limits.event(event)).collect();
        if logged.events && !new.is_empty() {
            sender.add(batch(&new, &common, &view));
        }
        if let Some(own_log) = &logged.own_log {
            let (scopes, discarded) = own_log.take();
            sender.give_up(discarded);
            if !scopes.is_empty() {
                sender.add(own_batch(scopes, &common, &view));
            }
        }
    };
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sending = pin!(sender.send_all());
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = &mut sending => break,
            _ = ticks.tick() => queue_new(),
        }
    }
    sender.put_back();
    queue_new();
    sender.finish().await;
}

fn batch(events: &[&Event], common: &Common, view: &View) -> Batch {
    let of_one = |event: &&Event| ResourceLogs {
        resource: Some(resource(common.subject(&event.subject, view))),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope()),
            log_records: vec![record(event)],
            schema_url: SCHEMA_URL.to_owned(),
        }],
        schema_url: SCHEMA_URL.to_owned(),
    };
    request(events.iter().map(of_one).collect())
}

/// A batch of the agent's own log.
fn own_batch(scope_logs: Vec<ScopeLogs>, common: &Common, view: &View) -> Batch {
    let resource = Some(resource(common.agent(view)));
    let of_agent = ResourceLogs { resource, scope_logs, schema_url: SCHEMA_URL.to_owned() };
    request(vec![of_agent])
}

/// Encodes a request.
fn request(resource_logs: Vec<ResourceLogs>) -> Batch {
    let scopes = resource_logs.iter().flat_map(|of_one| &of_one.scope_logs);
    let items = scopes.map(|scope| scope.log_records.len() as u64).sum();
    let request = ExportLogsServiceRequest { resource_logs };
    Batch { items, bytes: Bytes::from(request.encode_to_vec()) }
}

fn record(event: &Event) -> LogRecord {
    let number = match event.severity() {
        Severity::Info => SeverityNumber::Info,
        Severity::Warn => SeverityNumber::Warn,
        Severity::Error => SeverityNumber::Error,
    };
    let value = |field| match field {
        Field::Text(text) => Value::StringValue(text),
        Field::Number(number) => Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX)),
        Field::Seconds(seconds) => Value::DoubleValue(seconds),
    };
    LogRecord {
        time_unix_nano: Duration::try_from_secs_f64(event.at_unix).unwrap_or_default().as_nanos() as u64,
        observed_time_unix_nano: clock::since_epoch().as_nanos() as u64,
        severity_number: number.into(),
        severity_text: event.severity().as_str().to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(event.to_string())) }),
        attributes: attributes(event)
            .into_iter()
            .map(|(name, field)| attribute(name.to_owned(), value(field)))
            .collect(),
        event_name: format!("snug.{}", event.kind().as_str()),
        ..LogRecord::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporters::fixture;

    #[test]
    fn a_record_is_as_bad_as_its_event_and_says_when() {
        let view = fixture::view();
        let events = &view.events;
        let record = record(&events[1]);
        assert_eq!((record.severity_number(), &*record.severity_text), (SeverityNumber::Error, "ERROR"));
        assert_eq!(
            (record.time_unix_nano, &*record.event_name),
            (1_700_000_000_250_000_000, "snug.termination")
        );
        let all: Vec<&Event> = events.iter().map(|event| &**event).collect();
        let batch = batch(&all, &Common { given: Vec::new() }, &view);
        let request = ExportLogsServiceRequest::decode(batch.bytes).unwrap();
        assert_eq!((batch.items, request.resource_logs.len()), (6, 6));
    }
}
