//! What the programs that run in the time of others cost them: nanoseconds a run, as the kernel counts them, and what
//! is left of the throughput of loopback.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    cgroups::{Tree, pod_uid},
    client::Metrics,
    interrupt,
    measure::{Budget, Section, median},
    process::Agent,
};

/// Times that each load runs with and without the agent, taking turns.
const ROUNDS: usize = 5;
/// Length of a load.
const LOAD: Duration = Duration::from_millis(800);
/// Payload of a datagram, bytes.
const DATAGRAM: usize = 1_000;
/// What one write to a TCP connection takes, bytes.
const WRITE: usize = 64 << 10;
/// Processes started and cgroups made and removed for their programs to run.
const EVENTS: usize = 1_000;

/// Programs and what each of their runs is about.
const PROGRAMS: [(&str, &str); 11] = [
    ("network_receive", "packet received"),
    ("network_transmit", "packet sent"),
    ("tcp_connection", "change of a TCP connection's state"),
    ("tcp_retransmit", "TCP segment sent again"),
    ("tcp_retransmit_synack", "answer to an attempt to connect sent again"),
    ("tcp_round_trip", "TCP callback: connection made, round trip"),
    ("process_started", "exec"),
    ("process_exited", "end of a thread"),
    ("cgroup_made", "cgroup made"),
    ("cgroup_emptied", "cgroup filled or emptied"),
    ("cgroup_removed", "cgroup removed"),
];

/// Loads loopback with and without an agent, then starts processes and makes cgroups beside one.
pub(crate) fn run(binary: &Path) -> Result<Section> {
    let tree = Tree::new("programs")?;
    let (mut udp, mut tcp) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut counted = None;
    for round in 0..ROUNDS {
        interrupt::check()?;
        udp[0].push(datagrams_per_second()?);
        tcp[0].push(stream_bytes_per_second()?);
        let agent = Agent::start(binary, &tree, &[])?;
        udp[1].push(datagrams_per_second()?);
        tcp[1].push(stream_bytes_per_second()?);
        if round + 1 == ROUNDS {
            events(&tree)?;
            // The agent looks at its programs once a second.
            interrupt::sleep(Duration::from_secs(2))?;
            counted = Some(agent.client().metrics()?);
        }
    }
    let counted = counted.context("no round")?;

    let mut section = Section::new("programs");
    section.paragraph(&format!(
        "Run time and runs as the kernel counts them, which itself adds some tens of nanoseconds to a run, after {LOAD:?} \
         each of datagrams and of a TCP stream over loopback, {EVENTS} processes, and {EVENTS} cgroups made and removed."
    ));
    let mut rows = Vec::new();
    let mut packets = 0.0_f64;
    for (program, about) in PROGRAMS {
        let (runs, each) = cost(&counted, program);
        if program.starts_with("network_") {
            packets = packets.max(each);
        }
        let cell = if runs == 0.0 { "-".to_owned() } else { format!("{each:.0} ns") };
        rows.push(vec![format!("`{program}`"), about.to_owned(), format!("{runs:.0}"), cell]);
    }
    section.table(&["program", "a run is a", "runs", "each"], &rows);
    section.paragraph(&format!(
        "Throughput of loopback by one sender, medians of {ROUNDS} turns without and with the agent."
    ));
    let row = |what: &str, values: [Vec<f64>; 2], scale: f64, unit: &str| {
        let [without, with] = values.map(median);
        let change = 100.0 * (with / without - 1.0);
        vec![
            what.to_owned(),
            format!("{:.2} {unit}", without / scale),
            format!("{:.2} {unit}", with / scale),
            format!("{change:+.1} %"),
        ]
    };
    section.table(
        &["load", "without", "with", "difference"],
        &[
            row(&format!("UDP, {DATAGRAM} bytes a datagram"), udp, 1e6, "million a second"),
            row(&format!("TCP, {WRITE} bytes a write"), tcp, 1e9, "GB/s"),
        ],
    );
    section.budgets = vec![Budget::at_most("a packet, in either direction", packets, 100.0, "ns", 0)];
    Ok(section.finish())
}

/// Runs of a program, and nanoseconds each took.
fn cost(metrics: &Metrics, program: &str) -> (f64, f64) {
    let of = |family: &str| metrics.sum(&format!("{family}{{program=\"{program}\"}}"));
    let runs = of("snug_agent_program_runs_total");
    (runs, 1e9 * of("snug_agent_program_run_seconds_total") / runs.max(1.0))
}

fn datagrams_per_second() -> Result<f64> {
    let (to, from) = (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    from.connect(to.local_addr()?)?;
    let (payload, mut room) = ([7; DATAGRAM], [0; DATAGRAM]);
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < LOAD {
        for _ in 0..64 {
            from.send(&payload)?;
            to.recv(&mut room)?;
        }
        count += 64;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

fn stream_bytes_per_second() -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let reading = thread::spawn(move || -> std::io::Result<u64> {
        let mut room = vec![0; WRITE];
        let mut sum = 0;
        loop {
            match receiver.read(&mut room)? {
                0 => return Ok(sum),
                read => sum += read as u64,
            }
        }
    });
    let payload = vec![7; WRITE];
    let begun = Instant::now();
    while begun.elapsed() < LOAD {
        sender.write_all(&payload)?;
    }
    drop(sender);
    let received = reading.join().map_err(|_| anyhow!("the reader panicked"))??;
    Ok(received as f64 / begun.elapsed().as_secs_f64())
}

/// Processes that start and end, and cgroups that come and go.
fn events(tree: &Tree) -> Result<()> {
    for _ in 0..EVENTS {
        interrupt::check()?;
        Command::new("true").stdin(Stdio::null()).status().context("cannot start `true`")?;
    }
    let pod = format!("kubepods/burstable/pod{}", pod_uid(0));
    for parent in ["kubepods", "kubepods/burstable", &pod] {
        tree.make_parent(parent)?;
    }
    for number in 0..EVENTS {
        interrupt::check()?;
        let path = format!("{pod}/{number:064x}");
        tree.make(&path)?;
        tree.remove(&path)?;
    }
    Ok(())
}
