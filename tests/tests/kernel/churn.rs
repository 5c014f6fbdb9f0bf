//! Thousands of cgroups that are created and removed while the agent runs.

use std::{
    thread,
    time::{Duration, Instant},
};

use snug_tests::{
    cgroup::{Cgroup, Host},
    wait::until,
};

use crate::driver::{Running, below, host, lost, workload_of};

const CGROUPS: u64 = 2_000;
/// Number of cgroups that exist at the same time.
const AT_ONCE: u64 = 50;
/// With a leak of 128 bytes per cgroup, resident memory grows by this much in every round; a larger backlog of events lets it
/// grow once.
const LEAK: u64 = 128 * CGROUPS;
/// Growth in this many rounds is a leak.
const ROUNDS: usize = 6;

/// Creates and removes [`CGROUPS`] cgroups, with the same names each time.
fn churn(parent: &Cgroup) {
    for first in (0..CGROUPS).step_by(AT_ONCE as usize) {
        let some: Vec<_> =
            (first..first + AT_ONCE).map(|number| parent.child(&format!("c{number}"))).collect();
        for cgroup in &some {
            cgroup.remove();
        }
    }
}

/// All created cgroups are counted, except for lost events, and only the permanent one is still shown.
fn all_are_counted(running: &Running, parent: &Cgroup, made: u64) {
    // A removal without an event is settled a second later; workloads are counted once a second.
    let settled = until("all are counted", Duration::from_secs(30), || {
        let published = running.published();
        let workload = workload_of(&published, parent.path());
        let lost = lost(&published, "cgroup_made").max(lost(&published, "cgroup_removed"));
        let (started, ended) = (workload.containers_started, workload.containers_ended);
        (started == ended && started + lost >= made && below(&published, parent.path()).len() == 1)
            .then_some((published, started, lost))
    });
    let (published, started, lost) = settled;
    assert!(started.abs_diff(made) <= lost, "{started} counted of {made}, {lost} lost");
    assert_eq!(published.agent.unresolved_cgroups, 0);
}

fn run(host: &Host) -> Option<()> {
    let parent = Cgroup::new(host, "churn");
    // With a child from the start it is a slice, not a container.
    let _always = parent.child("always");
    let running = Running::start(&["--source", "kernel"])?;
    let mut resident: Vec<u64> = Vec::new();
    for round in 1..=ROUNDS {
        let started = Instant::now();
        churn(&parent);
        let took = started.elapsed();
        all_are_counted(&running, &parent, CGROUPS * round as u64);
        thread::sleep(Duration::from_millis(1_200));
        let published = running.published();
        let now = published.agent.resident_bytes;
        println!("{CGROUPS} in {took:?}; lost {:?}; resident {now}", published.agent.lost_events);
        if resident.last().is_some_and(|before| now < before + LEAK) {
            return Some(());
        }
        resident.push(now);
    }
    panic!("resident memory grows in every round: {resident:?}");
}

#[test]
fn two_thousand_created_and_removed_cgroups_are_all_counted() {
    let Some(host) = host() else { return };
    let _ = run(&host);
}
