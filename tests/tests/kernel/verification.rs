//! With `source` set to `auto`, values from eBPF are verified against the cgroup files.

use std::time::{Duration, Instant};

use snug_agent::{
    cgroupfs::{Measurements, reader::CgroupReader},
    values::{Measurement, SourceKind},
};
use snug_ebpf::abi::offsets::Offsets;
use snug_tests::{
    cgroup::Cgroup,
    worker::{Job, Worker},
};

use crate::{
    busy::Busy,
    driver::{Driver, host, source_of},
};

/// Maximum time until all measurements are verified: comparisons are repeated after 1, 2, 4, … seconds.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Number of agents started one after the other.
const STARTS: u32 = 5;

/// Runs rounds until all measurements are verified, at most for [`MAX_WAIT`].
fn verify(driver: &mut Driver) {
    let end = Instant::now() + MAX_WAIT;
    while !driver.sampler.unverified().is_empty() && Instant::now() < end {
        driver.round();
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_measurement_is_verified() {
    let Some(host) = host() else { return };
    let Some(_busy) = Busy::new(&host, "verified") else { return };
    let Some(mut driver) = Driver::start(&["--source", "auto"], None) else { return };
    verify(&mut driver);
    assert_eq!(driver.sampler.unverified(), []);
    let published = driver.round();
    for measurement in Measurement::ALL {
        let row = source_of(&published, measurement);
        let expected = if Measurements::ONLY_IN_FILES.contains(measurement) {
            SourceKind::Files
        } else {
            SourceKind::Kernel
        };
        assert_eq!((row.source, &*row.reason), (expected, ""), "{measurement:?}");
    }
}

/// With one wrong offset, one measurement comes from files, with a reason; the others do not.
fn with_wrong_offset(name: &str, measurement: Measurement, field: &str, adjust: fn(&mut Offsets)) {
    let Some(host) = host() else { return };
    let Some(busy) = Busy::new(&host, name) else { return };
    let Some(mut driver) = Driver::start(&["--source", "auto"], Some(adjust)) else { return };
    verify(&mut driver);
    assert_eq!(driver.sampler.unverified(), [], "each is verified or comes from files");
    let published = driver.round();
    for other in Measurement::ALL {
        let row = source_of(&published, other);
        if other == measurement {
            assert_eq!(row.source, SourceKind::Files, "{other:?}");
            // The difference may have been found in another cgroup of the host.
            assert!(row.reason.starts_with("on /"), "{}", row.reason);
            assert!(row.reason.contains(&format!(" {field} is ")), "{}", row.reason);
            assert!(row.reason.contains(" from eBPF and "), "{}", row.reason);
        } else if !Measurements::ONLY_IN_FILES.contains(other) {
            assert_eq!((row.source, &*row.reason), (SourceKind::Kernel, ""), "{other:?}");
        }
    }
    // The published values are correct.
    let mut reader = CgroupReader::new(&host.hierarchies).unwrap();
    let which = Measurements::new(&[measurement]);
    let (read, sampled) = driver.quiet(&mut reader, busy.cgroup.path(), which);
    let pick =
        |values: &snug_agent::values::Values| (values.pids, values.memory.map(|memory| memory.peak_bytes));
    if measurement == Measurement::Pids {
        assert_eq!(pick(&read).0, pick(&sampled).0);
    } else {
        assert_eq!(pick(&read).1, pick(&sampled).1);
    }
}

#[test]
fn a_wrong_offset_of_pids_is_found() {
    with_wrong_offset("wrong-tasks", Measurement::Pids, "pids.current", |offsets| offsets.pids_counter += 8);
}

#[test]
fn a_wrong_offset_of_the_peak_is_found() {
    with_wrong_offset("wrong-peak", Measurement::Memory, "memory.peak_bytes", |offsets| {
        offsets.memory.peak_pages = offsets.memory.usage_pages;
    });
}

/// A value that changes all the time must not be taken for a difference.
#[test]
fn changing_memory_is_verified() {
    let Some(host) = host() else { return };
    let cgroups: Vec<_> = (0..3).map(|number| Cgroup::new(&host, &format!("changing-{number}"))).collect();
    let mut workers = Vec::new();
    for cgroup in &cgroups {
        let mut worker = Worker::start();
        cgroup.add(worker.pid());
        worker.run(&Job::Spin { cpu_ms: 100, threads: 1 }).unwrap();
        worker.begin(&Job::Flap { bytes: 2 << 20, for_ms: 600_000 });
        workers.push(worker);
    }
    // Each agent verifies all measurements again.
    for _ in 0..STARTS {
        let Some(mut driver) = Driver::start(&["--source", "auto"], None) else { return };
        for row in &driver.round().agent.sources {
            assert!(
                row.source == SourceKind::Kernel || Measurements::ONLY_IN_FILES.contains(row.measurement),
                "{row:?}"
            );
        }
    }
}
