//! Run queue latency, compared with the kernel's own accounting per thread, and with the time that is neither CPU time nor sleep.

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

/// The content of a file of each thread of a process. The threads are the same before and after a job.
fn of_threads(pid: u32, file: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| fs::read_to_string(thread.unwrap().path().join(file)).unwrap()).collect()
}

/// Time that a process waited, from `schedstat`, nanoseconds; 0 if the kernel is built without `CONFIG_SCHED_INFO`.
fn schedstat_wait(pid: u32) -> u64 {
    let waited = |text: &String| text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    of_threads(pid, "schedstat").iter().map(waited).sum()
}

/// Context switches of the threads of a process.
fn switches(pid: u32) -> u64 {
    let texts = of_threads(pid, "status").concat();
    let numbers = texts.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
    numbers.map(|(_, number)| number.trim().parse::<u64>().unwrap()).sum()
}

/// Measurements while all workers did a job.
#[derive(Clone, Copy)]
struct Crowd {
    /// Number of waits that the programs counted, and their sum, seconds.
    counted: (u64, f64),
    switches: u64,
    /// Sum of waits by the kernel's accounting, seconds.
    accounted: f64,
    /// Time that workers had a job but no CPU, seconds.
    idle: f64,
}

impl Crowd {
    fn at_work(driver: &mut Driver, cgroup: &Cgroup, workers: &mut [Worker], job: &Job) -> Self {
        let all = |workers: &[Worker], of: fn(u32) -> u64| -> u64 {
            workers.iter().map(|worker| of(worker.pid())).sum()
        };
        let (count_before, sum_before) = waits(&read_counters(driver), cgroup.path());
        let before = (all(workers, switches), all(workers, schedstat_wait));
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
        let after = (all(workers, switches), all(workers, schedstat_wait));
        let (count, sum) = waits(&read_counters(driver), cgroup.path());
        Self {
            counted: (count - count_before, sum - sum_before),
            switches: after.0 - before.0,
            accounted: (after.1 - before.1) as f64 / 1e9,
            idle,
        }
    }
}

impl Crowd {
    /// Whether the programs counted what the kernel did while the workers slept this often for so long.
    fn compare(&self, sleeps: u64, sleep_ms: u64) -> Result<(), String> {
        let (Self { counted: (count, sum), switches, accounted, idle }, slept) =
            (*self, (sleeps * sleep_ms) as f64 / 1e3);
        let ensure = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
        ensure(count >= sleeps && sum > 0.5, format!("{count} waits of {sum} s"))?;
        // The time until a job and its answer are read is idle, too, and long where the machine runs something else. So this is
        // an upper bound; the lower one is the kernel's accounting.
        let waited = idle - slept;
        ensure(sum < 1.1 * waited, format!("{sum} s; idle {idle} s, of which asleep {slept} s"))?;
        ensure(accounted > 0.0 || sum > 0.9 * waited, format!("{sum} s; idle {idle} s, asleep {slept} s"))?;
        // Jobs and answers add context switches.
        let off = count.abs_diff(switches) as f64;
        ensure(
            off < 0.1 * switches as f64 + 20.0,
            format!("{count} waits, the kernel has {switches} switches"),
        )?;
        // The kernel's accounting and the tracepoint differ by some instructions.
        ensure(
            accounted == 0.0 || (sum - accounted).abs() < 0.05 * accounted + 0.05,
            format!("{sum} s, the kernel has {accounted} s"),
        )
    }
}

/// A driver that traces the run queue.
fn tracing(options: &[&str]) -> Option<Driver> {
    Driver::kernel(&[&["--runqueue", "on"], options].concat())
}

fn waits(published: &View, path: &str) -> (u64, f64) {
    let waits = values_of(published, path).runqueue;
    waits.map_or((0, 0.0), |waits| (waits.histogram.count(), waits.sum))
}

/// A round after the interval in which the counters are read.
fn read_counters(driver: &mut Driver) -> Arc<View> {
    thread::sleep(Duration::from_millis(5_100));
    driver.round()
}

#[test]
fn waits_equal_the_kernels_accounting() {
    let Some(host) = host() else { return };
    let Some(mut driver) = tracing(&[]) else { return };
    let crowd = Cgroup::new(&host, "runqueue-crowd");
    let alone = Cgroup::new(&host, "runqueue-alone");
    // More workers than CPUs, so that they have to wait.
    let cpus = thread::available_parallelism().unwrap().get();
    let mut workers: Vec<Worker> = (0..2 * cpus + 1).map(|_| Worker::start_in(&crowd)).collect();
    let mut quiet = Worker::start_in(&alone);
    assert_eq!(quiet.run(&Job::Spin { cpu_ms: 1, threads: 1 }).map(|used| used > 0), Some(true));
    let (times, sleep_ms) = (20, 5);
    let jobs = [
        // Time that is neither CPU time nor sleep is waiting. Without sleeps, whose ends may be late.
        (Job::Spin { cpu_ms: 400, threads: 1 }, 0),
        // With sleeps: each may be followed by a wait.
        (Job::Pulse { times, cpu_ms: 20, sleep_ms }, times),
    ];
    let mut total = 0;
    for (job, sleeps) in jobs {
        let mut tried = Vec::new();
        // An emulator that waits for a CPU of its host may do so between the tracepoint and the kernel's accounting.
        let agrees = (0..5).any(|_| {
            let work = Crowd::at_work(&mut driver, &crowd, &mut workers, &job);
            total += work.counted.0;
            let compared = work.compare(workers.len() as u64 * sleeps, sleep_ms);
            compared.map_err(|difference| tried.push(difference)).is_ok()
        });
        assert!(agrees, "{tried:#?}");
    }
    // Waits are not counted for another cgroup.
    let (others, _) = waits(&driver.round(), alone.path());
    assert!(others < total / 4, "{others} of {total}");
}

#[test]
fn each_wait_is_counted_and_so_is_the_cost_of_tracing() {
    let Some(host) = host() else { return };
    let Some(mut driver) = tracing(&[]) else { return };
    let cgroup = Cgroup::new(&host, "runqueue-short");
    let mut worker = Worker::start_in(&cgroup);
    driver.round();
    worker.run(&Job::Pulse { times: 30, cpu_ms: 1, sleep_ms: 1 });
    let published = read_counters(&mut driver);
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
    // Ten thousand context switches per second, for longer than the test.
    for worker in &mut workers {
        worker.begin(&Job::Pulse { times: 60_000, cpu_ms: 0, sleep_ms: 1 });
    }
    let published = read_counters(&mut driver);
    let row = published.agent.runqueue.unwrap();
    // Waits until the pause stay counted.
    let (before, _) = waits(&published, cgroup.path());
    assert!(before > 0);
    let published = read_counters(&mut driver);
    let (after, _) = waits(&published, cgroup.path());
    let paused = published.agent.runqueue.unwrap();
    assert!(paused.paused && paused.times_paused == 1, "{row:?}, then {paused:?}");
    let cost = paused.cost_ns - row.cost_ns;
    assert_eq!((after, cost), (before, 0), "it is not traced meanwhile");
    // Other programs keep running.
    assert!(published.agent.programs.iter().all(|program| program.verdict == Verdict::Running));
}
