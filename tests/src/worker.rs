//! A worker process that does jobs for a test, in a cgroup of the test.
//!
//! The worker is the test binary itself, started again: test machines have few other programs. Each test binary that uses workers has
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
use crate::{cgroup::Cgroup, jobs::Held};

/// The test whose body is [`entry`].
pub const ENTRY: &str = "worker_entry";

/// Environment variable that is set for workers; without it the test does nothing.
const VARIABLE: &str = "SNUG_TEST_WORKER";

/// Printed by the shell when it waits to be moved to a cgroup.
const WAITING: &str = "waiting";

/// A worker's first answer.
const READY: &str = "ready";

/// The job that ends a worker.
const EXIT: &str = "exit ";

/// Prefix of an answer, because the test harness prints other lines.
const ANSWER: char = '@';

/// A test binary started again, with pipes to and from it. Killed when dropped.
#[derive(Debug)]
pub struct Respawned {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// CPU time used before it was in the cgroup.
    cpu_before: Duration,
    /// Whether it was waited for, which `Child` does not know.
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

    /// As [`Self::start`], by a shell that was moved to `cgroup` before: the eBPF programs take it for the cgroup's init
    /// process.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_in(cgroup: &Cgroup, entry: &str, variable: &str, value: &str) -> Self {
        let mut command = Command::new("sh");
        let script = format!("echo {ANSWER}{WAITING}; read -r go; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(env::current_exe().unwrap());
        let mut shell = Self::spawn(command, entry, variable, value);
        assert_eq!(shell.answer().as_deref(), Some(WAITING));
        shell.move_to(cgroup);
        shell.order("go");
        shell
    }

    /// Starts the command with pipes.
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

    /// Moves it to another cgroup, while it waits for an order.
    ///
    /// # Panics
    /// When it has ended.
    pub fn move_to(&mut self, cgroup: &Cgroup) {
        cgroup.add(self.pid());
        self.cpu_before = ran(self.pid());
    }

    /// Waits for its exit. Returns the status and the CPU time that it used in its cgroup, including the exit.
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
            // The harness prints the test's name without a newline before the first answer.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return Some(answer.trim_end().to_owned());
            }
        }
    }

    /// Sends a line, without waiting for the answer.
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

/// Arguments of a test binary that run one test.
fn arguments(entry: &str) -> [&str; 5] {
    ["--exact", entry, "--nocapture", "--test-threads=1", "--quiet"]
}

/// The command line of a worker whose binary is at `program` where it runs.
pub(crate) fn command_line(program: &Path) -> Vec<String> {
    let program = program.to_str().unwrap();
    [program].into_iter().chain(arguments(ENTRY)).map(str::to_owned).collect()
}

/// The environment variable of a worker.
pub(crate) fn variable() -> String {
    format!("{VARIABLE}=1")
}

/// Prints an answer for the parent process.
///
/// # Panics
/// When the parent process has exited.
pub fn answer(text: impl std::fmt::Display) {
    let mut out = io::stdout().lock();
    writeln!(out, "{ANSWER}{text}").unwrap();
    out.flush().unwrap();
}

#[derive(Debug)]
pub struct Worker(Respawned);

impl Worker {
    /// Starts a worker and waits until it is ready, so that its start-up uses no CPU time later.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start() -> Self {
        let mut worker = Respawned::start(ENTRY, VARIABLE, "1");
        assert_eq!(worker.answer().as_deref(), Some(READY));
        Self(worker)
    }

    /// Starts a worker as the init process of a cgroup.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_in(cgroup: &Cgroup) -> Self {
        let mut worker = Respawned::start_in(cgroup, ENTRY, VARIABLE, "1");
        assert_eq!(worker.answer().as_deref(), Some(READY));
        Self(worker)
    }

    /// Moves it to another cgroup, while it has no job.
    ///
    /// # Panics
    /// When it has ended.
    pub fn move_to(&mut self, cgroup: &Cgroup) {
        self.0.move_to(cgroup);
    }

    /// Makes it exit with an exit code, and waits; see [`Respawned::wait`].
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

    /// Makes it do a job and waits for the result. `None` if it died.
    pub fn run(&mut self, job: &Job) -> Option<u64> {
        self.begin(job);
        self.end()
    }

    /// Makes it begin a job.
    pub fn begin(&mut self, job: &Job) {
        self.0.order(&job.line());
    }

    /// Waits for the result of the job. `None` if it died.
    pub fn end(&mut self) -> Option<u64> {
        self.0.answer()?.parse().ok()
    }

    /// Ends it.
    pub fn kill(&mut self) -> ExitStatus {
        self.0.kill()
    }
}

/// If this process is a worker: does jobs until the end of the input. Else returns at once.
///
/// # Panics
/// On an unknown job.
pub fn entry() {
    if env::var_os(VARIABLE).is_none() {
        return;
    }
    let mut held = Held::default();
    answer(READY);
    for line in io::stdin().lines() {
        let line = line.unwrap();
        if let Some(code) = line.strip_prefix(EXIT) {
            process::exit(code.parse().unwrap());
        }
        let job = Job::parse(&line).unwrap_or_else(|| panic!("not a job: {line:?}"));
        answer(job.run(&mut held));
    }
    process::exit(0);
}

/// CPU time of a sleeping process: the first number of the `schedstat` of its threads, proc(5).
fn ran(pid: u32) -> Duration {
    let of_thread = |thread: io::Result<fs::DirEntry>| {
        let schedstat = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
    };
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(of_thread).sum()
}
