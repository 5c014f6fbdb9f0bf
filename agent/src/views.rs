//! The last view of the store, and how a reader asks for a newer one.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;

use crate::model::Published;

/// How long a reader waits for a newer view. The thread that writes them may be busy with files for some milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where the sampling thread leaves its views, and readers find them.
#[derive(Debug, Default)]
pub struct CurrentView {
    last: ArcSwapOption<Published>,
    /// Counts those who wish for a newer one; there once somebody listens.
    wishes: OnceLock<OwnedFd>,
    published: Notify,
}

impl CurrentView {
    /// With a view that nobody will renew.
    #[must_use]
    pub fn of(published: Option<Published>) -> Self {
        Self { last: ArcSwapOption::from_pointee(published), ..Self::default() }
    }

    /// The last view; `None` before the first. At most a second old while the agent samples.
    pub fn last(&self) -> Option<Arc<Published>> {
        self.last.load_full()
    }

    /// A view of what is known now, where somebody listens; the last one if that takes too long.
    pub async fn newest(&self) -> Option<Arc<Published>> {
        if let Some(wishes) = self.wishes.get() {
            let mut published = pin!(self.published.notified());
            // Before the wish: its answer may come at once.
            published.as_mut().enable();
            if rustix::io::write(wishes, &1_u64.to_ne_bytes()).is_ok() {
                let _ = tokio::time::timeout(PATIENCE, published).await;
            }
        }
        self.last()
    }

    /// Leaves a view. Returns the one before if nobody reads it any more.
    pub(crate) fn publish(&self, view: Published) -> Option<Published> {
        let before = self.last.swap(Some(Arc::new(view)));
        self.published.notify_waiters();
        before.and_then(Arc::into_inner)
    }

    /// Listens to wishes from now on: readable when there is one.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(crate) fn listen(&self) -> io::Result<()> {
        let wishes = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Who listens already goes on.
        let _ = self.wishes.set(wishes);
        Ok(())
    }

    /// What becomes readable with a wish.
    pub(crate) fn wishes(&self) -> Option<BorrowedFd<'_>> {
        self.wishes.get().map(OwnedFd::as_fd)
    }

    /// Whether somebody wished for a newer view since this was last asked.
    pub(crate) fn take_wishes(&self) -> bool {
        let mut count = [0; size_of::<u64>()];
        self.wishes.get().is_some_and(|wishes| rustix::io::read(wishes, &mut count).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::{model::AgentRow, store::Store};

    fn view(at: Instant) -> Published {
        Store::new(1).publish(AgentRow::default(), at)
    }

    #[tokio::test]
    async fn a_wish_is_answered_with_what_is_published_after_it() {
        let views = Arc::new(CurrentView::default());
        views.listen().unwrap();
        assert!(!views.take_wishes());
        let started = Instant::now();
        assert!(views.publish(view(started)).is_none());
        let sampler = Arc::clone(&views);
        let thread = thread::spawn(move || {
            let wishes = PollFd::from_borrowed_fd(sampler.wishes().unwrap(), PollFlags::IN);
            poll(&mut [wishes], None).unwrap();
            assert!(sampler.take_wishes() && !sampler.take_wishes());
            drop(sampler.publish(view(Instant::now())));
        });
        assert_eq!(views.last().unwrap().at, started);
        let newest = views.newest().await.unwrap();
        assert!(newest.at > started);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn who_gets_no_answer_has_the_last_view() {
        let at = Instant::now();
        let views = CurrentView::of(Some(view(at)));
        assert_eq!(views.newest().await.unwrap().at, at, "nobody listens");
        views.listen().unwrap();
        assert_eq!(views.newest().await.unwrap().at, at, "nobody answers");
        assert!(views.take_wishes());
        assert!(CurrentView::default().newest().await.is_none());
    }

    #[test]
    fn a_view_that_is_read_is_the_readers_to_drop() {
        let views = CurrentView::of(Some(view(Instant::now())));
        let read = views.last();
        assert!(views.publish(view(Instant::now())).is_none());
        drop(read);
        assert!(views.publish(view(Instant::now())).is_some());
    }
}
