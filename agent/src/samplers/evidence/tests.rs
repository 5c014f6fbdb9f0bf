mod minutes;
mod pod_spec;
mod replicas;
mod runs;

use std::time::Duration;

use snug_sizing::{
    evidence::{Evidence, Stalled},
    workload::Resources,
};

use super::*;
use crate::{
    identity::{Names, path},
    store::Appearance,
    values::{Distribution, Memory, MemoryStat, Pressure, Stall, WorkingSet},
};

const START: f64 = 1_800_000_000.0;
const MIB: u64 = 1 << 20;
const WINDOW: Duration = Duration::from_millis(100);

struct Node {
    store: Store,
    collector: UsageCollector,
    taken: std::sync::mpsc::Receiver<Batch>,
    begun: Instant,
}

impl Node {
    fn new() -> Self {
        let (sink, taken) = Sink::for_tests();
        let collector = UsageCollector::new(sink, 100, EvidenceOptions::default(), START);
        Self { store: Store::new(100), collector, taken, begun: Instant::now() }
    }

    /// A container whose id repeats one character, created at a time.
    fn container(&mut self, id: char, created_unix: f64) -> Key {
        let id: String = std::iter::repeat_n(id, 64).collect();
        let path = format!("/kubepods/besteffort/pod11111111-2222-3333-4444-555555555555/{id}");
        self.appear(&path, created_unix)
    }

    fn appear(&mut self, path: &str, created_unix: f64) -> Key {
        let of_path = path::parse(path).unwrap();
        let appearance = Appearance { path: path.into(), of_path, created_unix, present_at_start: false };
        self.store.appear(appearance, 0, self.begun)
    }

    fn name(&mut self, key: Key, pod: &str) {
        let names = Names {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            container: "app".to_owned(),
            workload_kind: "Deployment".to_owned(),
            workload: "web".to_owned(),
            kind: Some(ContainerKind::App),
            resources: Resources { cpu_request: Some(250), ..Resources::default() },
            ..Names::default()
        };
        self.store.set_names(key, Arc::new(names), Level::Container);
    }

    /// Samples CPU time in milliseconds, `seconds` after the start.
    fn cpu(&mut self, key: Key, millis: u64, seconds: f64) {
        self.tick(seconds);
        let _ = self.report(key, millis, seconds);
    }

    fn tick(&mut self, seconds: f64) {
        let at = self.begun + Duration::from_secs_f64(seconds);
        if self.collector.clock.now.is_none_or(|now| now.at != at) {
            self.collector.tick(at);
        }
    }

    /// Returns whether samples may leave the container out while it is idle.
    fn report(&mut self, key: Key, millis: u64, seconds: f64) -> bool {
        self.collector.cpu(key, Cpu { usage_ns: millis * 1_000_000 }, START + seconds)
    }

    fn memory(&mut self, key: Key, usage: u64, inactive: u64, peak: u64) {
        let values = Values {
            memory: Some(Memory {
                usage_bytes: usage,
                peak_bytes: Some(peak),
                limit_bytes: Some(64 * MIB),
                ..Memory::default()
            }),
            working_set: Some(WorkingSet { inactive_file_bytes: inactive, bytes: usage - inactive }),
            ..Values::default()
        };
        self.store.update(key, values);
    }

    fn second(&mut self, seconds: f64) {
        self.collector.observe(&self.store, None, START + seconds);
    }

    /// Settles and finishes removed containers.
    fn settle(&mut self, seconds: f64) {
        let settled = self.store.settle(self.begun + Duration::from_secs(20));
        self.collector.end(&settled, START + seconds);
        for (key, identity) in self.store.take_finished() {
            self.collector.finish_one(key, &identity, START + seconds);
        }
    }

    fn finish(mut self, seconds: f64) -> Vec<Evidence> {
        // The end waits for room in the queue.
        let mut batches: Vec<Batch> = self.taken.try_iter().collect();
        self.collector.finish(&self.store, START + seconds);
        batches.extend(self.taken.try_iter());
        batches.into_iter().flat_map(Batch::into_values).collect()
    }
}

/// What several batches have of one container.
fn merged(evidence: Vec<Evidence>) -> Result<Evidence, String> {
    let mut evidence = evidence.into_iter();
    let mut all = evidence.next().ok_or("no evidence")?;
    evidence.try_for_each(|more| all.merge(&more)).map_err(|error| error.to_string())?;
    Ok(all)
}

fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{found:?} is not {expected:?}")) }
}

/// Count and upper bound of each bucket.
fn buckets(histogram: &snug_sizing::histogram::Histogram) -> Vec<(u64, f64)> {
    histogram.buckets().map(|(count, _, upper)| (count, upper)).collect()
}

#[test]
fn a_window_is_one_value_and_a_stall_as_many_as_windows_fit() {
    let mut node = Node::new();
    let key = node.container('a', START - 10_000.0);
    node.name(key, "web-1");
    node.memory(key, 8 * MIB, 0, 9 * MIB);
    node.second(0.0);
    // Half a core, nothing, two cores, then half a second with a quarter.
    for (millis, seconds) in [(7000, 0.1), (7050, 0.2), (7050, 0.3), (7250, 0.4), (7375, 0.9)] {
        node.cpu(key, millis, seconds);
    }
    let evidence = node.finish(1.5);
    let [one] = &evidence[..] else { panic!("{evidence:?}") };
    assert_eq!(
        (one.title(), &*one.workload.owner, one.window_millis),
        ("shop/web/app".to_owned(), "Deployment", 100)
    );
    assert_eq!((one.workload.replicas, one.container.current.cpu_request), (1, Some(250)));
    assert_eq!(one.container.current.memory_limit, Some(64 * MIB));
    let (hour, record) = one.hours.first_key_value().unwrap();
    assert_eq!(*hour, Hour::from_seconds(START as u64));
    assert_eq!(buckets(&record.cpu), [(1, 0.0), (5, 0.25), (1, 0.5), (1, 2.0)]);
    assert_eq!((record.cpu_start.is_empty(), record.starts), (true, 0), "it was there before the agent");
    let earlier = one.earlier_peak.as_ref().map(|peak| (peak.bytes, peak.at, &*peak.pod));
    assert_eq!(earlier, Some((9 * MIB, START as u64, "web-1")));
    // The watermark from before the agent does not count for this hour.
    assert_eq!(record.peak.as_ref().map(|peak| (peak.bytes, &*peak.pod)), Some((8 * MIB, "web-1")));
    assert_eq!(one.pods["web-1"].cpu_millis, 375);
}

#[test]
fn usage_of_the_first_hour_is_added_up_by_age() {
    // Ten seconds old, and older than an hour.
    for (age, by_age) in [(10.0, Some((800_000, 375_000))), (10_000.0, None)] {
        let mut node = Node::new();
        let key = node.container('a', START - age);
        node.name(key, "web-1");
        node.memory(key, 8 * MIB, 0, 9 * MIB);
        node.second(0.0);
        for (millis, seconds) in [(7000, 0.1), (7050, 0.2), (7050, 0.3), (7250, 0.4), (7375, 0.9)] {
            node.cpu(key, millis, seconds);
        }
        let evidence = node.finish(1.5);
        let found = evidence[0].by_age();
        // From 8 to 16 s.
        let step = |micros: &[u64]| micros.get(4).copied();
        assert_eq!(step(&found.observed_micros).zip(step(&found.cpu_micros)), by_age, "{found:?}");
        assert_eq!(found.is_empty(), by_age.is_none());
    }
}

proptest::proptest! {
    #[test]
    fn idle_containers_may_be_left_out_of_samples(
        windows in proptest::collection::vec((proptest::sample::select(vec![0_u64, 0, 0, 0, 0, 30, 150, 390]), 1_u32..4), 1..200),
    ) {
        let [reported, skipped] = [false, true].map(|skip_idle| {
            let mut node = Node::new();
            let key = node.container('a', START - 10_000.0);
            node.name(key, "web-1");
            node.memory(key, 8 * MIB, 0, 9 * MIB);
            node.second(0.0);
            let (mut millis, mut tenths, mut may_skip, mut second) = (7000, 0_u32, false, 0);
            for (used, length) in &windows {
                millis += used;
                tenths += length;
                let seconds = f64::from(tenths) / 10.0;
                node.tick(seconds);
                let whole_round = tenths / 10 > second;
                if whole_round || !(skip_idle && may_skip && *used == 0) {
                    may_skip = node.report(key, millis, seconds);
                }
                if whole_round {
                    second = tenths / 10;
                    node.second(seconds);
                }
            }
            node.finish(f64::from(tenths) / 10.0)
        });
        proptest::prop_assert_eq!(reported, skipped);
    }
}

#[test]
fn cpu_time_of_a_short_life_is_spread_evenly() {
    let mut node = Node::new();
    let key = node.container('a', START + 10.0);
    node.name(key, "web-1");
    node.memory(key, 2 * MIB, MIB, 30 * MIB);
    node.store.update(key, Values { cpu: Some(Cpu { usage_ns: 90_000_000 }), ..Values::default() });
    node.store.depart(key, 0, true, false, node.begun);
    // The container is killed before its first sample, and observed twice after its removal.
    node.collector.oom_killed(&node.store, key, START + 10.2, 32 * MIB);
    for seconds in [10.3, 10.4] {
        let at = node.begun + Duration::from_secs_f64(seconds);
        node.collector.observe_leaving(&node.store, at, START + seconds);
    }
    node.settle(10.4);
    let evidence = node.finish(11.0);
    let record = evidence[0].hours.first_key_value().unwrap().1;
    // 90 ms in 300 ms.
    let [(3, upper)] = buckets(&record.cpu_start)[..] else { panic!("{record:?}") };
    assert!(upper > 0.3 && upper < 0.33, "{upper}");
    assert_eq!((record.starts, record.cpu.is_empty()), (1, true));
    assert_eq!(record.kills.iter().map(|kill| kill.limit).collect::<Vec<_>>(), [32 * MIB]);
    // The kernel's watermark less the file cache.
    assert_eq!(record.start_peak.as_ref().map(|peak| peak.bytes), Some(29 * MIB));
}

#[test]
fn pending_usage_of_containers_created_without_end_is_bounded() {
    let mut node = Node::new();
    for number in 0..=MAX_PENDING_SUBJECTS {
        let created_unix = if number == 0 { START } else { START - 1000.0 };
        let key = node.appear(&format!("/docker/{number:064x}"), created_unix);
        node.memory(key, 2 * MIB, MIB, 2 * MIB);
        node.store.depart(key, 0, true, false, node.begun);
        node.collector.observe_leaving(&node.store, node.begun, START + 30.0);
        node.settle(30.0);
        // The first one lived too short to be counted.
        assert_eq!(node.collector.pending.len(), number.min(MAX_PENDING_SUBJECTS));
    }
    let one_more = node.container('a', START - 1000.0);
    node.name(one_more, "web-1");
    node.memory(one_more, 2 * MIB, MIB, 2 * MIB);
    node.second(1.0);
    assert_eq!(node.collector.history().lost, 0);
    node.collector.collect(&node.store, false, START + 2.0);
    assert_eq!(node.collector.history().lost, 1);
}

#[test]
fn containers_without_names_wait_and_sandboxes_are_not_sized() {
    let mut node = Node::new();
    let (late, never) = (node.container('a', START - 10_000.0), node.container('b', START - 10_000.0));
    node.second(0.0);
    node.cpu(late, 0, 0.0);
    node.cpu(late, 100, 0.1);
    node.second(31.0);
    assert!(node.taken.try_recv().is_err());
    node.name(late, "web-1");
    let sandbox = Names { kind: Some(ContainerKind::Sandbox), ..Names::default() };
    node.store.set_names(never, Arc::new(sandbox), Level::Sandbox);
    node.second(62.0);
    let taken: Vec<Evidence> = node.taken.try_recv().unwrap().into_values().collect();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].hours.first_key_value().unwrap().1.cpu.count(), 1);
}

#[test]
fn hours_do_not_overlap_and_replicas_are_counted_once() {
    let mut node = Node::new();
    let before_the_hour = 3600.0 - START % 3600.0;
    for id in ['a', 'b'] {
        let key = node.container(id, START - 10_000.0);
        node.name(key, &format!("web-{id}"));
        node.memory(key, 8 * MIB, 0, 8 * MIB);
    }
    node.second(before_the_hour - 2.0);
    let keys: Vec<Key> = node.collector.containers.keys().copied().collect();
    for (number, seconds) in [-2.0, -1.0, 1.0].into_iter().enumerate() {
        // A container that is removed within the second after the full hour may count in the hour before.
        node.second(before_the_hour + seconds);
        for key in &keys {
            node.cpu(*key, number as u64 * 100, before_the_hour + seconds);
        }
    }
    // What is complete is handed over at once.
    assert!(node.collector.pending.keys().all(|(hour, _)| *hour == node.collector.hour));
    node.collector.oom_killed(&node.store, keys[0], START + before_the_hour + 1.0, 64 * MIB);
    let evidence = node.finish(before_the_hour + 2.0);
    assert!(
        evidence.iter().all(|one| one.workload.replicas == 2 && one.pods.len() == 2 && one.hours.len() == 1)
    );
    let mut sum = evidence[0].clone();
    evidence[1..].iter().for_each(|one| sum.merge(one).unwrap());
    let hours: Vec<_> = sum.hours.iter().map(|(hour, it)| (hour.0, it.observed, it.kills.len())).collect();
    let first = Hour::from_seconds(START as u64).0;
    assert_eq!(hours, [(first, 2, 0), (first + 1, 4, 1)]);
}

#[test]
fn usage_waits_while_the_history_does_not_accept_it() {
    let mut node = Node::new();
    let key = node.container('a', START - 10_000.0);
    node.name(key, "web-1");
    node.second(0.0);
    node.cpu(key, 0, 0.0);
    let mut windows = 0;
    for round in 1..=20_u64 {
        let seconds = round as f64 * 31.0;
        node.cpu(key, 0, seconds);
        windows += (WINDOW.as_secs_f64().recip() * 31.0) as u64;
        node.second(seconds);
    }
    // As many batches as the channel holds; the others wait.
    let before: Vec<Evidence> = node.taken.try_iter().flat_map(Batch::into_values).collect();
    assert!(before.len() < 20, "{}", before.len());
    let after = node.finish(700.0);
    let count = |all: &[Evidence]| -> u64 {
        all.iter().flat_map(|one| one.hours.values()).map(|record| record.cpu.count()).sum()
    };
    assert_eq!(count(&before) + count(&after), windows);
}

#[test]
fn exits_waits_and_stalls_are_counted_once_in_their_hour() {
    let mut node = Node::new();
    let key = node.container('a', START + 1.0);
    node.name(key, "web-1");
    node.memory(key, 8 * MIB, 0, 9 * MIB);
    let stall = |millis: u64| Stall { some_ns: millis * 1_000_000 + 999_999, full_ns: 0 };
    let mut waits = Distribution::default();
    for (second, stalled, refaults) in [(2.0, 5, 3), (3.0, 5, 3), (4.0, 12, 10)] {
        waits.record(0.25, 2);
        let stat = MemoryStat {
            anon_bytes: 3 * MIB,
            shmem_bytes: MIB,
            slab_unreclaimable_bytes: Some(MIB),
            refaults_file: Some(refaults),
            ..MemoryStat::default()
        };
        let pressure = Pressure { cpu: stall(stalled), memory: stall(2 * stalled), io: stall(3 * stalled) };
        let values = Values {
            pressure: Some(pressure),
            memory_stat: Some(Arc::new(stat)),
            runqueue: Some(Arc::new(waits.clone())),
            ..Values::default()
        };
        node.store.update(key, values);
        node.second(second);
        // No change.
        node.second(second + 0.5);
    }
    for code in [0, 137, 137] {
        node.collector.exited(&node.store, key, code, START + 5.0);
    }
    let all = node.finish(6.0);
    let [evidence] = all.as_slice() else { panic!("{all:?}") };
    let (_, record) = evidence.hours.first_key_value().unwrap();
    assert_eq!(
        record.exits.iter().map(|(code, count)| (*code, *count)).collect::<Vec<_>>(),
        [(0, 1), (137, 2)]
    );
    assert_eq!(record.waits.count(), 6);
    let stalled = Stalled { cpu_millis: 12, memory_millis: 24, io_millis: 36, refaults: 10 };
    assert_eq!(record.stalled, stalled);
    assert_eq!(record.unreclaimable.count(), 3);
    let (_, lower, upper) = record.unreclaimable.buckets().next().unwrap();
    assert!(lower < 5.0 * MIB as f64 && upper >= 5.0 * MIB as f64, "{lower} {upper}");
}

#[test]
fn the_quota_simulation_covers_all_time_also_after_flushes() {
    let mut node = Node::new();
    node.collector.options.quota_what_if = true;
    let key = node.container('a', START - 10_000.0);
    node.name(key, "web-1");
    node.second(0.0);
    let mut periods = Vec::new();
    for round in 0..3_u64 {
        for window in 0..10 {
            let number = round * 10 + window;
            // Half a core all the time.
            node.cpu(key, 1000 + number * 50, number as f64 / 10.0 + 0.1);
        }
        node.second(round as f64 + 1.05);
        let (_, shown, _) = node.collector.new_values().next().unwrap();
        let what_if = shown.quota_what_if.unwrap();
        let [half, whole] = [400, 800].map(|quota| what_if.get(quota).unwrap());
        periods.push((half.periods, half.throttled, whole.throttled));
        node.collector.collect(&node.store, false, START + round as f64 + 1.05);
    }
    // The first sample is no window.
    assert_eq!(periods, [(9, 9, 0), (19, 19, 0), (29, 29, 0)]);
    assert!(node.collector.new_values().next().is_none());
}

#[test]
fn containers_that_need_every_window_get_idle_ones() {
    let what_if = |tells_all: bool| {
        let mut node = Node::new();
        node.collector.options.quota_what_if = true;
        let key = node.container('a', START - 10_000.0);
        node.name(key, "web-1");
        node.second(0.0);
        node.cpu(key, 1000, 0.1);
        for window in 2..=20_u64 {
            let seconds = window as f64 / 10.0;
            node.tick(seconds);
            // Two cores for a moment: with a quota of 0.4 cores this CPU time would have been delayed for long.
            if tells_all || window == 2 {
                let _ = node.report(key, 1200, seconds);
            }
            node.collector.record_idle_cpu(START + seconds);
        }
        node.second(2.0);
        let (_, shown, _) = node.collector.new_values().next().unwrap();
        (shown.quota_what_if.unwrap(), shown.cpu_windows.unwrap())
    };
    let (sampled, left_out) = (what_if(true), what_if(false));
    assert_eq!(sampled, left_out);
    let outcome = sampled.0.get(400).unwrap();
    assert!(outcome.throttled > 2, "{outcome:?}");
}

#[test]
fn idle_seconds_are_left_out_and_counted_later() {
    let mut node = Node::new();
    let key = node.container('a', START - 10_000.0);
    node.name(key, "web-1");
    node.memory(key, 8 * MIB, 0, 9 * MIB);
    // The first minutes, in which each flush observes all containers, are over.
    node.collector.began_unix -= FIRST_SECONDS;
    let mut shown = Vec::new();
    for second in 0..25 {
        node.cpu(key, 1000, f64::from(second));
        if second == 12 {
            node.memory(key, 10 * MIB, 0, 10 * MIB);
        }
        node.second(f64::from(second));
        for (key, values, seen) in node.collector.new_values() {
            node.store.update(key, values);
            *seen = node.store.stamp(key).unwrap();
            shown.push(second);
        }
    }
    assert_eq!(shown, [0, 5, 10, 12, 17, 22]);
    let evidence = node.finish(25.0);
    let record = evidence[0].hours.values().next().unwrap();
    assert_eq!(record.working_set.count(), 25, "every second counts, whatever was passed over");
    assert_eq!(buckets(&record.working_set).iter().map(|(count, _)| *count).collect::<Vec<_>>(), [12, 13]);
}
