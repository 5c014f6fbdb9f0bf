//! Runs jobs in the background: each in a process of this program, with its output in a log file, one after the other in a queue.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use wait4::Wait4 as _;

use super::{
    idle::IdleGroup,
    report::{Report, Took},
};
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

/// Queues of jobs that were started and not yet waited for.
#[derive(Default)]
pub(super) struct Background {
    running: Vec<JoinHandle<Vec<JobResult>>>,
}

struct JobResult {
    name: String,
    outcome: Result<()>,
    took: Took,
    log: PathBuf,
}

impl Background {
    /// Starts a queue of jobs with their names, in the group if there is one.
    pub(super) fn start(&mut self, jobs: &[(String, Job)], group: Option<&IdleGroup>) -> Result<()> {
        let folder = workspace::target_dir().join("test");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut queue = Vec::new();
        for (name, job) in jobs {
            let log = folder.join(format!("{}.log", name.replace(' ', "-")));
            println!("== {name}: in the background, output in {}", log.display());
            let command = job.command()?;
            let command = match group {
                Some(group) => group.enclose(&command),
                None => command,
            };
            queue.push((name.clone(), command, log));
        }
        let run_all = move || queue.into_iter().map(|(name, command, log)| run(name, command, log)).collect();
        self.running.push(thread::spawn(run_all));
        Ok(())
    }

    /// Waits for all jobs, prints their output, and adds their outcomes to the report.
    pub(super) fn join(&mut self, report: &mut Report) {
        self.join_queues(self.running.len(), report);
    }

    /// As [`Self::join`], for the queue that was started first.
    pub(super) fn join_first(&mut self, report: &mut Report) {
        self.join_queues(1, report);
    }

    fn join_queues(&mut self, number: usize, report: &mut Report) {
        let number = number.min(self.running.len());
        for queue in self.running.drain(..number) {
            let Ok(results) = queue.join() else {
                report.push("background", Err(anyhow!("the thread of the jobs panicked")), Took::default());
                continue;
            };
            for JobResult { name, outcome, took, log } in results {
                match fs::read_to_string(&log) {
                    Ok(text) => print!("{text}"),
                    Err(error) => eprintln!("cannot read {}: {error}", log.display()),
                }
                report.push(&name, outcome, took);
            }
        }
    }
}

fn run(name: String, mut command: Command, log: PathBuf) -> JobResult {
    let started = Instant::now();
    let (outcome, cpu) = match run_to_end(&mut command, &log) {
        Ok((outcome, cpu)) => (outcome, cpu),
        Err(error) => (Err(error), Duration::ZERO),
    };
    JobResult { name, outcome, took: Took { wall: started.elapsed(), cpu }, log }
}

/// Runs a job, and returns its outcome and its CPU time.
fn run_to_end(command: &mut Command, log: &Path) -> Result<(Result<()>, Duration)> {
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
