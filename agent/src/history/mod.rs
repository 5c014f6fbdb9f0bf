//! The history: what the containers of each workload used, by the hour, kept across restarts of the agent.
//!
//! The sampling thread hands evidence over and never waits; one thread writes it; readers see what was written last.

mod error;
mod frame;
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
};

/// Batches that may wait for the writing thread; with more, the sampling thread keeps what it has and merges.
const BATCHES: usize = 4;
/// Records that wait for a disk that takes nothing, before the oldest are given up.
const MAX_WAITING: usize = 20_000;
/// Bytes of records that are kept where there is no directory for them.
const MAX_IN_MEMORY: u64 = 8 << 20;

/// Evidence that is handed over: each piece is of one hour.
pub type Batch = BTreeMap<(Hour, WorkloadKey), Evidence>;

/// What is kept.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Hours.
    pub hours: u32,
    /// Hours whose minutes are kept, too.
    pub hours_by_minute: u32,
    /// Bytes of records.
    pub bytes: u64,
}

/// The history, with the thread that writes it. Dropped, it writes what it was given and ends.
#[derive(Debug)]
pub struct History {
    store: Arc<Store>,
    sink: Sink,
    writer: Option<JoinHandle<()>>,
}

/// Where evidence is handed over.
#[derive(Clone, Debug)]
pub struct Sink {
    batches: SyncSender<Batch>,
    health: Arc<Health>,
}

impl Sink {
    /// One that a test takes from.
    #[cfg(test)]
    pub(crate) fn for_tests() -> (Self, Receiver<Batch>) {
        let (batches, receiver) = mpsc::sync_channel(BATCHES);
        (Self { batches, health: Arc::default() }, receiver)
    }

    /// Takes a batch, or gives it back while others wait to be written.
    ///
    /// # Errors
    /// With the batch.
    pub fn take(&self, batch: Batch) -> Result<(), Batch> {
        match self.batches.try_send(batch) {
            // Nobody writes any more: there is nothing to keep it for.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(batch)) => Err(batch),
        }
    }

    /// Counts records that were given up.
    pub fn give_up(&self, records: u64) {
        self.health.give_up(records);
    }

    /// Takes the last batch, and waits for its turn.
    pub fn take_last(&self, batch: Batch) {
        // Nobody writes any more: there is nothing to wait for.
        let _ = self.batches.send(batch);
    }

    /// How the history fares.
    pub fn row(&self) -> HistoryRow {
        self.health.row()
    }
}

impl History {
    /// Opens the history in a directory, else one in memory, and begins to write. What is wrong with the directory is logged: the agent
    /// measures all the same.
    ///
    /// # Errors
    /// When there is no thread to write it.
    pub fn start(directory: Option<PathBuf>, retention: Retention) -> Result<Self, HistoryError> {
        let on_disk = directory.and_then(|directory| match Store::open(&directory) {
            Ok((store, _)) => Some(store),
            Err(error) => {
                tracing::error!(%error, "the history is kept in memory and ends with this agent");
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

    /// Where evidence is handed over.
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
        // The other sinks are gone by now; with this one the writer ends, when it has written all.
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
    /// The hour in which what is old was removed last.
    pruned: Option<Hour>,
}

impl Writer {
    fn run(mut self, batches: &Receiver<Batch>) {
        let mut waiting: Vec<Evidence> = Vec::new();
        let mut said = false;
        while let Ok(batch) = batches.recv() {
            waiting.extend(batch.into_values());
            match self.store.add(&waiting) {
                Ok(()) => {
                    waiting.clear();
                    if std::mem::take(&mut said) {
                        tracing::info!("the history is written again");
                    }
                }
                Err(error) => {
                    self.health.failed_write();
                    if !std::mem::replace(&mut said, true) {
                        tracing::error!(%error, "the agent goes on measuring and tries again");
                    }
                    self.give_up_oldest(&mut waiting);
                }
            }
            self.prune();
        }
        // A file that was sealed shows where it was cut.
        if let Err(error) = self.store.seal_all() {
            tracing::debug!(%error, "the history is not written anew");
        }
    }

    fn give_up_oldest(&self, waiting: &mut Vec<Evidence>) {
        let beyond = waiting.len().saturating_sub(MAX_WAITING);
        waiting.drain(..beyond);
        self.health.give_up(beyond as u64);
    }

    /// Once an hour.
    fn prune(&mut self) {
        let now = Hour::from_seconds(unix_seconds());
        if self.pruned == Some(now) {
            return;
        }
        let Retention { hours, hours_by_minute, bytes } = self.retention;
        let [by_minute, oldest] = [hours_by_minute, hours].map(|hours| Hour(now.0.saturating_sub(hours)));
        match self.store.prune(by_minute, oldest, bytes) {
            Ok(bytes) => {
                self.health.size(bytes);
                self.pruned = Some(now);
            }
            Err(error) => tracing::debug!(%error, "what is old stays in the history for now"),
        }
    }
}
