//! Usage by the minute.

use super::*;

#[test]
fn minutes_are_averages_and_a_short_life_is_one_minute() {
    let mut node = Node::new();
    let key = node.container('a', START - 10_000.0);
    node.name(key, "web-1");
    node.second(0.0);
    node.cpu(key, 0, 0.0);
    // A minute of a quarter of a core, half of it idle; then ten seconds of two cores.
    for (millis, seconds) in [(15_000, 30.0), (15_000, 60.0), (35_000, 70.0)] {
        node.cpu(key, millis, seconds);
    }
    node.store.depart(key, 0, true, false, node.begun);
    node.settle(70.0);
    let evidence = node.finish(71.0);
    let record = evidence[0].hours.first_key_value().unwrap().1;
    assert_eq!(buckets(&record.minutes), [(1, 0.25), (1, 2.0)]);
    assert_eq!((record.cpu.count(), record.minutes_start.is_empty()), (700, true));
}

#[test]
fn minutes_have_their_own_usage_counted_exactly_once() {
    let mut node = Node::new();
    let key = node.container('a', START - 10_000.0);
    node.name(key, "web-1");
    node.second(0.0);
    // A quarter of a core in the first minute, one in the second; a memory peak in the third second of it, between two samples.
    let mut millis = 0;
    for second in 0..=110_u64 {
        node.memory(key, 10 * MIB, 2 * MIB, if second < 63 { 20 * MIB } else { 30 * MIB });
        node.cpu(key, millis, second as f64);
        node.second(second as f64);
        millis += if second < 60 { 250 } else { 1000 };
    }
    let all = merged(node.finish(110.5)).unwrap();
    let minutes: Vec<_> =
        all.minutes.into_iter().map(|(minute, record)| (minute.start() as f64 - START, record)).collect();
    let of = |at: usize| (minutes[at].0, minutes[at].1.cpu_millis, minutes[at].1.memory_peak / MIB);
    assert_eq!((of(0), of(1)), ((0.0, 59 * 250, 8), (60.0, 250 + 50 * 1000, 28)));
    let observed: u64 = minutes.iter().map(|(_, record)| record.observed_millis).sum();
    assert_eq!(observed, 110_000);
}
