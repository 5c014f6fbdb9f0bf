//! The jobs of workers.

use std::{
    env,
    fs::{self, File},
    hint::black_box,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::{fs::FileTypeExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::time::{ClockId, clock_gettime};

pub use crate::sockets::SocketJob;
use crate::{sockets::Sockets, traffic};

/// A job of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Use CPU time in several threads. The answer is the CPU time used, nanoseconds.
    Spin {
        /// All threads together, milliseconds.
        cpu_ms: u64,
        /// Threads, the main one included.
        threads: u64,
    },
    /// Repeatedly use CPU time and sleep.
    Pulse {
        times: u64,
        /// Milliseconds of CPU time.
        cpu_ms: u64,
        /// Milliseconds of sleep.
        sleep_ms: u64,
    },
    /// Allocate and keep memory. The answer is the number of bytes.
    Touch { bytes: u64 },
    /// Allocate and free memory repeatedly.
    Flap {
        /// Highest allocation, bytes.
        bytes: u64,
        /// Milliseconds.
        for_ms: u64,
    },
    /// Send datagrams to itself over loopback, from one new socket to another. The answer is the payload that arrived.
    Datagrams {
        /// How many.
        times: u64,
        /// Payload of each, bytes.
        bytes: u64,
        /// By IPv6 instead of IPv4.
        ipv6: bool,
    },
    /// TCP connections to itself over loopback, closed in order, and as many attempts to a port without listener. The answer is
    /// the number of refused attempts.
    Connections {
        /// How many of each.
        times: u64,
    },
    /// A TCP connection to itself that the accepting side resets. The answer is 1 if the other side noticed the reset.
    Reset,
    /// Enter a new network namespace, or that of a thread. The answer is the id of the thread that is in the namespace.
    Namespace {
        /// That thread; 0: a new one.
        of: u64,
    },
    /// Run a shell script, as a process of its own. The answer is its exit code.
    Shell {
        /// In one line.
        script: String,
    },
    /// A job with TCP sockets that stay open. For the answer see [`SocketJob`].
    Socket(SocketJob),
    /// Exit from a thread that is not the first one. No answer.
    ExitFromThread {
        /// With this exit code.
        code: u64,
    },
    /// Call `execve` from a thread that is not the first one; the program exits at once. No answer.
    ExecFromThread {
        /// With this exit code.
        code: u64,
    },
    /// Read a part of a file, so that it is clean file cache. The answer is the number of bytes.
    Cache {
        /// The file, see [`cache_file`].
        file: PathBuf,
        bytes: u64,
    },
}

impl Job {
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Spin { cpu_ms, threads } => format!("spin {cpu_ms} {threads}"),
            Self::Pulse { times, cpu_ms, sleep_ms } => format!("pulse {times} {cpu_ms} {sleep_ms}"),
            Self::Touch { bytes } => format!("touch {bytes}"),
            Self::Flap { bytes, for_ms } => format!("flap {bytes} {for_ms}"),
            Self::Datagrams { times, bytes, ipv6 } => {
                format!("datagrams {times} {bytes} {}", u8::from(*ipv6))
            }
            Self::Connections { times } => format!("connections {times}"),
            Self::Reset => "reset 0".to_owned(),
            Self::Namespace { of } => format!("namespace {of}"),
            Self::Shell { script } => format!("shell {script}"),
            Self::Socket(job) => format!("socket {}", job.line()),
            Self::ExitFromThread { code } => format!("exit-from-thread {code}"),
            Self::ExecFromThread { code } => format!("exec-from-thread {code}"),
            Self::Cache { file, bytes } => format!("cache {bytes} {}", file.display()),
        }
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (job, rest) = line.split_once(' ')?;
        if job == "cache" {
            let (bytes, file) = rest.split_once(' ')?;
            return Some(Self::Cache { file: file.into(), bytes: bytes.parse().ok()? });
        }
        match job {
            "shell" => return Some(Self::Shell { script: rest.to_owned() }),
            "socket" => return SocketJob::parse(rest).map(Self::Socket),
            _ => {}
        }
        let numbers: Vec<u64> = rest.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(match (job, numbers.as_slice()) {
            ("spin", &[cpu_ms, threads]) => Self::Spin { cpu_ms, threads },
            ("pulse", &[times, cpu_ms, sleep_ms]) => Self::Pulse { times, cpu_ms, sleep_ms },
            ("touch", &[bytes]) => Self::Touch { bytes },
            ("datagrams", &[times, bytes, ipv6]) => Self::Datagrams { times, bytes, ipv6: ipv6 == 1 },
            ("connections", &[times]) => Self::Connections { times },
            ("reset", &[0]) => Self::Reset,
            ("namespace", &[of]) => Self::Namespace { of },
            ("exit-from-thread", &[code]) => Self::ExitFromThread { code },
            ("exec-from-thread", &[code]) => Self::ExecFromThread { code },
            ("flap", &[bytes, for_ms]) => Self::Flap { bytes, for_ms },
            _ => return None,
        })
    }

    /// Does the job. Memory and sockets that stay allocated go into `held`.
    pub(crate) fn run(&self, held: &mut Held) -> u64 {
        match self {
            Self::Spin { cpu_ms, threads } => spin(Duration::from_millis(*cpu_ms), *threads),
            Self::Pulse { times, cpu_ms, sleep_ms } => (0..*times)
                .map(|_| {
                    let used = spin(Duration::from_millis(*cpu_ms), 1);
                    thread::sleep(Duration::from_millis(*sleep_ms));
                    used
                })
                .sum(),
            Self::Touch { bytes } => {
                held.memory.push(touched(*bytes));
                *bytes
            }
            Self::Flap { bytes, for_ms } => {
                let end = Instant::now() + Duration::from_millis(*for_ms);
                let mut size = *bytes;
                // At least once, also if this process got no CPU for longer than that.
                loop {
                    black_box(touched(size));
                    size = if size > bytes / 2 { size - bytes / 7 } else { *bytes };
                    if Instant::now() >= end {
                        break;
                    }
                }
                *bytes
            }
            Self::Datagrams { times, bytes, ipv6 } => traffic::datagrams(*times, *bytes, *ipv6),
            Self::Connections { times } => traffic::connections(*times),
            Self::Reset => traffic::reset(),
            Self::Namespace { of } => namespace(*of),
            Self::Shell { script } => {
                let status = Command::new("sh").args(["-c", script]).status().unwrap();
                status.code().unwrap().unsigned_abs().into()
            }
            Self::Socket(job) => held.sockets.run(*job),
            Self::ExitFromThread { code } => {
                let code = i32::try_from(*code).unwrap();
                thread::spawn(move || process::exit(code)).join().unwrap()
            }
            Self::ExecFromThread { code } => {
                let exit = format!("exit {code}");
                let error = thread::spawn(|| Command::new("sh").arg("-c").arg(exit).exec()).join().unwrap();
                panic!("cannot run sh: {error}")
            }
            Self::Cache { file, bytes } => cache(file, *bytes, &mut held.files),
        }
    }
}

/// Memory and sockets that a worker keeps until its exit.
#[derive(Default)]
pub(crate) struct Held {
    memory: Vec<Vec<u8>>,
    files: Vec<File>,
    sockets: Sockets,
}

/// CPU time of this process.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Network namespaces belong to threads; all jobs run in this thread.
fn namespace(of: u64) -> u64 {
    if of == 0 {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        return rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs().into();
    }
    setns(File::open(format!("/proc/{of}/ns/net")).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    of
}

fn spin(cpu: Duration, threads: u64) -> u64 {
    let start = used();
    let busy = || while used() - start < cpu {};
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(busy);
        }
        busy();
    });
    u64::try_from((used() - start).as_nanos()).unwrap_or(u64::MAX)
}

/// Memory of which every page was written.
fn touched(bytes: u64) -> Vec<u8> {
    let mut memory = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    for byte in memory.iter_mut().step_by(4096) {
        *byte = 1;
    }
    black_box(memory)
}

/// The file stays open: the kernel drops cached pages of a block device when it is closed.
fn cache(path: &Path, bytes: u64, held: &mut Vec<File>) -> u64 {
    let is_device = fs::metadata(path).is_ok_and(|about| about.file_type().is_block_device());
    let (file, cached) = if is_device {
        let mut file = File::open(path).unwrap();
        // Pages that were read before would be in the list of active pages now.
        file.seek(SeekFrom::Start(bytes * held.len() as u64)).unwrap();
        let read = io::copy(&mut (&file).take(bytes), &mut io::sink()).unwrap();
        (file, read)
    } else {
        let mut file = File::create(path).unwrap();
        let written = io::copy(&mut io::repeat(7).take(bytes), &mut file).unwrap();
        file.sync_all().unwrap();
        (file, written)
    };
    held.push(file);
    cached
}

/// A file whose cached pages count as file cache.
#[derive(Debug)]
pub struct CacheFile {
    /// For [`Job::Cache`].
    pub path: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of Linux `include/uapi/linux/magic.h`.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// A file on a disk, or a block device on machines without a file system on a disk.
///
/// # Errors
/// When there is neither: the reason.
pub fn cache_file() -> Result<CacheFile, String> {
    for folder in [env::temp_dir(), "/var/tmp".into()] {
        let in_memory = rustix::fs::statfs(&folder).is_ok_and(|about| IN_MEMORY.contains(&about.f_type));
        if let (false, Ok(made)) = (in_memory, tempfile::tempdir_in(&folder)) {
            return Ok(CacheFile { path: made.path().join("cached"), _folder: Some(made) });
        }
    }
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names = devices
        .map(|device| device.file_name())
        .filter(|name| ["nvme", "vd", "sd"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)));
    let name = names.next().ok_or("no disk whose pages could be cached")?;
    Ok(CacheFile { path: Path::new("/dev").join(name), _folder: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_survive_the_pipe() {
        let jobs = [
            Job::Spin { cpu_ms: 1, threads: 2 },
            Job::Pulse { times: 1, cpu_ms: 2, sleep_ms: 3 },
            Job::Touch { bytes: 5 },
            Job::Datagrams { times: 1, bytes: 2, ipv6: true },
            Job::Connections { times: 3 },
            Job::Reset,
            Job::Namespace { of: 0 },
            Job::Shell { script: "true && false".into() },
            Job::Socket(SocketJob::Receive { bytes: 1, reply: 2 }),
            Job::ExitFromThread { code: 1 },
            Job::ExecFromThread { code: 2 },
            Job::Flap { bytes: 5, for_ms: 6 },
            Job::Cache { file: "/tmp/a b".into(), bytes: 7 },
        ];
        for job in jobs {
            assert_eq!(Job::parse(&job.line()), Some(job));
        }
        assert_eq!(Job::parse("spin x 1"), None);
    }

    #[test]
    fn spinning_uses_the_time_it_is_told() {
        let used = spin(Duration::from_millis(20), 2);
        assert!((20_000_000..2_000_000_000).contains(&used), "{used}");
    }
}
