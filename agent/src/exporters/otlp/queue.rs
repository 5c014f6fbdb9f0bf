//! The queue of requests, bounded in bytes. When it is full, the oldest batches are dropped.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hyper::body::Bytes;
use tokio::sync::Notify;

/// An encoded request.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// The message.
    pub(super) bytes: Bytes,
    /// Data points or log records in the request.
    pub(super) items: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    /// The batch that is being sent. It stays here if sending is cancelled.
    in_flight: Option<Batch>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.bytes.len()).sum()
    }
}

/// Batches in the order of their creation.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    max_bytes: usize,
    added: Notify,
}

impl Queue {
    /// An empty queue for at most `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { waiting: Mutex::default(), max_bytes, added: Notify::new() }
    }

    fn locked(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch. Returns the number of items that were dropped to make space.
    #[must_use]
    pub(super) fn add(&self, batch: Batch) -> u64 {
        let mut waiting = self.locked();
        waiting.batches.push_back(batch);
        let mut bytes = waiting.bytes();
        let mut gone = 0;
        while bytes > self.max_bytes
            && let Some(oldest) = waiting.batches.pop_front()
        {
            bytes -= oldest.bytes.len();
            gone += oldest.items;
        }
        drop(waiting);
        self.added.notify_one();
        gone
    }

    /// Takes the oldest batch for sending.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut waiting = self.locked();
        waiting.in_flight = waiting.batches.pop_front();
        waiting.in_flight.clone()
    }

    /// Waits for a batch, and takes the oldest for sending.
    pub(super) async fn next(&self) -> Batch {
        loop {
            if let Some(batch) = self.take() {
                return batch;
            }
            self.added.notified().await;
        }
    }

    /// Removes the batch that was taken: it was sent, or never will be.
    pub(super) fn done(&self) {
        self.locked().in_flight = None;
    }

    /// Returns the batch that was taken to the queue. Returns the number of its items if there is no space for it.
    #[must_use]
    pub(super) fn put_back(&self) -> u64 {
        let mut waiting = self.locked();
        let Some(batch) = waiting.in_flight.take() else { return 0 };
        if waiting.bytes() + batch.bytes.len() > self.max_bytes {
            return batch.items;
        }
        waiting.batches.push_front(batch);
        0
    }

    /// Bytes in the queue, including the batch that is being sent.
    pub(super) fn bytes(&self) -> usize {
        let waiting = self.locked();
        waiting.bytes() + waiting.in_flight.as_ref().map_or(0, |batch| batch.bytes.len())
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
        let queue = Queue::new(100);
        assert_eq!(queue.add(batch(40, 1)), 0);
        assert_eq!(queue.add(batch(40, 2)), 0);
        assert_eq!(queue.add(batch(40, 4)), 1);
        assert_eq!(queue.bytes(), 80);
        assert_eq!(queue.take().unwrap().items, 2);
        assert_eq!(queue.bytes(), 80, "the batch that is being sent still counts");
        assert_eq!(queue.put_back(), 0);
        assert_eq!(queue.take().unwrap().items, 2);
        queue.done();
        assert_eq!(queue.take().unwrap().items, 4);
        assert_eq!(queue.add(batch(70, 8)), 0);
        // A newer batch has taken its space.
        assert_eq!((queue.put_back(), queue.put_back()), (4, 0));
        assert_eq!(queue.add(batch(101, 16)), 8 + 16);
        assert!(queue.take().is_none());
    }
}
