//! What is seen without a walk.

use std::{sync::Arc, time::Duration};

use snug_agent::model::View;
use snug_tests::{
    cgroup::{Cgroup, row},
    wait::until,
    worker::{Job, Worker},
};

use crate::driver::{Driver, host, row_of, values_of};

/// No second is over before the test is.
const RARELY: [&str; 4] = ["--working-set-interval", "1m", "--slow-interval", "1m"];

fn cpu_micros(published: &View, cgroup: &Cgroup) -> u64 {
    values_of(published, cgroup.path()).cpu.unwrap().usage_ns / 1000
}

/// Rounds until one lies between two equal readings of the file: it tells the same.
fn settled(driver: &mut Driver, cgroup: &Cgroup) -> Arc<View> {
    let usage = || row(&cgroup.cpu_stat(), "usage_usec");
    until("the worker's rest", Duration::from_secs(20), || {
        // Another than the agent has the kernel sum up, too.
        let before = usage();
        let published = driver.round();
        (before == usage()).then(|| {
            assert_eq!(cpu_micros(&published, cgroup), before);
            published
        })
    })
}

#[test]
fn looks_see_cpu_time_without_a_pass() {
    let Some(host) = host() else { return };
    let top = Cgroup::new(&host, "looks");
    let [busy, idle] = ["busy", "idle"].map(|name| top.child(name));
    let Some(mut driver) = Driver::kernel(&RARELY) else { return };
    let mut worker = Worker::start_in(&busy);
    let passes = settled(&mut driver, &busy).agent.passes;
    for cpu_ms in [5, 0, 40] {
        let before = cpu_micros(&driver.round(), &busy);
        worker.run(&Job::Spin { cpu_ms, threads: 2 }).unwrap();
        let published = settled(&mut driver, &busy);
        assert!(cpu_micros(&published, &busy) - before >= cpu_ms * 1000);
        assert!(cpu_micros(&published, &top) >= cpu_micros(&published, &busy), "what is below is its own");
        assert_eq!(cpu_micros(&published, &idle), 0);
        assert_eq!(published.agent.passes, passes);
    }
}

#[test]
fn a_pass_is_made_once_after_cgroups_were_made_or_removed() {
    let Some(host) = host() else { return };
    let top = Cgroup::new(&host, "passes");
    let Some(mut driver) = Driver::kernel(&RARELY) else { return };
    let before = until("a quiet moment of the host", Duration::from_secs(20), || {
        let before = driver.round().agent.passes;
        (driver.round().agent.passes == before).then_some(before)
    });
    let child = top.child("child");
    let mut worker = Worker::start_in(&child);
    worker.run(&Job::Spin { cpu_ms: 20, threads: 1 }).unwrap();
    let published = settled(&mut driver, &child);
    assert_eq!(published.agent.passes, before + 1, "made");
    assert!(cpu_micros(&published, &child) >= 20_000);

    worker.kill();
    child.remove();
    let published = driver.round();
    assert_eq!(published.agent.passes, before + 2, "removed");
    assert!(row_of(&published, child.path()).is_none());
    assert!(cpu_micros(&published, &top) >= 20_000);
    assert_eq!(driver.round().agent.passes, before + 2);
}

#[test]
fn seconds_are_measured_without_a_walk_while_no_cgroup_comes_or_goes() {
    let Some(host) = host() else { return };
    let top = Cgroup::new(&host, "revisits");
    let mut worker = Worker::start_in(&top);
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let runs = |published: &View, program: &str| {
        let mut programs = published.agent.programs.iter();
        programs.find(|row| row.name == program).map_or(0, |row| row.run_count)
    };
    // A walk is made all the same from time to time, and when others make cgroups.
    until("a second without a walk", Duration::from_secs(60), || {
        let before = driver.round();
        worker.run(&Job::Spin { cpu_ms: 20, threads: 1 }).unwrap();
        let after = settled(&mut driver, &top);
        assert!(cpu_micros(&after, &top) - cpu_micros(&before, &top) >= 20_000);
        let walked = runs(&after, "snapshot") > runs(&before, "snapshot");
        (!walked).then(|| assert!(runs(&after, "revisit") > runs(&before, "revisit")))
    });
}
