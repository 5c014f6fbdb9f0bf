//! How long tasks wait for a CPU, against what the kernel itself keeps of each thread.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use snug_agent::store::published::{Published, Verdict};
use snug_tests::{
    cgroup::Cgroup,
    worker::{Job, Worker},
};

use crate::driver::{Driver, host, values_of};

/// What `/proc/PID/schedstat` has of a process with one thread: nanoseconds waited, and times that it got a CPU.
fn schedstat(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    (numbers[1], numbers[2])
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

fn waits(published: &Published, path: &str) -> (u64, f64) {
    let waits = values_of(published, path).runqueue;
    waits.map_or((0, 0.0), |waits| (waits.histogram.count(), waits.sum))
}

/// Rounds until the counters have been looked at again.
fn look(driver: &mut Driver) -> Arc<Published> {
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
    let before = look(&mut driver);
    let (times_before, sum_before) = waits(&before, crowd.path());
    let kept: Vec<(u64, u64)> = workers.iter().map(|worker| schedstat(worker.pid())).collect();
    // What is neither use nor sleep is waiting, whatever the kernel keeps.
    let (times, sleep_ms) = (20, 5);
    for worker in &mut workers {
        worker.begin(&Job::Pulse { times, cpu_ms: 20, sleep_ms });
    }
    let begun = Instant::now();
    let idle: f64 = thread::scope(|scope| {
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
    let slept = (workers.len() as u64 * times * sleep_ms) as f64 / 1e3;
    let own: Vec<(u64, u64)> = workers.iter().map(|worker| schedstat(worker.pid())).collect();
    let published = look(&mut driver);
    let (count, sum) = waits(&published, crowd.path());
    let (count, sum) = (count - times_before, sum - sum_before);
    let waited: u64 = own.iter().zip(&kept).map(|((now, _), (before, _))| now - before).sum();
    let ran: u64 = own.iter().zip(&kept).map(|((_, now), (_, before))| now - before).sum();
    let waited = waited as f64 / 1e9;
    assert!(sum > 0.5, "they had to wait: {sum} s");
    assert!((sum - (idle - slept)).abs() < 0.1 * sum, "{sum} s; idle {idle} s, of which asleep {slept} s");
    // A kernel built without its own accounting (CONFIG_SCHED_INFO) has 0. A wait begins at a tracepoint here and some
    // instructions away there; orders and answers come in between.
    if waited > 0.0 {
        assert!((sum - waited).abs() < 0.05 * waited + 0.05, "{sum} s, the kernel has {waited} s");
        let off = count.abs_diff(ran) as f64;
        assert!(off < 0.1 * ran as f64 + 20.0, "{count} waits, the kernel has {ran} runs");
    }
    // What they waited is no one else's.
    let (others, _) = waits(&published, alone.path());
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
