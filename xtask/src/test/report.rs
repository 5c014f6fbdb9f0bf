//! Outcomes of the stages, with the time that each took.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Error, Result, bail};

use crate::host;

/// Outcome of a stage.
#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(Error),
    Skipped(&'static str),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(error) => write!(f, "FAILED: {error:#}"),
            Self::Skipped(why) => write!(f, "NOT RUN: {why}"),
        }
    }
}

/// Time that a part took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    pub(super) wall: Duration,
    /// CPU time of all processes that the part started and waited for.
    pub(super) cpu: Duration,
}

/// The outcomes so far.
#[derive(Debug)]
pub(super) struct Report {
    rows: Vec<StageResult>,
    started: Instant,
}

#[derive(Debug)]
struct StageResult {
    name: String,
    outcome: Outcome,
    took: Took,
}

impl Report {
    /// Begins a report.
    pub(super) fn new() -> Self {
        Self { rows: Vec::new(), started: Instant::now() }
    }

    /// Runs a part and adds its outcome to the report. Returns whether it passed.
    pub(super) fn run(&mut self, name: &str, part: impl FnOnce() -> Result<()>) -> bool {
        println!("== {name}");
        let (started, cpu) = (Instant::now(), host::cpu_time_of_children());
        let outcome = part();
        let cpu = host::cpu_time_of_children().saturating_sub(cpu);
        self.push(name, outcome, Took { wall: started.elapsed(), cpu })
    }

    /// Adds the outcome of a part to the report. Returns whether it passed.
    pub(super) fn push(&mut self, name: &str, outcome: Result<()>, took: Took) -> bool {
        let outcome = outcome.map_or_else(Outcome::Failed, |()| Outcome::Passed);
        let passed = matches!(outcome, Outcome::Passed);
        println!("== {name} {outcome} ({:.1} s)", took.wall.as_secs_f64());
        self.rows.push(StageResult { name: name.to_owned(), outcome, took });
        passed
    }

    /// Adds a part that was not run, which makes the verdict a failure.
    pub(super) fn skip(&mut self, name: &str, why: &'static str) {
        self.rows.push(StageResult {
            name: name.to_owned(),
            outcome: Outcome::Skipped(why),
            took: Took::default(),
        });
    }

    /// Prints a line for each part: seconds of wall and of CPU time, and the outcome. Then the tests that passed only on the
    /// second run, with the output of the first one.
    pub(super) fn print(&self, passed_on_second_run: &[(String, String)]) {
        let seconds =
            |wall: Duration, cpu: Duration| format!("{:>8.1} {:>8.1}", wall.as_secs_f64(), cpu.as_secs_f64());
        println!("== summary");
        println!("{:<14} {:>8} {:>8}", "", "wall s", "CPU s");
        for StageResult { name, outcome, took } in &self.rows {
            println!("{name:<14} {}  {outcome}", seconds(took.wall, took.cpu));
        }
        let cpu = self.rows.iter().map(|row| row.took.cpu).sum();
        println!("{:<14} {}", "all", seconds(self.started.elapsed(), cpu));
        if !passed_on_second_run.is_empty() {
            println!("== passed only on the second run: defects to be mended (CONTRIBUTING.md)");
        }
        for (test, output) in passed_on_second_run {
            println!("{test}:");
            output.lines().for_each(|line| println!("    {line}"));
        }
    }

    /// Fails with the names of the parts that failed or were not run.
    pub(super) fn verdict(&self) -> Result<()> {
        let failed: Vec<&str> = self
            .rows
            .iter()
            .filter(|row| !matches!(row.outcome, Outcome::Passed))
            .map(|row| row.name.as_str())
            .collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn one_failed_stage_fails_the_run_and_is_named() {
        let mut report = Report::new();
        assert!(report.run("fmt", || Ok(())));
        assert!(report.verdict().is_ok());
        assert!(!report.run("unit", || Err(anyhow!("a test failed"))));
        assert_eq!(report.verdict().unwrap_err().to_string(), "failed: unit");
        report.skip("vm", "no build");
        assert_eq!(report.verdict().unwrap_err().to_string(), "failed: unit, vm");
    }

    #[test]
    fn cpu_time_is_that_of_the_stage_s_own_processes() {
        let mut report = Report::new();
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        report.run("busy", || crate::command::run(crate::command::new("sh").args(["-c", busy])));
        report.run("idle", || crate::command::run(crate::command::new("sleep").arg("0.1")));
        let [busy, idle] = report.rows.as_slice() else { panic!("two rows") };
        assert!(busy.took.cpu > Duration::from_millis(20), "{busy:?}");
        assert!(
            idle.took.wall >= Duration::from_millis(100) && idle.took.cpu < busy.took.cpu,
            "{idle:?} {busy:?}"
        );
    }
}
