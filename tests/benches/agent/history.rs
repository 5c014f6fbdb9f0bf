//! Disk space and CPU time of the history.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use snug_agent::history::Store;
use snug_sizing::{
    cpu_quota::TokenBuckets,
    evidence::{Evidence, HOUR, Hour, Peak, PodTotals},
    minutes::{Minute, MinuteRecord},
    workload::{Container, Resources, Workload},
};

use crate::{
    interrupt,
    measure::{Budget, Section, cpu_time, mib},
};

const CONTAINERS: u64 = 250;
const HOURS: u32 = 4;
const FIRST_HOUR: u32 = 500_000;
/// Interval between two writes of the agent, in seconds.
const WRITE_INTERVAL: u64 = 30;
const WINDOW_NS: u64 = 100_000_000;
/// The agent's default limits: days, hours with per-minute records, and bytes.
const DAYS: u64 = 30;
const HOURS_WITH_MINUTES: u64 = 6;
const MAX_BYTES: u64 = 256 << 20;

/// Writes the usage history of several hours at the interval of the agent.
pub(crate) fn run() -> Result<Section> {
    let folder = tempfile::tempdir().context("cannot create a temporary folder for the history")?;
    let (store, _) = Store::open(folder.path())?;
    let mut random = Random(1);
    let (mut written, mut cpu, mut writes) = (0, Duration::ZERO, 0);
    for hour in 0..HOURS {
        for index in 0..HOUR / WRITE_INTERVAL {
            interrupt::sleep(Duration::ZERO)?;
            let minute = Minute::from_seconds(u64::from(FIRST_HOUR + hour) * HOUR + index * WRITE_INTERVAL);
            let batch: Vec<Evidence> = (0..CONTAINERS)
                .map(|number| {
                    let mut evidence = half_a_minute(number, FIRST_HOUR + hour, &mut random);
                    evidence.minutes.insert(minute, part_of_minute(&evidence));
                    evidence
                })
                .collect();
            writes += 1;
            let before = bytes_written()?;
            let (took, added) = cpu_time(|| store.add(&batch));
            added?;
            written += bytes_written()? - before;
            cpu += took;
        }
    }
    // `prune` returns the remaining size. The first call removes nothing, the second one the per-minute records.
    let stored = store.prune(Hour(0), Hour(0), u64::MAX)?;
    let without_minutes = store.prune(Hour(u32::MAX), Hour(0), u64::MAX)?;
    let container_hours = CONTAINERS * u64::from(HOURS);
    let each = without_minutes as f64 / container_hours as f64;
    let minutes = (stored - without_minutes) as f64 / container_hours as f64;
    let seconds = u64::from(HOURS) * HOUR;

    let mut section = Section::new("history");
    section.paragraph(&format!(
        "{HOURS} hours of {CONTAINERS} containers, each of a separate workload, written every {WRITE_INTERVAL} s ({writes} times) as \
         the agent does. Each write has 300 CPU windows in about twenty buckets, working sets, the quota simulation, a peak, and the current minute. \
         \"Written\" counts the bytes passed to the kernel, without file system overhead; it includes rewriting a record until its hour is complete."
    ));
    section.table(
        &["", "measured"],
        &[
            vec!["hourly record per container-hour".to_owned(), format!("{each:.0} bytes")],
            vec!["per-minute records per container-hour".to_owned(), format!("{minutes:.0} bytes")],
            vec![
                "written per container-hour".to_owned(),
                format!("{:.1} KiB", written as f64 / container_hours as f64 / 1024.0),
            ],
            vec!["written ÷ stored".to_owned(), format!("{:.0} ×", written as f64 / stored as f64)],
            vec![
                "written, all containers".to_owned(),
                format!("{:.1} KiB/s", written as f64 / seconds as f64 / 1024.0),
            ],
            vec![
                "CPU, share of one core".to_owned(),
                format!("{:.3} %", cpu.as_secs_f64() / seconds as f64 * 100.0),
            ],
        ],
    );
    let total = (each * (DAYS * 24) as f64 + minutes * HOURS_WITH_MINUTES as f64) * CONTAINERS as f64;
    section.budgets = vec![
        Budget::at_most(
            &format!("{DAYS} days of {CONTAINERS} containers"),
            mib(total as u64),
            mib(MAX_BYTES),
            "MiB",
            0,
        ),
        Budget::at_most("CPU, share of one core", cpu.as_secs_f64() / seconds as f64 * 100.0, 0.1, "%", 3),
    ];
    Ok(section.finish())
}

/// The minute record with the same usage.
fn part_of_minute(evidence: &Evidence) -> MinuteRecord {
    let record = evidence.hours.values().next();
    let cores = record.map_or(0.0, |record| record.minutes.sum());
    MinuteRecord {
        observed_millis: WRITE_INTERVAL * 1000,
        cpu_millis: (cores * WRITE_INTERVAL as f64 * 1000.0) as u64,
        memory_peak: record.and_then(|record| record.highest()).map_or(0, |peak| peak.bytes),
        ..MinuteRecord::default()
    }
}

/// Usage of one container between two writes.
pub(crate) fn half_a_minute(number: u64, hour: u32, random: &mut Random) -> Evidence {
    let workload = Workload {
        namespace: format!("namespace-{}", number % 20),
        name: format!("workload-{number}"),
        owner: "Deployment".to_owned(),
        replicas: 1,
        ..Workload::default()
    };
    let current = Resources { cpu_request: Some(100), memory_limit: Some(256 << 20), ..Resources::default() };
    let container = Container { name: "app".to_owned(), current, ..Container::default() };
    let mut evidence = Evidence::new(workload, container, WINDOW_NS / 1_000_000);
    let pod = format!("workload-{number}-5d4f8c7b9c-x7k2p");
    let record = evidence.hour(Hour(hour));
    record.observed = WRITE_INTERVAL;
    let mut what_if = TokenBuckets::default();
    let base = 0.005 * (1 + number % 40) as f64;
    for _ in 0..WRITE_INTERVAL * 10 {
        let cores = base * random.spread();
        record.cpu.record(cores, 1);
        what_if.feed((cores * WINDOW_NS as f64) as u64, WINDOW_NS);
    }
    record.quota_what_if = what_if.take();
    record.minutes.record(base * random.spread(), 1);
    let bytes = (8_u64 << 20) * (1 + number % 30);
    for _ in 0..WRITE_INTERVAL {
        record.working_set.record(bytes as f64 * (1.0 + random.next() / 10.0), 1);
    }
    record.unreclaimable.record(bytes as f64 * 0.8, 3);
    record.peak = Some(Peak { bytes, at: 1_800_000_000, pod: pod.clone() });
    record.stalled.cpu_millis = 20;
    evidence.pods.insert(pod, PodTotals { observed: WRITE_INTERVAL, ..PodTotals::default() });
    evidence
}

/// Bytes that this process has passed to the kernel for writing (`wchar`).
fn bytes_written() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io").context("cannot read /proc/self/io")?;
    let row = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    row.and_then(|number| number.parse().ok()).context("/proc/self/io has no wchar")
}

/// Reproducible pseudo-random numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number from 0 to 1.
    fn next(&mut self) -> f64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A factor with a long tail, as CPU usage has: mostly near 1, sometimes far above.
    fn spread(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| self.next()).sum();
        ((sum - 2.0) * 1.5).exp()
    }
}
