//! Verdicts of the API server by token.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use super::token::{Token, TokenDigest};
use crate::kubernetes::Verdict;

/// Maximum number of tokens with each verdict. Above it the oldest verdict is forgotten, so refused tokens never displace allowed ones.
const MAX_EACH: usize = 256;

/// How long verdicts hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReviewAges {
    /// Verdicts that allow.
    pub allowed: Duration,
    /// Verdicts that deny.
    pub denied: Duration,
    /// Verdicts that allow, while the API server does not answer. Not shorter than `allowed`.
    pub outage: Duration,
    /// After a review that failed, no other is tried for this time.
    pub retry: Duration,
}

#[derive(Debug)]
struct Entry {
    verdict: Verdict,
    reviewed: Instant,
    /// When the token itself expires.
    expires: Option<SystemTime>,
}

/// What the cache has for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cached {
    /// A verdict that holds.
    Fresh(Verdict),
    /// The token was allowed lately, which holds during an outage only.
    WasAllowed,
    /// Nothing.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Cache {
    pub(super) ages: ReviewAges,
    entries: HashMap<TokenDigest, Entry>,
}

impl Cache {
    pub(super) fn new(ages: ReviewAges) -> Self {
        Self { ages, entries: HashMap::new() }
    }

    pub(super) fn get(&self, digest: &TokenDigest, now: Instant, wall: SystemTime) -> Cached {
        let Some(entry) = self.entries.get(digest) else { return Cached::Unknown };
        let age = now.saturating_duration_since(entry.reviewed);
        let has_expired = entry.expires.is_some_and(|expires| wall >= expires);
        match entry.verdict {
            Verdict::Allowed if has_expired => Cached::Unknown,
            Verdict::Allowed if age < self.ages.allowed => Cached::Fresh(Verdict::Allowed),
            Verdict::Allowed if age < self.ages.outage => Cached::WasAllowed,
            verdict if verdict != Verdict::Allowed && age < self.ages.denied => Cached::Fresh(verdict),
            _ => Cached::Unknown,
        }
    }

    pub(super) fn insert(&mut self, token: &Token, verdict: Verdict, now: Instant) {
        let digest = token.digest();
        self.entries.remove(&digest);
        let is_allowed = verdict == Verdict::Allowed;
        let same =
            || self.entries.iter().filter(|(_, entry)| (entry.verdict == Verdict::Allowed) == is_allowed);
        if same().count() >= MAX_EACH
            && let Some(oldest) = same().min_by_key(|(_, entry)| entry.reviewed).map(|(digest, _)| *digest)
        {
            self.entries.remove(&oldest);
        }
        self.entries.insert(digest, Entry { verdict, reviewed: now, expires: token.expires() });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGES: ReviewAges = ReviewAges {
        allowed: Duration::from_secs(120),
        denied: Duration::from_secs(10),
        outage: Duration::from_secs(600),
        retry: Duration::from_secs(5),
    };

    fn token(number: usize) -> Token {
        Token::new(&format!("token-{number}")).unwrap()
    }

    proptest! {
        /// Whatever was inserted in whatever order, a verdict is the last one of the token, and no older than it may be.
        #[test]
        fn a_verdict_is_the_last_of_its_token_and_not_too_old(
            steps in proptest::collection::vec((0..4_usize, 0..3_usize, 0..300_u64), 1..40),
        ) {
            let (start, wall) = (Instant::now(), SystemTime::now());
            let mut cache = Cache::new(AGES);
            let mut last = HashMap::new();
            let mut now = start;
            for (number, verdict, wait) in steps {
                now += Duration::from_secs(wait);
                for (number, (verdict, at)) in &last {
                    let age = now.duration_since(*at);
                    let expected = match verdict {
                        Verdict::Allowed if age < AGES.allowed => Cached::Fresh(Verdict::Allowed),
                        Verdict::Allowed if age < AGES.outage => Cached::WasAllowed,
                        Verdict::Allowed => Cached::Unknown,
                        _ if age < AGES.denied => Cached::Fresh(*verdict),
                        _ => Cached::Unknown,
                    };
                    prop_assert_eq!(cache.get(&token(*number).digest(), now, wall), expected);
                }
                let verdict = [Verdict::Allowed, Verdict::Forbidden, Verdict::Unknown][verdict];
                cache.insert(&token(number), verdict, now);
                last.insert(number, (verdict, now));
            }
        }
    }

    #[test]
    fn refused_tokens_do_not_displace_allowed_ones_and_the_size_is_bounded() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut cache = Cache::new(AGES);
        cache.insert(&token(0), Verdict::Allowed, now);
        for number in 1..10_000 {
            cache.insert(&token(number), Verdict::Unknown, now + Duration::from_micros(number as u64));
        }
        assert_eq!(cache.get(&token(0).digest(), now, wall), Cached::Fresh(Verdict::Allowed));
        assert_eq!(cache.get(&token(9_999).digest(), now, wall), Cached::Fresh(Verdict::Unknown));
        assert_eq!(cache.get(&token(1).digest(), now, wall), Cached::Unknown);
        assert!(cache.entries.len() <= 2 * MAX_EACH);
    }
}
