//! OTLP: what `/metrics` serves is pushed to a receiver, by gRPC or HTTP.
//!
//! Built from the catalogue, like `/metrics`, and at the pace of `otlp-interval`. What cannot be sent waits in a bounded
//! buffer; nothing here ever waits for the samplers, nor they for it.

mod convention;
mod delta;
mod metrics;
mod queue;
mod resources;
mod transport;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::time::MissedTickBehavior;

use self::{
    metrics::{Builder, Export},
    queue::{Batch, Queue},
    transport::{Answer, Transport, TransportError},
};
use super::{http::Scrapes, limits::SeriesLimits};
use crate::{
    clock,
    config::{Config, OtlpCompression, OtlpProtocol, Temporality},
    store::published::Published,
    tls::TlsFiles,
};

/// What stands for an endpoint's path in metrics about series.
const ENDPOINT: &str = "otlp";
/// Bytes that wait at most: half an hour of a full node at an export a minute.
const BUFFER: usize = 16 << 20;
/// Between two attempts: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Time for what is left when the agent stops.
const LAST_WITHIN: Duration = Duration::from_secs(3);

/// Where and how to send.
#[derive(Clone, Debug)]
pub struct Settings {
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
    /// `None` where no receiver is named.
    pub fn of(config: &Config) -> Option<Self> {
        let base = || {
            let base = config.otlp_endpoint.as_deref()?;
            Some(match config.otlp_protocol {
                OtlpProtocol::Grpc => base.to_owned(),
                OtlpProtocol::HttpProtobuf => format!("{}/v1/metrics", base.trim_end_matches('/')),
            })
        };
        Some(Self {
            endpoint: config.otlp_metrics_endpoint.clone().or_else(base)?,
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

/// How the exporter fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Data points that the receiver took.
    pub sent: u64,
    /// Data points that it would not take.
    pub rejected: u64,
    /// Data points that were given up because the buffer was full.
    pub dropped: u64,
    /// Requests that failed, those that succeeded later included.
    pub failures: u64,
    /// Bytes that wait to be sent.
    pub waiting_bytes: u64,
}

/// Sends what is published until it is told to stop.
#[derive(Debug)]
pub struct Exporter {
    settings: Settings,
    queue: Queue,
    sent: AtomicU64,
    rejected: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
}

impl Exporter {
    /// One that has sent nothing yet.
    pub fn new(settings: Settings) -> Self {
        let [sent, rejected, dropped, failures] = [0; 4].map(AtomicU64::new);
        Self { settings, queue: Queue::of(BUFFER), sent, rejected, dropped, failures }
    }

    /// How it fares.
    pub fn progress(&self) -> Progress {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            sent: of(&self.sent),
            rejected: of(&self.rejected),
            dropped: of(&self.dropped),
            failures: of(&self.failures),
            waiting_bytes: self.queue.bytes() as u64,
        }
    }

    /// Exports at its pace until `stop` is done, then once more.
    pub(crate) async fn run(
        self: Arc<Self>,
        published: Arc<ArcSwapOption<Published>>,
        limits: Arc<SeriesLimits>,
        scrapes: Arc<Scrapes>,
        stop: impl Future<Output = ()>,
    ) {
        let Settings { temporality, interval, resource_attributes, endpoint, .. } = &self.settings;
        tracing::info!(endpoint, "sending metrics by OTLP");
        let mut builder =
            Builder::new(resource_attributes.clone(), limits, *temporality, clock::since_epoch());
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + *interval, *interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut sending = pin!(self.send_all());
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = &mut sending => break,
                _ = ticks.tick() => {
                    if let Some(published) = published.load_full() {
                        builder = self.build(builder, published, &scrapes).await;
                    }
                }
            }
        }
        // What was being sent when the stop came.
        self.dropped.fetch_add(self.queue.put_back(), Ordering::Relaxed);
        if let Some(published) = published.load_full() {
            self.build(builder, published, &scrapes).await;
        }
        if tokio::time::timeout(LAST_WITHIN, self.send_last()).await.is_err() {
            tracing::warn!("otlp: the receiver does not answer; the last export is lost");
        }
    }

    /// Puts everything that is published into the queue, on a thread that may take its time.
    async fn build(
        self: &Arc<Self>,
        mut builder: Builder,
        published: Arc<Published>,
        scrapes: &Arc<Scrapes>,
    ) -> Builder {
        let (this, scrapes) = (Arc::clone(self), Arc::clone(scrapes));
        let built = tokio::task::spawn_blocking(move || {
            let export = Export {
                published: &published,
                now: Instant::now(),
                now_unix: clock::since_epoch(),
                endpoints: scrapes.others(ENDPOINT),
                progress: this.progress(),
            };
            let counts = builder.build(&export, |batch| {
                this.dropped.fetch_add(this.queue.add(batch), Ordering::Relaxed);
            });
            scrapes.record(ENDPOINT, counts);
            builder
        });
        match built.await {
            Ok(builder) => builder,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Sends what is in the queue, for ever.
    async fn send_all(&self) {
        let mut trouble = Trouble::default();
        let mut transport = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let batch = self.queue.next().await;
            let after = match self.send(&mut transport, batch, &mut trouble).await {
                Sent::Done => {
                    pause = FIRST_PAUSE;
                    continue;
                }
                Sent::Later(after) => after,
            };
            tokio::time::sleep(after.unwrap_or(pause).min(LONGEST_PAUSE).mul_f64(jitter())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends what is in the queue once.
    async fn send_last(&self) {
        let (mut trouble, mut transport) = (Trouble::default(), None);
        while let Some(batch) = self.queue.take() {
            if matches!(self.send(&mut transport, batch, &mut trouble).await, Sent::Later(_)) {
                return;
            }
        }
    }

    async fn send(&self, transport: &mut Option<Transport>, batch: Batch, trouble: &mut Trouble) -> Sent {
        let answer = match self.transport(transport) {
            Ok(transport) => transport.send(batch.bytes).await,
            Err(error) => Answer::Again { after: None, why: format!("{:#}", anyhow::Error::from(error)) },
        };
        let add = |counter: &AtomicU64, count: u64| counter.fetch_add(count, Ordering::Relaxed);
        match answer {
            Answer::Taken { rejected, message } => {
                let rejected = u64::try_from(rejected).unwrap_or(0).min(batch.items);
                add(&self.sent, batch.items - rejected);
                add(&self.rejected, rejected);
                if rejected > 0 {
                    trouble.is(&format!("the receiver rejected {rejected} data points: {message}"));
                } else {
                    trouble.is_over();
                }
                self.queue.done();
                Sent::Done
            }
            Answer::Refused { why } => {
                add(&self.failures, 1);
                add(&self.rejected, batch.items);
                trouble.is(&format!("{} refused a request: {why}", self.settings.endpoint));
                self.queue.done();
                Sent::Done
            }
            Answer::Again { after, why } => {
                add(&self.failures, 1);
                trouble.is(&format!("{} cannot be reached: {why}; trying again", self.settings.endpoint));
                // Certificates may have been renewed, and the receiver may have moved.
                *transport = None;
                let given_up = self.queue.put_back();
                add(&self.dropped, given_up);
                Sent::Later(after)
            }
        }
    }

    fn transport<'a>(&self, transport: &'a mut Option<Transport>) -> Result<&'a Transport, TransportError> {
        match transport {
            Some(transport) => Ok(transport),
            None => Ok(transport.insert(Transport::open(&self.settings)?)),
        }
    }
}

enum Sent {
    Done,
    Later(Option<Duration>),
}

/// A pause is this share of what it should be, so that the agents of many nodes do not come back at once.
fn jitter() -> f64 {
    0.75 + f64::from(clock::since_epoch().subsec_nanos() % 1_000) / 2_000.0
}

/// Says what is wrong once, not each time.
#[derive(Debug, Default)]
struct Trouble(Option<String>);

impl Trouble {
    fn is(&mut self, what: &str) {
        if self.0.as_deref() != Some(what) {
            tracing::warn!("otlp: {what}");
            self.0 = Some(what.to_owned());
        }
    }

    fn is_over(&mut self) {
        if self.0.take().is_some() {
            tracing::info!("otlp: the receiver takes everything again");
        }
    }
}
