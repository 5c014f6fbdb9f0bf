//! What runs beside the stages of the foreground: one job after another, each a process of this program with its output kept.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use wait4::Wait4 as _;

use super::report::{Report, Took};
use crate::{command, host, setup::Need, workspace};

/// A part of a run that may be done beside others.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// Making what a need names.
    Setup(Need),
    /// Running a stage, with what the build reported in this file.
    Stage(String, PathBuf),
}

impl Job {
    fn command(&self) -> Result<Command> {
        // Cargo replaces this program's file when it builds all programs: the running one is still to be had by this name.
        let mut command = command::new_killed_with_parent(format!("/proc/{}/exe", std::process::id()))?;
        match self {
            Self::Setup(need) => command.args(["setup", &need.name()]),
            Self::Stage(name, built) => command.args(["test", "--only", name, "--built"]).arg(built),
        };
        Ok(command)
    }
}

/// The jobs that were started and not yet waited for.
#[derive(Default)]
pub(super) struct Side {
    running: Vec<(String, JoinHandle<Done>)>,
    /// Held by the job that runs, so that there is one at a time.
    turn: Arc<Mutex<()>>,
}

struct Done {
    outcome: Result<()>,
    took: Took,
    log: PathBuf,
}

impl Side {
    /// Starts a job, which begins when those before it have ended.
    pub(super) fn start(&mut self, name: &str, job: &Job) -> Result<()> {
        let folder = workspace::target_dir().join("test");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let log = folder.join(format!("{}.log", name.replace(' ', "-")));
        println!("== {name}: beside what follows, output in {}", log.display());
        let turn = Arc::clone(&self.turn);
        let mut command = job.command()?;
        let run = move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            let started = Instant::now();
            let (outcome, cpu) = match run(&mut command, &log) {
                Ok((outcome, cpu)) => (outcome, cpu),
                Err(error) => (Err(error), Duration::ZERO),
            };
            Done { outcome, took: Took { wall: started.elapsed(), cpu }, log }
        };
        self.running.push((name.to_owned(), thread::spawn(run)));
        Ok(())
    }

    /// Waits for all jobs, prints what each said, and keeps what came of them.
    pub(super) fn join(&mut self, report: &mut Report) {
        for (name, job) in self.running.drain(..) {
            let Ok(Done { outcome, took, log }) = job.join() else {
                report.push(&name, Err(anyhow!("its thread panicked")), Took::default());
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

/// Runs a job to its end, and returns its CPU time.
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
