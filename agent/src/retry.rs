//! What a task does that fails and is tried again: it logs each cause once, and its pauses grow.

use std::{collections::HashSet, error::Error, time::Duration};

use backon::ExponentialBuilder;

use crate::messages;

/// Causes that one outage logs. Texts may name a port or a time, so that each attempt has another cause.
const MAX_CAUSES: usize = 8;

/// From the first failure to the next success.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outage {
    /// The causes that were logged.
    causes: HashSet<String>,
}

impl Outage {
    /// The error with its causes, if this outage has not logged them yet.
    pub(crate) fn new_cause(&mut self, error: &(dyn Error + 'static)) -> Option<String> {
        self.new_text(messages::chain(error))
    }

    /// As [`Self::new_cause`], for a text.
    pub(crate) fn new_text(&mut self, cause: String) -> Option<String> {
        let is_new = self.causes.len() < MAX_CAUSES && self.causes.insert(cause.clone());
        is_new.then_some(cause)
    }

    /// Ends the outage. Whether there was one.
    pub(crate) fn end(&mut self) -> bool {
        !std::mem::take(&mut self.causes).is_empty()
    }
}

/// Pauses between attempts: they double from `min` to `max`, plus up to as much again at random, so that the agents of a cluster do
/// not all try at the same moment. They do not end.
pub(crate) const fn pauses(min: Duration, max: Duration) -> ExponentialBuilder {
    let pauses = ExponentialBuilder::new().with_min_delay(min).with_max_delay(max).with_factor(2.0);
    pauses.without_max_times().with_jitter()
}

#[cfg(test)]
mod tests {
    use backon::BackoffBuilder as _;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_cause_is_logged_once_per_outage(events in prop::collection::vec(prop::option::of(0..12_u8), 0..80)) {
            let (mut outage, mut logged) = (Outage::default(), Vec::new());
            for event in events {
                match event {
                    Some(cause) => {
                        let is_new = logged.len() < MAX_CAUSES && !logged.contains(&cause);
                        prop_assert_eq!(outage.new_text(cause.to_string()), is_new.then(|| cause.to_string()));
                        logged.extend(is_new.then_some(cause));
                    }
                    None => {
                        prop_assert_eq!(outage.end(), !logged.is_empty());
                        logged.clear();
                    }
                }
            }
        }

        #[test]
        fn pauses_double_up_to_their_maximum_and_differ_by_chance(min in 1..5_000_u64, doublings in 0..6_u32) {
            let min = Duration::from_millis(min);
            let max = min * 2_u32.pow(doublings);
            let mut expected = min;
            // Rounded to what an f32 holds.
            let slack = Duration::from_millis(1) + max / 1_000;
            for pause in pauses(min, max).build().take(50) {
                prop_assert!(expected <= pause + slack && pause <= expected * 2 + slack, "{pause:?} for {expected:?}");
                expected = (expected * 2).min(max);
            }
            let first = |_: u8| pauses(min, max).build().next();
            prop_assert!((0..20).any(|number| first(number) != first(number)), "each agent pauses the same time");
        }
    }
}
