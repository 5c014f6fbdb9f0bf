//! Runs jobs in the background: each in a process of this program, with its output in a log file.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use wait4::Wait4 as _;

use super::report::{Report, Took};
use crate::{command, host, setup::Need, workspace};

/// A job for the background.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// Installs a group of tools.
    Setup(Need),
    /// Runs a stage; the file has the messages of the build.
    Stage(String, PathBuf),
}

impl Job {
    fn command(&self) -> Result<Command> {
        // Cargo may replace this executable when it builds the workspace; /proc/PID/exe still opens the running one.
        let mut command = command::new_killed_with_parent(format!("/proc/{}/exe", std::process::id()))?;
        match self {
            Self::Setup(need) => command.args(["setup", &need.name()]),
            Self::Stage(name, built) => command.args(["test", "--only", name, "--built"]).arg(built),
        };
        Ok(command)
    }
}

/// Jobs that were started and not yet waited for.
#[derive(Default)]
pub(super) struct Background {
    running: Vec<(String, JoinHandle<JobResult>)>,
}

struct JobResult {
    outcome: Result<()>,
    took: Took,
    log: PathBuf,
}

impl Background {
    /// Starts a job.
    pub(super) fn start(&mut self, name: &str, job: &Job) -> Result<()> {
        let folder = workspace::target_dir().join("test");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let log = folder.join(format!("{}.log", name.replace(' ', "-")));
        println!("== {name}: in the background, output in {}", log.display());
        let mut command = job.command()?;
        let run = move || {
            let started = Instant::now();
            let (outcome, cpu) = match run(&mut command, &log) {
                Ok((outcome, cpu)) => (outcome, cpu),
                Err(error) => (Err(error), Duration::ZERO),
            };
            JobResult { outcome, took: Took { wall: started.elapsed(), cpu }, log }
        };
        self.running.push((name.to_owned(), thread::spawn(run)));
        Ok(())
    }

    /// Waits for all jobs, prints their output, and adds their outcomes to the report.
    pub(super) fn join(&mut self, report: &mut Report) {
        for (name, job) in self.running.drain(..) {
            let Ok(JobResult { outcome, took, log }) = job.join() else {
                report.push(&name, Err(anyhow!("the thread of the job panicked")), Took::default());
                continue;
            };
            match fs::read_to_string(&log) {
                Ok(text) => print!("{text}"),
                Err(error) => eprintln!("cannot read {}: {error}", log.display()),
            }
            report.push(&name, outcome, took);
        }
    }
}

/// Runs a job, and returns its outcome and its CPU time.
fn run(command: &mut Command, log: &PathBuf) -> Result<(Result<()>, Duration)> {
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = output.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
    command.stdout(output).stderr(errors);
    let line = command::line(command);
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    let used = child.wait4().with_context(|| format!("cannot wait for `{line}`"))?;
    let cpu = used.rusage.utime + used.rusage.stime;
    host::exclude_cpu_time(cpu);
    let check = || {
        ensure!(used.status.success(), "`{line}` ended with {}", used.status);
        Ok(())
    };
    Ok((check(), cpu))
}
