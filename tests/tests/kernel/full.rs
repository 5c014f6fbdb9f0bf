//! What happens when the kernel half's maps and its ring are full: it is counted, and ends come first.

use std::{fs, time::Duration};

use snug_ebpf::abi::{
    events::{RING_BYTES, RING_BYTES_BEFORE_RESERVE},
    lifecycle::{FinalRecord, LifecycleEvent},
};
use snug_tests::{
    cgroup::Cgroup,
    wait::until,
    worker::{Job, Worker},
};

use crate::driver::{Driver, below, host, lost, terminations, workload_of};

/// What the ring adds to each entry.
const ENTRY_HEADER: u64 = 8;

#[test]
fn packets_without_room_are_counted_as_lost() {
    const ROOM: u64 = 64;
    const CGROUPS: u64 = ROOM + 16;
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&["--max-cgroups", "64"]) else { return };
    let parent = Cgroup::new(&host, "network-full");
    let cgroups: Vec<_> = (0..CGROUPS).map(|number| parent.child(&format!("c{number}"))).collect();
    let mut worker = Worker::start();
    for cgroup in &cgroups {
        cgroup.add(worker.pid());
        worker.run(&Job::Datagrams { times: 1, bytes: 10, ipv6: false }).unwrap();
    }
    let published = driver.round();
    let mut counted = 0;
    for row in below(&published, parent.path()) {
        let traffic = row.values.network.unwrap().ipv4;
        assert_eq!(traffic.receive_packets, traffic.transmit_packets, "{}", row.identity.path);
        assert!(traffic.transmit_packets <= 1, "a datagram counts where its socket was made");
        counted += traffic.receive_packets + traffic.transmit_packets;
    }
    let lost = lost(&published, "network_counters");
    assert!(counted <= 2 * ROOM && lost >= 2 * (CGROUPS - ROOM), "{counted} counted, {lost} lost");
    // Others of the host may lose some, too.
    assert!(counted + lost >= 2 * CGROUPS, "{counted} counted, {lost} lost");
}

#[test]
fn a_ring_that_is_nearly_full_still_takes_ends() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let parent = Cgroup::new(&host, "ring-full");
    let _always = parent.child("always");
    let ending = Cgroup::new(&host, "ring-full-ending");
    driver.round();
    let before = workload_of(&driver.round(), parent.path());

    let made = size_of::<LifecycleEvent>() as u64 + ENTRY_HEADER;
    let removed = size_of::<FinalRecord>() as u64 + ENTRY_HEADER;
    let until_only_ends = RING_BYTES_BEFORE_RESERVE / (made + removed);
    let left_for_ends = (u64::from(RING_BYTES) - RING_BYTES_BEFORE_RESERVE) / removed;
    let pairs = until_only_ends + left_for_ends / 2;
    let directory = parent.directory(host.hierarchies.cpu_time().unwrap());
    for number in 0..pairs {
        let cgroup = directory.join(format!("c{number}"));
        fs::create_dir(&cgroup).unwrap();
        fs::remove_dir(&cgroup).unwrap();
    }
    let mut init = Worker::start_in(&ending);
    assert_eq!(init.exit(5).0.code(), Some(5));

    let published = driver.round();
    let lost_made = lost(&published, "cgroup_made");
    assert!(lost_made >= left_for_ends / 4 && lost_made < pairs, "{lost_made} of {pairs}");
    assert_eq!((lost(&published, "cgroup_removed"), lost(&published, "process_exited")), (0, 0));
    let after = workload_of(&published, parent.path());
    assert_eq!(after.containers_started - before.containers_started, pairs, "all are counted all the same");
    assert_eq!(after.containers_ended - before.containers_ended, pairs);
    // Its start found no room, its end did; that nothing was left in the cgroup did not.
    let exits = until("the end is counted", Duration::from_secs(10), || {
        let exits = terminations(&workload_of(&driver.round(), ending.path()));
        (!exits.is_empty()).then_some(exits)
    });
    assert_eq!(exits.iter().map(|(_, code, count)| (*code, *count)).collect::<Vec<_>>(), [(Some(5), 1)]);
}
