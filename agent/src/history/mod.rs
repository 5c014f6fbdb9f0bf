//! The usage history of the containers of each workload, by the hour, kept across restarts of the agent.
//!
//! The sampling thread hands usage history ([`Evidence`]) to a [`Sink`] and never waits. One thread writes it. Readers see
//! the last write.

mod error;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod health;
mod medium;
mod migration;
mod open;
mod record;
#[cfg(test)]
mod samples;
mod segment;
mod store;
mod view;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
};

use snug_sizing::evidence::{Evidence, Hour};

use self::health::Health;
pub use self::{
    error::HistoryError,
    migration::convert_if_asked,
    store::{DIRECTORY, Store},
    view::{Hours, Records},
};
use crate::{
    clock::unix_seconds,
    model::{HistoryRow, WorkloadKey},
    retry::Outage,
};

/// The maximum number of batches in the queue of the writing thread. If the queue is full, the sampling thread keeps its batch
/// and merges later usage into it.
const BATCHES: usize = 4;
/// The maximum number of records that wait while writes fail. Beyond it, the oldest are dropped.
const MAX_WAITING: usize = 20_000;
/// The maximum size of a history in memory, bytes.
const MAX_IN_MEMORY: u64 = 8 << 20;

/// Usage history of containers, each item of one hour.
pub type Batch = BTreeMap<(Hour, WorkloadKey), Evidence>;

/// How much history is kept.
#[derive(Clone, Debug)]
pub struct Retention {
    pub hours: u32,
    pub hours_by_minute: u32,
    /// Bytes of records.
    pub bytes: u64,
}

/// Days that the age of records can cost at once. The clock may be wrong: a step of a year must not cost the history of a year.
const MAX_DAYS_AT_ONCE: u32 = 2;

impl Retention {
    /// The first hour that is kept, by the time of the clock and the first day of the history.
    fn oldest(&self, now: Hour, first_day: Option<u32>) -> Hour {
        let by_age = Hour(now.0.saturating_sub(self.hours));
        let reachable =
            first_day.map(|day| Hour(day.saturating_add(MAX_DAYS_AT_ONCE).saturating_mul(segment::HOURS)));
        reachable.map_or(by_age, |reachable| by_age.min(reachable))
    }
}

/// The history and the thread that writes it. When dropped, it writes all queued batches and stops the thread.
#[derive(Debug)]
pub struct History {
    store: Arc<Store>,
    sink: Sink,
    writer: Option<JoinHandle<()>>,
}

/// The queue of the writing thread.
#[derive(Clone, Debug)]
pub struct Sink {
    batches: SyncSender<Batch>,
    health: Arc<Health>,
}

impl Sink {
    /// A sink whose batches a test receives.
    #[cfg(test)]
    pub(crate) fn for_tests() -> (Self, Receiver<Batch>) {
        let (batches, receiver) = mpsc::sync_channel(BATCHES);
        (Self { batches, health: Arc::default() }, receiver)
    }

    /// Queues a batch.
    ///
    /// # Errors
    /// Returns the batch if the queue is full.
    pub fn take(&self, batch: Batch) -> Result<(), Batch> {
        match self.batches.try_send(batch) {
            // Without a writing thread there is no reason to keep the batch.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(batch)) => Err(batch),
        }
    }

    /// Counts dropped records.
    pub fn give_up(&self, records: u64) {
        self.health.drop_records(records);
    }

    /// Queues the last batch, and waits while the queue is full.
    pub fn take_last(&self, batch: Batch) {
        // Without a writing thread there is no reason to wait.
        let _ = self.batches.send(batch);
    }

    /// The state of the history.
    pub fn row(&self) -> HistoryRow {
        self.health.row()
    }
}

impl History {
    /// Opens the history in `directory` and starts the writing thread. If the directory cannot be used, the error is logged and
    /// the history is kept in memory.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(directory: Option<PathBuf>, retention: Retention) -> Result<Self, HistoryError> {
        let on_disk = directory.and_then(|directory| match Store::open(&directory) {
            Ok((store, _)) => Some(store),
            Err(error) => {
                tracing::error!(%error, "the history is kept in memory and is lost when the agent stops");
                None
            }
        });
        let retention = match on_disk {
            Some(_) => retention,
            None => Retention { bytes: retention.bytes.min(MAX_IN_MEMORY), ..retention },
        };
        let store = Arc::new(on_disk.unwrap_or_else(Store::in_memory));
        let health = store.health();
        let (batches, receiver) = mpsc::sync_channel(BATCHES);
        let writer = Writer { store: store.clone(), health: health.clone(), retention, pruned: None };
        let writer = thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(HistoryError::Thread)?;
        Ok(Self { store, sink: Sink { batches, health }, writer: Some(writer) })
    }

    /// The queue of the writing thread.
    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// The records.
    pub fn store(&self) -> Arc<Store> {
        self.store.clone()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        // The other sinks are dropped already. Without this one the writing thread stops after the last batch.
        self.sink.batches = mpsc::sync_channel(1).0;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

struct Writer {
    store: Arc<Store>,
    health: Arc<Health>,
    retention: Retention,
    /// The hour of the last pruning.
    pruned: Option<Hour>,
}

impl Writer {
    fn run(mut self, batches: &Receiver<Batch>) {
        let mut waiting: Vec<Evidence> = Vec::new();
        let mut outage = Outage::default();
        while let Ok(batch) = batches.recv() {
            waiting.extend(batch.into_values());
            match self.store.add(&waiting) {
                Ok(()) => {
                    waiting.clear();
                    if outage.end() {
                        tracing::info!("the history is written again");
                    }
                }
                Err(error) => {
                    self.health.failed_write();
                    if let Some(error) = outage.new_cause(&error) {
                        tracing::error!(
                            error,
                            "the history cannot be written; the agent continues to measure and will retry"
                        );
                    }
                    self.drop_oldest(&mut waiting);
                }
            }
            self.prune();
        }
        // Only for a sealed file can a later truncation be detected.
        if let Err(error) = self.store.seal_all() {
            tracing::debug!(%error, "the files of the history are not rewritten");
        }
    }

    fn drop_oldest(&self, waiting: &mut Vec<Evidence>) {
        let beyond = waiting.len().saturating_sub(MAX_WAITING);
        waiting.drain(..beyond);
        self.health.drop_records(beyond as u64);
    }

    /// Removes old records, once an hour.
    fn prune(&mut self) {
        let now = Hour::from_seconds(unix_seconds());
        if self.pruned == Some(now) {
            return;
        }
        let by_minute = Hour(now.0.saturating_sub(self.retention.hours_by_minute));
        let oldest = self.retention.oldest(now, self.store.first_day());
        match self.store.prune(by_minute, oldest, self.retention.bytes) {
            Ok(bytes) => {
                self.health.size(bytes);
                self.pruned = Some(now);
            }
            Err(error) => tracing::debug!(%error, "old records cannot be removed from the history yet"),
        }
    }
}

#[cfg(test)]
mod tests;
