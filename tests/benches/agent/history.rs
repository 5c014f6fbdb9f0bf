//! What the history takes: of the disk, and of the CPU.

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
/// Between two hand-overs, seconds, as the agent has it.
const HAND_OVER: u64 = 30;
const WINDOW_NS: u64 = 100_000_000;
/// What the agent keeps by default: days, hours minute by minute, and bytes.
const DAYS: u64 = 30;
const HOURS_BY_MINUTE: u64 = 6;
const MOST_BYTES: u64 = 256 << 20;

/// Hands over what so many containers do in some hours, as often as the agent does.
pub(crate) fn run() -> Result<Section> {
    let folder = tempfile::tempdir().context("no folder for a history")?;
    let (store, _) = Store::open(folder.path())?;
    let mut random = Random(1);
    let (mut written, mut cpu, mut handed_over) = (0, Duration::ZERO, 0);
    for hour in 0..HOURS {
        for turn in 0..HOUR / HAND_OVER {
            interrupt::sleep(Duration::ZERO)?;
            let minute = Minute::from_seconds(u64::from(FIRST_HOUR + hour) * HOUR + turn * HAND_OVER);
            let batch: Vec<Evidence> = (0..CONTAINERS)
                .map(|number| {
                    let mut evidence = half_a_minute(number, FIRST_HOUR + hour, &mut random);
                    evidence.minutes.insert(minute, part_of_minute(&evidence));
                    evidence
                })
                .collect();
            handed_over += 1;
            let before = bytes_written()?;
            let (took, added) = cpu_time(|| store.add(&batch));
            added?;
            written += bytes_written()? - before;
            cpu += took;
        }
    }
    // With no bounds nothing is removed, and what there is is told; then only the minutes.
    let stored = store.prune(Hour(0), Hour(0), u64::MAX)?;
    let without_minutes = store.prune(Hour(u32::MAX), Hour(0), u64::MAX)?;
    let container_hours = CONTAINERS * u64::from(HOURS);
    let each = without_minutes as f64 / container_hours as f64;
    let by_minute = (stored - without_minutes) as f64 / container_hours as f64;
    let seconds = u64::from(HOURS) * HOUR;

    let mut section = Section::new("history");
    section.paragraph(&format!(
        "{HOURS} hours of {CONTAINERS} containers, each a workload of its own, handed over every {HAND_OVER} s ({handed_over} times) as \
         the agent does: 300 CPU windows each time, spread over some twenty buckets, working sets, the ladder of quotas, a peak, and the minute that has begun. Bytes written are what \
         the thread gave to the kernel, the file system's own not counted; how often a record is written anew while its hour lasts is in them."
    ));
    section.table(
        &["", "measured"],
        &[
            vec!["records, a container-hour".to_owned(), format!("{each:.0} bytes")],
            vec!["its minutes, as long as they are kept".to_owned(), format!("{by_minute:.0} bytes")],
            vec![
                "written, a container-hour".to_owned(),
                format!("{:.1} KiB", written as f64 / container_hours as f64 / 1024.0),
            ],
            vec!["written ÷ kept".to_owned(), format!("{:.0} ×", written as f64 / stored as f64)],
            vec![
                "written, all containers".to_owned(),
                format!("{:.1} KiB/s", written as f64 / seconds as f64 / 1024.0),
            ],
            vec![
                "CPU of one core".to_owned(),
                format!("{:.3} %", cpu.as_secs_f64() / seconds as f64 * 100.0),
            ],
        ],
    );
    let whole = (each * (DAYS * 24) as f64 + by_minute * HOURS_BY_MINUTE as f64) * CONTAINERS as f64;
    section.budgets = vec![
        Budget::at_most(
            &format!("{DAYS} days of {CONTAINERS} containers"),
            mib(whole as u64),
            mib(MOST_BYTES),
            "MiB",
            0,
        ),
        Budget::at_most(
            "CPU of writing it, of one core",
            cpu.as_secs_f64() / seconds as f64 * 100.0,
            0.1,
            "%",
            3,
        ),
    ];
    Ok(section.finish())
}

/// The same as a part of its minute.
fn part_of_minute(evidence: &Evidence) -> MinuteRecord {
    let record = evidence.hours.values().next();
    let cores = record.map_or(0.0, |record| record.minutes.sum());
    MinuteRecord {
        observed_millis: HAND_OVER * 1000,
        cpu_millis: (cores * HAND_OVER as f64 * 1000.0) as u64,
        memory_peak: record.and_then(|record| record.highest()).map_or(0, |peak| peak.bytes),
        ..MinuteRecord::default()
    }
}

/// What one container did in the time between two hand-overs.
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
    record.observed = HAND_OVER;
    let mut ladder = TokenBuckets::default();
    let base = 0.005 * (1 + number % 40) as f64;
    for _ in 0..HAND_OVER * 10 {
        let cores = base * random.spread();
        record.cpu.record(cores, 1);
        ladder.feed((cores * WINDOW_NS as f64) as u64, WINDOW_NS);
    }
    record.quota_what_if = ladder.take();
    record.minutes.record(base * random.spread(), 1);
    let bytes = (8_u64 << 20) * (1 + number % 30);
    for _ in 0..HAND_OVER {
        record.working_set.record(bytes as f64 * (1.0 + random.next() / 10.0), 1);
    }
    record.unreclaimable.record(bytes as f64 * 0.8, 3);
    record.peak = Some(Peak { bytes, at: 1_800_000_000, pod: pod.clone() });
    record.stalled.cpu_millis = 20;
    evidence.pods.insert(pod, PodTotals { observed: HAND_OVER, ..PodTotals::default() });
    evidence
}

/// Bytes that this process has given to the kernel to write.
fn bytes_written() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io").context("cannot read /proc/self/io")?;
    let row = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    row.and_then(|number| number.parse().ok()).context("/proc/self/io has no wchar")
}

/// The same numbers on each machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A factor, mostly near 1 and sometimes far above, as CPU use is.
    fn spread(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| self.next()).sum();
        ((sum - 2.0) * 1.5).exp()
    }
}
