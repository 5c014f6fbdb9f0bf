use std::fs;

use super::*;
use crate::{
    cgroupfs::fixtures::{Sample, V1, V2_5_10, V2_6_1, V2_6_12, V2_6_18, lay_out, v1_at, v2_at},
    values::{Cpu, CpuSplit, IoDevice, Memory, MemoryEvents, MemoryStat, Pids, Pressure, Spec, Stall, Swap},
};

const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

fn v2(samples: &[&[Sample]]) -> (tempfile::TempDir, CgroupReader) {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), samples);
    let unified = Some(v2_at(root.path(), &CONTROLLERS));
    let reader = CgroupReader::new(&Hierarchies { unified, v1: Vec::new() }).unwrap();
    (root, reader)
}

fn read_all(reader: &mut CgroupReader) -> Reading {
    let reading = reader.read("/pod/box", Measurements::ALL).unwrap();
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    reading
}

/// The values of all sample files of Linux 6.1 and later.
fn expected() -> Values {
    Values {
        cpu: Some(Cpu { usage_ns: 5_131_000_000 }),
        cpu_split: Some(CpuSplit { user_ns: 4_100_000_000, system_ns: 1_031_000_000 }),
        throttling: Some(Throttling {
            quota_ns: Some(50_000_000),
            period_ns: 100_000_000,
            burst_limit_ns: 20_000_000,
            periods: 120,
            throttled_periods: 17,
            throttled_ns: 901_234_000,
            burst_periods: 2,
            burst_ns: 800_000,
        }),
        pressure: Some(Pressure {
            cpu: Stall { some_ns: 912_345_000, full_ns: 911_000 },
            memory: Stall { some_ns: 41_000, full_ns: 40_000 },
            io: Stall { some_ns: 5_120_000, full_ns: 5_000_000 },
        }),
        memory: Some(Memory {
            usage_bytes: 41_943_040,
            peak_bytes: Some(67_108_864),
            high_bytes: Some(50_331_648),
            limit_bytes: Some(67_108_864),
        }),
        working_set: Some(WorkingSet { inactive_file_bytes: 8_000_000, bytes: 33_943_040 }),
        memory_events: Some(MemoryEvents { max: 12, oom: 1, oom_kill: 1, ..Default::default() }),
        swap: Some(Swap { peak_bytes: Some(8192), ..Swap::default() }),
        pids: Some(Pids { current: 3, limit: None }),
        memory_stat: Some(
            MemoryStat {
                anon_bytes: 30_000_000,
                file_bytes: 9_000_000,
                kernel_bytes: Some(700_000),
                shmem_bytes: 4096,
                file_mapped_bytes: 8192,
                file_dirty_bytes: 12_288,
                file_writeback_bytes: 0,
                active_file_bytes: 995_904,
                inactive_file_bytes: 8_000_000,
                active_anon_bytes: 896,
                inactive_anon_bytes: 29_999_104,
                slab_reclaimable_bytes: Some(300_000),
                slab_unreclaimable_bytes: Some(200_000),
                unevictable_bytes: 0,
                page_faults: 9001,
                major_page_faults: 3,
                page_scans: Some(64),
                page_steals: Some(60),
                refaults_anon: Some(0),
                refaults_file: Some(7),
            }
            .into(),
        ),
        io: Some(
            [IoDevice {
                major: 254,
                minor: 0,
                read_bytes: 1_536_000,
                write_bytes: 4096,
                reads: 120,
                writes: 1,
            }]
            .into(),
        ),
        spec: Some(Spec { cpu_shares: Some(500), memory_reservation_bytes: Some(0) }),
        ..Values::default()
    }
}

/// The values of the sample files of Linux 5.10.
fn expected_5_10() -> Values {
    let mut values = expected();
    let throttling = values.throttling.unwrap();
    values.throttling = Some(Throttling { burst_limit_ns: 0, burst_periods: 0, burst_ns: 0, ..throttling });
    values.pressure.as_mut().unwrap().cpu.full_ns = 0;
    values.memory.as_mut().unwrap().peak_bytes = None;
    let stat = values.memory_stat.as_deref().copied().unwrap();
    values.memory_stat = Some(MemoryStat { kernel_bytes: None, ..stat }.into());
    values
}

#[test]
fn v2_of_each_kernel() {
    let layers = [V2_5_10, V2_6_1, V2_6_12, V2_6_18];
    for count in 1..=layers.len() {
        let (_root, mut reader) = v2(&layers[..count]);
        let reading = read_all(&mut reader);
        assert_eq!(reading.values, if count == 1 { expected_5_10() } else { expected() }, "{count}");
        assert_eq!(reading.skipped_lines, u64::from(count >= 3));
    }
}

#[test]
fn v1_says_the_same_as_far_as_it_goes() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), &[V1]);
    let mut reader = CgroupReader::new(&v1_at(root.path())).unwrap();
    reader.tick_ns = 10_000_000;
    let v2 = expected();
    let stat = v2.memory_stat.as_deref().copied().unwrap();
    let expected = Values {
        cpu: Some(Cpu { usage_ns: 5_131_000_123 }),
        cpu_split: Some(CpuSplit { user_ns: 4_100_000_000, system_ns: 1_030_000_000 }),
        throttling: v2.throttling.map(|v2| Throttling { throttled_ns: 901_234_567, burst_ns: 800_001, ..v2 }),
        pressure: None,
        memory: v2.memory.map(|v2| Memory { high_bytes: None, ..v2 }),
        memory_events: Some(MemoryEvents { max: 12, oom_kill: 1, ..Default::default() }),
        swap: Some(Swap { usage_bytes: 4096, ..Swap::default() }),
        memory_stat: Some(
            MemoryStat {
                kernel_bytes: Some(700_416),
                slab_reclaimable_bytes: None,
                slab_unreclaimable_bytes: None,
                page_scans: None,
                page_steals: None,
                ..stat
            }
            .into(),
        ),
        ..v2
    };
    // One file is recursive, the other one is of the cgroup alone.
    let own = root.path().join("blkio/pod/box/blkio.throttle.io_serviced");
    fs::rename(own.with_file_name("blkio.throttle.io_serviced_recursive"), own).unwrap();
    assert_eq!(read_all(&mut reader).values, expected);
}

#[test]
fn hybrid_takes_cpu_time_from_cpuacct_where_v2_lacks_the_cgroup() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), &[V1]);
    let unified = root.path().join("unified");
    fs::create_dir(&unified).unwrap();
    let hierarchies = Hierarchies { unified: Some(v2_at(&unified, &["hugetlb"])), ..v1_at(root.path()) };
    let mut reader = CgroupReader::new(&hierarchies).unwrap();
    let values = read_all(&mut reader).values;
    assert_eq!(values.cpu, Some(Cpu { usage_ns: 5_131_000_123 }));
    assert_eq!(values.pressure, None);

    lay_out(
        &unified,
        &[&[("cpu.stat", "usage_usec 77\nuser_usec 70\nsystem_usec 7\n"), ("cgroup.procs", "")]],
    );
    let values = read_all(&mut reader).values;
    assert_eq!(values.cpu, Some(Cpu { usage_ns: 77_000 }));
    assert_eq!(values.throttling.unwrap().periods, 120);
    assert_eq!(values.pids, Some(Pids { current: 3, limit: None }));
}

#[test]
fn only_requested_values() {
    let (root, mut reader) = v2(&[V2_5_10, V2_6_1]);
    let one = |reader: &mut CgroupReader, which| {
        reader.read("/pod/box", Measurements::new(&[which])).unwrap().values
    };
    let all = expected();
    let none = Values::default();
    assert_eq!(one(&mut reader, Measurement::Cpu), Values { cpu: all.cpu, ..none.clone() });
    assert_eq!(
        one(&mut reader, Measurement::Throttling),
        Values { throttling: all.throttling, ..none.clone() }
    );
    assert_eq!(
        one(&mut reader, Measurement::WorkingSet),
        Values { working_set: all.working_set, ..none.clone() }
    );
    assert_eq!(one(&mut reader, Measurement::Swap), Values { swap: all.swap, ..none.clone() });
    let slow = Values { cpu_split: all.cpu_split, memory_stat: all.memory_stat, io: all.io, ..none.clone() };
    assert_eq!(one(&mut reader, Measurement::SlowRows), slow);
    assert_eq!(one(&mut reader, Measurement::Spec), Values { spec: all.spec, ..none.clone() });
    assert_eq!(reader.read("/pod/box", Measurements::NONE).unwrap().values, none);
    fs::remove_file(root.path().join("pod/box/memory.current")).unwrap();
    assert_eq!(one(&mut reader, Measurement::WorkingSet), none);
}

#[test]
fn weights_become_the_shares_that_a_kubelet_shows() {
    let (root, mut reader) = v2(&[V2_5_10]);
    // The second is what the sampled kubelet's `/kubepods` had: 2046 shares.
    for (weight, shares) in [("1", 2), ("79", 2046), ("100", 2597), ("10000", 262_144)] {
        fs::write(root.path().join("pod/box/cpu.weight"), weight).unwrap();
        fs::write(root.path().join("pod/box/memory.min"), "4096\n").unwrap();
        let values = reader.read("/pod/box", Measurements::new(&[Measurement::Spec])).unwrap().values;
        let expected = Spec { cpu_shares: Some(shares), memory_reservation_bytes: Some(4096) };
        assert_eq!(values.spec, Some(expected), "{weight}");
    }
}

#[test]
fn the_roots_memory_comes_from_its_statistics() {
    let (root, mut reader) = v2(&[V2_5_10]);
    for file in ["cgroup.procs", "memory.stat"] {
        fs::copy(root.path().join("pod/box").join(file), root.path().join(file)).unwrap();
    }
    let values = reader.read("/", Measurements::ALL).unwrap().values;
    assert_eq!(values.memory, Some(Memory { usage_bytes: 39_000_000, ..Memory::default() }));
    assert_eq!(values.working_set, Some(WorkingSet { inactive_file_bytes: 8_000_000, bytes: 31_000_000 }));
    // In a cgroup namespace the root has the files of any cgroup.
    for file in ["memory.current", "memory.max"] {
        fs::copy(root.path().join("pod/box").join(file), root.path().join(file)).unwrap();
    }
    let memory = reader.read("/", Measurements::ALL).unwrap().values.memory.unwrap();
    assert_eq!((memory.usage_bytes, memory.limit_bytes), (41_943_040, Some(67_108_864)));
}

#[test]
fn processes_are_read_whole_from_where_there_are_any() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), &[V1]);
    let unified = root.path().join("unified");
    lay_out(&unified, &[&[("cgroup.procs", "")]]);
    let hierarchies = Hierarchies { unified: Some(v2_at(&unified, &[])), ..v1_at(root.path()) };
    let reader = CgroupReader::new(&hierarchies).unwrap();
    assert_eq!(reader.processes("/pod/box").unwrap(), [731]);
    let many: String = (1..9000).map(|pid| format!("{pid}\n")).collect();
    fs::write(unified.join("pod/box/cgroup.procs"), many).unwrap();
    assert_eq!(reader.processes("/pod/box").unwrap().len(), 8999);
    fs::write(unified.join("pod/box/cgroup.procs"), "0\n7\n").unwrap();
    assert_eq!(reader.processes("/pod/box").unwrap(), [0, 7]);
    assert!(matches!(reader.processes("/pod/other").unwrap_err(), ReadError::Gone { .. }));
    assert!(matches!(reader.processes("/pod/../box").unwrap_err(), ReadError::BadPath { .. }));
}

#[test]
fn missing_files_leave_their_subject_out() {
    let (_root, mut reader) = v2(&[&[
        ("cgroup.procs", ""),
        ("cpu.stat", "usage_usec 77\nuser_usec 70\nsystem_usec 7\nnice_usec 0\n"),
    ]]);
    let values = read_all(&mut reader).values;
    let cpu_split = Some(CpuSplit { user_ns: 70_000, system_ns: 7_000 });
    assert_eq!(values, Values { cpu: Some(Cpu { usage_ns: 77_000 }), cpu_split, ..Values::default() });
}

#[test]
fn gone_and_bad_paths() {
    let (root, mut reader) = v2(&[V2_5_10]);
    let mut read = |path: &str| reader.read(path, Measurements::ALL);
    assert!(matches!(read("/pod/other").unwrap_err(), ReadError::Gone { path } if path == "/pod/other"));
    for bad in ["", "pod/box", "/pod//box", "/pod/../pod/box", "/./pod", "//", "/pod/"] {
        assert!(matches!(read(bad).unwrap_err(), ReadError::BadPath { .. }), "{bad}");
    }
    assert!(read("/pod/\0").unwrap().problems.len() == 1, "the error is a problem");
    // A directory without cgroup.procs is a cgroup that is being removed.
    fs::remove_file(root.path().join("pod/box/cgroup.procs")).unwrap();
    fs::remove_file(root.path().join("pod/box/pids.max")).unwrap();
    assert!(matches!(read("/pod/box").unwrap_err(), ReadError::Gone { .. }));
}

#[test]
fn one_bad_file_affects_only_its_own_values() {
    let (root, mut reader) = v2(&[V2_5_10, V2_6_1, &[("memory.events", "low 0\nhigh x\n")]]);
    let reading = reader.read("/pod/box", Measurements::ALL).unwrap();
    assert_eq!(reading.values, Values { memory_events: None, ..expected() });
    let [ReadError::Malformed { file, source }] = reading.problems.as_slice() else {
        panic!("{:?}", reading.problems);
    };
    assert_eq!(*file, root.path().join("pod/box/memory.events"));
    assert_eq!(source.to_string(), "line 2: \"x\" is not a number");

    // No partial values: no limit is not the same as a limit that cannot be read.
    lay_out(root.path(), &[V2_6_1, &[("memory.max", "\n"), ("cpu.max.burst", "max\n")]]);
    let reading = reader.read("/pod/box", Measurements::ALL).unwrap();
    assert_eq!(reading.values, Values { memory: None, throttling: None, ..expected() });
    assert_eq!(reading.problems.len(), 2);

    fs::remove_file(root.path().join("pod/box/pids.max")).unwrap();
    fs::create_dir(root.path().join("pod/box/pids.max")).unwrap();
    let reading = reader.read("/pod/box", Measurements::new(&[Measurement::Pids])).unwrap();
    assert!(matches!(reading.problems.as_slice(), [ReadError::Unreadable { .. }]), "{:?}", reading.problems);
    assert_eq!(reading.values.pids, None);
}

#[test]
fn files_longer_than_the_buffer_are_read_whole() {
    let (root, mut reader) = v2(&[V2_5_10]);
    let text: String =
        (0..2000).map(|minor| format!("8:{minor} rbytes={minor} wbytes=2 rios=3 wios=4\n")).collect();
    assert!(text.len() > 3 * FIRST_SIZE);
    fs::write(root.path().join("pod/box/io.stat"), &text).unwrap();
    let io = reader.read("/pod/box", Measurements::new(&[Measurement::SlowRows])).unwrap().values.io.unwrap();
    assert_eq!(io.len(), 2000);
    assert_eq!(io[1999].read_bytes, 1999);
}

#[test]
fn a_mount_that_is_not_there_is_named() {
    let missing = Path::new("/nonexistent/snug");
    let hierarchies = Hierarchies { unified: Some(v2_at(missing, &[])), v1: Vec::new() };
    let error = CgroupReader::new(&hierarchies).err().unwrap();
    assert_eq!(error.to_string(), "cannot read /nonexistent/snug");
}
