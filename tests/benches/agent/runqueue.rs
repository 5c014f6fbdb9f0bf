//! What tracing of the run queue costs: switches between two processes, with and without it, turn by turn.

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

/// Turns without and with.
const TURNS: usize = 7;
/// How long each turn lasts.
const TURN: Duration = Duration::from_secs(1);
/// Runs of the programs in one time back and forth: a wake-up and a switch in each direction.
const BOTH_WAYS: f64 = 4.0;
const ONE_WAY: f64 = 2.0;

/// Measures both ways of going back and forth.
pub(crate) fn run() -> Result<Section> {
    let options = KernelOptions {
        max_cgroups: 4_096,
        hierarchies: [u32::MAX; 4],
        log_level: 0,
        runqueue: true,
        stats: false,
        adjust_offsets: None,
        unified: None,
    };
    let mut kernel = EbpfPrograms::load(&options)?;
    let mut section = Section::new("runqueue");
    section.paragraph(&format!(
        "Two threads hand a byte back and forth: two wake-ups and two switches each time, or more; and stress-ng has two processes do nothing \
         but switch, by a pipe. Medians of {TURNS} turns without and with tracing; the last column is what the programs say they cost, by \
         the runs that they time themselves."
    ));
    let mut rows = Vec::new();
    for (name, runs, once) in [
        ("back and forth over a pair of sockets", BOTH_WAYS, pair as fn() -> Result<f64>),
        ("back and forth over TCP on loopback", BOTH_WAYS, connection),
        ("a switch of `stress-ng --switch 1`", ONE_WAY, stress),
    ] {
        let (mut without, mut with, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            kernel.trace_runqueue(false);
            without.push(once()?);
            kernel.trace_runqueue(true);
            let before = kernel.runqueue_cost_ns();
            let each = once()?;
            let cost = kernel.runqueue_cost_ns() - before;
            own.push(cost as f64 / (TURN.as_secs_f64() * 1e9 / each));
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
    section.table(&["once", "without", "with", "difference", "a run", "by themselves"], &rows);
    Ok(section.finish())
}

/// Nanoseconds of one time back and forth.
fn ping_pong(mut here: impl Read + Write, mut there: impl Read + Write + Send + 'static) -> Result<f64> {
    let echo = thread::spawn(move || {
        let mut byte = [0; 1];
        while there.read_exact(&mut byte).and_then(|()| there.write_all(&byte)).is_ok() {}
    });
    let (begun, mut times, mut byte) = (Instant::now(), 0_u32, [7; 1]);
    while begun.elapsed() < TURN {
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

/// Nanoseconds of a switch between two processes, as stress-ng measures them.
fn stress() -> Result<f64> {
    let report = tempfile::NamedTempFile::new()?;
    let mut stress = Command::new("stress-ng");
    // With `--quiet` it leaves the figure out.
    stress.args(["--switch", "1", "--metrics", "--timeout"]).stdout(Stdio::null()).stderr(Stdio::null());
    stress.arg(format!("{}s", TURN.as_secs())).arg("--yaml").arg(report.path());
    let status = stress.status().context("cannot run stress-ng")?;
    ensure!(status.success(), "stress-ng ended with {status}");
    let text = std::fs::read_to_string(report.path())?;
    let line =
        text.lines().find_map(|line| line.trim().strip_prefix("nanosecs-per-context-switch-pipe-method:"));
    Ok(line.context("stress-ng does not say how long a switch took")?.trim().parse()?)
}
