//! What waits to be sent: bounded in bytes, the oldest goes first when there is no room.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use hyper::body::Bytes;
use tokio::sync::Notify;

/// A request, encoded.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// The message.
    pub(super) bytes: Bytes,
    /// Data points in it.
    pub(super) items: u64,
}

/// Batches in the order in which they were made.
#[derive(Debug)]
pub(super) struct Queue {
    batches: Mutex<VecDeque<Batch>>,
    most_bytes: usize,
    added: Notify,
}

impl Queue {
    /// One for at most so many bytes.
    pub(super) fn of(most_bytes: usize) -> Self {
        Self { batches: Mutex::default(), most_bytes, added: Notify::new() }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, VecDeque<Batch>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch; returns how many items had to go for it.
    #[must_use]
    pub(super) fn add(&self, batch: Batch) -> u64 {
        let mut batches = self.locked();
        batches.push_back(batch);
        let mut bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
        let mut gone = 0;
        while bytes > self.most_bytes
            && let Some(oldest) = batches.pop_front()
        {
            bytes -= oldest.bytes.len();
            gone += oldest.items;
        }
        drop(batches);
        self.added.notify_one();
        gone
    }

    /// Puts back what could not be sent yet; returns its items if there is no room for it any more.
    #[must_use]
    pub(super) fn put_back(&self, batch: Batch) -> u64 {
        let mut batches = self.locked();
        let bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
        if bytes + batch.bytes.len() > self.most_bytes {
            return batch.items;
        }
        batches.push_front(batch);
        0
    }

    /// The oldest batch.
    pub(super) fn take(&self) -> Option<Batch> {
        self.locked().pop_front()
    }

    /// The oldest batch, as soon as there is one.
    pub(super) async fn next(&self) -> Batch {
        loop {
            if let Some(batch) = self.take() {
                return batch;
            }
            self.added.notified().await;
        }
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.locked().iter().map(|batch| batch.bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(bytes: usize, items: u64) -> Batch {
        Batch { bytes: vec![0; bytes].into(), items }
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let queue = Queue::of(100);
        assert_eq!(queue.add(batch(40, 1)), 0);
        assert_eq!(queue.add(batch(40, 2)), 0);
        assert_eq!(queue.add(batch(40, 4)), 1);
        assert_eq!(queue.bytes(), 80);
        let oldest = queue.take().unwrap();
        assert_eq!(oldest.items, 2);
        assert_eq!(queue.put_back(oldest.clone()), 0);
        assert_eq!(queue.take().unwrap().items, 2);
        assert_eq!(queue.add(batch(30, 8)), 0);
        // Newer ones have taken its room.
        assert_eq!(queue.put_back(oldest), 2);
        assert_eq!(queue.add(batch(101, 16)), 4 + 8 + 16);
        assert!(queue.take().is_none());
    }
}
