//! The switch that pauses the counting of packets, an entry of a map, which needs no capability to be written; and the option without
//! which packets are not counted at all.

use std::{
    net::Ipv4Addr,
    panic, thread,
    time::{Duration, Instant},
};

use snug_agent::{
    kernel,
    model::{BudgetRow, View},
};
use snug_tests::{
    cgroup::{Cgroup, Host},
    worker::{Job, SocketJob, Worker},
};

use crate::driver::{Driver, host, values_of};

/// CPU time of the programs after which six seconds have exceeded a budget of one millicore.
const ABOVE_BUDGET_NS: u64 = 10_000_000;

/// The first pause.
const PAUSE: Duration = Duration::from_secs(60);

#[test]
fn a_pause_stops_the_counting_and_not_the_packets() {
    let Some(host) = host() else { return };
    let Some(driver) = Driver::kernel(&["--network-millicores", "1"]) else { return };
    // As in the agent, the capability is dropped once the programs are attached, here by this thread alone.
    let paused = thread::spawn(move || {
        kernel::drop_net_admin().unwrap();
        pause(&host, driver);
    });
    paused.join().unwrap_or_else(|error| panic::resume_unwind(error));
}

fn pause(host: &Host, mut driver: Driver) {
    let cgroup = Cgroup::new(host, "network-pause");
    let mut worker = Worker::start_in(&cgroup);
    let mut send = |packets| {
        let job = Job::Datagrams { times: packets, bytes: 1, ipv6: false };
        assert_eq!(worker.run(&job), Some(packets), "every packet arrives");
        packets
    };
    let counted = |view: &View| {
        let ipv4 = values_of(view, cgroup.path()).network.unwrap().ipv4;
        assert_eq!(ipv4.receive_packets, ipv4.transmit_packets, "over loopback");
        ipv4.transmit_packets
    };
    let budget = |view: &View| -> BudgetRow { view.agent.network.unwrap() };

    // The test sets the time of the sampler, so that it need not wait.
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut sent = send(1);
    let before = budget(&driver.round_at(start)).cost_ns;
    let busy = (0..500).find_map(|_| {
        sent += send(2_000);
        let view = driver.round_at(start);
        (budget(&view).cost_ns > before + ABOVE_BUDGET_NS).then_some(view)
    });
    let busy = busy.expect("packets cost CPU time");
    assert_eq!((counted(&busy), budget(&busy).paused), (sent, false));

    let paused = driver.round_at(at(6));
    assert_eq!((budget(&paused).paused, budget(&paused).times_paused), (true, 1));
    send(1_000);
    let still = driver.round_at(at(7));
    assert_eq!(counted(&still), sent, "the counters stand still");
    assert_eq!(budget(&still).cost_ns, budget(&paused).cost_ns, "and the programs cost nothing");

    let resumed = driver.round_at(at(7) + PAUSE);
    assert!(!budget(&resumed).paused);
    assert_eq!(counted(&resumed), sent, "packets of the pause are not counted later");
    sent += send(7);
    let counting = driver.round_at(at(8) + PAUSE);
    assert_eq!(counted(&counting), sent);
    println!("{sent} packets cost {} ms until the pause", (budget(&paused).cost_ns - before) / 1_000_000);
}

#[test]
fn without_packets_connections_are_still_counted() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&["--packets", "off"]) else { return };
    let cgroup = Cgroup::new(&host, "network-off");
    let mut worker = Worker::start_in(&cgroup);
    assert_eq!(worker.run(&Job::Datagrams { times: 10, bytes: 1, ipv6: false }), Some(10));
    let port = worker.run(&Job::Socket(SocketJob::Listen { ipv6: false })).unwrap();
    let (address, port) = (Ipv4Addr::LOCALHOST.into(), u16::try_from(port).unwrap());
    let connect = SocketJob::Connect { address, port, timeout_ms: 60_000, deaf: false };
    assert_eq!(worker.run(&Job::Socket(connect)), Some(1));
    let view = driver.round_at(Instant::now());
    let values = values_of(&view, cgroup.path());
    let tcp = values.tcp.unwrap();
    assert_eq!((values.network, tcp.opened, tcp.accepted), (None, 1, 1), "absent, not 0");
    assert!(view.agent.network.is_none());
    assert!(view.agent.programs.iter().all(|program| !kernel::PACKET_PROGRAMS.contains(&program.name)));
}
