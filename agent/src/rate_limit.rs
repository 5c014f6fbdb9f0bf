//! A limit of a rate.

use std::time::{Duration, Instant};

/// Allows some at once, then one per interval, by the generic cell rate algorithm
/// ([ITU-T I.371](https://www.itu.int/rec/T-REC-I.371), annex A).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimit {
    interval: Duration,
    /// Time that may be borrowed from the future.
    burst: Duration,
    /// When the next one would be due without a burst.
    next: Option<Instant>,
}

impl RateLimit {
    /// `at_once` is at least 1.
    pub(crate) const fn new(at_once: u32, interval: Duration) -> Self {
        Self { interval, burst: interval.saturating_mul(at_once.saturating_sub(1)), next: None }
    }

    /// Counts one, and returns when it is due: `now` or later.
    pub(crate) fn reserve(&mut self, now: Instant) -> Instant {
        let next = self.next.map_or(now, |next| next.max(now));
        self.next = Some(next + self.interval);
        next.checked_sub(self.burst).unwrap_or(now).max(now)
    }

    /// Whether one is allowed now. Only then is it counted.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let before = *self;
        let is_due = self.reserve(now) == now;
        if !is_due {
            *self = before;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT_ONCE: u32 = 4;

    fn limit() -> RateLimit {
        RateLimit::new(AT_ONCE, Duration::from_secs(1))
    }

    /// In any time of n seconds there are at most `AT_ONCE` + n.
    fn is_bounded(times: &[Instant]) -> bool {
        times.iter().enumerate().all(|(index, first)| {
            times.iter().enumerate().skip(index).all(|(later, last)| {
                let seconds = last.duration_since(*first).as_secs_f64();
                (later - index + 1) as f64 <= f64::from(AT_ONCE) + seconds + 1e-6
            })
        })
    }

    proptest! {
        #[test]
        fn reservations_keep_the_rate(gaps in prop::collection::vec(0..3000_u64, 1..60)) {
            let (mut limit, mut now) = (limit(), Instant::now());
            let mut reserved = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                let due = limit.reserve(now);
                prop_assert!(due >= now);
                reserved.push(due);
                now = due;
            }
            prop_assert!(is_bounded(&reserved));
        }

        #[test]
        fn all_is_allowed_that_the_rate_has_room_for(gaps in prop::collection::vec(0..700_u64, 1..60)) {
            let (mut limit, mut now) = (limit(), Instant::now());
            let mut allowed = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                let with_one_more = [&allowed[..], &[now]].concat();
                prop_assert_eq!(limit.take(now), is_bounded(&with_one_more));
                if is_bounded(&with_one_more) {
                    allowed = with_one_more;
                }
            }
        }
    }
}
