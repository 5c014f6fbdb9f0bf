//! The wall clock of a machine is stepped, both ways, while the agent measures. Only on a machine of the test's own.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use snug_agent::history::{History, Retention};
use snug_sizing::evidence::Hour;
use snug_tests::worker::{Job, Worker};

use crate::{
    driver::{Driver, host, values_of},
    evidence::{container, recorded},
};

const DAY: i64 = 86_400;

/// Shifts the wall clock, and back when dropped.
struct Stepped {
    seconds: i64,
}

impl Stepped {
    fn by(seconds: i64) -> Self {
        shift(seconds);
        Self { seconds }
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        shift(-self.seconds);
    }
}

fn shift(seconds: i64) {
    let now = clock_gettime(ClockId::Realtime);
    clock_settime(ClockId::Realtime, Timespec { tv_sec: now.tv_sec + seconds, ..now }).unwrap();
}

fn hour() -> Hour {
    Hour::from_seconds(clock_gettime(ClockId::Realtime).tv_sec.unsigned_abs())
}

#[test]
fn steps_of_the_wall_clock_change_no_window_and_no_counter() {
    if std::env::var_os("SNUG_TEST_OWN_MACHINE").is_none() {
        println!("skipped: the clock is stepped only on a machine of the test's own");
        return;
    }
    let Some(host) = host() else { return };
    let Some(driver) = Driver::kernel(&[]) else { return };
    // Longer than the steps: what is older is removed, at most two days per hour of the wrong clock.
    let retention = Retention { hours: 24 * 30, hours_by_minute: 24 * 30, bytes: 1 << 20 };
    let history = History::start(None, retention).unwrap();
    let mut driver = driver.with_history(history.sink());
    let cgroups = container(&host, "clock");
    let path = cgroups[0].path();
    let mut worker = Worker::start_in(&cgroups[0]);
    driver.round();
    driver.round();
    let (started, counted) = (Instant::now(), values_of(&driver.round(), path).cpu.unwrap().usage_ns);

    let (mut before, mut hours) = (counted, vec![hour()]);
    for days in [0, 3, 0, -3, 0] {
        let _stepped = Stepped::by(days * DAY);
        hours.push(hour());
        for _ in 0..4 {
            worker.run(&Job::Spin { cpu_ms: 20, threads: 1 }).unwrap();
            thread::sleep(Duration::from_millis(100));
            let view = driver.round();
            let now = values_of(&view, path).cpu.unwrap().usage_ns;
            assert!(now >= before + 20_000_000, "{now} after {before}, the clock {days} days off");
            before = now;
            assert!(view.agent.sources.iter().all(|row| row.sampled_at.is_none_or(|at| at <= view.at)));
            assert_eq!(view.agent.counter_regressions, 0);
        }
        hours.push(hour());
    }
    let (elapsed, used) = (started.elapsed().as_secs_f64(), (before - counted) as f64 / 1e9);
    driver.end();

    let evidence = recorded(history, &format!("{:064x}", std::process::id()));
    let all = evidence.hours.iter().chain(&evidence.unfinished);
    let (mut windows, mut work) = (0, 0.0);
    for (hour, record) in all {
        assert!(hours.contains(hour), "{hour:?} is none of {hours:?}");
        // By the wrong clock the container has left its start-up.
        for histogram in [&record.cpu_start, &record.cpu] {
            windows += histogram.count();
            work += histogram.sum() * 0.1;
            // One thread.
            assert!(histogram.share_above(1.5) == 0.0, "{histogram:?}");
        }
    }
    println!("{windows} windows with {work:.3} s of CPU time in {elapsed:.3} s; {used:.3} s were used");
    // The rounds before and after those that were measured add windows.
    assert!(windows as f64 * 0.1 >= elapsed - 0.2, "{windows} windows in {elapsed} s");
    assert!(work >= 0.8 * used, "{work} s of {used} s are in windows");
    assert!(hours.iter().filter(|hour| **hour != hours[0]).count() >= 4, "the clock was stepped: {hours:?}");
}
