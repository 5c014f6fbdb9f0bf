//! Clients that ask for much and read nothing, on a node with many containers, at the memory limit of the DaemonSet.

use std::{
    fs,
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use snug_tests::{
    agent::{Agent, binary, eventually, unconfigured},
    cgroup::{Cgroup, Host, row},
};
use socket2::{Domain, Socket, Type};

use crate::cannot_run;

const CONTAINERS: usize = 3_500;
/// All connections that the agent has, but one.
const READERS: usize = 63;
const READERS_OF_CLIENT: usize = 16;
/// How long they go on.
const TIME: Duration = Duration::from_secs(12);
const MIB: u64 = 1 << 20;
/// The limit in the DaemonSet.
const LIMIT: u64 = 128 * MIB;
const DAEMON_SET: &str = include_str!("../../../deploy/base/daemonset.yaml");
/// What may be left of the responses when their readers have gone.
const LEFT: u64 = 16 * MIB;
/// How long a client that reads may wait: less than the ten seconds that Prometheus has.
const MAX_WAIT: Duration = Duration::from_secs(9);

/// A client that requests a page and does not read it.
fn reader(agent: SocketAddr, number: usize) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    let own = 2 + u8::try_from(number / READERS_OF_CLIENT)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, own], 0)).into())?;
    socket.connect(&agent.into())?;
    let mut stream = TcpStream::from(socket);
    let path = ["/metrics", "/metrics/cadvisor", "/api/v1/containers"][number % 3];
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    Ok(stream)
}

/// Reads a page to its end. Returns its size and how long that took.
fn read_whole(agent: &Agent, path: &str) -> Result<(u64, Duration)> {
    let started = Instant::now();
    let mut response = agent.request(path, &[])?;
    ensure!(response.status().is_success(), "{path}: {}", response.status());
    let mut body = response.body_mut().with_config().limit(1 << 30).reader();
    Ok((io::copy(&mut body, &mut io::sink())?, started.elapsed()))
}

/// The agent's resident memory without that of files, which the kernel can take back: a debug build has a large program.
fn memory(agent: &Agent) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
    let row = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    Ok(row.context("no RssAnon")?.parse::<u64>()? << 10)
}

fn start_in(host: &Host, cgroup: &Cgroup) -> Result<Agent> {
    let files = host.sampled().into_iter().map(|one| cgroup.directory(one).join("cgroup.procs"));
    let script: String = files.map(|file| format!("echo $$ > '{}' && ", file.display())).collect();
    let mut command = Command::new("sh");
    unconfigured(&mut command).args(["-c", &format!("{script}exec \"$0\" \"$@\"")]);
    command.arg(binary()?).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::null());
    Agent::launch(command)
}

#[test]
fn slow_readers_on_a_full_node_leave_the_agent_within_its_limit() -> Result<()> {
    assert!(DAEMON_SET.contains("memory: 128Mi"), "the limit of this test");
    let host = match Host::find() {
        Ok(host) => host,
        Err(why) => return cannot_run(why),
    };
    let parent = Cgroup::new(&host, "slow-readers");
    let _containers: Vec<Cgroup> =
        (0..CONTAINERS).map(|number| parent.child(&format!("{number:064x}"))).collect();
    let own = Cgroup::new(&host, "slow-readers-agent");
    own.limit_memory(LIMIT, 0);
    let agent = start_in(&host, &own)?;
    eventually(Duration::from_secs(20), "all containers are measured", || {
        let node: Value = serde_json::from_str(&agent.text("/api/v1/node")?)?;
        Ok((node["containers"].as_u64() >= Some(CONTAINERS as u64)).then_some(()))
    })?;
    let (size, _) = read_whole(&agent, "/metrics")?;
    ensure!(size > CONTAINERS as u64 * 1000, "{size} bytes");
    read_whole(&agent, "/metrics/cadvisor")?;
    let before = memory(&agent)?;

    let mut readers =
        (0..READERS).map(|number| reader(agent.address(), number)).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let (mut next, mut longest, mut peak) = (0, Duration::ZERO, 0);
    while started.elapsed() < TIME {
        // Whoever was cut off comes again.
        for _ in 0..8 {
            readers[next % READERS] = reader(agent.address(), next % READERS)?;
            next += 1;
        }
        thread::scope(|scope| {
            let reading = scope.spawn(|| read_whole(&agent, "/metrics/resource"));
            while !reading.is_finished() {
                peak = peak.max(memory(&agent)?);
                thread::sleep(Duration::from_millis(20));
            }
            longest = longest.max(reading.join().map_err(|_| anyhow!("the request panicked"))??.1);
            Ok::<_, anyhow::Error>(())
        })?;
        thread::sleep(Duration::from_millis(500));
    }
    println!(
        "{READERS} slow readers of {} MiB at {CONTAINERS} containers: at most {} MiB, {} MiB before; others waited {longest:?}",
        size / MIB,
        peak / MIB,
        before / MIB
    );
    assert!(peak < LIMIT, "{peak}");
    assert!(longest < MAX_WAIT, "{longest:?}");
    // The page is too large to be parsed.
    let page = agent.text("/metrics")?;
    let limited = page.lines().find(|line| line.contains("http_limited_total{reason=\"slow_reader\"}"));
    assert!(limited.is_some_and(|line| !line.ends_with(" 0")), "{limited:?}");

    drop(readers);
    eventually(Duration::from_secs(20), "the memory is released", || {
        Ok((memory(&agent)? <= before + LEFT).then_some(()))
    })
    .with_context(|| format!("{before} bytes before, now {:?}", memory(&agent)))?;
    println!("{} MiB when they have gone", memory(&agent)? / MIB);
    let kills = own.memory_file("memory.events", "memory.oom_control");
    assert_eq!(row(&kills, "oom_kill"), 0, "{kills}");
    Ok(())
}
