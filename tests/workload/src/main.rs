//! `snug-workload`: a program that uses CPU and memory in a known way, for tests of measurements.
//!
//! It runs until a file appears at `--hold`. Then it pauses, keeps its memory, and writes its own count of CPU time and
//! memory to `--truth`, so that a test can compare both while nothing changes. When the file disappears, it resumes.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// Interval between two pieces of work of `steady`.
const SLICE: Duration = Duration::from_millis(10);
/// How often a paused program checks whether `--hold` still exists.
const PAUSE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// A gap in busy work longer than this means that other tasks had the CPU, or that the program was throttled.
const STALL: Duration = Duration::from_millis(4);
const MIB: usize = 1 << 20;
/// Bytes in a datagram.
const PAYLOAD: usize = 1000;
/// Headers of IPv4 and UDP.
const HEADERS: usize = 20 + 8;

/// Use CPU and memory in a known way.
#[derive(Debug, Parser)]
struct Options {
    /// File to write the usage to: on pause, at exit, and before each allocation of `grow`.
    #[arg(long)]
    truth: PathBuf,
    /// Pause while this file exists.
    #[arg(long)]
    hold: Option<PathBuf>,
    #[command(subcommand)]
    behaviour: Behaviour,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Behaviour {
    /// Use a constant share of one core, and keep memory resident.
    Steady {
        /// CPU usage in millicores.
        #[arg(long)]
        millicores: u32,
        /// Memory in MiB.
        #[arg(long)]
        memory: usize,
    },
    /// Alternate between bursts of CPU usage and sleep.
    Bursts {
        /// CPU time of a burst, in milliseconds.
        #[arg(long)]
        cpu_ms: u64,
        /// Time between the starts of two bursts, in milliseconds.
        #[arg(long)]
        every_ms: u64,
    },
    /// Allocate memory until the OOM killer kills the process.
    Grow {
        /// Allocation rate in MiB per second.
        #[arg(long)]
        rate: u32,
    },
    /// Use CPU, sleep, and exit.
    Work {
        /// Total CPU time, in milliseconds.
        #[arg(long)]
        cpu_ms: u64,
        /// Time from start to exit, in milliseconds.
        #[arg(long)]
        life_ms: u64,
    },
    /// Sleep, and send a datagram to itself every 500 ms.
    Idle,
}

fn main() -> Result<()> {
    let Options { truth, hold, behaviour } = Options::parse();
    let mut work = Work { cpu_before_main: cpu(), ..Work::default() };
    if let Behaviour::Steady { memory, .. } = behaviour {
        work.take_memory(memory);
    }
    let mut timeline = Timeline::begin();
    loop {
        if hold.as_deref().is_some_and(Path::exists) {
            work.write(&truth, true)?;
            while hold.as_deref().is_some_and(Path::exists) {
                thread::sleep(PAUSE_CHECK_INTERVAL);
            }
            timeline = Timeline::begin();
        }
        match behaviour {
            Behaviour::Steady { millicores, .. } => {
                timeline.next(SLICE);
                let due = timeline.since().mul_f64(f64::from(millicores) / 1000.0);
                work.spin_until(timeline.cpu + due);
            }
            Behaviour::Bursts { cpu_ms, every_ms } => {
                timeline.next(Duration::from_millis(every_ms));
                work.spin_until(cpu() + Duration::from_millis(cpu_ms));
                work.bursts += 1;
            }
            Behaviour::Grow { rate } => {
                timeline.next(Duration::from_secs(1) / rate.max(1));
                work.write(&truth, false)?;
                work.take_memory(1);
            }
            Behaviour::Work { cpu_ms, life_ms } => {
                work.spin_until(timeline.cpu + Duration::from_millis(cpu_ms));
                timeline.next(Duration::from_millis(life_ms));
                return work.write(&truth, true);
            }
            Behaviour::Idle => {
                timeline.next(PAUSE_CHECK_INTERVAL * 5);
                work.send_datagram()?;
            }
        }
    }
}

/// CPU time of this process since it was forked. For a container's init process this includes the runtime's work before
/// `exec`, as the cgroup's CPU time does.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}

/// The time since start or since the last pause.
struct Timeline {
    began: Instant,
    /// [`cpu`] at the beginning.
    cpu: Duration,
    /// When the last step was due.
    due: Duration,
}

impl Timeline {
    fn begin() -> Self {
        Self { began: Instant::now(), cpu: cpu(), due: Duration::ZERO }
    }

    fn since(&self) -> Duration {
        self.began.elapsed()
    }

    /// Sleeps until `step` after the last due time. Missed steps are skipped.
    fn next(&mut self, step: Duration) {
        self.due = (self.due + step).max(self.since().saturating_sub(step));
        thread::sleep(self.due.saturating_sub(self.since()));
    }
}

/// Usage so far.
#[derive(Default)]
struct Work {
    cpu_before_main: Duration,
    memory: Vec<Vec<u8>>,
    /// Time within busy work in which the process did not run.
    stalled: Duration,
    bursts: u64,
    socket: Option<UdpSocket>,
    /// Bytes sent, IPv4 headers included.
    sent_bytes: u64,
}

impl Work {
    /// Sends a datagram over loopback to its own socket.
    fn send_datagram(&mut self) -> Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
        };
        socket.send_to(&[7; PAYLOAD], socket.local_addr()?)?;
        socket.recv(&mut [0; PAYLOAD])?;
        self.sent_bytes += (HEADERS + PAYLOAD) as u64;
        self.socket = Some(socket);
        Ok(())
    }

    /// Spins until the process has used `goal` of CPU time.
    fn spin_until(&mut self, goal: Duration) {
        let (mut last, mut used) = (Instant::now(), cpu());
        while used < goal {
            std::hint::spin_loop();
            let (now, used_now) = (Instant::now(), cpu());
            let idle = now.duration_since(last).saturating_sub(used_now.saturating_sub(used));
            if idle > STALL {
                self.stalled += idle;
            }
            (last, used) = (now, used_now);
        }
    }

    fn take_memory(&mut self, mib: usize) {
        for _ in 0..mib {
            // The kernel charges pages when they are written, and a zeroed vector writes none.
            self.memory.push(vec![1; MIB]);
        }
    }

    /// Writes a temporary file and renames it: readers see either the old or the new content.
    fn write(&self, path: &Path, idle: bool) -> Result<()> {
        let memory: usize = self.memory.iter().map(Vec::len).sum();
        let truth = json!({
            "cpu_seconds": cpu().as_secs_f64(),
            "cpu_seconds_before_main": self.cpu_before_main.as_secs_f64(),
            "stalled_seconds": self.stalled.as_secs_f64(),
            "bursts": self.bursts,
            "sent_bytes": self.sent_bytes,
            "memory_bytes": memory,
            "anonymous_bytes": anonymous_bytes(),
            "idle": idle,
        });
        let temporary = path.with_extension("new");
        fs::write(&temporary, truth.to_string())
            .and_then(|()| fs::rename(&temporary, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Anonymous resident memory (`RssAnon`) in bytes. `None` without /proc.
fn anonymous_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> Work {
        Work { cpu_before_main: cpu(), ..Work::default() }
    }

    #[test]
    fn spinning_uses_the_requested_cpu_time() {
        let before = cpu();
        work().spin_until(before + Duration::from_millis(20));
        assert!(cpu() - before >= Duration::from_millis(20));
    }

    #[test]
    fn missed_steps_are_skipped() {
        let mut timeline = Timeline::begin();
        thread::sleep(Duration::from_millis(50));
        timeline.next(Duration::from_millis(1));
        assert!(timeline.due >= Duration::from_millis(49), "{:?}", timeline.due);
    }

    #[test]
    fn the_usage_file_is_always_complete() {
        let path = std::env::temp_dir().join(format!("snug-workload-test-{}.json", std::process::id()));
        let mut work = work();
        work.take_memory(3);
        work.write(&path, true).unwrap();
        let truth: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(truth["memory_bytes"], 3 * MIB);
        assert!(truth["anonymous_bytes"].as_u64().unwrap() >= 3 * MIB as u64);
        assert_eq!(truth["idle"], true);
        assert!(!path.with_extension("new").exists());
    }
}
