//! OTLP: pushes metrics and events to a receiver, by gRPC or HTTP.
//!
//! Metrics come from the catalogue, like `/metrics`, and are sent every `otlp-interval`. Events are sent as log records within
//! a second. Requests that cannot be sent wait in a bounded buffer. Neither the exporter nor the samplers wait for each other.

mod convention;
mod delta;
mod logs;
mod metrics;
mod own_log;
mod queue;
mod resources;
mod sender;
mod transport;

use std::{
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::time::MissedTickBehavior;

use self::{
    logs::Logged,
    metrics::{Builder, Export},
    own_log::OwnLog,
    sender::Sender,
};
use super::{
    limits::SeriesLimits,
    series::{Progress, Push, Scrapes, Signal},
};
use crate::{
    clock,
    config::{Config, LogLayer, OtlpCompression, OtlpProtocol, Temporality, without_secrets},
    model::View,
    tls::TlsFiles,
    views::CurrentView,
};

/// The value of the `endpoint` label in metrics about series.
const ENDPOINT: &str = "otlp";

/// Settings of the export of one signal.
#[derive(Clone, Debug)]
struct Settings {
    signal: Signal,
    endpoint: String,
    protocol: OtlpProtocol,
    headers: Vec<(String, String)>,
    compression: OtlpCompression,
    timeout: Duration,
    tls: TlsFiles,
    temporality: Temporality,
    interval: Duration,
    resource_attributes: Vec<(String, String)>,
}

impl Settings {
    /// The settings of a signal; `None` if it has no receiver.
    fn from_config(config: &Config, signal: Signal) -> Option<Self> {
        if signal == Signal::Logs && !config.otlp_events && !config.otlp_log {
            return None;
        }
        // Options of the signal win over those for both signals.
        let protocol = signal
            .own(&config.otlp_metrics_protocol, &config.otlp_logs_protocol)
            .unwrap_or(config.otlp_protocol);
        let base = || {
            let base = config.otlp_endpoint.as_deref()?;
            Some(match protocol {
                OtlpProtocol::Grpc => base.to_owned(),
                OtlpProtocol::HttpProtobuf => {
                    format!("{}/v1/{}", base.trim_end_matches('/'), signal.as_str())
                }
            })
        };
        let files = |own: Option<PathBuf>, general: &Option<PathBuf>| own.or_else(|| general.clone());
        Some(Self {
            signal,
            endpoint: signal.own(&config.otlp_metrics_endpoint, &config.otlp_logs_endpoint).or_else(base)?,
            protocol,
            headers: signal
                .own(&config.otlp_metrics_headers, &config.otlp_logs_headers)
                .unwrap_or_else(|| config.otlp_headers.clone()),
            compression: signal
                .own(&config.otlp_metrics_compression, &config.otlp_logs_compression)
                .unwrap_or(config.otlp_compression),
            timeout: signal
                .own(&config.otlp_metrics_timeout, &config.otlp_logs_timeout)
                .unwrap_or(config.otlp_timeout),
            tls: TlsFiles {
                authorities: files(
                    signal.own(&config.otlp_metrics_certificate, &config.otlp_logs_certificate),
                    &config.otlp_certificate,
                ),
                certificate: files(
                    signal.own(&config.otlp_metrics_client_certificate, &config.otlp_logs_client_certificate),
                    &config.otlp_client_certificate,
                ),
                key: files(
                    signal.own(&config.otlp_metrics_client_key, &config.otlp_logs_client_key),
                    &config.otlp_client_key,
                ),
            },
            temporality: config.otlp_temporality,
            interval: config.otlp_interval,
            resource_attributes: config.otlp_resource_attributes.clone(),
        })
    }
}

/// The OTLP exporter.
#[derive(Debug)]
pub struct Exporter {
    metrics: Option<Arc<Sender>>,
    logs: Option<Arc<Sender>>,
    logged: Logged,
}

impl Exporter {
    /// An exporter by the configuration; `None` if no signal has a receiver.
    pub fn new(config: &Config) -> Option<Self> {
        let sender = |signal| Settings::from_config(config, signal).map(Sender::new).map(Arc::new);
        let [metrics, logs] = [Signal::Metrics, Signal::Logs].map(sender);
        let logged = Logged { events: config.otlp_events, own_log: config.otlp_log.then(OwnLog::default) };
        (metrics.is_some() || logs.is_some()).then_some(Self { metrics, logs, logged })
    }

    /// The layer that collects the agent's own log; `None` unless `otlp-log` is on.
    pub fn own_log(&self) -> Option<LogLayer> {
        self.logs.as_ref().and(self.logged.own_log.as_ref()).map(OwnLog::layer)
    }

    /// Exports until `stop` completes, then once more.
    pub(crate) async fn run(
        self: Arc<Self>,
        views: Arc<CurrentView>,
        limits: Arc<SeriesLimits>,
        scrapes: Arc<Scrapes>,
        stop: impl Future<Output = ()>,
    ) {
        let stop = stop.shared();
        let metrics = async {
            if let Some(sender) = &self.metrics {
                self.metrics(sender, &views, Arc::clone(&limits), &scrapes, stop.clone()).await;
            }
        };
        let logs = async {
            if let Some(sender) = &self.logs {
                logs::export(sender, &self.logged, &views, &limits, stop.clone()).await;
            }
        };
        tokio::join!(metrics, logs);
    }

    async fn metrics(
        self: &Arc<Self>,
        sender: &Arc<Sender>,
        views: &CurrentView,
        limits: Arc<SeriesLimits>,
        scrapes: &Arc<Scrapes>,
        stop: impl Future<Output = ()>,
    ) {
        let Settings { temporality, interval, resource_attributes, endpoint, .. } = sender.settings();
        tracing::info!(endpoint = without_secrets(endpoint), "sending metrics by OTLP");
        let mut builder =
            Builder::new(resource_attributes.clone(), limits, *temporality, clock::since_epoch());
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + *interval, *interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut sending = pin!(sender.send_all());
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = &mut sending => break,
                _ = ticks.tick() => {
                    if let Some(view) = views.newest().await {
                        builder = self.build(sender, builder, view, scrapes).await;
                    }
                }
            }
        }
        sender.put_back();
        if let Some(view) = views.last() {
            self.build(sender, builder, view, scrapes).await;
        }
        sender.finish().await;
    }

    /// Builds requests from the current view on a blocking thread, and adds them to the queue.
    async fn build(
        self: &Arc<Self>,
        sender: &Arc<Sender>,
        mut builder: Builder,
        view: Arc<View>,
        scrapes: &Arc<Scrapes>,
    ) -> Builder {
        let (this, sender, scrapes) = (Arc::clone(self), Arc::clone(sender), Arc::clone(scrapes));
        let built = tokio::task::spawn_blocking(move || {
            let export = Export {
                view: &view,
                now: Instant::now(),
                now_unix: clock::since_epoch(),
                endpoints: scrapes.others(ENDPOINT),
                server: scrapes.server(),
                progress: this.progress(),
            };
            let counts = builder.build(&export, |batch| sender.add(batch));
            scrapes.record(ENDPOINT, counts);
            builder
        });
        match built.await {
            Ok(builder) => builder,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

impl Push for Exporter {
    fn progress(&self) -> Vec<(Signal, Progress)> {
        let senders = [&self.metrics, &self.logs].into_iter().flatten();
        senders.map(|sender| (sender.settings().signal, sender.progress())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, io};

    use super::*;
    use crate::config::{self, Request};

    fn settings(variables: &[(&str, &str)], signal: Signal) -> Option<Settings> {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let request =
            config::load([OsString::from("snug-agent")], variables, |_| Err(io::ErrorKind::NotFound.into()));
        let Request::Run(loaded) = request.unwrap() else { panic!("not run") };
        Settings::from_config(&loaded.config, signal)
    }

    #[test]
    fn options_of_one_signal_win_for_it() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "tenant=a"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "tenant=b"),
            ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "3000"),
            ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "/logs.pem"),
            ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", "/me.pem"),
            ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "/key.pem"),
        ];
        let metrics = settings(&variables, Signal::Metrics).unwrap();
        assert_eq!(metrics.endpoint, "http://collector:4318/v1/metrics");
        assert_eq!(metrics.headers, [("tenant".to_owned(), "a".to_owned())]);
        assert_eq!(
            (metrics.protocol, metrics.timeout),
            (OtlpProtocol::HttpProtobuf, Duration::from_secs(10))
        );
        let path = |path: &str| Some(PathBuf::from(path));
        let TlsFiles { authorities, certificate, key } = metrics.tls;
        assert_eq!((authorities, certificate, key), (path("/ca.pem"), path("/me.pem"), path("/key.pem")));

        let logs = settings(&variables, Signal::Logs).unwrap();
        assert_eq!(logs.endpoint, "http://collector:4318", "gRPC has no paths");
        assert_eq!(logs.headers, [("tenant".to_owned(), "b".to_owned())]);
        assert_eq!((logs.protocol, logs.timeout), (OtlpProtocol::Grpc, Duration::from_secs(3)));
        assert_eq!(logs.compression, OtlpCompression::Gzip);
        assert_eq!((logs.tls.authorities, logs.tls.key), (path("/logs.pem"), None));
    }

    #[test]
    fn a_signal_may_have_a_receiver_alone_or_none() {
        let logs_alone = [("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:4318/otlp/v1/logs")];
        assert!(settings(&logs_alone, Signal::Metrics).is_none());
        assert_eq!(settings(&logs_alone, Signal::Logs).unwrap().endpoint, "http://logs:4318/otlp/v1/logs");
        let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"), ("SNUG_OTLP_EVENTS", "off")];
        assert!(settings(&off, Signal::Logs).is_none() && settings(&off, Signal::Metrics).is_some());
    }
}
