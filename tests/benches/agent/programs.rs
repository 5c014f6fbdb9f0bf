//! Cost of the eBPF programs that run in the context of other processes: run time from the kernel, and loopback throughput
//! with and without the agent.

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
    measure::{Budget, Section, cpu_time, median},
    process::{Agent, STATISTICS},
};

/// Rounds; each runs the loads without and with the agent.
const ROUNDS: usize = 5;
const LOAD: Duration = Duration::from_millis(800);
/// Payload of a datagram in bytes.
const DATAGRAM: usize = 1_000;
/// Size of one write to a TCP connection in bytes.
const WRITE: usize = 64 << 10;
/// Number of processes started, and of cgroups created and removed.
const EVENTS: usize = 1_000;

/// eBPF programs and the event that each run handles.
const PROGRAMS: [(&str, &str); 11] = [
    ("network_receive", "packet received"),
    ("network_transmit", "packet sent"),
    ("tcp_connection", "change of a TCP connection's state"),
    ("tcp_retransmit", "TCP segment retransmitted"),
    ("tcp_retransmit_synack", "SYN-ACK retransmitted"),
    ("tcp_round_trip", "TCP callback: connection established, round trip"),
    ("process_started", "exec"),
    ("process_exited", "thread exit"),
    ("cgroup_made", "cgroup made"),
    ("cgroup_emptied", "cgroup populated or emptied"),
    ("cgroup_removed", "cgroup removed"),
];

/// Options of the agents whose cost to loopback is measured, in the order of the table's columns.
const AGENTS: [(&str, &[&str]); 3] = [
    ("with the agent", &[]),
    ("with `packets` off", &["--packets=off"]),
    ("with `ebpf-stats` on", &[STATISTICS]),
];

/// Loads loopback without and with agents; then starts processes and creates cgroups while an agent runs.
pub(crate) fn run(binary: &Path) -> Result<Section> {
    let tree = Tree::new("programs")?;
    let agent = |options: &[&str]| {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        Agent::start_with(binary, &tree, &[], &options)
    };
    let (mut udp, mut tcp) = (vec![Vec::new(); AGENTS.len() + 1], vec![Vec::new(); AGENTS.len() + 1]);
    for round in 0..ROUNDS {
        eprintln!("bench: loopback without and with the agent, round {} of {ROUNDS}", round + 1);
        for (index, options) in [None].into_iter().chain(AGENTS.map(|(_, options)| Some(options))).enumerate()
        {
            interrupt::check()?;
            let _agent = options.map(agent).transpose()?;
            udp[index].push(nanoseconds_per_datagram()?);
            tcp[index].push(stream_bytes_per_second()?);
        }
    }
    let counted = {
        let agent = agent(&[STATISTICS])?;
        nanoseconds_per_datagram()?;
        stream_bytes_per_second()?;
        events(&tree)?;
        // The agent reads the statistics of its programs once a second.
        interrupt::sleep(Duration::from_secs(2))?;
        agent.client().metrics()?
    };

    let mut section = Section::new("programs");
    section.paragraph(&format!(
        "Runs and run time from the kernel's statistics (`ebpf-stats`), which add about 40 ns to each run. The load is {LOAD:?} \
         each of datagrams and of a TCP stream over loopback, {EVENTS} processes, and {EVENTS} cgroups created and removed."
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
    section.table(&["program", "event", "runs", "per run"], &rows);
    section.paragraph(&format!(
        "Loopback without and with the agent, medians of {ROUNDS} rounds. UDP: CPU time of a thread that sends datagrams of {DATAGRAM} bytes to \
         itself, for each datagram; that is the two hooks of a packet. TCP: throughput of a sender with writes of {WRITE} bytes."
    ));
    let (udp, tcp) = (udp.into_iter().map(median), tcp.into_iter().map(median));
    let names = ["without"].into_iter().chain(AGENTS.map(|(name, _)| name));
    let mut table = Vec::new();
    let mut without = None;
    for (name, (datagram, stream)) in names.zip(udp.zip(tcp)) {
        let (first_datagram, first_stream) = *without.get_or_insert((datagram, stream));
        table.push(vec![
            name.to_owned(),
            format!("{datagram:.0} ns"),
            format!("{:+.0} ns", datagram - first_datagram),
            format!("{:+.1} %", 100.0 * (first_datagram / datagram - 1.0)),
            format!("{:.2} GB/s", stream / 1e9),
            format!("{:+.1} %", 100.0 * (stream / first_stream - 1.0)),
        ]);
    }
    section.table(&["agent", "UDP, CPU", "more", "datagrams per CPU second", "TCP", "difference"], &table);
    section.budgets = vec![Budget::at_most("run time per packet, both directions", packets, 100.0, "ns", 0)];
    Ok(section.finish())
}

/// Number of runs of a program, and nanoseconds per run.
fn cost(metrics: &Metrics, program: &str) -> (f64, f64) {
    let of = |family: &str| metrics.sum(&format!("{family}{{program=\"{program}\"}}"));
    let runs = of("snug_agent_program_runs_total");
    (runs, 1e9 * of("snug_agent_program_run_seconds_total") / runs.max(1.0))
}

/// CPU time of this thread for each datagram that it sends to itself. Unlike throughput it does not depend on other processes.
fn nanoseconds_per_datagram() -> Result<f64> {
    let (to, from) = (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    from.connect(to.local_addr()?)?;
    let (payload, mut room) = ([7; DATAGRAM], [0; DATAGRAM]);
    let begun = Instant::now();
    let (time, count) = cpu_time(|| -> Result<u32> {
        let mut count = 0;
        while begun.elapsed() < LOAD {
            for _ in 0..64 {
                from.send(&payload)?;
                to.recv(&mut room)?;
            }
            count += 64;
        }
        Ok(count)
    });
    Ok(time.as_secs_f64() * 1e9 / f64::from(count?))
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

/// Starts processes, and creates and removes cgroups.
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
