//! Usage history: CPU windows bucket by bucket, the quota simulation against real quotas, and memory peaks.

use std::{
    thread,
    time::{Duration, Instant},
};

use snug_agent::{
    history::{History, Retention},
    values::PeakSource,
};
use snug_sizing::{
    cpu_quota::{QuotaOutcome, QuotaWhatIf},
    evidence::{Evidence, Hour},
    histogram::Histogram,
};
use snug_tests::{
    cgroup::{Cgroup, Host, row},
    worker::{Job, Worker},
};

use crate::driver::{Driver, Running, host, values_of};

const WINDOW: Duration = Duration::from_millis(100);

fn history() -> History {
    History::start(None, Retention { hours: 24, hours_by_minute: 24, bytes: 1 << 20 }).unwrap()
}

/// A cgroup whose path is that of a container, with its parents.
fn container(host: &Host, name: &str) -> [Cgroup; 3] {
    let top = Cgroup::new(host, name);
    let docker = top.child("docker");
    let container = docker.child(&format!("{:064x}", std::process::id()));
    [container, docker, top]
}

/// The usage history of the only container whose identity contains `part`, all hours together.
pub(crate) fn recorded(history: History, part: &str) -> Evidence {
    let store = history.store();
    drop(history);
    let hours = store.hours();
    let mut subjects = hours.subjects(Hour(0)).unwrap().into_iter();
    let (_, records) = subjects.find(|(subject, _)| subject.contains(part)).unwrap();
    let mut evidence = hours.evidence(&records).unwrap().0.unwrap();
    evidence.minutes = hours.minutes(&records).unwrap();
    evidence
}

/// The usage history of this process's container.
fn evidence(history: History) -> Evidence {
    recorded(history, &format!("{:064x}", std::process::id()))
}

fn cpu_ns(host: &Host, cgroup: &Cgroup) -> u64 {
    let directory = cgroup.directory(host.hierarchies.cpu_time().unwrap());
    row(&std::fs::read_to_string(directory.join("cpu.stat")).unwrap(), "usage_usec") * 1000
}

#[test]
fn windows_from_passes_equal_those_of_an_independent_reader() {
    windows_equal_those_of_an_independent_reader(&[], Duration::ZERO);
}

#[test]
fn windows_from_samples_equal_those_of_an_independent_reader() {
    let second = Duration::from_secs(1);
    let begun = Instant::now();
    let Some(passes) =
        windows_equal_those_of_an_independent_reader(&["--working-set-interval", "1s"], second)
    else {
        return;
    };
    let seconds = begun.elapsed().as_secs() + 3;
    assert!(passes <= seconds, "between full rounds there are samples only: {passes} passes in {seconds} s");
}

/// `interval`: time between two full rounds. Returns the number of passes.
fn windows_equal_those_of_an_independent_reader(options: &[&str], interval: Duration) -> Option<u64> {
    let host = host()?;
    let driver = Driver::kernel(options)?;
    let history = history();
    let mut driver = driver.with_history(history.sink());
    let cgroups = container(&host, "windows");
    let container = &cgroups[0];
    thread::sleep(interval);
    driver.round();

    // The worker works between rounds and is idle during rounds, so the file has the CPU time that the round samples.
    let mut seen: Vec<(u64, f64, Duration)> = Vec::new();
    let mut before = (cpu_ns(&host, container), Instant::now(), Instant::now());
    driver.round();
    before.2 = Instant::now();
    let mut worker = Worker::start_in(container);
    for window in 0..60_u64 {
        let job = Job::Spin {
            cpu_ms: [0, 1, 3, 10, 25, 40, 60, 90, 120, 7][window as usize % 10],
            threads: 1 + window % 2,
        };
        worker.run(&job).unwrap();
        // Whole windows: otherwise the number of windows would depend on rounding.
        let since = before.2.elapsed().as_secs_f64() / WINDOW.as_secs_f64();
        thread::sleep(WINDOW.mul_f64(since.ceil() - since));
        let used = cpu_ns(&host, container);
        let begun = Instant::now();
        driver.round();
        let ended = Instant::now();
        // The round sampled at some moment between its start and its end.
        let [shortest, longest] = [begun - before.2, ended - before.1];
        seen.push((used - before.0, shortest.as_secs_f64(), longest));
        before = (used, begun, ended);
    }
    let passes = driver.round().agent.passes;
    driver.end();
    let evidence = evidence(history);
    let mut windows: Histogram = evidence.hours.values().next().unwrap().cpu_start.clone();
    evidence.hours.values().skip(1).for_each(|hour| windows.merge(&hour.cpu_start));

    let [mut low, mut high] = [Histogram::default(), Histogram::default()];
    let mut unclear = 0;
    for (used, shortest, longest) in &seen {
        let times = |elapsed: f64| (elapsed / WINDOW.as_secs_f64()).round() as u64;
        let longest = longest.as_secs_f64();
        unclear += times(longest).abs_diff(times(*shortest));
        // The file has microseconds.
        low.record(used.saturating_sub(1000) as f64 / 1e9 / longest, times(longest));
        high.record((used + 1000) as f64 / 1e9 / shortest, times(longest));
    }
    let above = |histogram: &Histogram, bound: f64| -> u64 {
        histogram.buckets().filter(|(_, lower, _)| *lower >= bound).map(|(count, ..)| count).sum()
    };
    let bounds: Vec<f64> =
        windows.buckets().map(|(_, lower, _)| lower).filter(|lower| *lower > 0.002).collect();
    println!("{} buckets of {} windows, {unclear} unclear", bounds.len(), windows.count());
    // The jobs have eight sizes (120 ms are two windows of 60); disturbances add more.
    assert!(bounds.len() >= 8, "{windows:?}");
    for bound in bounds {
        let (low, found, high) = (above(&low, bound), above(&windows, bound), above(&high, bound));
        assert!(low <= found + unclear && found <= high + unclear, "above {bound}: {low} {found} {high}");
    }
    Some(passes)
}

/// Bursts of 50 ms of CPU time on each of two threads, every half second, at varying phases of the CFS period. No quota of the test
/// divides them into whole periods, so that no period is throttled by a microsecond more or less.
fn bursts(worker: &mut Worker, times: u64) {
    for number in 0..times {
        let begun = Instant::now();
        worker.run(&Job::Spin { cpu_ms: 100, threads: 2 }).unwrap();
        let pause = Duration::from_millis(500 + number * 37 % 100);
        thread::sleep(pause.saturating_sub(begun.elapsed()));
    }
}

#[test]
fn the_quota_simulation_matches_real_quotas() {
    /// Bursts in a round, at each quota.
    const TIMES: u64 = 20;
    const QUOTAS: [u64; 2] = [300, 600];
    /// The phases of the simulated and the real periods differ, so a few of 20 bursts are throttled in one but not in the other:
    /// the standard deviation of the difference of two shares is about 0.05. More rounds make it smaller. So a right simulation
    /// is within the band after some round. A wrong one is outside after each: without the delay into the next period, or
    /// with half or twice the quota, its counts are off by 0.2 or more, however many bursts are added up.
    const BAND: f64 = 0.15;
    const ROUNDS: u32 = 4;
    let Some(host) = host() else { return };
    // One has no limit, as the simulation needs it.
    let free = container(&host, "quota-simulation");
    let limited = Cgroup::new(&host, "quota-real");
    let [mut simulating, mut throttled] = [&free[0], &limited].map(Worker::start_in);
    let mut simulated = QuotaWhatIf::from_iter(QUOTAS.map(|quota| (quota, QuotaOutcome::default())));
    let mut real = QUOTAS.map(|quota| (quota, QuotaOutcome::default()));
    for round in 1.. {
        let history = history();
        let Some(running) = Running::with_history(&["--source", "kernel"], history.sink()) else { return };
        bursts(&mut simulating, TIMES);
        thread::sleep(Duration::from_secs(1));
        drop(running);
        simulated.merge(&evidence(history).quota_what_if().unwrap());
        for (quota, outcome) in &mut real {
            limited.limit_cpu(*quota * 100, 100_000, 0);
            let before = limited.bandwidth_stat();
            bursts(&mut throttled, TIMES);
            thread::sleep(Duration::from_millis(300));
            let after = limited.bandwidth_stat();
            let counted = |name| row(&after, name) - row(&before, name);
            outcome.periods += counted("nr_periods");
            outcome.throttled += counted("nr_throttled");
        }
        let differ = real.iter().any(|(quota, real)| {
            let found = simulated.get(*quota).unwrap();
            println!("round {round}, {quota} m: {found:?} simulated, {real:?} real");
            // Of the same number of bursts.
            let count = found.throttled.abs_diff(real.throttled) as f64 / real.periods as f64;
            let share = (found.share() - real.share()).abs();
            count > BAND || share > BAND
        });
        if !differ {
            return;
        }
        assert!(round < ROUNDS, "simulated {simulated:?}, real {real:?}");
    }
}

const MIB: u64 = 1 << 20;

/// Whether `memory.peak` can be reset per open file: cgroup v2 on Linux 6.12.
fn can_reset_peaks(host: &Host) -> bool {
    let version = procfs::sys::kernel::Version::current().unwrap();
    host.unified() && (version.major, version.minor) >= (6, 12)
}

#[test]
fn a_memory_peak_between_two_samples_comes_from_the_kernel_if_possible() {
    let Some(host) = host() else { return };
    let cgroups = container(&host, "peaks");
    let container = &cgroups[0];
    let mut worker = Worker::start_in(container);
    // The watermark is higher than all that follows, and from before the agent.
    worker.run(&Job::Flap { bytes: 64 * MIB, for_ms: 1 }).unwrap();
    let Some(driver) = Driver::kernel(&[]) else { return };
    let history = history();
    let mut driver = driver.with_history(history.sink());
    driver.round();
    driver.round();
    worker.run(&Job::Flap { bytes: 24 * MIB, for_ms: 1 }).unwrap();
    let published = driver.round();
    let peak = values_of(&published, container.path()).window_peak.unwrap();
    driver.end();
    let evidence = evidence(history);
    let highest = evidence.hours.values().filter_map(|hour| hour.highest()).map(|peak| peak.bytes).max();
    let by_minute = evidence.minutes.values().map(|minute| minute.memory_peak).max();
    assert_eq!(highest, by_minute);
    if can_reset_peaks(&host) {
        assert_eq!(peak.source, PeakSource::PeakFile);
        assert!((24 * MIB..64 * MIB).contains(&peak.bytes), "{peak:?}");
        assert!((24 * MIB..64 * MIB).contains(&highest.unwrap()), "{highest:?}");
        let file = container.memory_file("memory.peak", "");
        assert!(
            file.trim().parse::<u64>().unwrap() >= 64 * MIB,
            "other readers see the peak since the creation: {file}"
        );
    } else {
        assert_eq!(peak.source, PeakSource::Watermark);
        assert!(peak.bytes < 24 * MIB && highest.unwrap() < 24 * MIB, "it cannot be seen: {peak:?}");
    }
}

#[test]
fn a_memory_peak_of_a_third_of_a_second_is_sampled_with_cpu_time() {
    let Some(host) = host() else { return };
    if !host.unified() {
        eprintln!("skipped: memory is in another hierarchy than CPU time here, and sampled once a second");
        return;
    }
    let cgroups = container(&host, "moments");
    let container = &cgroups[0];
    let mut worker = Worker::start_in(container);
    worker.run(&Job::Flap { bytes: 64 * MIB, for_ms: 1 }).unwrap();
    let history = history();
    let Some(running) = Running::with_history(&["--source", "kernel"], history.sink()) else { return };
    let shown = || {
        let values = running
            .published()
            .cgroups
            .iter()
            .find(|row| &*row.identity.path == container.path())?
            .values
            .clone();
        values.window_peak
    };
    snug_tests::wait::until("the container's memory", Duration::from_secs(10), shown);
    thread::sleep(Duration::from_millis(1100));
    // Allocated once and held: in a slow guest each allocation takes as long as a window.
    let mut moment = Worker::start_in(container);
    moment.run(&Job::Touch { bytes: 24 * MIB }).unwrap();
    thread::sleep(Duration::from_millis(300));
    drop(moment);
    thread::sleep(Duration::from_millis(1300));
    let peak = shown().unwrap();
    assert!((24 * MIB..64 * MIB).contains(&peak.bytes), "{peak:?}");
}
