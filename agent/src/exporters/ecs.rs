//! The event log: events as JSON lines that log stores accept without a pipeline. Each line has the fields of the Elastic Common
//! Schema and of OpenTelemetry's semantic conventions, flat, with dotted names.
//!
//! Some names are a value in one schema and an object in the other (`container.runtime`, `process.executable`). An index cannot
//! have both, so the field of the Elastic Common Schema is kept.

use std::{
    io,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{
    events::{Field, attributes},
    limits::SeriesLimits,
    resource::{AttributeValue, Common},
};
use crate::{
    model::{Event, EventCursor, EventDetails, EventKind, Subject, View},
    views::CurrentView,
};

/// The version of the Elastic Common Schema.
const ECS_VERSION: &str = "9.0.0";
/// Interval between checks for new events.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Names of the semantic conventions that conflict with the Elastic Common Schema.
const CONFLICTING_NAMES: [&str; 2] = ["container.runtime.name", "process.executable.name"];

/// Writes events, one on each line, until `stop` completes or writing fails.
pub(crate) async fn write_lines(
    views: &CurrentView,
    limits: &SeriesLimits,
    mut out: impl AsyncWrite + Unpin,
    stop: impl Future<Output = ()>,
) {
    let mut cursor = EventCursor::default();
    let mut stop = std::pin::pin!(stop);
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    loop {
        let stopped = tokio::select! {
            () = &mut stop => true,
            _ = ticks.tick() => false,
        };
        let Some(view) = views.last() else {
            if stopped {
                return;
            }
            continue;
        };
        let (new, missed) = cursor.new_events(&view.events);
        if missed > 0 {
            tracing::warn!(
                missed,
                "more events at once than the agent keeps in memory: the oldest were not written"
            );
        }
        let lines = new
            .iter()
            .filter(|event| limits.event(event))
            .map(|event| line(event, &view))
            .collect::<io::Result<Vec<_>>>();
        let written = match lines {
            Ok(lines) if lines.is_empty() => Ok(()),
            Ok(lines) => out.write_all(&lines.concat()).await,
            Err(error) => Err(error),
        };
        let flushed = match written {
            Ok(()) => out.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = flushed {
            tracing::error!(%error, "cannot write the event log; no more events are written");
            return;
        }
        if stopped {
            return;
        }
    }
}

fn line(event: &Event, view: &View) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    serde_json::to_writer(&mut line, &fields(event, view))?;
    line.push(b'\n');
    Ok(line)
}

fn fields(event: &Event, view: &View) -> Map<String, Value> {
    let value = |field| match field {
        Field::Text(text) => Value::from(text),
        Field::Number(number) => Value::from(number),
        Field::Seconds(seconds) => Value::from(seconds),
    };
    let attribute = |value| match value {
        AttributeValue::Text(text) => Value::from(text),
        AttributeValue::Texts(texts) => Value::from(texts),
    };
    let resource = Common::default().subject(&event.subject, view);
    let mut line: Map<String, Value> =
        resource.into_iter().map(|(name, value)| (name, attribute(value))).collect();
    line.extend(attributes(event).into_iter().map(|(name, field)| (name.to_owned(), value(field))));
    line.retain(|name, _| !CONFLICTING_NAMES.contains(&name.as_str()));
    let mut set = |name: &str, value: Value| {
        let is_empty = value.is_null() || value.as_str() == Some("");
        if !is_empty {
            line.insert(name.to_owned(), value);
        }
    };
    let at = UNIX_EPOCH + Duration::try_from_secs_f64(event.at_unix).unwrap_or_default();
    set("@timestamp", humantime::format_rfc3339_millis(at).to_string().into());
    set("ecs.version", ECS_VERSION.into());
    set("message", event.to_string().into());
    let severity = event.severity().as_str();
    set("log.level", severity.to_ascii_lowercase().into());
    // The name that Datadog and Loki use.
    set("severity", severity.into());
    set("event.kind", "event".into());
    set("event.module", "snug".into());
    set("event.dataset", "snug.events".into());
    set("event.action", event.kind().as_str().into());
    set("event.category", json!(["process"]));
    set("event.type", json!([kind_of_ecs(event.kind())]));
    set("event.sequence", event.sequence.into());
    set("event.reason", event.reason().into());
    let nanos = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos() as u64;
    match &event.details {
        EventDetails::OomKill(kill) => set("process.name", kill.comm.as_str().into()),
        EventDetails::Termination(ended) => {
            set("process.exit_code", ended.exit_code.into());
            set("process.name", ended.init.as_ref().map(|init| init.comm.as_str()).into());
            set("event.duration", ended.run_seconds().map(nanos).into());
        }
        EventDetails::ThrottlingEnd(throttled) => set("event.duration", nanos(throttled.seconds).into()),
        EventDetails::ThrottlingStart(_) | EventDetails::Eviction(_) | EventDetails::ImagePullFailure(_) => {}
    }
    let Subject { names, pod_uid, runtime, .. } = &event.subject;
    set("container.runtime", runtime.as_str().into());
    if let Some(names) = names.as_deref().filter(|names| !names.pod.is_empty()) {
        set("container.name", names.container.as_str().into());
        set("orchestrator.type", "kubernetes".into());
        set("orchestrator.namespace", names.namespace.as_str().into());
        set("orchestrator.resource.type", "pod".into());
        set("orchestrator.resource.name", names.pod.as_str().into());
        set("orchestrator.resource.id", (&**pod_uid).into());
    }
    line
}

/// The value of `event.type`, one of those that the Elastic Common Schema expects for the category `process`.
const fn kind_of_ecs(kind: EventKind) -> &'static str {
    match kind {
        EventKind::OomKill | EventKind::Termination | EventKind::Eviction => "end",
        EventKind::ThrottlingStart | EventKind::ThrottlingEnd | EventKind::ImagePullFailure => "info",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;
    use crate::{exporters::fixture, patterns::Pattern};

    fn lines() -> Vec<Value> {
        let view = fixture::view();
        let line = |event: &Arc<Event>| serde_json::from_slice(&line(event, &view).unwrap()).unwrap();
        view.events.iter().map(line).collect()
    }

    #[test]
    fn a_line_has_the_fields_of_both_schemas() {
        let lines = lines();
        let killed = &lines[0];
        for (name, value) in [
            ("@timestamp", json!("2023-11-14T22:13:20.250Z")),
            ("log.level", json!("error")),
            ("event.action", json!("oom_kill")),
            ("event.reason", json!("OOMKilled")),
            ("event.sequence", json!(1)),
            ("container.id", json!("aaaa")),
            ("container.name", json!("main")),
            ("container.runtime", json!("containerd")),
            ("container.image.name", json!("example/app")),
            ("orchestrator.namespace", json!("shop")),
            ("orchestrator.resource.name", json!("web-1")),
            ("k8s.namespace.name", json!("shop")),
            ("k8s.pod.name", json!("web-1")),
            ("k8s.statefulset.name", json!("web")),
            ("process.pid", json!(7)),
            ("process.name", json!("java")),
            ("snug.oom.limit", json!(1024)),
        ] {
            assert_eq!(killed[name], value, "{name}");
        }
        assert_eq!(
            (&lines[1]["process.exit_code"], &lines[1]["process.exit.code"]),
            (&json!(137), &json!(137))
        );
        assert_eq!(lines[1]["event.duration"], 2_500_000_000_u64);
        assert_eq!(lines[4].get("container.name"), None, "a pod is no container");
    }

    #[test]
    fn every_kind_has_a_type_that_its_category_expects() {
        let schema = include_str!("../../../tests/fixtures/ecs-9.0.0.json");
        let schema: Value = serde_json::from_str(schema).unwrap();
        for kind in EventKind::ALL {
            let expected = schema["types_by_category"]["process"].as_array().unwrap();
            assert!(expected.contains(&kind_of_ecs(kind).into()), "{}", kind.as_str());
        }
    }

    #[test]
    fn no_name_is_both_a_value_and_an_object() {
        let names: BTreeSet<String> =
            lines().iter().flat_map(|line| line.as_object().unwrap().keys().cloned()).collect();
        for name in &names {
            let below = format!("{name}.");
            assert!(!names.iter().any(|other| other.starts_with(&below)), "{name}");
        }
    }

    #[tokio::test]
    async fn lines_are_written_once_and_the_last_at_the_stop() {
        let views = CurrentView::from_view(Some(fixture::view()));
        let limits = SeriesLimits::default();
        let mut out = Vec::new();
        write_lines(&views, &limits, &mut out, tokio::time::sleep(POLL_INTERVAL * 2)).await;
        assert_eq!(out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), 6);
        let mut out = Vec::new();
        write_lines(&views, &limits, &mut out, std::future::ready(())).await;
        assert!(!out.is_empty());
        let mut out = Vec::new();
        write_lines(&CurrentView::default(), &limits, &mut out, std::future::ready(())).await;
        assert!(out.is_empty());
        let limits = SeriesLimits { deny_namespaces: vec![Pattern::new("shop")], ..SeriesLimits::default() };
        write_lines(&views, &limits, &mut out, std::future::ready(())).await;
        assert!(out.is_empty(), "limits by namespace hold");
        // A reader that has gone, or a full disk: the agent goes on without this log.
        let (out, reader) = tokio::io::duplex(64);
        drop(reader);
        let all = SeriesLimits::default();
        let writing = write_lines(&views, &all, out, std::future::pending());
        tokio::time::timeout(Duration::from_secs(20), writing).await.unwrap();
    }
}
