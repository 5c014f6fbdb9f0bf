//! Shares the last view of the store. Readers can request a newer one.

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

/// How long a reader waits for a newer view. The sampling thread may be busy reading files for some milliseconds.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(500);

/// The last view. The sampling thread replaces it, readers load it.
#[derive(Debug, Default)]
pub struct CurrentView {
    last: ArcSwapOption<View>,
    /// An eventfd that counts requests for a newer view; set once the sampling thread listens.
    refresh_requests: OnceLock<OwnedFd>,
    replaced: Notify,
}

impl CurrentView {
    /// Starts with `view`, before any sampling thread listens.
    #[must_use]
    pub fn from_view(view: Option<View>) -> Self {
        Self { last: ArcSwapOption::from_pointee(view), ..Self::default() }
    }

    /// The last view; `None` before the first. At most a second old while the agent samples.
    pub fn last(&self) -> Option<Arc<View>> {
        self.last.load_full()
    }

    /// A view that is newer than this call, if a sampling thread answers the request in time; else the last one.
    pub async fn newest(&self) -> Option<Arc<View>> {
        if let Some(refresh_requests) = self.refresh_requests.get() {
            let mut replaced = pin!(self.replaced.notified());
            // Before the request: the new view may be there at once.
            replaced.as_mut().enable();
            if rustix::io::write(refresh_requests, &1_u64.to_ne_bytes()).is_ok() {
                let _ = tokio::time::timeout(REFRESH_TIMEOUT, replaced).await;
            }
        }
        self.last()
    }

    /// Replaces the view. Returns the previous one if it has no readers.
    pub(crate) fn publish(&self, view: View) -> Option<View> {
        let before = self.last.swap(Some(Arc::new(view)));
        self.replaced.notify_waiters();
        before.and_then(Arc::into_inner)
    }

    /// Starts accepting refresh requests.
    ///
    /// # Errors
    /// When no file descriptor can be created.
    pub(crate) fn listen(&self) -> io::Result<()> {
        let refresh_requests = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // A second call changes nothing.
        let _ = self.refresh_requests.set(refresh_requests);
        Ok(())
    }

    /// A descriptor that is readable while there are refresh requests.
    pub(crate) fn refresh_requests(&self) -> Option<BorrowedFd<'_>> {
        self.refresh_requests.get().map(OwnedFd::as_fd)
    }

    /// Whether there were refresh requests since the last call.
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
        Store::new(1).build_view(AgentRow::default(), at)
    }

    #[tokio::test]
    async fn a_refresh_request_is_answered_with_a_newer_view() {
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
    async fn without_an_answer_the_last_view_is_returned() {
        let at = Instant::now();
        let views = CurrentView::from_view(Some(view(at)));
        assert_eq!(views.newest().await.unwrap().at, at, "nobody listens");
        views.listen().unwrap();
        assert_eq!(views.newest().await.unwrap().at, at, "nobody answers");
        assert!(views.take_refresh_requests());
        assert!(CurrentView::default().newest().await.is_none());
    }

    #[test]
    fn a_view_with_readers_is_not_returned_for_reuse() {
        let views = CurrentView::from_view(Some(view(Instant::now())));
        let read = views.last();
        assert!(views.publish(view(Instant::now())).is_none());
        drop(read);
        assert!(views.publish(view(Instant::now())).is_some());
    }
}
