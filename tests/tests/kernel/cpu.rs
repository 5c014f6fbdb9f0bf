//! CPU time.

use std::{
    thread,
    time::{Duration, Instant},
};

use snug_agent::values::{Measurement, SourceKind};
use snug_tests::{
    cgroup::{Cgroup, row},
    worker::{Job, Worker},
};

use crate::driver::{Driver, host, source_of, values_of};

/// Whatever else a CPU does while a worker reads its job is time of the worker's cgroup: in an emulator that waits for a CPU of its
/// host, seconds. So one attempt of these has to agree, and none may lack time.
const ATTEMPTS: usize = 5;

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
    let mut tried = Vec::new();
    let agrees = (0..ATTEMPTS).any(|_| {
        // Receiving the job and answering takes CPU time, too; under emulation a lot.
        let (little, by_worker) = spin(1);
        let overhead = little.saturating_sub(by_worker);
        let (used, by_worker) = spin(1_000);
        let allowed = by_worker / 100 + 3 * overhead + 1_000_000;
        tried.push(format!("{used} ns published, {by_worker} ns used, {allowed} allowed"));
        assert!(used + 1_000_000 > by_worker, "{tried:?}");
        used.abs_diff(by_worker) < allowed
    });
    assert!(agrees, "{tried:?}");

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
        thread::sleep(Duration::from_millis(20));
    }
    assert!(usages.windows(2).all(|pair| pair[0] <= pair[1]), "{usages:?}");
    assert!(usages.first() < usages.last(), "{usages:?}");
    worker.end().unwrap();
}

#[test]
fn a_reader_gets_user_and_system_time_of_the_same_moment_as_cpu_time() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&["--slow-interval", "1s"]) else { return };
    let cgroup = Cgroup::new(&host, "split");
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    worker.begin(&Job::Spin { cpu_ms: 4_000, threads: 2 });
    let of_file =
        || ["user_usec", "system_usec"].map(|name| row(&cgroup.cpu_stat(), name)).iter().sum::<u64>();
    for _ in 0..6 {
        // Readers have the files read at most three times per interval.
        thread::sleep(Duration::from_millis(400));
        driver.round();
        let before = of_file();
        let values = values_of(&driver.for_reader(), cgroup.path());
        let after = of_file();
        let (usage, split) = (values.cpu.unwrap().usage_ns, values.cpu_split.unwrap());
        let parts = split.user_ns + split.system_ns;
        assert!(parts <= usage, "{split:?} of {usage}");
        // Each is cut to microseconds, and the file is read in two parts.
        assert!(
            (before.saturating_sub(2)..=after).contains(&(parts / 1_000)),
            "{before} to {after} µs: {split:?}"
        );
    }
    worker.kill();
}

#[test]
fn the_age_of_values_that_are_read_slowly_is_that_of_the_oldest() {
    let Some(host) = host() else { return };
    let _cgroup = Cgroup::new(&host, "age");
    let begun = Instant::now();
    let Some(mut driver) = Driver::kernel(&["--slow-interval", "1m"]) else { return };
    let read_by = Instant::now();
    thread::sleep(Duration::from_millis(700));
    let published = driver.round();
    let slow = source_of(&published, Measurement::SlowRows).sampled_at.unwrap();
    assert!(begun <= slow && slow <= read_by, "in the first round");
    assert!(source_of(&published, Measurement::Memory).sampled_at.unwrap() > read_by);
    let published = driver.for_reader();
    assert!(
        source_of(&published, Measurement::SlowRows).sampled_at.unwrap() > read_by,
        "all were read for the reader"
    );
}
