//! Runs: short ones, ones that are named late, and ones without a task.

use super::*;

#[test]
fn usage_and_kills_of_a_container_that_is_named_after_its_end_are_kept() {
    let mut node = Node::new();
    node.store.expect_names(true);
    let key = node.container('a', START + 10.0);
    node.memory(key, 2 * MIB, MIB, 30 * MIB);
    node.collector.oom_killed(&node.store, key, START + 10.2, 32 * MIB);
    node.store.depart(key, 0, true, false, node.begun);
    node.settle(10.4);
    node.name(key, "web-1");
    node.settle(40.0);
    let evidence = node.finish(41.0);
    let [one] = &evidence[..] else { panic!("{evidence:?}") };
    assert_eq!(one.title(), "shop/web/app");
    let record = one.hours.first_key_value().unwrap().1;
    let kill = OomKill { at: (START + 10.2) as u64, limit: 32 * MIB, pod: "web-1".to_owned() };
    assert_eq!((record.starts, &*record.kills), (1, &[kill][..]));
}

#[test]
fn runs_shorter_than_a_minute_are_observed_with_their_seconds_and_peaks() {
    let mut node = Node::new();
    for (run, id) in [(0_u32, 'a'), (1, 'b'), (2, 'c')] {
        let at = 10.0 * f64::from(run);
        let key = node.container(id, START + at);
        node.name(key, "web-1");
        // The final record is all that is known of it: it has no working set.
        let memory = Some(Memory { usage_bytes: 0, peak_bytes: Some(30 * MIB), limit_bytes: None });
        let cpu = Some(Cpu { usage_ns: 90_000_000 });
        node.store.update(key, Values { cpu, memory, ..Values::default() });
        node.store.depart(key, 0, true, false, node.begun);
        let ended = node.begun + Duration::from_secs_f64(at + 0.4);
        node.collector.observe_leaving(&node.store, ended, START + at + 0.4);
        node.settle(at + 0.4);
    }
    let evidence = node.finish(31.0);
    let [one] = &evidence[..] else { panic!("{evidence:?}") };
    let record = one.hours.first_key_value().unwrap().1;
    assert_eq!((record.starts, record.observed, record.cpu_start.count()), (3, 3, 12));
    assert_eq!(one.pods["web-1"].cpu_millis, 270);
    assert_eq!(record.start_peak.as_ref().map(|peak| peak.bytes), Some(30 * MIB));
}

#[test]
fn a_cgroup_that_never_had_a_task_used_nothing() {
    let mut node = Node::new();
    let key = node.container('a', START);
    node.name(key, "sandboxed-1");
    node.memory(key, 0, 0, 0);
    for second in 1..=20_u32 {
        node.cpu(key, 0, f64::from(second));
        node.second(f64::from(second));
    }
    let evidence = node.finish(21.0);
    let [one] = &evidence[..] else { panic!("{evidence:?}") };
    let record = one.hours.first_key_value().unwrap().1;
    assert!(record.observed >= 19, "{}", record.observed);
    assert_eq!(record.highest().map(|peak| peak.bytes), Some(0));
    let totals = &one.pods["sandboxed-1"];
    assert_eq!((totals.cpu_millis, totals.peak), (0, 0));
    assert!(buckets(&record.cpu_start).iter().all(|(_, upper)| *upper == 0.0), "{record:?}");
}
