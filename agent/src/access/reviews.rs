//! Reviews of tokens by the API server: cached, limited in rate, and closed when it stays away.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Semaphore;

pub use super::cache::ReviewAges;
use super::{
    Denial,
    cache::{Cache, Cached},
    token::Token,
};
use crate::{
    kubernetes::{ReviewError, TokenReviewer, Verdict},
    rate_limit::RateLimit,
    retry::Outage,
};

/// Timeout of a review. Prometheus waits ten seconds for a scrape.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Reviews at the same time, and in a burst and then one per interval: of tokens that were allowed lately, and of all others. The two have limits of
/// their own, so whoever sends made-up tokens cannot keep known clients from being reviewed.
const AT_ONCE: usize = 4;
pub(super) const BURST: u32 = 10;
pub(super) const INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct State {
    cache: Cache,
    known: RateLimit,
    others: RateLimit,
    /// When the last review failed, if none has succeeded since.
    failed: Option<Instant>,
    outage: Outage,
}

/// Numbers of reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReviewCounts {
    /// The API server was asked.
    pub made: u64,
    /// It was asked and gave no verdict.
    pub failed: u64,
}

/// Reviews tokens.
#[derive(Debug)]
pub struct Reviews {
    reviewer: TokenReviewer,
    state: Mutex<State>,
    known_at_once: Semaphore,
    others_at_once: Semaphore,
    made: AtomicU64,
    failures: AtomicU64,
}

impl Reviews {
    /// Connects to the API server when the first token comes.
    pub fn new(reviewer: TokenReviewer, ages: ReviewAges) -> Self {
        let limit = RateLimit::new(BURST, INTERVAL);
        let state = State {
            cache: Cache::new(ages),
            known: limit,
            others: limit,
            failed: None,
            outage: Outage::default(),
        };
        Self {
            reviewer,
            state: Mutex::new(state),
            known_at_once: Semaphore::new(AT_ONCE),
            others_at_once: Semaphore::new(AT_ONCE),
            made: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Reviews so far.
    pub fn counts(&self) -> ReviewCounts {
        ReviewCounts {
            made: self.made.load(Ordering::Relaxed),
            failed: self.failures.load(Ordering::Relaxed),
        }
    }

    pub(super) async fn authorize(&self, token: &Token) -> Result<(), Denial> {
        let digest = token.digest();
        let cached = |now| self.state().cache.get(&digest, now, SystemTime::now());
        let now = Instant::now();
        let before = cached(now);
        if let Cached::Fresh(verdict) = before {
            return answer(verdict);
        }
        let was_allowed = before == Cached::WasAllowed;
        if !self.may_review(was_allowed, now) {
            return if was_allowed { Ok(()) } else { Err(Denial::Unavailable) };
        }
        let at_once = if was_allowed { &self.known_at_once } else { &self.others_at_once };
        let Ok(_permit) = at_once.acquire().await else { return Err(Denial::Unavailable) };
        // While this request waited, another may have had the same token reviewed.
        if let Cached::Fresh(verdict) = cached(Instant::now()) {
            return answer(verdict);
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        let reviewed = tokio::time::timeout(TIMEOUT, self.reviewer.review(token.as_str())).await;
        match reviewed.unwrap_or(Err(ReviewError::Timeout(TIMEOUT))) {
            Ok(verdict) => {
                let mut state = self.state();
                state.failed = None;
                state.cache.insert(token, verdict, Instant::now());
                if state.outage.end() {
                    tracing::info!("tokens are reviewed again");
                }
                drop(state);
                answer(verdict)
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let mut state = self.state();
                state.failed = Some(Instant::now());
                let cause = state.outage.new_cause(&error);
                drop(state);
                if let Some(error) = cause {
                    tracing::warn!(
                        error,
                        "tokens of clients cannot be reviewed; those allowed lately may still read, others may not"
                    );
                }
                // The token may have expired meanwhile.
                if was_allowed && cached(Instant::now()) == Cached::WasAllowed {
                    Ok(())
                } else {
                    Err(Denial::Unavailable)
                }
            }
        }
    }

    fn may_review(&self, was_allowed: bool, now: Instant) -> bool {
        let mut state = self.state();
        let pauses =
            state.failed.is_some_and(|failed| now.saturating_duration_since(failed) < state.cache.ages.retry);
        let limit = if was_allowed { &mut state.known } else { &mut state.others };
        !pauses && limit.take(now)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn answer(verdict: Verdict) -> Result<(), Denial> {
    match verdict {
        Verdict::Allowed => Ok(()),
        Verdict::Forbidden => Err(Denial::Forbidden),
        Verdict::Unknown => Err(Denial::Unauthenticated),
    }
}
