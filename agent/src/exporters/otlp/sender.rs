//! Sends queued batches in order, and retries each until the receiver accepts or refuses it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use backon::BackoffBuilder as _;

use super::{
    Settings,
    queue::{Batch, Queue},
    transport::{Answer, Transport, TransportError},
};
use crate::{
    config::without_secrets,
    exporters::series::Progress,
    messages,
    retry::{self, Outage},
};

/// Maximum bytes in the queue: half an hour of a full node with one export each minute.
const MAX_QUEUE_BYTES: usize = 16 << 20;
/// The first and the maximum pause before a retry.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Timeout of the last export when the agent stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Sends the batches of one signal.
#[derive(Debug)]
pub(super) struct Sender {
    settings: Settings,
    queue: Queue,
    sent: AtomicU64,
    rejected: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
}

impl Sender {
    /// A sender with an empty queue.
    pub(super) fn new(settings: Settings) -> Self {
        let [sent, rejected, dropped, failures] = [0; 4].map(AtomicU64::new);
        Self { settings, queue: Queue::new(MAX_QUEUE_BYTES), sent, rejected, dropped, failures }
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The counters of the sender.
    pub(super) fn progress(&self) -> Progress {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            sent: load(&self.sent),
            rejected: load(&self.rejected),
            dropped: load(&self.dropped),
            failures: load(&self.failures),
            waiting_bytes: self.queue.bytes() as u64,
        }
    }

    /// Adds a batch to the queue.
    pub(super) fn add(&self, batch: Batch) {
        self.give_up(self.queue.add(batch));
    }

    /// Counts items that will not be sent.
    pub(super) fn give_up(&self, items: u64) {
        self.dropped.fetch_add(items, Ordering::Relaxed);
    }

    /// Returns the batch that was being sent to the queue, after sending was stopped.
    pub(super) fn put_back(&self) {
        self.give_up(self.queue.put_back());
    }

    /// Sends the rest of the queue when the agent stops.
    pub(super) async fn finish(&self) {
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.send_last()).await.is_err() {
            tracing::warn!(
                endpoint = without_secrets(&self.settings.endpoint),
                "otlp: the receiver does not respond; the last export is lost"
            );
        }
    }

    /// Sends batches from the queue, forever.
    pub(super) async fn send_all(&self) {
        let (mut outage, mut transport) = (Outage::default(), None);
        let pauses = retry::pauses(FIRST_PAUSE, MAX_PAUSE);
        let mut left = pauses.build();
        loop {
            let batch = self.queue.next().await;
            let pause = match self.send(&mut transport, batch, &mut outage).await {
                Sent::Done => {
                    left = pauses.build();
                    continue;
                }
                Sent::Later(None) => left.next(),
                Sent::Later(Some(after)) => retry::pauses(after.min(MAX_PAUSE), MAX_PAUSE).build().next(),
            };
            tokio::time::sleep(pause.unwrap_or(MAX_PAUSE)).await;
        }
    }

    /// Sends all batches in the queue once.
    async fn send_last(&self) {
        let (mut outage, mut transport) = (Outage::default(), None);
        while let Some(batch) = self.queue.take() {
            if matches!(self.send(&mut transport, batch, &mut outage).await, Sent::Later(_)) {
                return;
            }
        }
    }

    async fn send(&self, transport: &mut Option<Transport>, batch: Batch, outage: &mut Outage) -> Sent {
        let answer = match self.transport(transport) {
            Ok(transport) => transport.send(batch.bytes).await,
            Err(error) => Answer::Retry { after: None, why: messages::chain(&error) },
        };
        let add = |counter: &AtomicU64, count: u64| counter.fetch_add(count, Ordering::Relaxed);
        match answer {
            Answer::Taken { rejected, message } => {
                let rejected = u64::try_from(rejected).unwrap_or(0).min(batch.items);
                add(&self.sent, batch.items - rejected);
                add(&self.rejected, rejected);
                if rejected > 0 {
                    warn(outage, format!("the receiver rejected {rejected} items: {message}"));
                } else if outage.end() {
                    tracing::info!("otlp: the receiver accepts all items again");
                }
                self.queue.done();
                Sent::Done
            }
            Answer::Refused { why } => {
                add(&self.failures, 1);
                add(&self.rejected, batch.items);
                let endpoint = without_secrets(&self.settings.endpoint);
                warn(outage, format!("{endpoint} refused a request: {why}"));
                self.queue.done();
                Sent::Done
            }
            Answer::Retry { after, why } => {
                add(&self.failures, 1);
                let endpoint = without_secrets(&self.settings.endpoint);
                warn(outage, format!("{endpoint} cannot be reached: {why}; retrying"));
                // Reconnect: certificates may have been renewed, and the receiver may have moved.
                *transport = None;
                self.put_back();
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

fn warn(outage: &mut Outage, problem: String) {
    if let Some(problem) = outage.new_text(problem) {
        tracing::warn!("otlp: {problem}");
    }
}
