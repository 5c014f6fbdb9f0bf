use proptest::prelude::*;
use snug_sizing::workload::{Container, Workload};

use super::*;

const RETENTION: Retention = Retention { hours: 30 * 24, hours_by_minute: 6, bytes: u64::MAX };

fn evidence(hour: u32) -> Evidence {
    let mut evidence = Evidence::new(Workload::default(), Container::default(), 100);
    evidence.hour(Hour(hour)).cpu.record(0.5, 1);
    evidence
}

/// Prunes as the writer does, and returns the days that are left.
fn prune(store: &Store, now: u32) -> Vec<u32> {
    let oldest = RETENTION.oldest(Hour(now), store.first_day());
    store.prune(Hour(now - RETENTION.hours_by_minute), oldest, RETENTION.bytes).unwrap();
    let subjects = store.hours().subjects(Hour(0)).unwrap();
    let mut days: Vec<u32> = subjects.values().flat_map(Records::hours).map(segment::day_of).collect();
    days.dedup();
    days
}

#[test]
fn a_clock_that_is_stepped_a_year_costs_two_days_of_history_and_a_step_back_none() {
    let store = Store::in_memory();
    let now = 20_000 * segment::HOURS;
    for day in 19_970..=20_000 {
        store.add(&[evidence(day * segment::HOURS)]).unwrap();
    }
    assert_eq!(prune(&store, now), (19_970..=20_000).collect::<Vec<_>>());
    let year = 365 * segment::HOURS;
    assert_eq!(prune(&store, now - year).len(), 31, "stepped back");
    let ahead = now + year;
    store.add(&[evidence(ahead)]).unwrap();
    assert_eq!(prune(&store, ahead), (19_972..=20_000).chain([20_365]).collect::<Vec<_>>());
    // What was recorded meanwhile stays until its time has come.
    assert_eq!(prune(&store, now), (19_972..=20_000).chain([20_365]).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn no_step_of_the_clock_costs_more_than_two_days(
        first in 10_000u32..20_000,
        steps in proptest::collection::vec(0u32..30_000 * 24, 0..20),
    ) {
        let mut kept = first;
        for now in steps {
            let oldest = segment::day_of(RETENTION.oldest(Hour(now), Some(kept)));
            prop_assert!(oldest <= kept + MAX_DAYS_AT_ONCE);
            prop_assert!(oldest <= segment::day_of(Hour(now)));
            kept = kept.max(oldest);
        }
    }

    #[test]
    fn a_right_clock_keeps_the_retention(first in 10_000u32..20_000, away in 0u32..100) {
        // An agent that was stopped for some days has removed all old ones after as many hours.
        let now = (first + away) * segment::HOURS;
        let (mut kept, mut hour) = (first, 0);
        while hour < 24 * 3 {
            kept = kept.max(segment::day_of(RETENTION.oldest(Hour(now + hour), Some(kept))));
            hour += 1;
        }
        prop_assert!(segment::day_of(Hour(now + hour)) - kept <= RETENTION.hours / segment::HOURS + 1);
    }
}
