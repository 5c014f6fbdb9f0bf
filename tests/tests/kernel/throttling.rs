//! CFS bandwidth: limits, throttling and bursts.

use snug_agent::values::{Measurement, SourceKind, Throttling};
use snug_tests::{
    cgroup::{Cgroup, Host, row},
    worker::{Job, Worker},
};

use crate::driver::{Driver, host, source_of, values_of};

const MS: u64 = 1_000_000;

/// The published values, checked against the file. The cgroup must be idle.
fn throttling(driver: &mut Driver, host: &Host, cgroup: &Cgroup) -> Throttling {
    // The period timer runs for one or two more periods after the last work.
    for tries in 1.. {
        let before = cgroup.bandwidth_stat();
        let published = driver.round();
        if before != cgroup.bandwidth_stat() && tries < 100 {
            continue;
        }
        assert_eq!(source_of(&published, Measurement::Throttling).source, SourceKind::Kernel);
        let throttling = values_of(&published, cgroup.path()).throttling.unwrap();
        assert_eq!(throttling.periods, row(&before, "nr_periods"));
        assert_eq!(throttling.throttled_periods, row(&before, "nr_throttled"));
        assert_eq!(throttling.burst_periods, row(&before, "nr_bursts"));
        if host.unified() {
            assert_eq!(throttling.throttled_ns / 1_000, row(&before, "throttled_usec"));
            assert_eq!(throttling.burst_ns / 1_000, row(&before, "burst_usec"));
        } else {
            assert_eq!(throttling.throttled_ns, row(&before, "throttled_time"));
            assert_eq!(throttling.burst_ns, row(&before, "burst_time"));
        }
        return throttling;
    }
    unreachable!()
}

#[test]
fn a_busy_cgroup_over_its_quota() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "quota");
    let free = values_of(&driver.round(), cgroup.path()).throttling.unwrap();
    assert_eq!((free.quota_ns, free.period_ns), (None, 100 * MS));

    cgroup.limit_cpu(20_000, 100_000, 0);
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    worker.run(&Job::Spin { cpu_ms: 200, threads: 2 }).unwrap();
    let over = throttling(&mut driver, &host, &cgroup);
    assert_eq!((over.quota_ns, over.period_ns, over.burst_limit_ns), (Some(20 * MS), 100 * MS, 0));
    assert!(over.periods >= 8 && over.throttled_periods >= 7, "{over:?}");
    assert!(over.throttled_ns > 400 * MS, "{over:?}");
    assert_eq!((over.burst_periods, over.burst_ns), (0, 0));
}

#[test]
fn bursts_and_other_limits() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "burst");
    cgroup.limit_cpu(10_000, 120_000, 10_000);
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    // On a busy machine the work may extend over several periods.
    for tries in 1.. {
        worker.run(&Job::Pulse { times: 2, cpu_ms: 18, sleep_ms: 300 }).unwrap();
        let burst = throttling(&mut driver, &host, &cgroup);
        assert_eq!(
            (burst.quota_ns, burst.period_ns, burst.burst_limit_ns),
            (Some(10 * MS), 120 * MS, 10 * MS)
        );
        if burst.burst_periods > 0 && burst.burst_ns > 0 {
            return;
        }
        assert!(tries < 20, "{burst:?}");
    }
}
