//! Cgroups that a container makes below itself: they take no room from others, and cannot pass for others.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use snug_agent::model::{Level, View};
use snug_tests::{
    cgroup::{Cgroup, Host},
    worker::{Job, Worker},
};

use crate::driver::{Driver, below, host, lost, own_machine, row_of, skipped};

/// An id of a container, with this first digit.
fn id(first: u32) -> String {
    format!("{first:x}").repeat(64)
}

fn numbered(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("n{number}")).collect()
}

/// Directories below one, in all sampled hierarchies. Removed when dropped.
struct Made(Vec<PathBuf>);

impl Made {
    fn below(host: &Host, container: &Cgroup, names: &[String]) -> Self {
        let mut made = Vec::new();
        for hierarchy in host.sampled() {
            for name in names {
                let directory = container.directory(hierarchy).join(name);
                fs::create_dir(&directory).unwrap();
                made.push(directory);
            }
        }
        Self(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.0.iter().rev().for_each(|directory| drop(fs::remove_dir(directory)));
    }
}

#[test]
fn cgroups_inside_a_container_take_no_room_from_others() {
    const ROOM: u64 = 512;
    // The machines of the tests on other kernels are small and slow.
    let made = if own_machine() { 2 * ROOM } else { 9_000 };
    let Some(host) = host() else { return };
    let start = || Driver::kernel(&["--max-cgroups", "512"]);
    let Some(mut driver) = start() else { return };
    let parent = Cgroup::new(&host, "nested");
    let container = parent.child(&id(1));
    driver.round();
    let events_before = lost(&driver.round(), "cgroup_made");
    let _made = Made::below(&host, &container, &numbered(made));
    let later = parent.child(&id(2));
    later.limit_pids(77);
    let started = Instant::now();
    driver.round();
    let published = driver.round();
    let took = started.elapsed();
    let row = row_of(&published, later.path()).unwrap();
    assert_eq!(row.identity.of_path.level, Level::Container);
    assert_eq!(row.values.pids.unwrap().limit, Some(77));
    assert!(row.values.cpu.is_some() && row.values.memory.is_some());
    assert_eq!(skipped(&published, "cgroup_records_without_room"), 0);
    assert!(published.agent.pass_cgroups < ROOM, "{}", published.agent.pass_cgroups);
    assert_eq!(below(&published, container.path()).len(), 0);
    assert_eq!(lost(&published, "cgroup_made"), events_before, "no events of what a container makes");
    println!("{made} cgroups in one container with room for {ROOM}: two rounds took {took:?}");
    drop(driver);

    // An agent that starts while they are there.
    let Some(mut driver) = start() else { return };
    driver.round();
    let published = driver.round();
    assert_eq!(skipped(&published, "cgroup_records_without_room"), 0);
    let row = row_of(&published, later.path()).unwrap();
    assert_eq!(row.values.pids.unwrap().limit, Some(77));
}

#[test]
fn traffic_of_cgroups_inside_a_container_is_its_own_and_frees_the_map() {
    const ROOM: u64 = 128;
    const MADE: u64 = ROOM;
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&["--max-cgroups", "128"]) else { return };
    let parent = Cgroup::new(&host, "nested-net");
    let container = parent.child(&id(3));
    driver.round();
    let inner: Vec<Cgroup> = (0..MADE).map(|number| container.child(&format!("n{number}"))).collect();
    // The agent lists directories once a second.
    thread::sleep(Duration::from_millis(1100));
    let mut worker = Worker::start();
    let mut sent = 0;
    for cgroup in &inner {
        cgroup.add(worker.pid());
        worker.run(&Job::Datagrams { times: 1, bytes: 10, ipv6: false }).unwrap();
        sent += 1;
        if sent % 32 == 0 {
            driver.round();
        }
    }
    let later = parent.child(&id(4));
    later.add(worker.pid());
    driver.round();
    worker.run(&Job::Datagrams { times: 5, bytes: 10, ipv6: false }).unwrap();
    let published = driver.round();
    let of = |path: &str| transmitted(&published, path);
    assert_eq!(of(later.path()), 5, "a container that started later is counted");
    assert!(of(container.path()) > 0 && of(container.path()) <= sent);
}

fn transmitted(view: &View, path: &str) -> u64 {
    row_of(view, path).unwrap().values.network.unwrap().ipv4.transmit_packets
}

#[test]
fn a_container_cannot_pass_for_a_pod() {
    let Some(host) = host() else { return };
    let parent = Cgroup::new(&host, "impostor");
    let container = parent.child(&id(5));
    let kubepods = container.child("kubepods");
    let pod = kubepods.child("pod51aa0a03-5afa-462e-a0f9-efcecc71a4f3");
    let victim = pod.child(&id(6));
    let mut worker = Worker::start_in(&victim);
    worker.run(&Job::Spin { cpu_ms: 50, threads: 1 }).unwrap();
    let view = |options: &[&str]| {
        let mut driver = Driver::kernel(options)?;
        driver.round();
        Some(driver.round())
    };
    let Some(published) = view(&[]) else { return };
    assert!(below(&published, container.path()).is_empty());
    let usage = row_of(&published, container.path()).unwrap().values.cpu.unwrap().usage_ns;
    assert!(usage >= 40_000_000, "its usage is the container's: {usage}");
    assert!(published.cgroups.iter().all(|row| {
        row.identity.of_path.pod_uid.as_deref() != Some("51aa0a03-5afa-462e-a0f9-efcecc71a4f3")
    }));
    // The same container, declared to be a node.
    let Some(published) = view(&["--nested-nodes", container.path()]) else { return };
    let row = row_of(&published, victim.path()).unwrap();
    assert_eq!(row.identity.of_path.pod_uid.as_deref(), Some("51aa0a03-5afa-462e-a0f9-efcecc71a4f3"));
    assert!(row.values.cpu.unwrap().usage_ns >= 40_000_000);
}
