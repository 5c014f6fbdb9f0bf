//! Counters of the history's state.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::model::HistoryRow;

/// The counters of a [`HistoryRow`].
#[derive(Debug, Default)]
pub(super) struct Health {
    bytes: AtomicU64,
    failed_writes: AtomicU64,
    lost: AtomicU64,
    damaged: AtomicU64,
    moved_aside: AtomicU64,
}

impl Health {
    /// Sets the size of the files.
    pub(super) fn size(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Counts a failed write.
    pub(super) fn failed_write(&self) {
        self.failed_writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts dropped records.
    pub(super) fn drop_records(&self, records: u64) {
        self.lost.fetch_add(records, Ordering::Relaxed);
    }

    /// Counts newly found damaged records.
    pub(super) fn damaged(&self, records: u64) {
        self.damaged.fetch_add(records, Ordering::Relaxed);
    }

    /// Counts and logs a file that was moved aside.
    pub(super) fn moved_aside(&self, path: &Path, moved_to: &Path) {
        self.moved_aside.fetch_add(1, Ordering::Relaxed);
        tracing::error!(path = %path.display(), moved_to = %moved_to.display(), "a damaged or unusable file of the history was moved aside");
    }

    pub(super) fn row(&self) -> HistoryRow {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        HistoryRow {
            bytes: of(&self.bytes),
            failed_writes: of(&self.failed_writes),
            lost: of(&self.lost),
            damaged: of(&self.damaged),
            moved_aside: of(&self.moved_aside),
        }
    }
}
