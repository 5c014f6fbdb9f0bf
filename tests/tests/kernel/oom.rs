//! OOM kills of several processes at once, and of pods.

use std::fs;

use serde_json::json;
use snug_agent::{
    history::{History, Retention},
    model::{EventDetails, OomScope, TerminationReason},
};
use snug_tests::{
    cgroup::{Cgroup, Host},
    worker::{Job, Worker},
};

use crate::{
    driver::{Driver, end_of, host, workload_of},
    evidence::recorded,
    names::{pod, write},
};

const MIB: u64 = 1 << 20;

/// Makes the kernel kill all processes of a cgroup at once, as the kubelet does for containers.
fn kill_as_a_group(host: &Host, cgroup: &Cgroup) {
    let directory = cgroup.directory(host.hierarchies.memory().unwrap());
    fs::write(directory.join("memory.oom.group"), "1").unwrap();
}

/// Five processes with some memory each.
fn five(cgroup: &Cgroup) -> Vec<Worker> {
    let mut workers: Vec<Worker> = (0..5).map(|_| Worker::start_in(cgroup)).collect();
    for worker in &mut workers {
        assert_eq!(worker.run(&Job::Touch { bytes: 2 * MIB }), Some(2 * MIB));
    }
    workers
}

#[test]
fn one_oom_that_kills_five_processes_is_one_kill() {
    let Some(host) = host() else { return };
    if !host.unified() {
        eprintln!("skipped: only cgroup v2 has memory.oom.group");
        return;
    }
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let parent = Cgroup::new(&host, "group");
    let mut kills = [0, 0, 0, 0];
    for (name, limit_of_parent, at_once, scope) in [
        ("one", false, false, OomScope::Container),
        ("all", false, true, OomScope::Container),
        ("above", true, true, OomScope::Ancestor),
    ] {
        let cgroup = parent.child(name);
        kill_as_a_group(&host, &cgroup);
        let limited = if limit_of_parent { &parent } else { &cgroup };
        limited.limit_memory(96 * MIB, 0);
        let mut workers = five(&cgroup);
        // At once, each of them runs into the limit while the kernel kills.
        for worker in workers.iter_mut().skip(2).take(if at_once { 5 } else { 1 }) {
            worker.begin(&Job::Touch { bytes: 128 * MIB });
        }
        for worker in &mut workers {
            let status = worker.wait();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{name}: {status:?}");
        }
        cgroup.remove();
        driver.round();
        let published = driver.round();
        let end = end_of(&published, cgroup.path()).unwrap();
        let kill = end.last_oom_kill.clone().unwrap();
        assert_eq!(
            (end.oom_kills, kill.scope, kill.limit_bytes),
            (1, scope, Some(96 * MIB)),
            "{name}: {end:?}"
        );
        assert_eq!(end.termination.as_ref().unwrap().reason, TerminationReason::OomKilled, "{name}");
        let of_cgroup = published.events.iter().filter(|event| *event.subject.path == *cgroup.path());
        let kills_reported =
            of_cgroup.filter(|event| matches!(event.details, EventDetails::OomKill(_))).count();
        assert_eq!(kills_reported, 1, "{name}");
        // The kernel counts processes, and some of their threads again.
        assert!(end.values.memory_events.unwrap().oom_kill >= 5, "{name}: {end:?}");
        kills[OomScope::ALL.iter().position(|one| *one == scope).unwrap()] += 1;
        assert_eq!(workload_of(&published, parent.path()).oom_kills, Some(kills), "{name}");
    }
    // The next OOM in the same cgroup is another kill.
    parent.limit_memory(512 * MIB, 0);
    let again = parent.child("again");
    kill_as_a_group(&host, &again);
    again.limit_memory(48 * MIB, 0);
    for _ in 0..3 {
        let mut worker = Worker::start_in(&again);
        assert_eq!(worker.run(&Job::Touch { bytes: 64 * MIB }), None);
        worker.wait();
        kills[0] += 1;
    }
    assert_eq!(workload_of(&driver.round(), parent.path()).oom_kills, Some(kills));
}

#[test]
fn a_kill_at_the_pods_limit_reaches_the_history_although_the_pod_is_known_later() {
    let Some(host) = host() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pods.json");
    write(&file, &[]);
    let Some(driver) = Driver::kernel(&["--pods-file", file.to_str().unwrap()]) else { return };
    let history = History::start(None, Retention { hours: 24, hours_by_minute: 24, bytes: 1 << 20 }).unwrap();
    let mut driver = driver.with_history(history.sink());
    let uid = "5d0c1e2f-3a4b-4c5d-8e6f-708192a3b4c5";
    let id = "e".repeat(64);
    let top = Cgroup::new(&host, "pod-limit");
    let kubepods = top.child("kubepods");
    let of_pod = kubepods.child(&format!("pod{uid}"));
    let container = of_pod.child(&id);
    container.limit_memory(64 * MIB, 0);
    of_pod.limit_memory(32 * MIB, 0);
    let mut worker = Worker::start_in(&container);
    assert_eq!(worker.run(&Job::Touch { bytes: 96 * MIB }), None, "it should have been killed");
    worker.wait();
    container.remove();
    driver.round();
    let published = driver.round();
    assert!(end_of(&published, container.path()).is_none(), "it waits for its name");
    let owner = Some(("ReplicaSet", "looping-5d4f8b7c9"));
    write(&file, &[pod("looping-5d4f8b7c9-x2k4p", uid, owner, &json!({}), &id)]);
    driver.round();
    let published = driver.round();
    let end = end_of(&published, container.path()).unwrap();
    assert_eq!(end.last_oom_kill.as_ref().map(|kill| kill.scope), Some(OomScope::Pod), "{end:?}");
    let row = published.workloads.iter().find(|row| &*row.workload == "looping").unwrap();
    assert_eq!((&*row.workload_kind, row.oom_kills), ("Deployment", Some([0, 1, 0, 0])));
    driver.end();
    let evidence = recorded(history, "looping");
    let kills: Vec<(u64, &str)> = evidence.kills().map(|kill| (kill.limit, &*kill.pod)).collect();
    assert_eq!(kills, [(32 * MIB, "looping-5d4f8b7c9-x2k4p")]);
    // Two records if an hour ended meanwhile.
    let observed: u64 = evidence.hours.values().map(|record| record.observed).sum();
    let highest = evidence.hours.values().filter_map(|record| record.highest()).map(|peak| peak.bytes).max();
    assert!(observed >= 1 && highest.is_some_and(|bytes| bytes > 16 * MIB), "{:?}", evidence.hours);
}
