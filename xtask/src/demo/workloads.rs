//! Starts, restarts and removes the containers of the demo.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    plan::{BRIEF, BURSTY, GROWER, IDLE, Pod, STEADY},
    scenario::{Exit, RuncProcess, Scenario},
};

/// Time from an OOM kill to the restart of the container.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Time between the starts of two short pods.
const BRIEF_INTERVAL: Duration = Duration::from_secs(5);
/// A short pod starts only if this much time is left, so that it finishes before the measurement ends.
const BRIEF_DURATION: Duration = Duration::from_secs(3);

/// The container of a pod, running or not.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) pod: Pod,
    process: Option<RuncProcess>,
}

/// All containers of the demo. Dropping it deletes them and their cgroups.
#[derive(Debug)]
pub(super) struct Workloads {
    pub(super) scenario: Scenario,
    pub(super) steady: Container,
    pub(super) bursty: Container,
    pub(super) idle: Container,
    pub(super) grower: Container,
    /// When to restart the grower; `None` while it runs.
    restart_at: Option<Instant>,
    /// OOM kills of the grower: nothing else kills it.
    pub(super) kills: u32,
    briefs: Vec<Container>,
    next_brief: Instant,
    /// CPU time of the finished short pods, from their own clocks, in seconds.
    pub(super) brief_cpu_seconds: f64,
}

impl Workloads {
    /// Starts the first containers.
    pub(super) fn start(scenario: Scenario) -> Result<Self> {
        let container = |workload| Container { pod: Pod::new(workload), process: None };
        let mut workloads = Self {
            steady: container(&STEADY),
            bursty: container(&BURSTY),
            idle: container(&IDLE),
            grower: container(&GROWER),
            restart_at: None,
            kills: 0,
            briefs: Vec::new(),
            next_brief: Instant::now(),
            brief_cpu_seconds: 0.0,
            scenario,
        };
        let Self { scenario, steady, bursty, idle, grower, .. } = &mut workloads;
        scenario.make_cgroup()?;
        for container in [steady, bursty, idle, grower] {
            container.start(scenario)?;
        }
        Ok(workloads)
    }

    /// Restarts the grower after an OOM kill, starts short pods, and removes finished ones.
    ///
    /// `left` is the time until the measurement ends.
    pub(super) fn supervise(&mut self, left: Duration) -> Result<()> {
        for container in [&mut self.steady, &mut self.bursty, &mut self.idle] {
            if let Some(exit) = container.exit(&self.scenario)? {
                bail!("{} must not exit, but exited: {exit:?}", container.pod.workload.title());
            }
        }
        let now = Instant::now();
        match self.grower.exit(&self.scenario)? {
            None => {}
            Some(Exit::Killed) => {
                self.kills += 1;
                self.restart_at = Some(now + RESTART_DELAY);
            }
            Some(Exit::Completed) => bail!("{} exited before it was killed", GROWER.title()),
        }
        if self.restart_at.is_some_and(|due| now >= due) {
            self.restart_at = None;
            self.grower.pod.restart();
            self.grower.start(&mut self.scenario)?;
        }
        for container in &mut self.briefs {
            match container.exit(&self.scenario)? {
                None => {}
                Some(Exit::Completed) => {
                    let truth =
                        self.scenario.truth(&container.pod).context("a short pod wrote no usage file")?;
                    self.brief_cpu_seconds += number(&truth, "cpu_seconds").unwrap_or_default();
                    self.scenario.remove_pod(&container.pod)?;
                }
                Some(Exit::Killed) => bail!("{} was killed", BRIEF.title()),
            }
        }
        if now >= self.next_brief && left >= BRIEF_DURATION {
            self.next_brief = now + BRIEF_INTERVAL;
            let mut container = Container { pod: Pod::new(&BRIEF), process: None };
            let started = container.start(&mut self.scenario);
            self.briefs.push(container);
            started?;
        }
        Ok(())
    }

    /// Workloads with a container that has not yet written its usage and paused.
    pub(super) fn not_idle(&self) -> Vec<String> {
        let not_idle = |container: &&Container| {
            let truth = self.scenario.truth(&container.pod);
            container.process.is_some() && truth.is_none_or(|truth| truth["idle"] != true)
        };
        let all = [&self.steady, &self.bursty, &self.idle, &self.grower].into_iter().chain(&self.briefs);
        all.filter(not_idle).map(|container| container.pod.workload.title()).collect()
    }

    /// Number of containers of the grower that were started.
    pub(super) fn growers_started(&self) -> u32 {
        self.grower.pod.restarts + 1
    }

    /// Numbers of short pods that were started and that have finished.
    pub(super) fn briefs(&self) -> (usize, usize) {
        let finished = self.briefs.iter().filter(|container| container.process.is_none()).count();
        (self.briefs.len(), finished)
    }

    /// Deletes all containers and removes their cgroups. A second call does nothing.
    pub(super) fn clear(&mut self) -> Result<()> {
        let all = [&mut self.steady, &mut self.bursty, &mut self.idle, &mut self.grower];
        let containers =
            all.into_iter().chain(&mut self.briefs).filter_map(|container| container.process.take());
        self.scenario.clear(containers.collect())
    }
}

impl Drop for Workloads {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("demo: {error:#}");
        }
    }
}

impl Container {
    fn start(&mut self, scenario: &mut Scenario) -> Result<()> {
        scenario.announce(&self.pod)?;
        self.process = Some(scenario.start(&self.pod)?);
        Ok(())
    }

    /// How the container has exited; `None` while it runs, and after the first call that returned an exit.
    fn exit(&mut self, scenario: &Scenario) -> Result<Option<Exit>> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let exit = scenario.exit(process)?;
        if exit.is_some() {
            self.process = None;
        }
        Ok(exit)
    }

    /// One value of the usage that the container last wrote.
    pub(super) fn truth(&self, scenario: &Scenario, name: &str) -> Option<f64> {
        number(&scenario.truth(&self.pod)?, name)
    }
}

fn number(truth: &Value, name: &str) -> Option<f64> {
    truth.get(name)?.as_f64()
}
