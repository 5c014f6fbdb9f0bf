//! Sampling without walks.

use std::{sync::Arc, time::Duration};

use snug_agent::model::View;
use snug_tests::{
    cgroup::{Cgroup, row},
    wait::until,
    worker::{Job, Worker},
};

use crate::driver::{Driver, host, row_of, values_of};

/// No full round during the test.
const RARELY: [&str; 4] = ["--working-set-interval", "1m", "--slow-interval", "1m"];

fn cpu_micros(published: &View, cgroup: &Cgroup) -> u64 {
    values_of(published, cgroup.path()).cpu.unwrap().usage_ns / 1000
}

/// Runs rounds until the file did not change during one, which must have published the file's value.
fn settled(driver: &mut Driver, cgroup: &Cgroup) -> Arc<View> {
    let usage = || row(&cgroup.cpu_stat(), "usage_usec");
    until("the worker to be idle", Duration::from_secs(20), || {
        // Reading the file flushes CPU time, too.
        let before = usage();
        let published = driver.round();
        (before == usage()).then(|| {
            assert_eq!(cpu_micros(&published, cgroup), before);
            published
        })
    })
}

#[test]
fn samples_have_cpu_time_without_a_pass() {
    let Some(host) = host() else { return };
    let top = Cgroup::new(&host, "samples");
    let [busy, idle] = ["busy", "idle"].map(|name| top.child(name));
    let Some(mut driver) = Driver::kernel(&RARELY) else { return };
    let mut worker = Worker::start_in(&busy);
    let passes = settled(&mut driver, &busy).agent.passes;
    for cpu_ms in [5, 0, 40] {
        let before = cpu_micros(&driver.round(), &busy);
        worker.run(&Job::Spin { cpu_ms, threads: 2 }).unwrap();
        let published = settled(&mut driver, &busy);
        assert!(cpu_micros(&published, &busy) - before >= cpu_ms * 1000);
        assert!(
            cpu_micros(&published, &top) >= cpu_micros(&published, &busy),
            "CPU time includes descendants"
        );
        assert_eq!(cpu_micros(&published, &idle), 0);
        assert_eq!(published.agent.passes, passes);
    }
}

#[test]
fn a_created_or_removed_cgroup_causes_one_pass() {
    let Some(host) = host() else { return };
    let top = Cgroup::new(&host, "passes");
    let Some(mut driver) = Driver::kernel(&RARELY) else { return };
    let before = until("a moment without changes on the host", Duration::from_secs(20), || {
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
fn full_rounds_resample_while_no_cgroup_is_created_or_removed() {
    let Some(host) = host() else { return };
    let top = Cgroup::new(&host, "resamples");
    let mut worker = Worker::start_in(&top);
    let Some(mut driver) = Driver::kernel(&["--ebpf-stats", "on"]) else { return };
    let runs = |published: &View, program: &str| {
        let mut programs = published.agent.programs.iter();
        programs.find(|row| row.name == program).map_or(0, |row| row.run_count)
    };
    // From time to time there is a walk nevertheless, also when others create cgroups.
    until("a full round without a walk", Duration::from_secs(60), || {
        let before = driver.round();
        worker.run(&Job::Spin { cpu_ms: 20, threads: 1 }).unwrap();
        let after = settled(&mut driver, &top);
        assert!(cpu_micros(&after, &top) - cpu_micros(&before, &top) >= 20_000);
        let walked = runs(&after, "snapshot") > runs(&before, "snapshot");
        (!walked).then(|| assert!(runs(&after, "resample") > runs(&before, "resample")))
    });
}
