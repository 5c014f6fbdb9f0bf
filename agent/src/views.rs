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

use crate::model::View;

/// How long a reader waits for a newer view. The thread that writes them may be busy with files for some milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where the sampling thread leaves its views, and readers find them.
#[derive(Debug, Default)]
pub struct CurrentView {
    last: ArcSwapOption<View>,
    /// Counts the requests for a newer view; there once the sampling thread listens.
    refresh_requests: OnceLock<OwnedFd>,
    published: Notify,
}

impl CurrentView {
    /// With a view that no sampling thread will renew.
    #[must_use]
    pub fn of(published: Option<View>) -> Self {
        Self { last: ArcSwapOption::from_pointee(published), ..Self::default() }
    }

    /// The last view; `None` before the first. At most a second old while the agent samples.
    pub fn last(&self) -> Option<Arc<View>> {
        self.last.load_full()
    }

    /// A view that is published after this call, where a sampling thread listens; the last one if that takes too long.
    pub async fn newest(&self) -> Option<Arc<View>> {
        if let Some(refresh_requests) = self.refresh_requests.get() {
            let mut published = pin!(self.published.notified());
            // Before the request: its answer may come at once.
            published.as_mut().enable();
            if rustix::io::write(refresh_requests, &1_u64.to_ne_bytes()).is_ok() {
                let _ = tokio::time::timeout(PATIENCE, published).await;
            }
        }
        self.last()
    }

    /// Leaves a view. Returns the one before if nobody reads it any more.
    pub(crate) fn publish(&self, view: View) -> Option<View> {
        let before = self.last.swap(Some(Arc::new(view)));
        self.published.notify_waiters();
        before.and_then(Arc::into_inner)
    }

    /// Takes refresh requests from now on.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(crate) fn listen(&self) -> io::Result<()> {
        let refresh_requests = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Who listens already goes on.
        let _ = self.refresh_requests.set(refresh_requests);
        Ok(())
    }

    /// Becomes readable with a refresh request.
    pub(crate) fn refresh_requests(&self) -> Option<BorrowedFd<'_>> {
        self.refresh_requests.get().map(OwnedFd::as_fd)
    }

    /// Whether there were refresh requests since this was last called.
    pub(crate) fn take_refresh_requests(&self) -> bool {
        let mut count = [0; size_of::<u64>()];
        self.refresh_requests
            .get()
            .is_some_and(|refresh_requests| rustix::io::read(refresh_requests, &mut count).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::{model::AgentRow, store::Store};

    fn view(at: Instant) -> View {
        Store::new(1).publish(AgentRow::default(), at)
    }

    #[tokio::test]
    async fn a_refresh_request_is_answered_with_a_view_published_after_it() {
        let views = Arc::new(CurrentView::default());
        views.listen().unwrap();
        assert!(!views.take_refresh_requests());
        let started = Instant::now();
        assert!(views.publish(view(started)).is_none());
        let sampler = Arc::clone(&views);
        let thread = thread::spawn(move || {
            let refresh_requests =
                PollFd::from_borrowed_fd(sampler.refresh_requests().unwrap(), PollFlags::IN);
            poll(&mut [refresh_requests], None).unwrap();
            assert!(sampler.take_refresh_requests() && !sampler.take_refresh_requests());
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
        assert!(views.take_refresh_requests());
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
