//! Thousands of cgroups that come and go while the agent runs.

use std::{
    thread,
    time::{Duration, Instant},
};

use snug_agent::store::published::Published;
use snug_tests::{
    cgroup::{Cgroup, Host},
    wait::until,
};

use crate::driver::{Running, below, host, workload_of};

const CGROUPS: u64 = 2_000;
/// Made before the first of them is removed.
const AT_ONCE: u64 = 50;
/// Resident memory may grow so much after the first round. A cgroup that is kept takes some 500 bytes, so that a leak of
/// one round's exceeds it.
const GROWTH: u64 = 640 << 10;
/// After this long no further round is begun: emulated machines are slow.
const LONG_ENOUGH: Duration = Duration::from_secs(15);

fn lost(published: &Published, kind: &str) -> u64 {
    published.agent.lost_events.iter().find(|(name, _)| *name == kind).unwrap().1
}

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
        let lost = lost(&published, "cgroup_made").min(lost(&published, "cgroup_removed"));
        let (started, ended) = (workload.containers_started, workload.containers_ended);
        (started == ended && started + lost >= made && below(&published, parent.path()).len() == 1)
            .then_some((published, started, lost))
    });
    let (published, started, lost) = settled;
    assert!(started <= made, "{started} counted of {made}");
    assert!(made - started <= lost, "{} uncounted, {lost} lost", made - started);
    assert_eq!(published.agent.unresolved_cgroups, 0);
}

fn run(host: &Host) -> Option<()> {
    let parent = Cgroup::new(host, "churn");
    // So that it is a slice from the beginning and no container.
    let _always = parent.child("always");
    let running = Running::start(&["--source", "kernel"])?;
    let begun = Instant::now();
    let mut resident = Vec::new();
    while resident.len() < 2 || (resident.len() < 4 && begun.elapsed() < LONG_ENOUGH) {
        let started = Instant::now();
        churn(&parent);
        let took = started.elapsed();
        let made = CGROUPS * (resident.len() as u64 + 1);
        all_are_counted(&running, &parent, made);
        thread::sleep(Duration::from_millis(1_200));
        let published = running.published();
        resident.push(published.agent.resident_bytes);
        println!("{CGROUPS} in {took:?}; lost {:?}; resident {resident:?}", published.agent.lost_events);
    }
    let growth = resident.last().unwrap().saturating_sub(resident[0]);
    let further = (resident.len() as u64 - 1) * CGROUPS;
    assert!(growth <= GROWTH * further, "resident memory grows: {resident:?}");
    Some(())
}

#[test]
fn two_thousand_made_and_removed_are_all_counted() {
    let Some(host) = host() else { return };
    let _ = run(&host);
}
