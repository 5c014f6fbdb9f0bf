//! Traffic of sockets to the byte, in any network namespace, and outcomes of connections on a network that loses packets.

use std::{
    collections::HashMap,
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::Duration,
};

use snug_agent::{
    model::View,
    values::{IpTraffic, Network, Tcp},
};
use snug_tests::{
    cannot_run,
    cgroup::{Cgroup, Host},
    runc::ROOT_FILE_SYSTEM,
    worker::{Job, SocketJob, Worker},
};

use crate::driver::{Driver, host, values_of};

const MIB: u64 = 1 << 20;

/// A timeout longer than any test here.
const PATIENT_MS: u64 = 60_000;

/// A container in a network namespace.
struct Container {
    cgroup: Cgroup,
    init: Worker,
    /// Id of the thread that is in the namespace.
    thread: u64,
}

impl Container {
    /// In a namespace of its own, or in that of another container.
    fn new(host: &Host, name: &str, beside: Option<&Container>) -> Self {
        let cgroup = Cgroup::new(host, name);
        let mut init = Worker::start_in(&cgroup);
        let thread = init.run(&Job::Namespace { of: beside.map_or(0, |other| other.thread) }).unwrap();
        let mut container = Self { cgroup, init, thread };
        container.ip("link set lo up");
        container
    }

    /// Runs `ip` in its namespace.
    fn ip(&mut self, arguments: &str) {
        // busybox is on every test machine.
        let busybox = env::var(ROOT_FILE_SYSTEM).unwrap() + "/bin/busybox";
        let script = format!("{busybox} ip {arguments}");
        assert_eq!(self.init.run(&Job::Shell { script: script.clone() }), Some(0), "{script}");
    }

    fn socket(&mut self, job: SocketJob) -> u64 {
        self.init.run(&Job::Socket(job)).unwrap()
    }

    fn connect(&mut self, to: IpAddr, port: u64, timeout_ms: u64) -> u64 {
        let port = u16::try_from(port).unwrap();
        self.socket(SocketJob::Connect { address: to, port, timeout_ms, deaf: false })
    }

    fn connect_deaf(&mut self, to: IpAddr, port: u64, timeout_ms: u64) -> u64 {
        let port = u16::try_from(port).unwrap();
        self.socket(SocketJob::Connect { address: to, port, timeout_ms, deaf: true })
    }

    fn network(&self, published: &View) -> Network {
        values_of(published, self.cgroup.path()).network.unwrap()
    }

    fn tcp(&self, published: &View) -> Tcp {
        values_of(published, self.cgroup.path()).tcp.unwrap()
    }

    /// Counters of its namespace from `/proc/net/<file>`: a line of names and a line of values, or a name and a value per line.
    fn counters(&self, file: &str) -> HashMap<String, u64> {
        let text = fs::read_to_string(format!("/proc/{}/net/{file}", self.thread)).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        if file == "snmp6" {
            return lines.iter().map(|line| (line[0].to_owned(), line[1].parse().unwrap())).collect();
        }
        let pairs = lines.chunks_exact(2);
        pairs
            .flat_map(|pair| {
                let named = pair[0].iter().zip(&pair[1]).skip(1);
                named.filter_map(|(name, number)| {
                    Some((format!("{}{name}", pair[0][0].trim_end_matches(':')), number.parse().ok()?))
                })
            })
            .collect()
    }

    /// All IP traffic of its namespace, as the IP layer counts it: whole packets as the transport hands them over, before
    /// segmentation (RFC 4293's OutRequests and InReceives, and their octets).
    fn all_traffic(&self, ipv6: bool) -> IpTraffic {
        if ipv6 {
            let all = self.counters("snmp6");
            return IpTraffic {
                receive_bytes: all["Ip6InOctets"],
                receive_packets: all["Ip6InReceives"],
                transmit_bytes: all["Ip6OutOctets"],
                transmit_packets: all["Ip6OutRequests"],
            };
        }
        let (packets, octets) = (self.counters("snmp"), self.counters("netstat"));
        IpTraffic {
            receive_bytes: octets["IpExtInOctets"],
            receive_packets: packets["IpInReceives"],
            transmit_bytes: octets["IpExtOutOctets"],
            transmit_packets: packets["IpOutRequests"],
        }
    }
}

/// Host and driver; prints why if the test cannot run.
fn prepared() -> Option<(Host, Driver)> {
    if env::var_os(ROOT_FILE_SYSTEM).is_none() {
        cannot_run("no busybox in $SNUG_TEST_ROOTFS; `cargo xtask test --only kernel` sets it");
        return None;
    }
    Some((host()?, Driver::kernel(&[])?))
}

/// Sends data over a new connection and receives a reply. The connection stays open.
fn exchange(client: &mut Container, server: &mut Container, to: IpAddr, bytes: u64, reply: u64) {
    let port = server.socket(SocketJob::Listen { ipv6: to.is_ipv6() });
    assert_eq!(client.connect(to, port, PATIENT_MS), 1);
    server.init.begin(&Job::Socket(SocketJob::Receive { bytes, reply }));
    assert_eq!(client.socket(SocketJob::Send { bytes, reply }), reply);
    assert_eq!(server.init.end(), Some(bytes));
    // The last ACK may be delayed by 40 ms (TCP_DELACK_MIN), at most by 200 ms.
    thread::sleep(Duration::from_millis(500));
}

/// Bytes of the packets of one connection with this payload: with the headers of IP and of TCP with time stamps (RFC 7323), and
/// 8 bytes more of options in the first packet.
fn with_headers(payload: u64, packets: u64, ipv6: bool) -> u64 {
    payload + packets * (if ipv6 { 40 } else { 20 } + 32) + 8
}

/// Whether the traffic in both directions is that of a connection that sent and received these payloads.
fn carried(traffic: IpTraffic, sent: u64, received: u64, ipv6: bool) -> bool {
    let sent = with_headers(sent, traffic.transmit_packets, ipv6);
    // Packets of more than 64 KiB, which only IPv6 has, have an option of 8 bytes (RFC 2675).
    let of_large = traffic.transmit_bytes.saturating_sub(sent);
    traffic.transmit_bytes >= sent
        && if ipv6 {
            of_large.is_multiple_of(8) && of_large <= 8 * traffic.transmit_packets
        } else {
            of_large == 0
        }
        && traffic.receive_bytes == with_headers(received, traffic.receive_packets, ipv6)
}

fn oldest_kernel() -> bool {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().starts_with("6.1.")
}

/// Repeats `attempt` until it returns true: until it had no retransmissions, which happen on a busy machine only.
fn undisturbed(mut attempt: impl FnMut(u32) -> bool) {
    assert!((0..5).any(&mut attempt), "every attempt had retransmissions");
}

fn retransmitted(container: &Container) -> u64 {
    container.counters("snmp")["TcpRetransSegs"]
}

#[test]
fn traffic_of_a_pods_containers_adds_up_to_the_pods_to_the_byte() {
    let Some((host, mut driver)) = prepared() else { return };
    undisturbed(|attempt| one_pod(&host, &mut driver, attempt));
}

fn one_pod(host: &Host, driver: &mut Driver, attempt: u32) -> bool {
    let mut client = Container::new(host, &format!("net-client-{attempt}"), None);
    let mut sidecar = Container::new(host, &format!("net-sidecar-{attempt}"), Some(&client));
    let mut idle = Container::new(host, &format!("net-idle-{attempt}"), Some(&client));
    exchange(&mut client, &mut sidecar, Ipv4Addr::LOCALHOST.into(), 5 * MIB, MIB);
    exchange(&mut client, &mut sidecar, Ipv6Addr::LOCALHOST.into(), 3 * MIB, 1);
    let published = driver.round();
    let (of_client, mut of_sidecar) = (client.network(&published), sidecar.network(&published));
    let (all_ipv4, all_ipv6) = (client.all_traffic(false), client.all_traffic(true));
    let sent_by_ipv6 = of_client.ipv6.transmit_packets + of_sidecar.ipv6.transmit_packets;
    if all_ipv6.transmit_packets == sent_by_ipv6 + 1 {
        // Linux 6.1 runs no cgroup_skb program for IPv6's SYN-ACK.
        assert!(oldest_kernel(), "{of_client:?} {of_sidecar:?} {all_ipv6:?}");
        of_sidecar.ipv6.transmit_packets += 1;
        of_sidecar.ipv6.transmit_bytes += with_headers(0, 1, true);
    }
    let mut both = of_client;
    both.add(&of_sidecar);
    assert_eq!(both, Network { ipv4: all_ipv4, ipv6: all_ipv6 });
    assert_eq!(idle.network(&published), Network::default());
    idle.init.kill();
    if retransmitted(&client) > 0 {
        return false;
    }
    for (ipv6, one, other, bytes, reply) in [
        (false, of_client.ipv4, of_sidecar.ipv4, 5 * MIB, MIB),
        (true, of_client.ipv6, of_sidecar.ipv6, 3 * MIB, 1),
    ] {
        assert!(carried(one, bytes, reply, ipv6) && carried(other, reply, bytes, ipv6), "{one:?} {other:?}");
        // Packets are counted before segmentation.
        assert!(one.transmit_packets < bytes / 1_500, "{one:?}");
    }
    true
}

#[test]
fn traffic_between_network_namespaces_is_counted_on_both_sides() {
    let Some((host, mut driver)) = prepared() else { return };
    undisturbed(|attempt| two_pods(&host, &mut driver, attempt));
}

fn two_pods(host: &Host, driver: &mut Driver, attempt: u32) -> bool {
    let mut client = Container::new(host, &format!("veth-client-{attempt}"), None);
    let mut server = Container::new(host, &format!("veth-server-{attempt}"), None);
    client.ip("link add pod type veth");
    client.ip(&format!("link set veth0 netns {}", server.thread));
    for (container, address, interface) in
        [(&mut client, "10.77.0.1/24", "pod"), (&mut server, "10.77.0.2/24", "veth0")]
    {
        container.ip(&format!("addr add {address} dev {interface}"));
        container.ip(&format!("link set {interface} up"));
    }
    exchange(&mut client, &mut server, Ipv4Addr::new(10, 77, 0, 2).into(), 2 * MIB, 100_000);
    let published = driver.round();
    let (one, other) = (client.network(&published).ipv4, server.network(&published).ipv4);
    assert_eq!((one, other), (client.all_traffic(false), server.all_traffic(false)));
    if retransmitted(&client) + retransmitted(&server) > 0 {
        return false;
    }
    assert!(
        carried(one, 2 * MIB, 100_000, false) && carried(other, 100_000, 2 * MIB, false),
        "{one:?} {other:?}"
    );
    true
}

/// Some virtual machines run no tracing programs in an interrupt on top of a process of their provider, which no process of the
/// machine sees. A timer that ends there is missing in the counters, in no counter of losses, and in no `recursion_misses`. So one of
/// several attempts must be complete; none may count too much.
#[test]
fn timeouts_and_retransmissions_are_counted() {
    let Some((host, mut driver)) = prepared() else { return };
    assert!(
        (0..5).any(|attempt| lossy(&host, &mut driver, attempt)),
        "something is missing in every attempt"
    );
}

/// Returns whether each timeout and retransmission was counted.
fn lossy(host: &Host, driver: &mut Driver, attempt: u32) -> bool {
    let named = |name: &str| format!("lossy-{name}-{attempt}");
    let mut client = Container::new(host, &named("client"), None);
    let mut server = Container::new(host, &named("server"), Some(&client));
    let to: IpAddr = Ipv4Addr::LOCALHOST.into();
    let port = server.socket(SocketJob::Listen { ipv6: false });
    assert_eq!(client.connect(to, port, 2_500), 1);
    server.init.run(&Job::Socket(SocketJob::Receive { bytes: 0, reply: 0 })).unwrap();
    server.socket(SocketJob::Deafen);
    assert_eq!(client.socket(SocketJob::SendInVain), 1, "the connection should have timed out");

    let mut deaf = Container::new(host, &named("deaf"), Some(&client));
    let port = deaf.socket(SocketJob::Listen { ipv6: false });
    deaf.socket(SocketJob::Deafen);
    assert_eq!(client.connect(to, port, 2_500), 0, "the attempt should have timed out");

    // The listener receives the SYN, but its SYN-ACKs are dropped, so it retransmits them.
    let mut unheard = Container::new(host, &named("unheard"), Some(&client));
    let port = unheard.socket(SocketJob::Listen { ipv6: false });
    assert_eq!(client.connect_deaf(to, port, 2_500), 0, "the attempt should have timed out");

    // The last SYN-ACK may be sent during the round.
    let (published, all) = (0..50)
        .find_map(|_| {
            let before = retransmitted(&client);
            let published = driver.round();
            (retransmitted(&client) == before).then_some((published, before))
        })
        .expect("retransmissions do not end");
    let tcp = client.tcp(&published);
    assert_eq!((tcp.opened, tcp.refused, tcp.reset, tcp.failed), (1, 0, 0, 0), "{tcp:?}");
    let answers = unheard.tcp(&published).retransmits;
    // If the machine stalls for a second, the first listener may send its SYN-ACK twice.
    let others = server.tcp(&published).retransmits + deaf.tcp(&published).retransmits;
    let counted = tcp.retransmits + answers + others;
    assert!(counted <= all && tcp.timed_out <= 3, "{tcp:?} {answers} {others} of {all}");
    // At least one of the connection and one of each attempt, after a second.
    let complete = tcp.timed_out == 3 && tcp.retransmits >= 3 && answers >= 1 && counted == all;
    if !complete {
        eprintln!("attempt {attempt}: {tcp:?} {answers} {others} of {all}");
    }
    complete
}
