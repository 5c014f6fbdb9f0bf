//! How long tasks wait for a CPU, against what the kernel itself keeps of each thread, and what is neither use nor sleep.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use snug_agent::model::{Verdict, View};
use snug_tests::{
    cgroup::Cgroup,
    worker::{Job, Worker},
};

use crate::driver::{Driver, host, values_of};

/// A file of each thread of a process. The threads are the same before and after a job.
fn of_threads(pid: u32, file: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| fs::read_to_string(thread.unwrap().path().join(file)).unwrap()).collect()
}

/// Nanoseconds that a process waited, as the kernel has it; 0 where it is built without its own accounting (`CONFIG_SCHED_INFO`).
fn kept_wait(pid: u32) -> u64 {
    let waited = |text: &String| text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    of_threads(pid, "schedstat").iter().map(waited).sum()
}

/// Times that threads of a process left a CPU, and so came to one again.
fn switches(pid: u32) -> u64 {
    let texts = of_threads(pid, "status").concat();
    let numbers = texts.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
    numbers.map(|(_, number)| number.trim().parse::<u64>().unwrap()).sum()
}

/// What happened while all workers did a job.
struct Crowd {
    /// Waits that the programs counted, and their seconds.
    counted: (u64, f64),
    switches: u64,
    /// Seconds of waiting that the kernel counted.
    kept: f64,
    /// Seconds in which workers had a job and no CPU.
    idle: f64,
}

impl Crowd {
    fn at_work(driver: &mut Driver, cgroup: &Cgroup, workers: &mut [Worker], job: &Job) -> Self {
        let all = |workers: &[Worker], of: fn(u32) -> u64| -> u64 {
            workers.iter().map(|worker| of(worker.pid())).sum()
        };
        let (count_before, sum_before) = waits(&look(driver), cgroup.path());
        let before = (all(workers, switches), all(workers, kept_wait));
        workers.iter_mut().for_each(|worker| worker.begin(job));
        let begun = Instant::now();
        let idle = thread::scope(|scope| {
            let ends: Vec<_> = workers
                .iter_mut()
                .map(|worker| {
                    scope.spawn(|| {
                        let used = Duration::from_nanos(worker.end().unwrap());
                        begun.elapsed().saturating_sub(used).as_secs_f64()
                    })
                })
                .collect();
            ends.into_iter().map(|end| end.join().unwrap()).sum()
        });
        let after = (all(workers, switches), all(workers, kept_wait));
        let (count, sum) = waits(&look(driver), cgroup.path());
        Self {
            counted: (count - count_before, sum - sum_before),
            switches: after.0 - before.0,
            kept: (after.1 - before.1) as f64 / 1e9,
            idle,
        }
    }
}

/// A driver that traces; `None` where that is not done, which is then said.
fn tracing(options: &[&str]) -> Option<Driver> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if release.starts_with("6.1.") {
        println!("not run: the run queue is traced from Linux 6.12 on");
        return None;
    }
    Driver::kernel(&[&["--runqueue", "on"], options].concat())
}

fn waits(published: &View, path: &str) -> (u64, f64) {
    let waits = values_of(published, path).runqueue;
    waits.map_or((0, 0.0), |waits| (waits.histogram.count(), waits.sum))
}

/// Rounds until the counters have been looked at again.
fn look(driver: &mut Driver) -> Arc<View> {
    thread::sleep(Duration::from_millis(5_100));
    driver.round()
}

#[test]
fn waits_are_those_that_the_kernel_keeps_of_each_thread() {
    let Some(host) = host() else { return };
    let Some(mut driver) = tracing(&[]) else { return };
    let crowd = Cgroup::new(&host, "runqueue-crowd");
    let alone = Cgroup::new(&host, "runqueue-alone");
    // More of them than the host has CPUs, so that they have to wait.
    let cpus = thread::available_parallelism().unwrap().get();
    let mut workers: Vec<Worker> = (0..2 * cpus + 1).map(|_| Worker::start_in(&crowd)).collect();
    let mut quiet = Worker::start_in(&alone);
    assert_eq!(quiet.run(&Job::Spin { cpu_ms: 1, threads: 1 }).map(|used| used > 0), Some(true));
    // What is neither use nor sleep is waiting, whatever the kernel keeps. Who does not sleep, whose sleeps do not end late.
    let spin = Crowd::at_work(&mut driver, &crowd, &mut workers, &Job::Spin { cpu_ms: 400, threads: 1 });
    let (_, sum) = spin.counted;
    assert!(sum > 0.5, "they had to wait: {sum} s");
    assert!((sum - spin.idle).abs() < 0.1 * sum, "{sum} s; idle {} s", spin.idle);

    // Who sleeps waits after it, too.
    let (times, sleep_ms) = (20, 5);
    let job = Job::Pulse { times, cpu_ms: 20, sleep_ms };
    let pulse = Crowd::at_work(&mut driver, &crowd, &mut workers, &job);
    let (count, sum) = pulse.counted;
    let slept = (workers.len() as u64 * times * sleep_ms) as f64 / 1e3;
    assert!(count >= workers.len() as u64 * times && sum > 0.5, "{count} waits of {sum} s");
    assert!(sum < 1.1 * (pulse.idle - slept), "{sum} s; idle {} s, of which asleep {slept} s", pulse.idle);
    for Crowd { counted: (count, sum), switches, kept, .. } in [spin, pulse] {
        // Orders and answers come in between.
        let off = count.abs_diff(switches) as f64;
        assert!(off < 0.1 * switches as f64 + 20.0, "{count} waits, the kernel has {switches} switches");
        // A wait begins at a tracepoint here and some instructions away there.
        assert!(kept == 0.0 || (sum - kept).abs() < 0.05 * kept + 0.05, "{sum} s, the kernel has {kept} s");
    }
    // What they waited is no one else's.
    let (others, _) = waits(&driver.round(), alone.path());
    assert!(others < count / 2, "{others} of {count}");
}

#[test]
fn each_wait_counts_and_tracing_says_what_it_costs() {
    let Some(host) = host() else { return };
    let Some(mut driver) = tracing(&[]) else { return };
    let cgroup = Cgroup::new(&host, "runqueue-short");
    let mut worker = Worker::start_in(&cgroup);
    driver.round();
    worker.run(&Job::Pulse { times: 30, cpu_ms: 1, sleep_ms: 1 });
    let published = look(&mut driver);
    let (times, sum) = waits(&published, cgroup.path());
    assert!(times >= 30 && sum > 0.0, "{times} {sum}");
    let agent = &published.agent;
    let row = agent.runqueue.unwrap();
    assert!(row.cost_ns > 0 && !row.paused, "{row:?}");
}

#[test]
fn tracing_that_costs_too_much_pauses() {
    let Some(host) = host() else { return };
    let Some(mut driver) = tracing(&["--runqueue-millicores", "1"]) else { return };
    let cgroup = Cgroup::new(&host, "runqueue-costly");
    let mut workers: Vec<Worker> = (0..16).map(|_| Worker::start_in(&cgroup)).collect();
    driver.round();
    // Ten thousand switches a second, for longer than the test lasts.
    for worker in &mut workers {
        worker.begin(&Job::Pulse { times: 60_000, cpu_ms: 0, sleep_ms: 1 });
    }
    let published = look(&mut driver);
    let row = published.agent.runqueue.unwrap();
    // What the programs counted until then is kept.
    let (before, _) = waits(&published, cgroup.path());
    assert!(before > 0);
    let published = look(&mut driver);
    let (after, _) = waits(&published, cgroup.path());
    let paused = published.agent.runqueue.unwrap();
    assert!(paused.paused && paused.times_paused == 1, "{row:?}, then {paused:?}");
    let cost = paused.cost_ns - row.cost_ns;
    assert_eq!((after, cost), (before, 0), "it is not traced meanwhile");
    // Nothing else stops.
    assert!(published.agent.programs.iter().all(|program| program.verdict == Verdict::Running));
}
