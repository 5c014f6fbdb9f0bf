use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::{
    ended::{FINAL_RECORD_TIMEOUT, NAME_TIMEOUT},
    *,
};
use crate::{
    model::{AgentRow, AgentRule, ContainerKind, OomScope, Qos, Runtime, View},
    values::{Cpu, MemoryEvents, MemoryStat},
};

fn of_path(level: Level, id: &str) -> PathIdentity {
    PathIdentity { level, runtime: Runtime::Unknown, pod_uid: None, qos: None, id: id.to_owned() }
}

fn appearance(path: &str, level: Level) -> Appearance {
    let id = path.rsplit('/').next().unwrap();
    Appearance { path: path.into(), of_path: of_path(level, id), created_unix: 0.0, present_at_start: false }
}

fn pod_container(path: &str) -> Appearance {
    let mut appearance = appearance(path, Level::Container);
    appearance.of_path.pod_uid = Some("uid".to_owned());
    appearance.of_path.qos = Some(Qos::Burstable);
    appearance
}

fn cpu(usage_ns: u64) -> Values {
    Values { cpu: Some(Cpu { usage_ns }), ..Values::default() }
}

fn names(workload: &str) -> Arc<Names> {
    Arc::new(Names {
        namespace: "shop".to_owned(),
        pod: format!("{workload}-1"),
        container: "main".to_owned(),
        workload_kind: "Deployment".to_owned(),
        workload: workload.to_owned(),
        kind: Some(ContainerKind::App),
        ..Names::default()
    })
}

fn workload(store: &mut Store, name: &str) -> WorkloadRow {
    store.count_workloads(Instant::now());
    let view = store.build_view(AgentRow::default(), Instant::now());
    view.workloads.iter().find(|row| &*row.workload == name).cloned().unwrap_or_default()
}

fn paths(store: &mut Store) -> Vec<String> {
    let view = store.build_view(AgentRow::default(), Instant::now());
    view.cgroups.iter().map(|row| row.identity.path.to_string()).collect()
}

#[test]
fn a_removed_container_leaves_the_view_and_stays_in_its_workload() {
    let (mut store, now) = (Store::new(10), Instant::now());
    let key = store.appear(pod_container("/pod/a"), 0, now);
    store.appear(pod_container("/pod/a"), 1, now);
    store.set_names(key, names("web"), Level::Container);
    store.update(key, cpu(100));
    store.depart(key, 0, true, false, now);
    assert_eq!(paths(&mut store), Vec::<String>::new());
    assert_eq!(store.settle(now), [], "the other hierarchy's final record is still to come");
    let events = MemoryEvents { oom_kill: 1, ..MemoryEvents::default() };
    store.update(key, Values { memory_events: Some(events), ..cpu(150) });
    store.depart(key, 1, false, false, now);
    assert_eq!(store.settle(now), [key]);
    let row = workload(&mut store, "web");
    assert_eq!((row.cpu_ns, row.memory_events.oom_kill), (150, 1));
    assert_eq!((row.containers_started, row.containers_ended), (1, 1));
}

#[test]
fn a_missing_final_record_delays_settling_until_a_timeout() {
    let (mut store, now) = (Store::new(10), Instant::now());
    let key = store.appear(appearance("/a", Level::Cgroup), 0, now);
    store.depart(key, 0, true, true, now);
    assert_eq!(store.settle(now), []);
    assert_eq!(store.settle(now + FINAL_RECORD_TIMEOUT), [key]);
    assert_eq!(workload(&mut store, "a").containers_ended, 1);
}

#[test]
fn late_names_lose_no_usage() {
    let (mut store, now) = (Store::new(10), Instant::now());
    let key = store.appear(pod_container("/pod/a"), 0, now);
    store.update(key, cpu(100));
    assert_eq!(workload(&mut store, "web"), WorkloadRow::default());
    store.set_names(key, names("web"), Level::Container);
    assert_eq!(workload(&mut store, "web").cpu_ns, 100);
    store.set_names(key, names("other"), Level::Container);
    store.update(key, cpu(130));
    assert_eq!(workload(&mut store, "web").cpu_ns, 130, "what was counted under a name stays there");
}

#[test]
fn an_unnamed_container_is_counted_as_unknown() {
    let (mut store, now) = (Store::new(10), Instant::now());
    let key = store.appear(pod_container("/pod/a"), 0, now);
    store.update(key, cpu(100));
    store.depart(key, 0, true, false, now);
    store.settle(now);
    let row = workload(&mut store, "");
    assert_eq!(
        (&*row.workload_kind, row.cpu_ns, row.containers_started, row.containers_ended),
        ("Unknown", 100, 1, 1)
    );
}

/// A short run of a container.
#[derive(Clone, Debug)]
struct Run {
    workload: &'static str,
    cpu_ns: u64,
    is_killed: bool,
    /// Whether the runtime names it, which does not know workloads.
    is_named_by_runtime: bool,
    /// When its workload gets known, seconds after its end; `None`: never.
    known_after: Option<u64>,
}

fn run() -> impl Strategy<Value = Run> {
    let workload = prop::sample::select(vec!["web", "report"]);
    let known_after = prop::option::weighted(0.8, 0..=NAME_TIMEOUT.as_secs());
    (workload, 0..1000_u64, any::<[bool; 2]>(), known_after).prop_map(
        |(workload, cpu_ns, [is_killed, is_named_by_runtime], known_after)| Run {
            workload,
            cpu_ns,
            is_killed,
            is_named_by_runtime,
            known_after,
        },
    )
}

#[test]
fn a_container_that_ends_before_its_name_is_known_counts_under_its_own_workload_or_none() {
    let is_late = |runs: &Vec<Run>| runs.iter().any(|run| run.known_after > Some(0));
    AgentRule::LateNames.prove(&prop::collection::vec(run(), 1..6), is_late, |runs| {
        let (mut store, begun) = (Store::new(10), Instant::now());
        store.expect_names(true);
        store.set_oom_kills_reported(true);
        let mut expected = BTreeMap::<&str, (u64, u64, u64)>::new();
        let mut keys = Vec::new();
        for (number, run) in runs.iter().enumerate() {
            let key = store.appear(pod_container(&format!("/pod/{number}")), 0, begun);
            store.update(key, cpu(run.cpu_ns));
            if run.is_named_by_runtime {
                let names = Names { pod: "x".to_owned(), ..Names::default() };
                store.set_names(key, Arc::new(names), Level::Container);
            }
            let of_limit = OomKill {
                at_unix: 0.0,
                scope: OomScope::Container,
                usage_bytes: 1,
                limit_bytes: Some(1),
                pid: 1,
                comm: String::new(),
            };
            if run.is_killed {
                store.record_oom_kill(key, of_limit);
            }
            store.depart(key, 0, true, false, begun);
            keys.push(key);
            let of_workload = run.known_after.map_or("", |_| run.workload);
            let (cpu_ns, ended, kills) = expected.entry(of_workload).or_default();
            *cpu_ns += run.cpu_ns;
            *ended += 1;
            *kills += u64::from(run.is_killed);
        }
        for seconds in 0..=NAME_TIMEOUT.as_secs() {
            for (run, key) in runs.iter().zip(&keys).filter(|(run, _)| run.known_after == Some(seconds)) {
                store.set_names(*key, names(run.workload), Level::Container);
            }
            store.settle(begun + Duration::from_secs(seconds));
        }
        store.count_workloads(begun);
        let view = store.build_view(AgentRow::default(), begun);
        let sums = |row: &WorkloadRow| {
            (row.cpu_ns, row.containers_ended, row.oom_kills.unwrap_or_default().iter().sum())
        };
        let found = view.workloads.iter().map(|row| (&*row.workload, sums(row))).collect();
        let never_named = runs.iter().filter(|run| run.known_after.is_none()).count() as u64;
        let is_right = expected == found && store.never_named() == never_named;
        if is_right { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
    });
}

#[test]
fn usage_before_the_agent_started_does_not_count() {
    let (mut store, now) = (Store::new(10), Instant::now());
    let mut before = appearance("/a", Level::Cgroup);
    before.present_at_start = true;
    let key = store.appear(before, 0, now);
    store.update(key, cpu(1_000));
    store.update(key, cpu(1_030));
    let row = workload(&mut store, "a");
    assert_eq!((row.cpu_ns, row.containers_started), (30, 0));
}

#[test]
fn a_reused_path_is_another_cgroup() {
    let (mut store, now) = (Store::new(10), Instant::now());
    let first = store.appear(appearance("/a", Level::Cgroup), 0, now);
    store.update(first, cpu(100));
    let second = store.appear(appearance("/a", Level::Cgroup), 0, now);
    assert_ne!(first, second);
    store.update(second, cpu(5));
    assert_eq!(store.values(second).unwrap().cpu, Some(Cpu { usage_ns: 5 }));
    store.settle(now + FINAL_RECORD_TIMEOUT);
    let row = workload(&mut store, "a");
    assert_eq!((row.cpu_ns, row.containers_started, row.containers_ended), (105, 2, 1));
    assert_eq!(paths(&mut store), ["/a"]);
}

#[test]
fn a_cgroup_removed_before_all_hierarchies_reported_it_is_one_cgroup() {
    let (mut store, now) = (Store::new(10), Instant::now());
    let key = store.appear(appearance("/a", Level::Cgroup), 0, now);
    store.depart(key, 0, true, true, now);
    assert_eq!(store.appear(appearance("/a", Level::Cgroup), 1, now), key);
    store.depart(key, 0, true, false, now);
    assert_eq!(store.settle(now), [], "the other hierarchy's final record is still to come");
    store.depart(key, 1, false, false, now);
    assert_eq!(store.settle(now), [key]);
    let row = workload(&mut store, "a");
    assert_eq!((row.containers_started, row.containers_ended), (1, 1));
    let again = store.appear(appearance("/a", Level::Cgroup), 1, now);
    assert_ne!(again, key, "another one at the same path");
    assert_eq!(store.appear(appearance("/a", Level::Cgroup), 0, now), again);
    assert_eq!(paths(&mut store), ["/a"]);
}

#[test]
fn a_plain_cgroup_with_children_becomes_a_slice_and_is_not_counted_twice() {
    let (mut store, now) = (Store::new(10), Instant::now());
    let child = store.appear(appearance("/a/b", Level::Cgroup), 0, now);
    let parent = store.appear(appearance("/a", Level::Cgroup), 0, now);
    store.update(parent, cpu(70));
    store.update(child, cpu(70));
    assert_eq!(store.identity(parent).unwrap().of_path.level, Level::Slice);
    assert_eq!(workload(&mut store, "a").cpu_ns, 70);
    store.depart(child, 0, true, false, now);
    store.settle(now);
    assert_eq!(store.identity(parent).unwrap().of_path.level, Level::Slice);
}

#[test]
fn a_container_that_runs_pods_becomes_a_slice() {
    let (mut store, now) = (Store::new(10), Instant::now());
    let node = store.appear(appearance("/node", Level::Container), 0, now);
    assert_eq!(store.identity(node).unwrap().of_path.level, Level::Container);
    store.appear(pod_container("/node/kubepods/pod/c"), 0, now);
    assert_eq!(store.identity(node).unwrap().of_path.level, Level::Slice);
}

#[test]
fn too_many_workloads_are_folded_and_counted() {
    let (mut store, now) = (Store::new(2), Instant::now());
    for index in 0..5 {
        let key = store.appear(appearance(&format!("/w{index}"), Level::Cgroup), 0, now);
        store.update(key, cpu(10));
    }
    assert_eq!(workload(&mut store, "_folded").cpu_ns, 30);
    assert_eq!(store.build_view(AgentRow::default(), now).agent.workloads_folded, 3);
}

#[test]
fn rows_are_sorted_and_unnamed_ones_counted() {
    let (mut store, now) = (Store::new(10), Instant::now());
    for path in ["/b", "/a", "/c"] {
        store.appear(appearance(path, Level::Cgroup), 0, now);
    }
    store.appear(pod_container("/p"), 0, now);
    assert_eq!(paths(&mut store), ["/a", "/b", "/c", "/p"]);
    assert_eq!(store.build_view(AgentRow::default(), now).agent.unnamed_containers, 1);
}

fn shown(view: &View) -> Vec<(Arc<str>, f64, Values)> {
    let row = |row: &CgroupRow| (row.identity.path.clone(), row.created_unix, row.values.clone());
    view.cgroups.iter().map(row).collect()
}

#[test]
fn a_view_that_reuses_an_old_one_equals_a_new_one() {
    let (mut store, now) = (Store::new(10), Instant::now());
    let keys = ["/a", "/b", "/c"].map(|path| store.appear(appearance(path, Level::Cgroup), 0, now));
    let stat = |anon_bytes| Some(Arc::new(MemoryStat { anon_bytes, ..MemoryStat::default() }));
    for (key, anon_bytes) in keys.into_iter().zip([Some(1), Some(2), None]) {
        store.update(key, Values { memory_stat: anon_bytes.and_then(stat), ..cpu(7) });
    }
    let old = store.build_view(AgentRow::default(), now);

    // One cgroup is removed, one gets new values, one gets its first ones, one is added.
    store.depart(keys[0], 0, true, false, now);
    store.settle(now);
    store.update(keys[1], Values { memory_stat: stat(20), ..cpu(8) });
    store.update(keys[2], Values { memory_stat: stat(30), ..Values::default() });
    store.appear(appearance("/d", Level::Cgroup), 0, now);
    let new = store.build_view(AgentRow::default(), now);
    store.recycle(old);
    let written_over = store.build_view(AgentRow::default(), now);

    assert_eq!(shown(&new), shown(&written_over));
    let paths: Vec<_> = written_over.cgroups.iter().map(|row| &*row.identity.path).collect();
    assert_eq!(paths, ["/b", "/c", "/d"]);
    let [b, c, d] = &written_over.cgroups[..] else { panic!("three rows") };
    assert_eq!((b.values.memory_stat.as_ref().unwrap().anon_bytes, b.values.cpu), (20, cpu(8).cpu));
    assert_eq!(c.values.memory_stat.as_ref().unwrap().anon_bytes, 30);
    assert_eq!(d.values, Values::default());
}

proptest! {
    #[test]
    fn every_change_is_in_the_view(steps in prop::collection::vec((0..5_usize, 0..6_u8, 0..3_usize), 0..60)) {
        let (mut store, now) = (Store::new(10), Instant::now());
        let mut keys = [const { None::<Key> }; 5];
        let mut views = VecDeque::new();
        for (count, (which, what, lag)) in (1..).zip(steps) {
            let path = ["/a", "/b", "/b/c", "/d", "/e"][which];
            let stat = Some(Arc::new(MemoryStat { anon_bytes: count, ..MemoryStat::default() }));
            match (what, keys[which]) {
                (0, Some(key)) => {
                    store.depart(key, 0, true, false, now);
                    store.settle(now);
                    keys[which] = None;
                }
                (1, Some(key)) => store.update(key, Values { memory_stat: stat, ..Values::default() }),
                (_, Some(key)) => store.update_cpu(key, Cpu { usage_ns: count }),
                (_, None) => keys[which] = Some(store.appear(appearance(path, Level::Cgroup), 0, now)),
            }
            let written_over = store.build_view(AgentRow::default(), now);
            let new = store.build_view(AgentRow::default(), now);
            prop_assert_eq!(shown(&written_over), shown(&new));
            views.extend([written_over, new]);
            while views.len() > lag {
                store.recycle(views.pop_front().unwrap());
            }
        }
    }
}
