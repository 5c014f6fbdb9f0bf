//! Pressure stall information.

use snug_agent::values::{Measurement, SourceKind, Stall};
use snug_tests::{
    cgroup::Cgroup,
    worker::{Job, Worker},
};

use crate::driver::{Driver, host, source_of, values_of};

/// The totals of a pressure file, microseconds. The kernel updates them when the file is read.
fn totals(text: &str) -> (u64, u64) {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.starts_with(kind)).unwrap_or_else(|| panic!("{text:?}"));
        line.rsplit_once("total=").unwrap().1.parse().unwrap()
    };
    (total("some"), total("full"))
}

#[test]
fn stalls_equal_the_refreshed_files() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "pressure");
    cgroup.limit_cpu(40_000, 100_000, 0);
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    worker.run(&Job::Spin { cpu_ms: 200, threads: 6 }).unwrap();

    let files = || ["cpu", "memory", "io"].map(|resource| totals(&cgroup.pressure_file(resource)));
    // The kernel updates the averages every two seconds, and the totals with them.
    for tries in 1.. {
        let before = files();
        let published = driver.round();
        let after = files();
        assert_eq!(source_of(&published, Measurement::Pressure).source, SourceKind::Kernel);
        let pressure = values_of(&published, cgroup.path()).pressure.unwrap();
        let sampled = [pressure.cpu, pressure.memory, pressure.io]
            .map(|Stall { some_ns, full_ns }| (some_ns / 1_000, full_ns / 1_000));
        for ((sampled, before), after) in sampled.iter().zip(before).zip(after) {
            assert!((before.0..=after.0).contains(&sampled.0), "{sampled:?} {before:?} {after:?}");
            assert!((before.1..=after.1).contains(&sampled.1), "{sampled:?} {before:?} {after:?}");
        }
        if before == after && sampled[0].0 > 0 {
            assert_eq!(sampled, before);
            assert!(sampled[0].0 > 50_000, "six threads with less than one CPU stall: {sampled:?}");
            return;
        }
        assert!(tries < 500, "no stalls: {sampled:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
