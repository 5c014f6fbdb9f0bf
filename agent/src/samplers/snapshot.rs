//! Converts records of the eBPF programs to values: units, limits, and the differences between cgroup v1 and v2.

use snug_ebpf::abi::snapshot::{
    HAS_CPU, HAS_MEMORY, HAS_PIDS, HAS_PRESSURE, HAS_THROTTLING, HAS_WORKING_SET, SnapshotRecord,
};

use crate::{
    cgroupfs::Measurements,
    values::{
        Cpu, Measurement, Memory, MemoryEvents, Pids, Pressure, Stall, Swap, Throttling, Values, WorkingSet,
    },
};

/// `PIDS_MAX` of kernel/cgroup/pids.c, `PID_MAX_LIMIT` + 1: no limit.
const NO_PIDS_LIMIT: u64 = 4 * 1024 * 1024 + 1;

/// How the records of a hierarchy are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordFormat {
    /// cgroup v2: records have CPU time and pressure, and swap has a limit of its own.
    pub(super) unified: bool,
    /// Page size, bytes.
    pub(super) page_size: u64,
}

/// The values of these measurements, as far as the record has them.
pub(super) fn values(record: &SnapshotRecord, measurements: Measurements, format: RecordFormat) -> Values {
    let mut values = Values::default();
    for measurement in Measurement::ALL.into_iter().filter(|one| measurements.contains(*one)) {
        take(measurement, record, format, &mut values);
    }
    values
}

/// Sets the values of one measurement, if the record has them.
pub(super) fn take(
    measurement: Measurement,
    record: &SnapshotRecord,
    format: RecordFormat,
    into: &mut Values,
) {
    let has = |flags| record.has & flags == flags;
    match measurement {
        // The field exists in every hierarchy, but only cgroup v2 counts CPU time there.
        Measurement::Cpu if format.unified && has(HAS_CPU) => {
            into.cpu = Some(Cpu { usage_ns: record.cpu_usage_ns });
        }
        Measurement::Pressure if format.unified && has(HAS_PRESSURE) => {
            into.pressure = Some(pressure(record));
        }
        Measurement::Throttling if has(HAS_THROTTLING) => into.throttling = Some(throttling(record)),
        Measurement::Pids if has(HAS_PIDS) => {
            let limit = (record.pids_limit < NO_PIDS_LIMIT).then_some(record.pids_limit);
            into.pids = Some(Pids { current: record.pids_current, limit });
        }
        Measurement::Memory if has(HAS_MEMORY) => {
            into.memory = Some(Memory {
                usage_bytes: bytes(record.memory.usage_pages, format),
                peak_bytes: Some(bytes(record.memory.peak_pages, format)),
                high_bytes: limit(record.memory.high_pages, format).filter(|_| format.unified),
                limit_bytes: limit(record.memory.limit_pages, format),
            });
        }
        Measurement::WorkingSet if has(HAS_MEMORY | HAS_WORKING_SET) => {
            let usage = bytes(record.memory.usage_pages, format);
            let inactive_file_bytes = bytes(record.memory_inactive_file_pages, format);
            into.working_set =
                Some(WorkingSet { inactive_file_bytes, bytes: usage.saturating_sub(inactive_file_bytes) });
        }
        Measurement::MemoryEvents if has(HAS_MEMORY) => into.memory_events = Some(events(record, format)),
        Measurement::Swap if has(HAS_MEMORY) => into.swap = Some(swap(record, format)),
        _ => {}
    }
}

fn pressure(record: &SnapshotRecord) -> Pressure {
    let [io_some, io_full, memory_some, memory_full, cpu_some, cpu_full] = record.pressure_ns;
    Pressure {
        cpu: Stall { some_ns: cpu_some, full_ns: cpu_full },
        memory: Stall { some_ns: memory_some, full_ns: memory_full },
        io: Stall { some_ns: io_some, full_ns: io_full },
    }
}

fn throttling(record: &SnapshotRecord) -> Throttling {
    Throttling {
        quota_ns: (record.cfs_quota_ns != u64::MAX).then_some(record.cfs_quota_ns),
        period_ns: record.cfs_period_ns,
        burst_limit_ns: record.cfs_burst_limit_ns,
        periods: record.cfs_periods.into(),
        throttled_periods: record.cfs_throttled_periods.into(),
        throttled_ns: record.cfs_throttled_ns,
        burst_periods: record.cfs_burst_periods.into(),
        burst_ns: record.cfs_burst_ns,
    }
}

fn events(record: &SnapshotRecord, format: RecordFormat) -> MemoryEvents {
    let [low, high, max, oom, oom_kill] = record.memory.events;
    // v1 has no `max` event but counts failed charges: memory.failcnt.
    let max = if format.unified { max } else { record.memory.failcnt };
    MemoryEvents { low, high, max, oom, oom_kill }
}

fn swap(record: &SnapshotRecord, format: RecordFormat) -> Swap {
    let charged = bytes(record.memory.swap_usage_pages, format);
    // v1 has one counter for memory and swap together.
    let memory = if format.unified { 0 } else { bytes(record.memory.usage_pages, format) };
    Swap {
        usage_bytes: charged.saturating_sub(memory),
        peak_bytes: format.unified.then(|| bytes(record.memory.swap_peak_pages, format)),
        limit_bytes: limit(record.memory.swap_limit_pages, format),
    }
}

fn bytes(pages: u64, format: RecordFormat) -> u64 {
    pages.saturating_mul(format.page_size)
}

/// `PAGE_COUNTER_MAX` (`LONG_MAX` / page size) means no limit.
fn limit(pages: u64, format: RecordFormat) -> Option<u64> {
    let none = i64::MAX.unsigned_abs() / format.page_size.max(1);
    (pages < none).then(|| bytes(pages, format))
}

#[cfg(test)]
mod tests {
    use snug_ebpf::abi::{memory::MemoryRecord, snapshot::HAS_ALL};

    use super::*;
    use crate::kernel::groups;

    const V2: RecordFormat = RecordFormat { unified: true, page_size: 4096 };
    const V1: RecordFormat = RecordFormat { unified: false, page_size: 4096 };

    fn all(record: &SnapshotRecord, format: RecordFormat) -> Values {
        let mut values = Values::default();
        for measurement in Measurement::ALL {
            take(measurement, record, format, &mut values);
        }
        values
    }

    fn full() -> SnapshotRecord {
        SnapshotRecord {
            has: HAS_ALL,
            cpu_usage_ns: 7,
            cfs_quota_ns: u64::MAX,
            memory: MemoryRecord {
                usage_pages: 10,
                peak_pages: 12,
                high_pages: 11,
                limit_pages: i64::MAX.unsigned_abs() / 4096,
                failcnt: 99,
                swap_usage_pages: 11,
                swap_peak_pages: 15,
                swap_limit_pages: 20,
                events: [1, 2, 3, 4, 5],
            },
            memory_inactive_file_pages: 4,
            pressure_ns: [1, 2, 3, 4, 5, 6],
            pids_current: 3,
            pids_limit: NO_PIDS_LIMIT,
            ..SnapshotRecord::default()
        }
    }

    #[test]
    fn pages_become_bytes_and_the_kernels_maxima_no_limit() {
        let values = all(&full(), V2);
        assert_eq!(
            values.memory,
            Some(Memory {
                usage_bytes: 40960,
                peak_bytes: Some(49152),
                high_bytes: Some(45056),
                limit_bytes: None
            })
        );
        assert_eq!(values.working_set, Some(WorkingSet { inactive_file_bytes: 16384, bytes: 24576 }));
        assert_eq!(values.throttling.unwrap().quota_ns, None);
        assert_eq!(values.pids, Some(Pids { current: 3, limit: None }));
        assert_eq!(
            values.swap,
            Some(Swap { usage_bytes: 45056, peak_bytes: Some(61440), limit_bytes: Some(81920) })
        );
        assert_eq!(values.pressure.unwrap().cpu, Stall { some_ns: 5, full_ns: 6 });
        assert_eq!(values.memory_events.unwrap().max, 3);
    }

    #[test]
    fn v1_has_no_cpu_time_and_charges_swap_with_memory() {
        let values = all(&full(), V1);
        assert_eq!((values.cpu, values.pressure), (None, None));
        let swap = values.swap.unwrap();
        assert_eq!((swap.usage_bytes, swap.peak_bytes), (4096, None));
        assert_eq!(values.memory_events.unwrap().max, 99);
    }

    #[test]
    fn groups_that_a_record_lacks_are_not_measured() {
        assert_eq!(all(&SnapshotRecord::default(), V2), Values::default());
    }

    #[test]
    fn a_measurement_needs_only_its_groups() {
        for measurement in Measurement::ALL {
            let record = SnapshotRecord { has: groups(Measurements::new(&[measurement])), ..full() };
            let (mut from_wanted, mut from_all) = (Values::default(), Values::default());
            take(measurement, &record, V2, &mut from_wanted);
            take(measurement, &full(), V2, &mut from_all);
            assert_eq!(from_wanted, from_all, "{measurement:?}");
        }
    }

    #[test]
    fn a_working_set_is_never_negative() {
        let record = SnapshotRecord { memory_inactive_file_pages: 11, ..full() };
        assert_eq!(all(&record, V2).working_set.unwrap().bytes, 0);
    }
}
