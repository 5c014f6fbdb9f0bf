//! Removed cgroups: their usage stays counted in the workload, their rows are gone.

use std::{thread, time::Duration};

use snug_tests::{
    cgroup::{Cgroup, Host},
    wait::until,
    worker::{Job, Worker},
};

use crate::driver::{Driver, Running, host, row_of, values_of, workload_of};

const MIB: u64 = 1 << 20;

#[test]
fn a_removed_cgroup_is_gone_after_one_round() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "removed");
    assert!(row_of(&driver.round(), cgroup.path()).is_some());
    cgroup.remove();
    assert!(row_of(&driver.round(), cgroup.path()).is_none());
    // A cgroup created again under the same name is another one.
    let again = Cgroup::new(&host, "removed");
    let published = driver.round();
    assert_eq!(values_of(&published, again.path()).cpu.unwrap().usage_ns, 0);
    drop(again);
    let published = driver.round();
    assert!(row_of(&published, cgroup.path()).is_none());
    let workload = workload_of(&published, cgroup.path());
    assert_eq!((workload.containers_started, workload.containers_ended), (2, 2));
}

#[test]
fn by_files_a_removed_cgroup_is_gone_after_the_next_listing() {
    let Some(host) = host() else { return };
    let cgroup = Cgroup::new(&host, "removed-files");
    let Some(mut driver) = Driver::start(&["--source", "files"], None) else { return };
    assert!(row_of(&driver.round(), cgroup.path()).is_some());
    cgroup.remove();
    thread::sleep(Duration::from_millis(1_100));
    assert!(row_of(&driver.round(), cgroup.path()).is_none());
}

/// The process' own account ends before its exit does.
const REST_OF_EXIT: Duration = Duration::from_millis(5);

/// Works for 50 ms in a new cgroup, which it removes 80 ms later. Returns the CPU time of the process there, by the kernel's account of
/// it, and what was counted.
fn work_for_a_moment(host: &Host, running: &Running, name: &str) -> (Duration, Duration) {
    let mut worker = Worker::start();
    let cgroup = Cgroup::new(host, name);
    worker.move_to(&cgroup);
    worker.run(&Job::Spin { cpu_ms: 50, threads: 1 }).unwrap();
    let (_, used) = worker.exit(0);
    // When the last task exits, the agent flushes CPU time.
    thread::sleep(Duration::from_millis(80));
    cgroup.remove();
    let workload = until("its removal is counted", Duration::from_secs(10), || {
        let workload = workload_of(&running.published(), cgroup.path());
        (workload.containers_ended == 1).then_some(workload)
    });
    assert_eq!(workload.containers_started, 1);
    (used, Duration::from_nanos(workload.cpu_ns))
}

#[test]
fn fifty_milliseconds_of_work_are_counted() {
    let Some(host) = host() else { return };
    let Some(running) = Running::start(&["--source", "kernel"]) else { return };
    // An emulator that waits for its host prolongs the rest of the exit; then more is counted, but never less.
    let all: Vec<_> =
        (0..5).map(|number| work_for_a_moment(&host, &running, &format!("short-{number}"))).collect();
    println!("used and counted: {all:?}");
    assert!(all.iter().all(|(used, counted)| *counted + REST_OF_EXIT >= *used), "{all:?}");
    assert!(all.iter().any(|(used, counted)| *counted <= *used + REST_OF_EXIT), "{all:?}");
}

/// No pass has sampled the cgroup: its values come from the final records.
#[test]
fn a_cgroup_that_lived_between_two_rounds_is_counted_from_its_final_records() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "between");
    cgroup.limit_memory(24 * MIB, 256 * MIB);
    cgroup.limit_cpu(10_000, 100_000, 0);
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    worker.run(&Job::Spin { cpu_ms: 60, threads: 2 }).unwrap();
    assert_eq!(worker.run(&Job::Touch { bytes: 64 * MIB }), None, "it should have been killed");
    worker.kill();
    cgroup.remove();
    let published = driver.round();
    assert!(row_of(&published, cgroup.path()).is_none());
    let workload = workload_of(&published, cgroup.path());
    assert_eq!((workload.containers_started, workload.containers_ended), (1, 1));
    assert!(workload.memory_peak_bytes > 16 * MIB, "{workload:?}");
    assert_eq!(workload.memory_events.oom_kill, 1, "{workload:?}");
    assert!(workload.throttled_periods > 0 && workload.throttled_ns > 0, "{workload:?}");
}

#[test]
fn a_removal_is_counted_after_the_final_records_of_all_hierarchies() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "all-hierarchies");
    driver.round();
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    worker.run(&Job::Touch { bytes: 16 * MIB }).unwrap();
    worker.kill();
    let ended = |driver: &mut Driver| {
        let published = driver.round();
        assert!(row_of(&published, cgroup.path()).is_none(), "the row goes with the first hierarchy");
        workload_of(&published, cgroup.path())
    };
    let (last, others) =
        host.sampled().into_iter().rev().fold((None, Vec::new()), |(last, mut others), one| {
            // Removed from the memory hierarchy last.
            if host.hierarchies.memory() == Some(one) {
                (Some(one), others)
            } else {
                others.push(one);
                (last, others)
            }
        });
    for hierarchy in others.iter().rev() {
        cgroup.remove_from(hierarchy);
    }
    if !others.is_empty() {
        let waiting = ended(&mut driver);
        assert_eq!(waiting.containers_ended, 0, "the final record of the memory hierarchy is missing");
    }
    cgroup.remove_from(last.unwrap());
    let counted = ended(&mut driver);
    assert_eq!((counted.containers_started, counted.containers_ended), (1, 1));
    assert!(counted.memory_peak_bytes >= 16 * MIB, "{counted:?}");
}
