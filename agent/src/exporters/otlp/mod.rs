//! OTLP: what `/metrics` serves is pushed to a receiver, by gRPC or HTTP, and so are events.
//!
//! Metrics are built from the catalogue, like `/metrics`, and at the pace of `otlp-interval`; events go as log records, soon
//! after they are told. What cannot be sent waits in a bounded
//! buffer; nothing here ever waits for the samplers, nor they for it.

mod convention;
mod delta;
mod logs;
mod metrics;
mod queue;
mod resources;
mod sender;
mod transport;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use tokio::time::MissedTickBehavior;

pub use self::sender::Progress;
use self::{
    metrics::{Builder, Export},
    sender::Sender,
};
use super::{http::Scrapes, limits::SeriesLimits};
use crate::{
    clock,
    config::{Config, OtlpCompression, OtlpProtocol, Temporality},
    events::Subject,
    store::published::Published,
    tls::TlsFiles,
};

/// What stands for an endpoint's path in metrics about series.
const ENDPOINT: &str = "otlp";

/// The attributes of the resource that a subject is, by their names, in JSON.
pub(super) fn resource_of(
    subject: &Subject,
    published: &Published,
) -> impl Iterator<Item = (String, serde_json::Value)> {
    let common = resources::Common { given: Vec::new() };
    let attributes = common.subject(subject, published).attributes.into_iter();
    attributes.map(|pair| (pair.key, pair.value.map_or(serde_json::Value::Null, resources::json)))
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// What `/metrics` serves.
    Metrics,
    /// Events, as log records.
    Logs,
}

impl Signal {
    /// The name in labels, and at the end of a receiver's URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// Where and how to send.
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
    /// `None` where no receiver is named for the signal.
    fn of(config: &Config, signal: Signal) -> Option<Self> {
        let base = || {
            let base = config.otlp_endpoint.as_deref()?;
            Some(match config.otlp_protocol {
                OtlpProtocol::Grpc => base.to_owned(),
                OtlpProtocol::HttpProtobuf => {
                    format!("{}/v1/{}", base.trim_end_matches('/'), signal.as_str())
                }
            })
        };
        let own = match signal {
            Signal::Metrics => config.otlp_metrics_endpoint.clone(),
            Signal::Logs if !config.otlp_events => return None,
            Signal::Logs => config.otlp_logs_endpoint.clone(),
        };
        Some(Self {
            signal,
            endpoint: own.or_else(base)?,
            protocol: config.otlp_protocol,
            headers: config.otlp_headers.clone(),
            compression: config.otlp_compression,
            timeout: config.otlp_timeout,
            tls: TlsFiles {
                authorities: config.otlp_certificate.clone(),
                certificate: config.otlp_client_certificate.clone(),
                key: config.otlp_client_key.clone(),
            },
            temporality: config.otlp_temporality,
            interval: config.otlp_interval,
            resource_attributes: config.otlp_resource_attributes.clone(),
        })
    }
}

/// Sends what is published until it is told to stop.
#[derive(Debug)]
pub struct Exporter {
    metrics: Option<Arc<Sender>>,
    logs: Option<Arc<Sender>>,
}

impl Exporter {
    /// One that has sent nothing yet; `None` where no receiver is named.
    pub fn new(config: &Config) -> Option<Self> {
        let sender = |signal| Settings::of(config, signal).map(Sender::new).map(Arc::new);
        let [metrics, logs] = [Signal::Metrics, Signal::Logs].map(sender);
        (metrics.is_some() || logs.is_some()).then_some(Self { metrics, logs })
    }

    /// How each signal fares.
    pub fn progress(&self) -> Vec<(Signal, Progress)> {
        let senders = [&self.metrics, &self.logs].into_iter().flatten();
        senders.map(|sender| (sender.settings().signal, sender.progress())).collect()
    }

    /// Exports until `stop` is done, then once more.
    pub(crate) async fn run(
        self: Arc<Self>,
        published: Arc<ArcSwapOption<Published>>,
        limits: Arc<SeriesLimits>,
        scrapes: Arc<Scrapes>,
        stop: impl Future<Output = ()>,
    ) {
        let stop = stop.shared();
        let metrics = async {
            if let Some(sender) = &self.metrics {
                self.metrics(sender, &published, Arc::clone(&limits), &scrapes, stop.clone()).await;
            }
        };
        let logs = async {
            if let Some(sender) = &self.logs {
                logs::export(sender, &published, &limits, stop.clone()).await;
            }
        };
        tokio::join!(metrics, logs);
    }

    async fn metrics(
        self: &Arc<Self>,
        sender: &Arc<Sender>,
        published: &ArcSwapOption<Published>,
        limits: Arc<SeriesLimits>,
        scrapes: &Arc<Scrapes>,
        stop: impl Future<Output = ()>,
    ) {
        let Settings { temporality, interval, resource_attributes, endpoint, .. } = sender.settings();
        tracing::info!(endpoint, "sending metrics by OTLP");
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
                    if let Some(published) = published.load_full() {
                        builder = self.build(sender, builder, published, scrapes).await;
                    }
                }
            }
        }
        sender.put_back();
        if let Some(published) = published.load_full() {
            self.build(sender, builder, published, scrapes).await;
        }
        sender.finish().await;
    }

    /// Puts everything that is published into the queue, on a thread that may take its time.
    async fn build(
        self: &Arc<Self>,
        sender: &Arc<Sender>,
        mut builder: Builder,
        published: Arc<Published>,
        scrapes: &Arc<Scrapes>,
    ) -> Builder {
        let (this, sender, scrapes) = (Arc::clone(self), Arc::clone(sender), Arc::clone(scrapes));
        let built = tokio::task::spawn_blocking(move || {
            let export = Export {
                published: &published,
                now: Instant::now(),
                now_unix: clock::since_epoch(),
                endpoints: scrapes.others(ENDPOINT),
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
