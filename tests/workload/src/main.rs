//! `snug-workload`: a program whose use of CPU and memory is known, to be measured from outside.
//!
//! It behaves as told until a file appears at `--hold`. Then it rests, keeping its memory, and writes to `--truth` what
//! it has used by its own clock, so that both sides can be compared while nothing moves. When the file goes, it goes on.

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

/// How evenly work is spread.
const SLICE: Duration = Duration::from_millis(10);
/// How often a resting program looks whether it may go on.
const REST: Duration = Duration::from_millis(100);
/// A pause within work that is longer than this was not the program's own: other tasks had the CPU, or it was
/// throttled.
const STALL: Duration = Duration::from_millis(4);
const MIB: usize = 1 << 20;
/// Bytes in a datagram.
const PAYLOAD: usize = 1000;
/// Headers of IPv4 and UDP.
const HEADERS: usize = 20 + 8;

/// Use CPU and memory in a known way.
#[derive(Debug, Parser)]
struct Options {
    /// File to write to what was used: at rest, at the end, and at each step of growing.
    #[arg(long)]
    truth: PathBuf,
    /// Rest while this file exists.
    #[arg(long)]
    hold: Option<PathBuf>,
    #[command(subcommand)]
    behaviour: Behaviour,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Behaviour {
    /// Use a share of one core evenly, and keep memory resident.
    Steady {
        /// Thousandths of a core.
        #[arg(long)]
        millicores: u32,
        /// Memory in MiB.
        #[arg(long)]
        memory: usize,
    },
    /// Work without a pause, then sleep, again and again.
    Bursts {
        /// CPU time of a burst, in milliseconds.
        #[arg(long)]
        cpu_ms: u64,
        /// Time from one burst to the next, in milliseconds.
        #[arg(long)]
        every_ms: u64,
    },
    /// Take memory until the kernel kills.
    Grow {
        /// MiB a second.
        #[arg(long)]
        rate: u32,
    },
    /// Work, sleep, and end.
    Work {
        /// CPU time in all, in milliseconds.
        #[arg(long)]
        cpu_ms: u64,
        /// Life, in milliseconds.
        #[arg(long)]
        life_ms: u64,
    },
    /// Sleep, and send a datagram to itself now and then.
    Idle,
}

fn main() -> Result<()> {
    let Options { truth, hold, behaviour } = Options::parse();
    let mut work = Work { cpu_before_main: cpu(), ..Work::default() };
    if let Behaviour::Steady { memory, .. } = behaviour {
        work.take_memory(memory);
    }
    let mut turn = Turn::begin();
    loop {
        if hold.as_deref().is_some_and(Path::exists) {
            work.write(&truth, true)?;
            while hold.as_deref().is_some_and(Path::exists) {
                thread::sleep(REST);
            }
            turn = Turn::begin();
        }
        match behaviour {
            Behaviour::Steady { millicores, .. } => {
                turn.next(SLICE);
                let due = turn.since().mul_f64(f64::from(millicores) / 1000.0);
                work.spin_until(turn.cpu + due);
            }
            Behaviour::Bursts { cpu_ms, every_ms } => {
                turn.next(Duration::from_millis(every_ms));
                work.spin_until(cpu() + Duration::from_millis(cpu_ms));
                work.bursts += 1;
            }
            Behaviour::Grow { rate } => {
                turn.next(Duration::from_secs(1) / rate.max(1));
                work.write(&truth, false)?;
                work.take_memory(1);
            }
            Behaviour::Work { cpu_ms, life_ms } => {
                work.spin_until(turn.cpu + Duration::from_millis(cpu_ms));
                turn.next(Duration::from_millis(life_ms));
                return work.write(&truth, true);
            }
            Behaviour::Idle => {
                turn.next(REST * 5);
                work.send_datagram()?;
            }
        }
    }
}

/// CPU time of this process since it was forked: for a container's first process, what the runtime did in it before is
/// included, as it is in its cgroup.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}

/// A time of undisturbed work.
struct Turn {
    began: Instant,
    /// [`cpu`] at its beginning.
    cpu: Duration,
    /// When the last step was due.
    due: Duration,
}

impl Turn {
    fn begin() -> Self {
        Self { began: Instant::now(), cpu: cpu(), due: Duration::ZERO }
    }

    fn since(&self) -> Duration {
        self.began.elapsed()
    }

    /// Sleeps until a step after the last one was due; steps that were missed are left out.
    fn next(&mut self, step: Duration) {
        self.due = (self.due + step).max(self.since().saturating_sub(step));
        thread::sleep(self.due.saturating_sub(self.since()));
    }
}

/// What was done.
#[derive(Default)]
struct Work {
    cpu_before_main: Duration,
    memory: Vec<Vec<u8>>,
    /// Time within work in which it did not run.
    stalled: Duration,
    bursts: u64,
    socket: Option<UdpSocket>,
    /// Bytes of IPv4 packets.
    sent_bytes: u64,
}

impl Work {
    /// Sends a datagram over loopback to the socket that it comes from.
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

    /// Works until the process has used so much CPU time.
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
            // Pages count when they are written to, and zeros are not written.
            self.memory.push(vec![1; MIB]);
        }
    }

    /// Written beside and renamed: a reader finds the old or the new.
    fn write(&self, path: &Path, at_rest: bool) -> Result<()> {
        let memory: usize = self.memory.iter().map(Vec::len).sum();
        let truth = json!({
            "cpu_seconds": cpu().as_secs_f64(),
            "cpu_seconds_before_main": self.cpu_before_main.as_secs_f64(),
            "stalled_seconds": self.stalled.as_secs_f64(),
            "bursts": self.bursts,
            "sent_bytes": self.sent_bytes,
            "memory_bytes": memory,
            "anonymous_bytes": anonymous_bytes(),
            "at_rest": at_rest,
        });
        let beside = path.with_extension("new");
        fs::write(&beside, truth.to_string())
            .and_then(|()| fs::rename(&beside, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Anonymous resident memory as the kernel accounts it to the process; absent without /proc.
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
    fn work_takes_the_cpu_time_it_was_given() {
        let before = cpu();
        work().spin_until(before + Duration::from_millis(20));
        assert!(cpu() - before >= Duration::from_millis(20));
    }

    #[test]
    fn missed_steps_are_left_out() {
        let mut turn = Turn::begin();
        thread::sleep(Duration::from_millis(50));
        turn.next(Duration::from_millis(1));
        assert!(turn.due >= Duration::from_millis(49), "{:?}", turn.due);
    }

    #[test]
    fn the_truth_is_readable_at_every_moment() {
        let path = std::env::temp_dir().join(format!("snug-workload-test-{}.json", std::process::id()));
        let mut work = work();
        work.take_memory(3);
        work.write(&path, true).unwrap();
        let truth: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(truth["memory_bytes"], 3 * MIB);
        assert!(truth["anonymous_bytes"].as_u64().unwrap() >= 3 * MIB as u64);
        assert_eq!(truth["at_rest"], true);
        assert!(!path.with_extension("new").exists());
    }
}
