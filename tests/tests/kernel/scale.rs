//! Many cgroups in one pass, and more cgroups than `max-cgroups`.

use std::{sync::Arc, time::Instant};

use snug_agent::model::View;
use snug_tests::cgroup::{Cgroup, Host};

use crate::driver::{Driver, below, host, skipped};

/// Creates numbered cgroups, each with a limit of tasks that depends on its number: so a record of another cgroup would be
/// noticed.
fn make(parent: &Cgroup, numbers: std::ops::Range<u64>) -> Vec<Cgroup> {
    numbers
        .map(|number| {
            let cgroup = parent.child(&format!("c{number}"));
            cgroup.limit_pids(number + 1);
            cgroup
        })
        .collect()
}

/// Checks that the second round after the creation has all cgroups.
fn all_are_there(driver: &mut Driver, host: &Host, parent: &Cgroup, count: u64) -> Arc<View> {
    let started = Instant::now();
    driver.round();
    let published = driver.round();
    let both = started.elapsed();
    assert_eq!(published.agent.unresolved_cgroups, 0);
    assert!(published.agent.pass_cgroups > count, "{} of {count}", published.agent.pass_cgroups);
    assert_eq!(skipped(&published, "cgroup_records_without_room"), 0);
    assert_eq!(skipped(&published, "cgroup_records_unreadable"), 0);
    let rows = below(&published, parent.path());
    assert_eq!(rows.len() as u64, count);
    for row in rows {
        let (path, values) = (&row.identity.path, &row.values);
        let number: u64 = path.rsplit_once("/c").unwrap().1.parse().unwrap();
        assert_eq!(values.pids.unwrap().limit, Some(number + 1), "{path}");
        let complete = values.cpu.is_some()
            && values.memory.is_some()
            && values.throttling.is_some()
            && values.pressure.is_some();
        assert!(complete, "{path} {values:?}");
    }
    println!(
        "{count} cgroups in {} hierarchies: two rounds took {both:?}, a round's passes {:.1} ms on average",
        host.sampled().len(),
        published.agent.pass_seconds * 1e3 / published.agent.passes as f64
    );
    published
}

#[test]
fn two_thousand_cgroups_in_one_pass() {
    let Some(host) = host() else { return };
    let parent = Cgroup::new(&host, "many");
    // Cgroups from before the agent are found by listing, the others by their events.
    let mut cgroups = make(&parent, 0..300);
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    all_are_there(&mut driver, &host, &parent, 300);
    cgroups.extend(make(&parent, 300..1_000));
    all_are_there(&mut driver, &host, &parent, 1_000);
    cgroups.extend(make(&parent, 1_000..2_000));
    let published = all_are_there(&mut driver, &host, &parent, 2_000);
    assert!(
        published.agent.lost_events.iter().all(|(_, count)| *count == 0),
        "{:?}",
        published.agent.lost_events
    );

    for cgroup in cgroups.drain(500..) {
        cgroup.remove();
    }
    all_are_there(&mut driver, &host, &parent, 500);
}

#[test]
fn cgroups_beyond_the_maximum_are_counted_and_read_from_files() {
    const ROOM: u64 = 64;
    let Some(host) = host() else { return };
    let parent = Cgroup::new(&host, "too-many");
    let cgroups = make(&parent, 0..150);
    let Some(mut driver) = Driver::kernel(&["--max-cgroups", "64"]) else { return };
    let before = skipped(&driver.round(), "cgroup_records_without_room");
    let published = driver.round();
    let lost = skipped(&published, "cgroup_records_without_room") - before;
    // Other cgroups of the host may be created and removed meanwhile.
    let fullest = published.agent.pass_cgroups;
    assert!(fullest > 150 && lost >= 150 - ROOM, "{lost} lost in a pass over {fullest}");
    let records = published.agent.maps.iter().find(|map| map.name == "records").unwrap();
    assert_eq!((records.capacity, records.used), (ROOM, fullest), "the metrics show a full map");

    let rows = below(&published, parent.path());
    assert_eq!(rows.len(), 150, "all are known, by listing");
    for row in rows {
        let (path, values) = (&row.identity.path, &row.values);
        let number: u64 = path.rsplit_once("/c").unwrap().1.parse().unwrap();
        assert_eq!(values.pids.unwrap().limit, Some(number + 1), "{path}");
        assert!(values.cpu.is_some() && values.memory.is_some(), "{path} {values:?}");
    }

    drop(cgroups);
    let published = driver.round();
    let rows = below(&published, parent.path()).len();
    assert_eq!(rows, 0, "removals are seen by their events, independent of passes");
    let records = published.agent.maps.iter().find(|map| map.name == "records").unwrap();
    assert!(records.used < fullest);
}
