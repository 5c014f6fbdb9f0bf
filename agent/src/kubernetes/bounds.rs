//! Bounds on what the API server may do to the agent: the size of responses, the time to their head, and the rate of requests.
//!
//! A faulty server, or whoever answers in its place, must not cost the agent its memory or the node its CPU time.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, SizeHint},
};
use tokio::{sync::Mutex, time::timeout};
use tower::{BoxError, Layer, Service};

use super::PodWatch;
use crate::rate_limit::RateLimit;

/// Largest page of a list. A page has [`PAGE_PODS`] pods, which are usually 10 to 20 KiB large.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// Largest event of a watch. etcd refuses objects above 1.5 MiB by default.
const MAX_EVENT_BYTES: usize = 4 << 20;
/// Largest response that reports a failure.
const MAX_FAILURE_BYTES: usize = 64 << 10;
/// Pods per page of a list.
pub(super) const PAGE_PODS: u32 = 50;
/// Longest time until the head of a response, connecting included.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Lists and watches of pods: this many at once, then one per interval.
const LISTS: RateLimit = RateLimit::new(8, Duration::from_secs(1));
/// Other requests, such as reads of owners.
const OTHERS: RateLimit = RateLimit::new(50, Duration::from_millis(100));

/// What the bounds refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BoundError {
    /// A response, or an event in it, is too large.
    #[error("{what} is larger than {max} bytes")]
    TooLarge { what: &'static str, max: usize },
    /// No head of a response.
    #[error("the API server does not respond within {0:?}")]
    Hanging(Duration),
}

/// Adds the bounds to a client.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// Longest time until the head of a response.
    pub(super) head_timeout: Duration,
    /// The watch that learns of each response.
    pub(super) watch: Option<Arc<PodWatch>>,
}

impl<S> Layer<S> for Bounds {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded {
            inner: Arc::new(Mutex::new(inner)),
            head_timeout: self.head_timeout,
            watch: self.watch.clone(),
            lists: LISTS,
            others: OTHERS,
        }
    }
}

/// A client with bounds.
pub(super) struct Bounded<S> {
    inner: Arc<Mutex<S>>,
    head_timeout: Duration,
    watch: Option<Arc<PodWatch>>,
    lists: RateLimit,
    others: RateLimit,
}

impl<S, B, R> Service<Request<B>> for Bounded<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = BoxError> + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Send + 'static,
{
    type Response = Response<BoundedBody<R>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let is_watch = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
        let limit = if path.ends_with("/pods") { &mut self.lists } else { &mut self.others };
        let due = limit.reserve(Instant::now());
        let (inner, watch, head_timeout) = (Arc::clone(&self.inner), self.watch.clone(), self.head_timeout);
        Box::pin(async move {
            tokio::time::sleep_until(due.into()).await;
            let response = async move {
                let response = {
                    let mut inner = inner.lock().await;
                    std::future::poll_fn(|context| inner.poll_ready(context)).await?;
                    inner.call(request)
                };
                response.await
            };
            let response =
                timeout(head_timeout, response).await.map_err(|_| BoundError::Hanging(head_timeout))??;
            let budget = match (response.status().is_success(), is_watch) {
                (false, _) => ByteBudget::of_whole("a response that reports a failure", MAX_FAILURE_BYTES),
                (true, false) => ByteBudget::of_whole("a response", MAX_PAGE_BYTES),
                (true, true) => {
                    ByteBudget { is_by_line: true, ..ByteBudget::of_whole("an event", MAX_EVENT_BYTES) }
                }
            };
            if let (true, Some(watch)) = (response.status().is_success(), watch) {
                watch.connected.store(true, Ordering::Relaxed);
            }
            Ok(response.map(|body| BoundedBody { body, budget }))
        })
    }
}

/// The bytes that a body may still have.
#[derive(Clone, Copy, Debug)]
struct ByteBudget {
    what: &'static str,
    max: usize,
    /// Whether each line may have as much.
    is_by_line: bool,
    used: usize,
}

impl ByteBudget {
    const fn of_whole(what: &'static str, max: usize) -> Self {
        Self { what, max, is_by_line: false, used: 0 }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), BoundError> {
        let mut lines = bytes.split(|byte| self.is_by_line && *byte == b'\n');
        // The first piece continues the line of the last chunk.
        let mut longest = self.used + lines.next().map_or(0, <[u8]>::len);
        self.used = longest;
        for line in lines {
            self.used = line.len();
            longest = longest.max(line.len());
        }
        let Self { what, max, .. } = *self;
        if longest > max { Err(BoundError::TooLarge { what, max }) } else { Ok(()) }
    }
}

/// A body with bounds. After an error it has ended.
pub(super) struct BoundedBody<R> {
    body: R,
    budget: ByteBudget,
}

impl<R> fmt::Debug for BoundedBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedBody").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl<R: Body<Data = Bytes> + Unpin> Body for BoundedBody<R>
where
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, budget } = self.get_mut();
        Pin::new(body).poll_frame(context).map(|frame| {
            let frame = match frame? {
                Ok(frame) => frame,
                Err(error) => return Some(Err(error.into())),
            };
            let taken = frame.data_ref().map_or(Ok(()), |bytes| budget.take(bytes));
            Some(taken.map(|()| frame).map_err(BoxError::from))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_body_exceeds_its_bound(
            chunks in prop::collection::vec(prop::collection::vec(prop_oneof![4 => Just(b'a'), 1 => Just(b'\n')], 0..20), 0..20),
            max in 1..60_usize,
            is_by_line: bool,
        ) {
            let mut budget = ByteBudget { is_by_line, ..ByteBudget::of_whole("a body", max) };
            let passed = chunks.iter().take_while(|chunk| budget.take(chunk).is_ok()).count();
            let all: Vec<u8> = chunks[..passed].concat();
            let one_more: Vec<u8> = chunks[..chunks.len().min(passed + 1)].concat();
            let longest = |bytes: &[u8]| match is_by_line {
                true => bytes.split(|byte| *byte == b'\n').map(<[u8]>::len).max().unwrap_or(0),
                false => bytes.len(),
            };
            prop_assert!(longest(&all) <= max);
            prop_assert_eq!(passed < chunks.len(), longest(&one_more) > max);
        }
    }
}
