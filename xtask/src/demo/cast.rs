//! The containers in their course: who runs all the time, who dies and comes back, who comes for a second.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    plan::{BRIEF, BURSTY, GROWER, IDLE, Pod, STEADY},
    stage::{Container, End, Stage},
};

/// From the death of a container to its next start.
const BACK_OFF: Duration = Duration::from_secs(1);
/// From the start of one short pod to that of the next.
const BRIEF_EVERY: Duration = Duration::from_secs(5);
/// A short pod starts only if this much time is left: it should be over in the end.
const BRIEF_TAKES: Duration = Duration::from_secs(3);

/// A pod and its container, while it has one.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) pod: Pod,
    container: Option<Container>,
}

/// All of them. They go with this value.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) stage: Stage,
    pub(super) steady: Actor,
    pub(super) bursty: Actor,
    pub(super) idle: Actor,
    pub(super) grower: Actor,
    /// When the grower is started again, while it is dead.
    revival: Option<Instant>,
    /// Deaths of the grower, which only the OOM killer can have caused.
    pub(super) kills: u32,
    briefs: Vec<Actor>,
    next_brief: Instant,
    /// CPU time of the short pods that are over, by their own clocks, in seconds.
    pub(super) brief_cpu_seconds: f64,
}

impl Cast {
    /// Starts the first containers.
    pub(super) fn start(stage: Stage) -> Result<Self> {
        let actor = |workload| Actor { pod: Pod::new(workload), container: None };
        let mut cast = Self {
            steady: actor(&STEADY),
            bursty: actor(&BURSTY),
            idle: actor(&IDLE),
            grower: actor(&GROWER),
            revival: None,
            kills: 0,
            briefs: Vec::new(),
            next_brief: Instant::now(),
            brief_cpu_seconds: 0.0,
            stage,
        };
        let Self { stage, steady, bursty, idle, grower, .. } = &mut cast;
        stage.make_cgroup()?;
        for actor in [steady, bursty, idle, grower] {
            actor.start(stage)?;
        }
        Ok(cast)
    }

    /// Looks after the containers: revives the grower, and starts and ends short pods. `left`: until the end.
    pub(super) fn look(&mut self, left: Duration) -> Result<()> {
        for actor in [&mut self.steady, &mut self.bursty, &mut self.idle] {
            if let Some(end) = actor.end(&self.stage)? {
                bail!("{} should have stayed, and is over: {end:?}", actor.pod.workload.title());
            }
        }
        let now = Instant::now();
        match self.grower.end(&self.stage)? {
            None => {}
            Some(End::Killed) => {
                self.kills += 1;
                self.revival = Some(now + BACK_OFF);
            }
            Some(End::Done) => bail!("{} ended before it was killed", GROWER.title()),
        }
        if self.revival.is_some_and(|due| now >= due) {
            self.revival = None;
            self.grower.pod.restart();
            self.grower.start(&mut self.stage)?;
        }
        for actor in &mut self.briefs {
            match actor.end(&self.stage)? {
                None => {}
                Some(End::Done) => {
                    let truth = self.stage.truth(&actor.pod).context("a short pod left no record")?;
                    self.brief_cpu_seconds += number(&truth, "cpu_seconds").unwrap_or_default();
                    self.stage.remove_pod(&actor.pod)?;
                }
                Some(End::Killed) => bail!("{} was killed", BRIEF.title()),
            }
        }
        if now >= self.next_brief && left >= BRIEF_TAKES {
            self.next_brief = now + BRIEF_EVERY;
            let mut actor = Actor { pod: Pod::new(&BRIEF), container: None };
            let started = actor.start(&mut self.stage);
            self.briefs.push(actor);
            started?;
        }
        Ok(())
    }

    /// Workloads of which a container has not come to rest yet and written down what it used.
    pub(super) fn restless(&self) -> Vec<String> {
        let restless = |actor: &&Actor| {
            let truth = self.stage.truth(&actor.pod);
            actor.container.is_some() && truth.is_none_or(|truth| truth["at_rest"] != true)
        };
        let all = [&self.steady, &self.bursty, &self.idle, &self.grower].into_iter().chain(&self.briefs);
        all.filter(restless).map(|actor| actor.pod.workload.title()).collect()
    }

    /// Containers of the grower that were started.
    pub(super) fn growers_started(&self) -> u32 {
        self.grower.pod.restarts + 1
    }

    /// Short pods that were started, and those that are over.
    pub(super) fn briefs(&self) -> (usize, usize) {
        let over = self.briefs.iter().filter(|actor| actor.container.is_none()).count();
        (self.briefs.len(), over)
    }

    /// Ends all containers and removes their cgroups. Once is enough.
    pub(super) fn clear(&mut self) -> Result<()> {
        let all = [&mut self.steady, &mut self.bursty, &mut self.idle, &mut self.grower];
        let containers = all.into_iter().chain(&mut self.briefs).filter_map(|actor| actor.container.take());
        self.stage.clear(containers.collect())
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("demo: {error:#}");
        }
    }
}

impl Actor {
    fn start(&mut self, stage: &mut Stage) -> Result<()> {
        stage.announce(&self.pod)?;
        self.container = Some(stage.start(&self.pod)?);
        Ok(())
    }

    /// How its container has ended; once.
    fn end(&mut self, stage: &Stage) -> Result<Option<End>> {
        let Some(container) = &mut self.container else { return Ok(None) };
        let end = stage.end(container)?;
        if end.is_some() {
            self.container = None;
        }
        Ok(end)
    }

    /// What the container last wrote of itself, by name.
    pub(super) fn truth(&self, stage: &Stage, name: &str) -> Option<f64> {
        number(&stage.truth(&self.pod)?, name)
    }
}

fn number(truth: &Value, name: &str) -> Option<f64> {
    truth.get(name)?.as_f64()
}
