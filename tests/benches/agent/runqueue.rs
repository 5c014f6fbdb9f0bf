//! Cost of run-queue tracing: alternately measures context switches with and without it.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use snug_agent::kernel::{EbpfPrograms, KernelOptions};

use crate::measure::{Section, median};

/// Rounds; each measures without and with tracing.
const ROUNDS: usize = 7;
/// Length of each measurement.
const LENGTH: Duration = Duration::from_secs(1);
/// Runs of the eBPF programs in one round trip: a wake-up and a switch in each direction.
const ROUND_TRIP: f64 = 4.0;
const ONE_WAY: f64 = 2.0;

/// Measures round trips over sockets and TCP, and switches by stress-ng.
pub(crate) fn run() -> Result<Section> {
    let options = KernelOptions {
        max_cgroups: 4_096,
        hierarchies: [u32::MAX; 4],
        log_level: 0,
        runqueue: true,
        packets: false,
        stats: false,
        adjust_offsets: None,
        unified: None,
    };
    let mut kernel = EbpfPrograms::load(&options)?;
    let mut section = Section::new("runqueue");
    section.paragraph(&format!(
        "Two threads send a byte back and forth, with at least two wake-ups and two context switches per round trip. stress-ng switches between two \
         processes with a pipe. Medians of {ROUNDS} rounds without and with tracing. \"Self-measured\" is the cost that the eBPF programs measure \
         themselves, on a sample of their runs."
    ));
    let mut rows = Vec::new();
    for (name, runs, once) in [
        ("round trip over a pair of sockets", ROUND_TRIP, pair as fn() -> Result<f64>),
        ("round trip over TCP on loopback", ROUND_TRIP, connection),
        ("context switch of `stress-ng --switch 1`", ONE_WAY, stress),
    ] {
        let (mut without, mut with, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            kernel.trace_runqueue(false);
            without.push(once()?);
            kernel.trace_runqueue(true);
            let before = kernel.runqueue_cost_ns();
            let each = once()?;
            let cost = kernel.runqueue_cost_ns() - before;
            own.push(cost as f64 / (LENGTH.as_secs_f64() * 1e9 / each));
            with.push(each);
        }
        let (without, with, own) = (median(without), median(with), median(own));
        rows.push(vec![
            name.to_owned(),
            format!("{without:.0} ns"),
            format!("{with:.0} ns"),
            format!("{:+.1} %", 100.0 * (with / without - 1.0)),
            format!("{:.0} ns", (with - without) / runs),
            format!("{:.0} ns", own / runs),
        ]);
    }
    section.table(&["operation", "without", "with", "difference", "per run", "self-measured"], &rows);
    Ok(section.finish())
}

/// Nanoseconds of one round trip.
fn ping_pong(mut here: impl Read + Write, mut there: impl Read + Write + Send + 'static) -> Result<f64> {
    let echo = thread::spawn(move || {
        let mut byte = [0; 1];
        while there.read_exact(&mut byte).and_then(|()| there.write_all(&byte)).is_ok() {}
    });
    let (begun, mut times, mut byte) = (Instant::now(), 0_u32, [7; 1]);
    while begun.elapsed() < LENGTH {
        for _ in 0..64 {
            here.write_all(&byte)?;
            here.read_exact(&mut byte)?;
        }
        times += 64;
    }
    let each = begun.elapsed().as_secs_f64() * 1e9 / f64::from(times);
    drop(here);
    let _ = echo.join();
    Ok(each)
}

fn pair() -> Result<f64> {
    let (here, there) = UnixStream::pair()?;
    ping_pong(here, there)
}

fn connection() -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    let (there, _) = listener.accept()?;
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    ping_pong(here, there)
}

/// Nanoseconds of a context switch, measured by stress-ng.
fn stress() -> Result<f64> {
    let report = tempfile::NamedTempFile::new()?;
    let mut stress = Command::new("stress-ng");
    // `--quiet` would suppress the result.
    stress.args(["--switch", "1", "--metrics", "--timeout"]).stdout(Stdio::null()).stderr(Stdio::null());
    stress.arg(format!("{}s", LENGTH.as_secs())).arg("--yaml").arg(report.path());
    let status = stress.status().context("cannot run stress-ng")?;
    ensure!(status.success(), "stress-ng exited with {status}");
    let text = std::fs::read_to_string(report.path())?;
    let line =
        text.lines().find_map(|line| line.trim().strip_prefix("nanosecs-per-context-switch-pipe-method:"));
    Ok(line.context("no duration of a switch in the output of stress-ng")?.trim().parse()?)
}
