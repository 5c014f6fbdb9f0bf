//! The agent as a process: on a free port of the loopback interface, killed when its guard is dropped.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::{
    exposition::{self, Page},
    kernels::KERNEL_VARIABLE,
};

/// Environment variable with the path of the agent to test; default: the debug build beside the test.
pub const BINARY_VARIABLE: &str = "SNUG_AGENT_BIN";

/// Time limit for an agent to be ready or to exit.
const START: Duration = Duration::from_secs(20);

/// How many times as long a wait may take: the processor of a guest is emulated.
fn patience() -> u32 {
    if env::var_os(KERNEL_VARIABLE).is_some() { 6 } else { 1 }
}

/// Repeats the attempt until it has a result, in a guest for longer.
///
/// # Errors
/// When `attempt` fails, or has no result after `within`.
pub fn eventually<T>(
    within: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + within * patience();
    loop {
        if let Some(result) = attempt()? {
            return Ok(result);
        }
        if Instant::now() >= end {
            bail!("after {within:?} still not true: {what}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The agent to test.
///
/// # Errors
/// When it is not there.
pub fn binary() -> Result<PathBuf> {
    let path = match env::var_os(BINARY_VARIABLE) {
        Some(path) => PathBuf::from(path),
        // Tests are in target/<profile>/deps.
        None => env::current_exe()?.with_file_name("../snug-agent"),
    };
    path.canonicalize().with_context(|| {
        format!(
            "no agent at {}: run `cargo build -p snug-agent`, or name one by {BINARY_VARIABLE}",
            path.display()
        )
    })
}

/// Removes all configuration of an agent from a command's environment, also the host's configuration file.
pub fn unconfigured(command: &mut Command) -> &mut Command {
    let configures = |name: &str| name.starts_with("SNUG_") || name.starts_with("OTEL_");
    for (name, _) in env::vars_os().filter(|(name, _)| configures(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.env("SNUG_CONFIG", "/dev/null").stdin(Stdio::null())
}

/// A command that runs the agent, configured by its arguments only.
///
/// # Errors
/// When there is no agent.
pub fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut command = Command::new(binary()?);
    unconfigured(&mut command).args(arguments);
    Ok(command)
}

/// Result of a process that has exited.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub log: String,
    /// Time from the signal, or without a signal from the start, to the exit.
    pub took: Duration,
}

/// Runs a command and waits for its exit.
///
/// # Errors
/// When it cannot be started, or does not exit in time.
pub fn run_to_end(mut command: Command) -> Result<Ended> {
    let started = Instant::now();
    let mut process = Process::spawn(command.stdout(Stdio::piped()))?;
    let output = process.child.stdout.take().map(collect).context("no standard output")?;
    let status = process.wait(START)?;
    let log = process.log_to_end();
    Ok(Ended { status, output: output.into_text(), log, took: started.elapsed() })
}

/// Output of a running process.
#[derive(Debug)]
struct CollectedOutput {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl CollectedOutput {
    fn so_far(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn into_text(self) -> String {
        let _ = self.reader.join();
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn collect(stream: impl Read + Send + 'static) -> CollectedOutput {
    let text = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&text);
    let reader = thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            shared.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    CollectedOutput { text, reader }
}

/// A process whose standard error is collected. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: Option<CollectedOutput>,
}

impl Process {
    /// Starts a command.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_owned();
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let log = child.stderr.take().map(collect);
        Ok(Self { child, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.log.as_ref().map(CollectedOutput::so_far).unwrap_or_default()
    }

    /// Exit status, if it has exited.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it is still there after `within`, in a guest after longer.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + within * patience();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("process {} still runs after {within:?}; its log:\n{}", self.id(), self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    fn log_to_end(&mut self) -> String {
        self.log.take().map(CollectedOutput::into_text).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    address: SocketAddr,
}

impl Agent {
    /// Starts an agent with these arguments on a free port, and waits until it has measured.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut command = command(["--listen", "127.0.0.1:0"])?;
        command.args(arguments);
        Self::launch(command)
    }

    /// Starts a command that becomes an agent, and waits until that has measured.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn launch(mut command: Command) -> Result<Self> {
        Self::launch_writing_to(command.stdout(Stdio::null()))
    }

    /// As [`Self::launch`], with what it writes to standard output going where the command says.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn launch_writing_to(command: &mut Command) -> Result<Self> {
        let mut process = Process::spawn(command)?;
        let address = eventually(START, "the agent serves", || {
            if let Some(status) = process.has_ended()? {
                bail!("the agent ended with {status}; its log:\n{}", process.log_to_end());
            }
            Ok(bound_address(&process.log()))
        });
        let address = address.with_context(|| format!("the agent's log:\n{}", process.log()))?;
        let agent = Self { process, address };
        eventually(START, "the agent is ready", || {
            Ok(agent.request("/readyz", &[])?.status().is_success().then_some(()))
        })?;
        Ok(agent)
    }

    /// Where it serves.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Asks for a path with further headers. Any status is an answer; nothing is decompressed.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn request(&self, path: &str, headers: &[(&str, &str)]) -> Result<ureq::http::Response<ureq::Body>> {
        let client: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20) * patience()))
            .build()
            .into();
        let mut request = client.get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.call().with_context(|| format!("no answer to GET {path}; the agent's log:\n{}", self.log()))
    }

    /// The text of a path.
    ///
    /// # Errors
    /// When it is not there.
    pub fn text(&self, path: &str) -> Result<String> {
        let mut response = self.request(path, &[])?;
        let text = body(&mut response)?;
        if !response.status().is_success() {
            bail!("GET {path}: {}: {text}", response.status());
        }
        Ok(text)
    }

    /// The samples of a metric endpoint.
    ///
    /// # Errors
    /// When it is not there, or is no exposition.
    pub fn scrape(&self, path: &str) -> Result<Page> {
        exposition::parse(&self.text(path)?).map_err(|error| anyhow!("{path}: {error}"))
    }

    /// Sends a signal and waits for the agent's end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end_by(mut self, signal: Signal) -> Result<Ended> {
        let sent = Instant::now();
        self.process.signal(signal)?;
        let status = self.process.wait(Duration::from_secs(10))?;
        let took = sent.elapsed();
        Ok(Ended { status, output: String::new(), log: self.process.log_to_end(), took })
    }
}

/// A response's text, however many cgroups the host has.
///
/// # Errors
/// When it does not come whole.
pub fn body(response: &mut ureq::http::Response<ureq::Body>) -> Result<String> {
    Ok(response.body_mut().with_config().limit(256 << 20).read_to_string()?)
}

/// The address in the line by which an agent says that it serves.
fn bound_address(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("serving /metrics"))?;
    line.split_once("bound=")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_once_the_agent_serves() {
        let line =
            "2026-01-01T00:00:00Z  INFO snug_agent::supervisor: serving /metrics bound=127.0.0.1:41234\n";
        assert_eq!(bound_address(line), Some(SocketAddr::from(([127, 0, 0, 1], 41234))));
        assert_eq!(bound_address("2026-01-01T00:00:00Z  INFO program=\"snapshot\" running\n"), None);
    }

    #[test]
    fn a_process_is_waited_for_and_heard() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let ended = run_to_end(command).unwrap();
        assert_eq!((ended.status.code(), &*ended.output, &*ended.log), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn what_never_comes_is_named() {
        let error = eventually(Duration::ZERO, "a miracle", || Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().contains("a miracle"), "{error}");
    }
}
