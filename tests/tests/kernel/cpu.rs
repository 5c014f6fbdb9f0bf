//! CPU time.

use snug_agent::values::{Measurement, SourceKind};
use snug_tests::{
    cgroup::{Cgroup, row},
    worker::{Job, Worker},
};

use crate::driver::{Driver, host, source_of, values_of};

/// Uses CPU time in a cgroup and compares the published CPU time with the cgroup file and with the worker's own measurement.
fn measure(name: &str, threads: u64) {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, name);
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    let mut spin = |cpu_ms| {
        let before = row(&cgroup.cpu_stat(), "usage_usec") * 1_000;
        let by_worker = worker.run(&Job::Spin { cpu_ms, threads }).unwrap();
        let usage = values_of(&driver.round(), cgroup.path()).cpu.unwrap().usage_ns;
        (usage - before, by_worker)
    };
    // Receiving the job and answering takes CPU time, too; under emulation a lot.
    let (little, by_worker) = spin(1);
    let overhead = little.saturating_sub(by_worker);
    let (used, by_worker) = spin(1_000);
    let allowed = by_worker / 100 + 3 * overhead + 1_000_000;
    assert!(
        used.abs_diff(by_worker) < allowed,
        "{used} ns published, {by_worker} ns used, {allowed} allowed"
    );

    worker.kill();
    let published = driver.round();
    assert_eq!(source_of(&published, Measurement::Cpu).source, SourceKind::Kernel);
    let usage = values_of(&published, cgroup.path()).cpu.unwrap().usage_ns;
    let file = row(&cgroup.cpu_stat(), "usage_usec");
    assert_eq!(usage / 1_000, file, "idle: equal to the microsecond");
}

#[test]
fn one_thread() {
    measure("one-thread", 1);
}

#[test]
fn four_threads() {
    measure("four-threads", 4);
}

#[test]
fn while_the_work_goes_on() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "at-work");
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    worker.begin(&Job::Spin { cpu_ms: 600, threads: 2 });
    let mut usages = Vec::new();
    for _ in 0..10 {
        let before = row(&cgroup.cpu_stat(), "usage_usec");
        let published = driver.round();
        let usage = values_of(&published, cgroup.path()).cpu.unwrap().usage_ns;
        let after = row(&cgroup.cpu_stat(), "usage_usec");
        assert!(
            (before..=after).contains(&(usage / 1_000)),
            "{usage} ns, {before} to {after} µs in the file"
        );
        usages.push(usage);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(usages.windows(2).all(|pair| pair[0] <= pair[1]), "{usages:?}");
    assert!(usages.first() < usages.last(), "{usages:?}");
    worker.end().unwrap();
}
