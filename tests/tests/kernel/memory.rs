//! Memory, swap and tasks.

use std::{fs, io, process::Command};

use snug_agent::values::{Measurement, SourceKind};
use snug_tests::{
    cgroup::{Cgroup, row},
    required,
    worker::{Job, Worker, cache_file},
};

use crate::driver::{Driver, host, own_machine, source_of, values_of};

const MIB: u64 = 1 << 20;

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap()
}

#[test]
fn usage_peak_limit_and_working_set_equal_the_files() {
    let Some(host) = host() else { return };
    let Some(cached) = required(cache_file()) else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "memory");
    cgroup.limit_memory(256 * MIB, 32 * MIB);
    // cgroup v1 has no such threshold.
    let high = cgroup.directory(host.hierarchies.memory().unwrap()).join("memory.high");
    let high = high.exists().then(|| fs::write(high, (200 * MIB).to_string()).map(|()| 200 * MIB).unwrap());
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    worker.run(&Job::Touch { bytes: 8 * MIB }).unwrap();
    worker.run(&Job::Cache { file: cached.path.clone(), bytes: 16 * MIB }).unwrap();
    // Allocates and frees: the peak is above the usage.
    worker.run(&Job::Flap { bytes: 24 * MIB, for_ms: 1 }).unwrap();

    // The worker is idle, and the kernel's own changes to its memory end soon.
    let usage = || number(&cgroup.memory_file("memory.current", "memory.usage_in_bytes"));
    let inactive = || row(&cgroup.memory_file("memory.stat", "memory.stat"), inactive_file(host.unified()));
    for tries in 1.. {
        let before = (usage(), inactive());
        let published = driver.round();
        if before != (usage(), inactive()) && tries < 100 {
            continue;
        }
        for measurement in [Measurement::Memory, Measurement::WorkingSet] {
            assert_eq!(source_of(&published, measurement).source, SourceKind::Kernel);
        }
        let values = values_of(&published, cgroup.path());
        let memory = values.memory.unwrap();
        let peak = number(&cgroup.memory_file("memory.peak", "memory.max_usage_in_bytes"));
        assert_eq!((memory.usage_bytes, memory.peak_bytes), (before.0, Some(peak)));
        assert_eq!((memory.limit_bytes, memory.high_bytes), (Some(256 * MIB), high));
        let working_set = values.working_set.unwrap();
        assert_eq!(working_set.inactive_file_bytes, before.1);
        assert_eq!(working_set.bytes, before.0 - before.1);
        assert!(before.1 >= 15 * MIB, "the cached file is inactive file cache: {}", before.1);
        assert!(working_set.bytes >= 8 * MIB, "memory of the worker is not file cache: {working_set:?}");
        assert!(peak >= memory.usage_bytes + 8 * MIB, "{memory:?}");
        return;
    }
}

pub(crate) fn inactive_file(unified: bool) -> &'static str {
    if unified { "inactive_file" } else { "total_inactive_file" }
}

#[test]
fn a_real_out_of_memory_kill_is_counted() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "oom");
    // With swap allowed: otherwise on v1 the limit of memory and swap together is reached first.
    cgroup.limit_memory(24 * MIB, 256 * MIB);
    let quiet = values_of(&driver.round(), cgroup.path()).memory_events.unwrap();
    assert_eq!((quiet.max, quiet.oom, quiet.oom_kill), (0, 0, 0));
    for kills in 1..=2 {
        let mut worker = Worker::start();
        cgroup.add(worker.pid());
        assert_eq!(worker.run(&Job::Touch { bytes: 128 * MIB }), None, "it should have been killed");
        worker.kill();
        let published = driver.round();
        let events = values_of(&published, cgroup.path()).memory_events.unwrap();
        assert_eq!(source_of(&published, Measurement::MemoryEvents).source, SourceKind::Kernel);
        assert_eq!(events.oom_kill, kills);
        let (file, max) = if host.unified() {
            let file = cgroup.memory_file("memory.events", "");
            (row(&file, "oom_kill"), row(&file, "max"))
        } else {
            let failed = number(&cgroup.memory_file("", "memory.failcnt"));
            (row(&cgroup.memory_file("", "memory.oom_control"), "oom_kill"), failed)
        };
        assert_eq!((events.oom_kill, events.max), (file, max));
        assert!(events.max > 0 && events.oom > 0, "{events:?}");
    }
    let peak = values_of(&driver.round(), cgroup.path()).memory.unwrap().peak_bytes.unwrap();
    assert!(peak > 20 * MIB && peak <= 24 * MIB, "{peak}");
}

#[test]
fn swap_equals_the_files() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "swap");
    let unlimited = values_of(&driver.round(), cgroup.path()).swap.unwrap();
    assert_eq!((unlimited.usage_bytes, unlimited.limit_bytes), (0, None));
    cgroup.limit_memory(64 * MIB, 8 * MIB);
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    worker.run(&Job::Touch { bytes: 8 * MIB }).unwrap();
    let published = driver.round();
    assert_eq!(source_of(&published, Measurement::Swap).source, SourceKind::Kernel);
    let swap = values_of(&published, cgroup.path()).swap.unwrap();
    let limit = if host.unified() { 8 * MIB } else { 72 * MIB };
    assert_eq!(swap.limit_bytes, Some(limit));
    let used = number(&cgroup.memory_file("memory.swap.current", "memory.memsw.usage_in_bytes"));
    let used =
        if host.unified() { used } else { used - number(&cgroup.memory_file("", "memory.usage_in_bytes")) };
    assert_eq!((swap.usage_bytes, used), (0, 0), "far below the limit nothing is swapped");
}

/// A swap device of the virtual machine; it is off again when dropped.
struct SwapDevice;

impl SwapDevice {
    const DISK: &str = "/dev/ram0";

    fn on() -> Self {
        for program in ["mkswap", "swapon"] {
            assert!(Command::new(program).arg(Self::DISK).status().unwrap().success(), "{program}");
        }
        Self
    }
}

impl Drop for SwapDevice {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(Self::DISK).status();
    }
}

#[test]
fn what_was_swapped_stays_in_the_peak() {
    if !own_machine() {
        println!("skipped: it needs a swap device, so in virtual machines only");
        return;
    }
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "swapped");
    cgroup.limit_memory(16 * MIB, 12 * MIB);
    let _device = SwapDevice::on();
    let mut worker = Worker::start();
    cgroup.add(worker.pid());
    worker.run(&Job::Touch { bytes: 20 * MIB }).unwrap();
    let file =
        || fs::read_to_string(cgroup.directory(host.hierarchies.memory().unwrap()).join("memory.swap.peak"));
    let swap = values_of(&driver.round(), cgroup.path()).swap.unwrap();
    let peak = swap.peak_bytes.unwrap();
    assert!(swap.usage_bytes >= 3 * MIB && peak >= swap.usage_bytes && peak <= 12 * MIB, "{swap:?}");
    worker.kill();
    let published = driver.round();
    assert_eq!(source_of(&published, Measurement::Swap).source, SourceKind::Kernel);
    let swap = values_of(&published, cgroup.path()).swap.unwrap();
    assert!(swap.usage_bytes < MIB && swap.peak_bytes >= Some(peak), "{swap:?} after {peak}");
    match file() {
        Ok(text) => assert_eq!(swap.peak_bytes, Some(number(&text))),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "the file is there since Linux 6.5"),
    }
}

#[test]
fn tasks_and_their_limit() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let cgroup = Cgroup::new(&host, "tasks");
    let empty = values_of(&driver.round(), cgroup.path()).pids.unwrap();
    assert_eq!((empty.current, empty.limit), (0, None));
    cgroup.limit_pids(77);
    let workers = [Worker::start(), Worker::start(), Worker::start()];
    for worker in &workers {
        cgroup.add(worker.pid());
    }
    let published = driver.round();
    assert_eq!(source_of(&published, Measurement::Pids).source, SourceKind::Kernel);
    let pids = values_of(&published, cgroup.path()).pids.unwrap();
    assert_eq!(pids.limit, Some(77));
    assert_eq!(pids.current, number(&cgroup.pids_file("pids.current")));
    assert!(pids.current >= 3, "{pids:?}");
    drop(workers);
    assert_eq!(values_of(&driver.round(), cgroup.path()).pids.unwrap().current, 0);
}
