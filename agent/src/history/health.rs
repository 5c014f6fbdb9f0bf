//! How the history fares, counted where it happens.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::model::HistoryRow;

/// What becomes a [`HistoryRow`].
#[derive(Debug, Default)]
pub(super) struct Health {
    bytes: AtomicU64,
    failed_writes: AtomicU64,
    lost: AtomicU64,
    damaged: AtomicU64,
    moved_aside: AtomicU64,
}

impl Health {
    /// The size of the files is this now.
    pub(super) fn size(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// A write has failed.
    pub(super) fn failed_write(&self) {
        self.failed_writes.fetch_add(1, Ordering::Relaxed);
    }

    /// So many records were given up.
    pub(super) fn give_up(&self, records: u64) {
        self.lost.fetch_add(records, Ordering::Relaxed);
    }

    /// So many records are damaged that were not known to be.
    pub(super) fn damaged(&self, records: u64) {
        self.damaged.fetch_add(records, Ordering::Relaxed);
    }

    /// A file was kept under another name.
    pub(super) fn moved_aside(&self, path: &Path, moved_to: &Path) {
        self.moved_aside.fetch_add(1, Ordering::Relaxed);
        tracing::error!(path = %path.display(), moved_to = %moved_to.display(), "a file of the history that is damaged or cannot be used was moved aside");
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
