//! Full maps and a full ring buffer: losses are counted, and final events have precedence.

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

/// `BPF_RINGBUF_HDR_SZ`: header of each entry in the ring buffer, bytes.
const ENTRY_HEADER: u64 = 8;

#[test]
fn packets_are_counted_as_lost_if_the_map_is_full() {
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
    // Other cgroups of the host may lose packets, too.
    assert!(counted + lost >= 2 * CGROUPS, "{counted} counted, {lost} lost");
}

#[test]
fn a_ring_buffer_that_is_nearly_full_accepts_final_events() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let parent = Cgroup::new(&host, "ring-full");
    let _always = parent.child("always");
    let ending = Cgroup::new(&host, "ring-full-ending");
    driver.round();
    let before = workload_of(&driver.round(), parent.path());

    let made = size_of::<LifecycleEvent>() as u64 + ENTRY_HEADER;
    let removed = size_of::<FinalRecord>() as u64 + ENTRY_HEADER;
    let before_reserve = RING_BYTES_BEFORE_RESERVE / (made + removed);
    let reserved = (u64::from(RING_BYTES) - RING_BYTES_BEFORE_RESERVE) / removed;
    let pairs = before_reserve + reserved / 2;
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
    assert!(lost_made >= reserved / 4 && lost_made < pairs, "{lost_made} of {pairs}");
    assert_eq!((lost(&published, "cgroup_removed"), lost(&published, "process_exited")), (0, 0));
    let after = workload_of(&published, parent.path());
    assert_eq!(after.containers_started - before.containers_started, pairs, "all are counted nevertheless");
    assert_eq!(after.containers_ended - before.containers_ended, pairs);
    // The events of the start and of the empty cgroup were lost, that of the exit was not.
    let exits = until("the exit is counted", Duration::from_secs(10), || {
        let exits = terminations(&workload_of(&driver.round(), ending.path()));
        (!exits.is_empty()).then_some(exits)
    });
    assert_eq!(exits.iter().map(|(_, code, count)| (*code, *count)).collect::<Vec<_>>(), [(Some(5), 1)]);
}
