//! What waits to be sent: bounded in bytes, the oldest goes first when there is no room.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
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

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    /// The one that is being sent. It is still here when sending it is given up half-way.
    in_flight: Option<Batch>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.bytes.len()).sum()
    }
}

/// Batches in the order in which they were made.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    most_bytes: usize,
    added: Notify,
}

impl Queue {
    /// One for at most so many bytes.
    pub(super) fn of(most_bytes: usize) -> Self {
        Self { waiting: Mutex::default(), most_bytes, added: Notify::new() }
    }

    fn locked(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch; returns how many items had to go for it.
    #[must_use]
    pub(super) fn add(&self, batch: Batch) -> u64 {
        let mut waiting = self.locked();
        waiting.batches.push_back(batch);
        let mut bytes = waiting.bytes();
        let mut gone = 0;
        while bytes > self.most_bytes
            && let Some(oldest) = waiting.batches.pop_front()
        {
            bytes -= oldest.bytes.len();
            gone += oldest.items;
        }
        drop(waiting);
        self.added.notify_one();
        gone
    }

    /// The oldest batch, to be sent.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut waiting = self.locked();
        waiting.in_flight = waiting.batches.pop_front();
        waiting.in_flight.clone()
    }

    /// The oldest batch, to be sent, as soon as there is one.
    pub(super) async fn next(&self) -> Batch {
        loop {
            if let Some(batch) = self.take() {
                return batch;
            }
            self.added.notified().await;
        }
    }

    /// What was taken has been sent, or will never be.
    pub(super) fn done(&self) {
        self.locked().in_flight = None;
    }

    /// What was taken could not be sent yet; returns its items if there is no room for it any more.
    #[must_use]
    pub(super) fn put_back(&self) -> u64 {
        let mut waiting = self.locked();
        let Some(batch) = waiting.in_flight.take() else { return 0 };
        if waiting.bytes() + batch.bytes.len() > self.most_bytes {
            return batch.items;
        }
        waiting.batches.push_front(batch);
        0
    }

    /// Bytes that wait, what is being sent included.
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
        let queue = Queue::of(100);
        assert_eq!(queue.add(batch(40, 1)), 0);
        assert_eq!(queue.add(batch(40, 2)), 0);
        assert_eq!(queue.add(batch(40, 4)), 1);
        assert_eq!(queue.bytes(), 80);
        assert_eq!(queue.take().unwrap().items, 2);
        assert_eq!(queue.bytes(), 80, "what is being sent is not gone yet");
        assert_eq!(queue.put_back(), 0);
        assert_eq!(queue.take().unwrap().items, 2);
        queue.done();
        assert_eq!(queue.take().unwrap().items, 4);
        assert_eq!(queue.add(batch(70, 8)), 0);
        // A newer one has taken its room.
        assert_eq!((queue.put_back(), queue.put_back()), (4, 0));
        assert_eq!(queue.add(batch(101, 16)), 8 + 16);
        assert!(queue.take().is_none());
    }
}
