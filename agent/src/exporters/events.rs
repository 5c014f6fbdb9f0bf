//! Attributes of events, for log records and the event log.

use crate::model::{Event, EventDetails};

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    Text(String),
    Number(u64),
    Seconds(f64),
}

/// The attributes of an event, without those of its subject. Names are those of OpenTelemetry's semantic conventions where
/// these define one.
pub(super) fn attributes(event: &Event) -> Vec<(&'static str, Field)> {
    let text = |text: &str| Field::Text(text.to_owned());
    let mut fields = vec![("snug.event.sequence", Field::Number(event.sequence))];
    if let Some(reason) = event.reason() {
        fields.push(("k8s.container.status.reason", text(reason)));
    }
    match &event.details {
        EventDetails::OomKill(kill) => {
            fields.push(("process.pid", Field::Number(kill.pid.into())));
            fields.push(("process.executable.name", text(&kill.comm)));
            fields.push(("snug.oom.scope", text(kill.scope.as_str())));
            fields.push(("snug.oom.usage", Field::Number(kill.usage_bytes)));
            fields.extend(kill.limit_bytes.map(|limit| ("snug.oom.limit", Field::Number(limit))));
        }
        EventDetails::Termination(ended) => {
            fields.push(("process.exit.code", Field::Number(ended.exit_code.into())));
            fields
                .extend(ended.signal.map(|signal| ("snug.termination.signal", Field::Number(signal.into()))));
            if let Some(init) = &ended.init {
                fields.push(("process.pid", Field::Number(init.pid.into())));
                fields.push(("process.executable.name", text(&init.comm)));
            }
            fields.extend(ended.run_seconds().map(|ran| ("snug.termination.run_time", Field::Seconds(ran))));
        }
        EventDetails::ThrottlingStart(throttled) | EventDetails::ThrottlingEnd(throttled) => {
            fields.push(("snug.throttling.duration", Field::Seconds(throttled.seconds)));
            fields.push(("snug.throttling.periods", Field::Number(throttled.periods)));
            fields.push(("snug.throttling.throttled_periods", Field::Number(throttled.throttled_periods)));
        }
        EventDetails::Eviction(why) => fields.push(("snug.eviction.message", text(why))),
        EventDetails::ImagePullFailure(_) => {}
    }
    fields
}
