//! The agent's own log as log records. A bridge passes messages of `tracing` to OpenTelemetry's SDK. This module is the exporter of
//! the SDK: it keeps records until they are sent with the events.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_proto::{
    tonic::logs::v1::ScopeLogs,
    transform::{common::tonic::ResourceAttributesWithSchema, logs::tonic::group_logs_by_resource_and_scope},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    logs::{LogBatch, LogExporter, SdkLoggerProvider},
};
use tracing_subscriber::{Layer as _, filter::filter_fn};

use crate::config::LogLayer;

/// Maximum number of records that wait to be sent.
const MAX_WAITING: usize = 1024;
/// Targets that the exporter itself logs to. Sending their messages would log new ones, forever.
const SENDING: &[&str] =
    &["h2", "hyper", "hyper_util", "opentelemetry", "opentelemetry_sdk", "rustls", "tonic", "tower"];

/// Records that are not sent yet.
#[derive(Debug, Default)]
struct Waiting {
    scopes: Vec<ScopeLogs>,
    records: usize,
    discarded: u64,
}

/// The agent's own log.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnLog(Arc<Mutex<Waiting>>);

impl OwnLog {
    /// The layer that receives messages from `tracing`.
    pub(super) fn layer(&self) -> LogLayer {
        let provider = SdkLoggerProvider::builder().with_simple_exporter(self.clone()).build();
        let is_of_sending = |target: &str| SENDING.contains(&target.split("::").next().unwrap_or(target));
        OpenTelemetryTracingBridge::new(&provider)
            .with_filter(filter_fn(move |metadata| !is_of_sending(metadata.target())))
            .boxed()
    }

    /// The records since the last call, and the number of records that were dropped.
    pub(super) fn take(&self) -> (Vec<ScopeLogs>, u64) {
        let Waiting { scopes, discarded, .. } = mem::take(&mut *self.lock());
        (scopes, discarded)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogExporter for OwnLog {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let logs = group_logs_by_resource_and_scope(&batch, &ResourceAttributesWithSchema::default());
        let mut waiting = self.lock();
        for mut scope in logs.into_iter().flat_map(|logs| logs.scope_logs) {
            for record in &mut scope.log_records {
                // Messages of `tracing` have no time, so the time of observation is used.
                record.time_unix_nano = record.observed_time_unix_nano;
            }
            let records = scope.log_records.len();
            if waiting.records + records > MAX_WAITING {
                waiting.discarded += records as u64;
                continue;
            }
            waiting.records += records;
            match waiting.scopes.last_mut() {
                Some(last) if last.scope == scope.scope => last.log_records.append(&mut scope.log_records),
                _ => waiting.scopes.push(scope),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::SeverityNumber};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn text(value: &Option<opentelemetry_proto::tonic::common::v1::AnyValue>) -> &str {
        match value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn records_are_taken_once_and_messages_about_sending_are_left_out() {
        let own = OwnLog::default();
        let subscriber = tracing_subscriber::registry().with(own.layer());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "snug_agent::samplers", path = "/a", "a cgroup file is skipped");
            tracing::error!(target: "hyper::client", "of itself");
            tracing::info!(target: "snug_agent::samplers", "more");
        });
        let (scopes, discarded) = own.take();
        assert_eq!((scopes.len(), discarded), (1, 0));
        let scope = &scopes[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, "snug_agent::samplers");
        let [first, second] = &scope.log_records[..] else { panic!("{scope:?}") };
        assert_eq!(
            (first.severity_number(), second.severity_number()),
            (SeverityNumber::Warn, SeverityNumber::Info)
        );
        assert_eq!((text(&first.body), text(&second.body)), ("a cgroup file is skipped", "more"));
        assert_eq!((&*first.attributes[0].key, text(&first.attributes[0].value)), ("path", "/a"));
        assert!(first.time_unix_nano > 1_600_000_000_000_000_000);
        assert!(own.take().0.is_empty());
    }

    #[test]
    fn records_above_the_maximum_are_counted() {
        let own = OwnLog::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(own.layer()), || {
            for number in 0..MAX_WAITING + 7 {
                tracing::info!(number, "again");
            }
        });
        let (scopes, discarded) = own.take();
        let records: usize = scopes.iter().map(|scope| scope.log_records.len()).sum();
        assert_eq!((records, discarded), (MAX_WAITING, 7));
    }
}
