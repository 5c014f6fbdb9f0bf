//! A process that does what it is told, in a cgroup of the test's choice.
//!
//! It is the test binary itself, started again: a test machine has little else. Each test binary that uses workers has
//! a test called [`ENTRY`] whose body is [`entry`].

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{self, Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use wait4::Wait4 as _;

pub use crate::jobs::{CacheFile, Job, SocketJob, cache_file};
use crate::{cgroup::Cgroup, jobs::Kept};

/// The test whose body is [`entry`].
pub const ENTRY: &str = "worker_entry";

/// Set for a worker, so that the test is none in a normal run.
const VARIABLE: &str = "SNUG_TEST_WORKER";

/// The answer of a shell that waits to be moved.
const WAITING: &str = "waiting";

/// A worker's first answer.
const READY: &str = "ready";

/// What begins the order to end.
const EXIT: &str = "exit ";

/// What begins an answer: the test harness prints lines of its own.
const ANSWER: char = '@';

/// A test binary started again, with pipes to and from it. Killed when dropped.
#[derive(Debug)]
pub struct Respawned {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// CPU time used before it was in the cgroup it was started in.
    cpu_before: Duration,
    /// Set once it has been waited for, which its handle does not know of.
    ended: Option<ExitStatus>,
}

impl Respawned {
    /// Runs the test `entry` of this binary alone, with a variable set.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(entry: &str, variable: &str, value: &str) -> Self {
        Self::spawn(Command::new(env::current_exe().unwrap()), entry, variable, value)
    }

    /// As [`Self::start`], run by a shell that has been moved into `cgroup` before: to the kernel half it is the cgroup's
    /// init process.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_in(cgroup: &Cgroup, entry: &str, variable: &str, value: &str) -> Self {
        let mut command = Command::new("sh");
        let script = format!("echo {ANSWER}{WAITING}; read -r go; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(env::current_exe().unwrap());
        let mut shell = Self::spawn(command, entry, variable, value);
        assert_eq!(shell.answer().as_deref(), Some(WAITING));
        cgroup.add(shell.pid());
        shell.cpu_before = ran(shell.pid());
        shell.order("go");
        shell
    }

    /// Starts what runs the test, with pipes.
    fn spawn(mut command: Command, entry: &str, variable: &str, value: &str) -> Self {
        command.args(arguments(entry)).env(variable, value);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, orders, answers: BufReader::new(answers), cpu_before: Duration::ZERO, ended: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end after the last order: its status, and the CPU time that it used in the cgroup it was started
    /// in, its end included.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn wait(&mut self) -> (ExitStatus, Duration) {
        let end = self.child.wait4().unwrap();
        self.ended = Some(end.status);
        (end.status, end.rusage.utime + end.rusage.stime - self.cpu_before)
    }

    /// The next answer; `None` if it has ended.
    pub fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.answers.read_line(&mut line).ok()? == 0 {
                return None;
            }
            // The harness ends no line before the first answer.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return Some(answer.trim_end().to_owned());
            }
        }
    }

    /// Gives an order, without waiting for the answer.
    ///
    /// # Panics
    /// When it has ended.
    pub fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn kill(&mut self) -> ExitStatus {
        self.ended.unwrap_or_else(|| {
            let _ = self.child.kill();
            self.child.wait().unwrap()
        })
    }
}

impl Drop for Respawned {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What has a test binary run one test.
fn arguments(entry: &str) -> [&str; 5] {
    ["--exact", entry, "--nocapture", "--test-threads=1", "--quiet"]
}

/// The command line of a worker whose binary is at `program` where it runs.
pub(crate) fn command_line(program: &Path) -> Vec<String> {
    let program = program.to_str().unwrap();
    [program].into_iter().chain(arguments(ENTRY)).map(str::to_owned).collect()
}

/// What a worker has in its environment.
pub(crate) fn variable() -> String {
    format!("{VARIABLE}=1")
}

/// Prints an answer for the process that started this one.
///
/// # Panics
/// When that process has gone.
pub fn answer(text: impl std::fmt::Display) {
    let mut out = io::stdout().lock();
    writeln!(out, "{ANSWER}{text}").unwrap();
    out.flush().unwrap();
}

/// A worker.
#[derive(Debug)]
pub struct Worker(Respawned);

impl Worker {
    /// Starts one and waits until it waits for orders: what starting costs is over then.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start() -> Self {
        let mut worker = Respawned::start(ENTRY, VARIABLE, "1");
        assert_eq!(worker.answer().as_deref(), Some(READY));
        Self(worker)
    }

    /// Starts one as the init process of a cgroup.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_in(cgroup: &Cgroup) -> Self {
        let mut worker = Respawned::start_in(cgroup, ENTRY, VARIABLE, "1");
        assert_eq!(worker.answer().as_deref(), Some(READY));
        Self(worker)
    }

    /// Has it end with an exit code, and waits for that; see [`Respawned::wait`].
    pub fn exit(&mut self, code: u8) -> (ExitStatus, Duration) {
        self.0.order(&format!("{EXIT}{code}"));
        self.0.wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.0.wait().0
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Has it do something, to the end. `None` if it died of it.
    pub fn run(&mut self, job: &Job) -> Option<u64> {
        self.begin(job);
        self.end()
    }

    /// Has it begin something.
    pub fn begin(&mut self, job: &Job) {
        self.0.order(&job.line());
    }

    /// Waits for what it was told to do. `None` if it died of it.
    pub fn end(&mut self) -> Option<u64> {
        self.0.answer()?.parse().ok()
    }

    /// Ends it.
    pub fn kill(&mut self) -> ExitStatus {
        self.0.kill()
    }
}

/// Carries out orders until there are no more, if this process is a worker; else returns at once.
///
/// # Panics
/// On an order that is none.
pub fn entry() {
    if env::var_os(VARIABLE).is_none() {
        return;
    }
    let mut kept = Kept::default();
    answer(READY);
    for line in io::stdin().lines() {
        let line = line.unwrap();
        if let Some(code) = line.strip_prefix(EXIT) {
            process::exit(code.parse().unwrap());
        }
        let job = Job::parse(&line).unwrap_or_else(|| panic!("not a job: {line:?}"));
        answer(job.run(&mut kept));
    }
    process::exit(0);
}

/// CPU time of another process of one thread, which sleeps: the first number of `schedstat`, proc(5).
fn ran(pid: u32) -> Duration {
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
}
