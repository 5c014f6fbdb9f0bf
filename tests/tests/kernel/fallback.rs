//! Cgroup files give the same values as eBPF.

use snug_agent::{
    cgroupfs::{Measurements, reader::CgroupReader},
    values::{Measurement, SourceKind},
};

use crate::{
    busy::Busy,
    driver::{Driver, FAST, comparable, host, source_of},
};

#[test]
fn files_and_ebpf_give_the_same_values() {
    let Some(host) = host() else { return };
    let Some(busy) = Busy::new(&host, "both") else { return };
    let Some(mut kernel) = Driver::kernel(&[]) else { return };
    let Some(mut files) = Driver::start(&["--source", "files"], None) else { return };
    let mut reader = CgroupReader::new(&host.hierarchies).unwrap();
    let path = busy.cgroup.path();

    let (read, by_kernel) = kernel.quiet(&mut reader, path, FAST);
    let (read_again, by_files) = files.quiet(&mut reader, path, FAST);
    // `memory.swap.peak` is there since Linux 6.5, the counter's watermark always.
    let has_swap_peak = read.swap.is_some_and(|swap| swap.peak_bytes.is_some());
    let [read, read_again, by_kernel, by_files] = [read, read_again, by_kernel, by_files].map(|values| {
        let mut values = comparable(values, host.unified());
        if let Some(swap) = values.swap.as_mut().filter(|_| !has_swap_peak) {
            swap.peak_bytes = None;
        }
        values
    });
    assert_eq!(by_kernel, read);
    assert_eq!(by_files, read_again);
    assert_eq!(by_kernel.throttling, by_files.throttling);
    assert_eq!(by_kernel.memory_events, by_files.memory_events);
    assert_eq!((by_kernel.swap, by_kernel.pids), (by_files.swap, by_files.pids));

    // Equal zeros would verify little.
    assert!(read.cpu.unwrap().usage_ns > 300_000_000, "{read:?}");
    let throttling = read.throttling.unwrap();
    assert!(throttling.throttled_ns > 0 && throttling.burst_limit_ns > 0, "{throttling:?}");
    assert!(read.pressure.unwrap().cpu.some_ns > 0, "{read:?}");
    assert!(read.working_set.unwrap().inactive_file_bytes > 0, "{read:?}");
    assert!(read.memory_events.unwrap().oom_kill > 0, "{read:?}");
    assert!(read.swap.unwrap().limit_bytes.is_some(), "{read:?}");

    let (kernel, files) = (kernel.round(), files.round());
    for measurement in Measurement::ALL {
        assert_eq!(source_of(&files, measurement).source, SourceKind::Files);
        let by_kernel = source_of(&kernel, measurement).source;
        assert_eq!(
            by_kernel == SourceKind::Kernel,
            !Measurements::ONLY_IN_FILES.contains(measurement),
            "{measurement:?}"
        );
    }
    assert!(files.agent.programs.iter().all(|program| program.verdict.as_str() == "unsupported"));
}
