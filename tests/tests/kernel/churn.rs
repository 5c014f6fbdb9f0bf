//! Thousands of cgroups that come and go while the agent runs.

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
/// Made before the first of them is removed.
const AT_ONCE: u64 = 50;
/// A leak of 128 bytes per cgroup grows by so much in every round; a backlog that is larger than any before, once.
const LEAK: u64 = 128 * CGROUPS;
/// Rounds after which a leak is believed.
const ROUNDS: usize = 6;

/// Makes and removes [`CGROUPS`] cgroups, under the same names each time.
fn churn(parent: &Cgroup) {
    for first in (0..CGROUPS).step_by(AT_ONCE as usize) {
        let some: Vec<_> =
            (first..first + AT_ONCE).map(|number| parent.child(&format!("c{number}"))).collect();
        for cgroup in &some {
            cgroup.remove();
        }
    }
}

/// All that were made have been counted, except for events that were lost; nothing is left of them but the one that stays.
fn all_are_counted(running: &Running, parent: &Cgroup, made: u64) {
    // What is not told by an event is settled a second later; workloads are counted once a second.
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
    // So that it is a slice from the beginning and no container.
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
fn two_thousand_made_and_removed_are_all_counted() {
    let Some(host) = host() else { return };
    let _ = run(&host);
}
