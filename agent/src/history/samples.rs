//! Sample usage history for tests.

use snug_sizing::{
    cpu_quota::{QuotaOutcome, QuotaWhatIf},
    evidence::{Evidence, Hour, OomKill, Peak, PodTotals, Stalled},
    minutes::{Minute, MinuteRecord},
    workload::{Container, Resources, Role, Workload, WorkloadKind},
};

/// One hour of a container with a value in each field. The fixtures of [`super::migration`] contain these samples.
pub(super) fn sample(number: u64, hour: u32) -> Evidence {
    let workload = Workload {
        namespace: "shop".to_owned(),
        name: format!("web-{number}"),
        owner: "StatefulSet".to_owned(),
        kind: WorkloadKind::Service,
        replicas: 2 + number,
    };
    let current = Resources {
        cpu_request: Some(250),
        cpu_limit: None,
        memory_request: Some(64 << 20),
        memory_limit: number.is_multiple_of(2).then_some(128 << 20),
    };
    let container = Container {
        name: "app".to_owned(),
        role: Role::Sidecar,
        seen: u64::from(hour) * 3600,
        current,
        ..Container::default()
    };
    let mut evidence = Evidence::new(workload, container, 100);
    let pod = format!("web-{number}-0");
    let record = evidence.hour(Hour(hour));
    record.observed = 7200;
    for (times, histogram) in [
        (7_u64, &mut record.cpu),
        (5, &mut record.cpu_start),
        (3, &mut record.minutes),
        (2, &mut record.minutes_start),
        (9, &mut record.waits),
    ] {
        histogram.record(0.0, times);
        histogram.record(0.25, times * 300);
        histogram.record(1.5, times + number);
    }
    record.working_set.record(90e6, 3600);
    record.unreclaimable.record(60e6, 3600);
    record.peak = Some(Peak { bytes: 100 << 20, at: u64::from(hour) * 3600 + 12, pod: pod.clone() });
    record.start_peak = Some(Peak { bytes: 70 << 20, at: u64::from(hour) * 3600 + 5, pod: pod.clone() });
    record.kills = vec![OomKill { at: u64::from(hour) * 3600 + 20, limit: 128 << 20, pod: pod.clone() }];
    let outcome =
        |quota| QuotaOutcome { periods: 36_000, throttled: 10_000 / quota, delayed_millis: 90_000 / quota };
    record.quota_what_if = Some(QuotaWhatIf::from_iter([50, 100, 400].map(|quota| (quota, outcome(quota)))));
    (record.periods, record.throttled, record.starts) = (36_000, 70, 2);
    record.exits = [(0, 1), (137, 1 + number)].into();
    record.stalled = Stalled { cpu_millis: 1, memory_millis: 20, io_millis: 300, refaults: 4000 };
    let totals =
        PodTotals { observed: 7200, cpu_millis: 900_000, peak: 100 << 20, node_class: "spot".to_owned() };
    evidence.pods.insert(pod, totals);
    for minute in 0..60 {
        let record = MinuteRecord {
            observed_millis: 120_000,
            cpu_millis: 15_000 + u64::from(minute),
            memory_peak: 80 << 20,
            periods: 600,
            throttled: u64::from(minute % 3),
        };
        evidence.minutes.insert(Minute(hour * 60 + minute), record);
    }
    evidence
}

/// A temporary directory, in memory if possible, because syncing to a disk is slow.
pub(super) fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Pseudo-random numbers, the same on each machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(1);
        random
    }

    /// A number below a limit.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % limit.max(1) as u64) as usize
    }
}
