//! Quota simulation: how much each of 16 CPU quotas would have throttled a container.
//!
//! A histogram of CPU usage does not tell how much a quota would throttle, because throttling depends on the order of
//! periods: CPU time that does not fit into one period is delayed into the next. So the agent feeds the CPU time of every
//! window to one token bucket per quota and counts. The counts add up over time, replicas and nodes.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap as _,
};

use crate::counts::CompactCounts;

/// The simulated quotas, millicores.
pub const QUOTAS: [u64; 16] =
    [50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3200, 4800, 8000, 16_000];

/// The outcome of one simulated quota. Serialized as three numbers, because a snapshot has millions of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64)", into = "(u64, u64, u64)")]
pub struct QuotaOutcome {
    /// CFS periods in which the container was runnable.
    pub periods: u64,
    /// Of these, periods that the quota would have throttled.
    pub throttled: u64,
    /// CPU time that the quota would have delayed, milliseconds.
    pub delayed_millis: u64,
}

impl From<(u64, u64, u64)> for QuotaOutcome {
    fn from((periods, throttled, delayed_millis): (u64, u64, u64)) -> Self {
        Self { periods, throttled, delayed_millis }
    }
}

impl From<QuotaOutcome> for (u64, u64, u64) {
    fn from(outcome: QuotaOutcome) -> Self {
        (outcome.periods, outcome.throttled, outcome.delayed_millis)
    }
}

impl QuotaOutcome {
    /// Share of periods that would have been throttled, 0..=1; 0 without periods.
    pub fn share(self) -> f64 {
        if self.periods == 0 { 0.0 } else { (self.throttled as f64 / self.periods as f64).min(1.0) }
    }
}

/// Numbers that are kept of a quota: itself, and its outcome.
const NUMBERS: usize = 4;

/// Outcomes by quota in millicores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaWhatIf {
    /// [`NUMBERS`] of each quota, ascending by quota.
    numbers: CompactCounts,
}

impl FromIterator<(u64, QuotaOutcome)> for QuotaWhatIf {
    /// Of several outcomes of one quota, the last one counts.
    fn from_iter<I: IntoIterator<Item = (u64, QuotaOutcome)>>(outcomes: I) -> Self {
        let numbers = |(quota, outcome): (u64, QuotaOutcome)| {
            let QuotaOutcome { periods, throttled, delayed_millis } = outcome;
            [quota, periods, throttled, delayed_millis]
        };
        let mut all: Vec<[u64; NUMBERS]> = outcomes.into_iter().map(numbers).collect();
        if !all.is_sorted_by(|[one, ..], [next, ..]| one < next) {
            let by_quota: BTreeMap<u64, [u64; NUMBERS]> = all.into_iter().map(|it| (it[0], it)).collect();
            all = by_quota.into_values().collect();
        }
        Self { numbers: CompactCounts::new(all.as_flattened()) }
    }
}

impl QuotaWhatIf {
    /// Quotas in millicores with their outcomes, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, QuotaOutcome)> + Clone + '_ {
        (0..self.numbers.len() / NUMBERS).map(|number| {
            let [quota, periods, throttled, delayed_millis] =
                std::array::from_fn(|place| self.numbers.get(number * NUMBERS + place));
            (quota, QuotaOutcome { periods, throttled, delayed_millis })
        })
    }

    /// The outcome of a quota in millicores.
    pub fn get(&self, quota: u64) -> Option<QuotaOutcome> {
        self.iter().find(|(simulated, _)| *simulated == quota).map(|(_, outcome)| outcome)
    }

    /// Adds the counts of another simulation. A quota that only one of the two simulated is dropped.
    pub fn merge(&mut self, other: &Self) {
        let mut others = other.iter().peekable();
        let both = self.iter().filter_map(|(quota, mine)| {
            while others.next_if(|(other, _)| *other < quota).is_some() {}
            let (_, theirs) = others.next_if(|(other, _)| *other == quota)?;
            let sum = QuotaOutcome {
                periods: mine.periods.saturating_add(theirs.periods),
                throttled: mine.throttled.saturating_add(theirs.throttled),
                delayed_millis: mine.delayed_millis.saturating_add(theirs.delayed_millis),
            };
            Some((quota, sum))
        });
        *self = both.collect();
    }

    /// The smallest quota (millicores, at least `from`) that would have throttled no more than `share` of the periods.
    pub fn smallest(&self, share: f64, from: u64) -> Option<(u64, QuotaOutcome)> {
        self.iter().find(|(quota, outcome)| *quota >= from && outcome.periods > 0 && outcome.share() <= share)
    }
}

impl Serialize for QuotaWhatIf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.numbers.len() / NUMBERS;
        let mut map = serializer.serialize_map(Some(entries))?;
        self.iter().try_for_each(|(quota, outcome)| map.serialize_entry(&quota, &outcome))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for QuotaWhatIf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OutcomesVisitor)
    }
}

struct OutcomesVisitor;

impl<'de> Visitor<'de> for OutcomesVisitor {
    type Value = QuotaWhatIf;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outcomes by quota")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<QuotaWhatIf, A::Error> {
        let mut outcomes = Vec::with_capacity(QUOTAS.len());
        while let Some(outcome) = map.next_entry()? {
            outcomes.push(outcome);
        }
        Ok(outcomes.into_iter().collect())
    }
}

/// The token buckets of one container, one for each of [`QUOTAS`].
///
/// A window stands for a CFS period. The CPU time used in the window, plus the backlog of the window before, is served up
/// to the quota; the rest becomes the new backlog. As in the kernel (`do_sched_cfs_period_timer`), the periods counted are
/// those with CPU time to serve and the idle period after them. Windows must be as long as a period. The result is exact
/// only for a container without a CPU limit: CPU time that a real quota has delayed is counted in the window in which it
/// ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBuckets {
    /// Delayed CPU time, nanoseconds, by quota.
    backlog: [u64; QUOTAS.len()],
    /// Whether there was CPU time to serve in the last window, by quota.
    active: [bool; QUOTAS.len()],
    outcomes: [Counts; QUOTAS.len()],
    /// Periods for which the smallest quota was enough, and so every quota was. Most periods are of this kind.
    enough: u64,
    /// Whether any bucket is active. If none is, an idle window changes nothing.
    any_active: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    periods: u64,
    throttled: u64,
    delayed_ns: u64,
}

impl TokenBuckets {
    /// Feeds one window: the CPU time used in it and its length, nanoseconds.
    pub fn feed(&mut self, used_ns: u64, elapsed_ns: u64) {
        if used_ns == 0 && !self.any_active {
            return;
        }
        // The smallest quota has the largest backlog and stays active longest.
        let ([backlog, ..], [.., active], [smallest, ..]) = (self.backlog, self.active, QUOTAS);
        let has_ended = used_ns == 0 && active;
        if backlog == 0 && (has_ended || used_ns > 0 && used_ns <= elapsed_ns.saturating_mul(smallest) / 1000)
        {
            self.enough = self.enough.saturating_add(1);
            self.any_active = !has_ended;
            self.active = [self.any_active; QUOTAS.len()];
            return;
        }
        let buckets = self.backlog.iter_mut().zip(&mut self.active).zip(&mut self.outcomes);
        for (quota, ((backlog, active), counts)) in QUOTAS.iter().zip(buckets) {
            let wanted = backlog.saturating_add(used_ns);
            let was_active = std::mem::replace(active, wanted > 0);
            if !*active {
                counts.periods += u64::from(was_active);
                continue;
            }
            let left = wanted.saturating_sub(elapsed_ns.saturating_mul(*quota) / 1000);
            counts.periods += 1;
            counts.throttled += u64::from(left > 0);
            counts.delayed_ns = counts.delayed_ns.saturating_add(left.saturating_sub(*backlog));
            *backlog = left;
        }
        self.any_active = self.active.contains(&true);
    }

    /// Whether an idle window would change the counts.
    pub const fn is_active(&self) -> bool {
        self.any_active
    }

    /// The counts since the last [`Self::take`], without resetting them; `None` if there are none.
    pub fn counted(mut self) -> Option<QuotaWhatIf> {
        self.take()
    }

    /// Returns and resets the counts since the last call; `None` if there are none. The backlog is kept.
    pub fn take(&mut self) -> Option<QuotaWhatIf> {
        let outcomes = std::mem::take(&mut self.outcomes);
        let enough = std::mem::take(&mut self.enough);
        let all = QUOTAS.iter().zip(&outcomes).zip(&mut self.outcomes).map(|((quota, counts), rest)| {
            // Less than a millisecond is carried over to the next call.
            rest.delayed_ns = counts.delayed_ns % 1_000_000;
            let Counts { periods, throttled, delayed_ns } = *counts;
            let periods = periods.saturating_add(enough);
            (*quota, QuotaOutcome { periods, throttled, delayed_millis: delayed_ns / 1_000_000 })
        });
        let quota_what_if: QuotaWhatIf = all.collect();
        let has_periods = quota_what_if.iter().any(|(_, outcome)| outcome.periods > 0);
        has_periods.then_some(quota_what_if)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota_what_if(outcomes: &[(u64, u64)]) -> QuotaWhatIf {
        let outcome = |throttled| QuotaOutcome { periods: 1000, throttled, delayed_millis: throttled * 7 };
        outcomes.iter().map(|(quota, throttled)| (*quota, outcome(*throttled))).collect()
    }

    #[test]
    fn the_smallest_quota_within_the_risk() {
        let quota_what_if = quota_what_if(&[(100, 400), (200, 50), (400, 10), (800, 0)]);
        assert_eq!(quota_what_if.smallest(0.05, 0).map(|(quota, _)| quota), Some(200));
        assert_eq!(quota_what_if.smallest(0.05, 300).map(|(quota, _)| quota), Some(400));
        assert_eq!(quota_what_if.smallest(0.001, 0).map(|(quota, _)| quota), Some(800));
        assert_eq!(quota_what_if.smallest(0.001, 900), None);
        assert_eq!(QuotaWhatIf::default().smallest(1.0, 0), None);
    }

    #[test]
    fn a_partly_simulated_quota_is_dropped() {
        let mut whole = quota_what_if(&[(100, 400), (200, 0)]);
        whole.merge(&quota_what_if(&[(200, 0), (150, 0)]));
        assert_eq!(whole.smallest(0.01, 0).map(|(quota, _)| quota), Some(200));
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn backlog_moves_to_the_next_period() {
        let mut buckets = TokenBuckets::default();
        for used in [120, 0, 0, 0, 30, 0] {
            buckets.feed(used * MS, 100 * MS);
        }
        let quota_what_if = buckets.take().unwrap();
        // At 40 ms a period 80 and 40 ms are left, then nothing; then 30 ms are served at once. An idle period follows on both.
        let outcome = |quota| quota_what_if.get(quota).unwrap();
        assert_eq!(outcome(400), QuotaOutcome { periods: 6, throttled: 2, delayed_millis: 80 });
        assert_eq!(outcome(600), QuotaOutcome { periods: 5, throttled: 1, delayed_millis: 60 });
        assert_eq!(outcome(1200), QuotaOutcome { periods: 4, throttled: 0, delayed_millis: 0 });
        assert_eq!(buckets.take(), None);
        // 50 m: 135 of 150 ms are still delayed.
        buckets.feed(0, 100 * MS);
        assert_eq!(
            buckets.take().unwrap().get(50).unwrap(),
            QuotaOutcome { periods: 1, throttled: 1, delayed_millis: 0 }
        );
    }

    #[test]
    fn idle_containers_have_no_periods() {
        let mut buckets = TokenBuckets::default();
        for _ in 0..10 {
            buckets.feed(0, 100 * MS);
        }
        assert_eq!(buckets.take(), None);
    }

    /// Periods, throttled periods and delayed time at one quota, computed directly from the definition.
    fn by_the_rule(quota: u64, windows: &[(u64, u64)]) -> (u64, u64, u64) {
        let (mut backlog, mut was_active, mut counts) = (0, false, (0, 0, 0));
        for (used, elapsed) in windows {
            let wanted = backlog + used;
            let left = wanted.saturating_sub(elapsed * quota / 1000);
            counts.0 += u64::from(wanted > 0 || was_active);
            counts.1 += u64::from(left > 0);
            counts.2 += left.saturating_sub(backlog);
            (backlog, was_active) = (left, wanted > 0);
        }
        counts
    }

    proptest! {
        #[test]
        fn every_quota_equals_a_direct_simulation(
            windows in prop::collection::vec((prop_oneof![Just(0), 1..10 * MS, 0..400 * MS], 50 * MS..200 * MS), 0..50),
            taken in 0..50_usize,
        ) {
            let mut buckets = TokenBuckets::default();
            let mut pieces = Vec::new();
            for (number, (used, elapsed)) in windows.iter().enumerate() {
                buckets.feed(*used, *elapsed);
                if number == taken {
                    pieces.extend(buckets.take());
                }
            }
            pieces.extend(buckets.take());
            let quota_what_if = pieces.into_iter().reduce(|mut first, rest| { first.merge(&rest); first }).unwrap_or_default();
            for quota in QUOTAS {
                let (periods, throttled, delayed_ns) = by_the_rule(quota, &windows);
                let outcome = quota_what_if.get(quota).unwrap_or_default();
                prop_assert_eq!((outcome.periods, outcome.throttled), (periods, throttled), "at {}", quota);
                prop_assert_eq!(outcome.delayed_millis, delayed_ns / MS, "at {}", quota);
            }
        }

        #[test]
        fn more_quota_never_throttles_more(windows in prop::collection::vec((0..400_u64, 50..200_u64), 0..50)) {
            let mut buckets = TokenBuckets::default();
            for (used, elapsed) in windows {
                buckets.feed(used * MS, elapsed * MS);
            }
            if let Some(quota_what_if) = buckets.take() {
                let outcomes: Vec<QuotaOutcome> = quota_what_if.iter().map(|(_, outcome)| outcome).collect();
                for pair in outcomes.windows(2) {
                    prop_assert!(pair[0].throttled >= pair[1].throttled && pair[0].delayed_millis >= pair[1].delayed_millis);
                    prop_assert!(pair[1].throttled <= pair[1].periods);
                }
            }
        }

        #[test]
        fn less_risk_is_never_a_smaller_quota(outcomes in prop::collection::btree_map(1..64_u64, 0..1000_u64, 0..16), risk in 0.0..1.0_f64, less in 0.0..1.0_f64) {
            let quota_what_if = quota_what_if(&outcomes.into_iter().collect::<Vec<_>>());
            let quota = |share| quota_what_if.smallest(share, 0).map_or(u64::MAX, |(quota, _)| quota);
            prop_assert!(quota(risk * less) >= quota(risk));
        }
    }
}
