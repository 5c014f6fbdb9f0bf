//! The sampling thread. Only this thread uses the kernel interfaces and writes the store; it publishes a view after each round.
//!
//! Rounds are periodic: every `sample-interval` (100 ms) with eBPF, else every `working-set-interval` (1 s). A round that
//! starts a new `working-set-interval` is a *full* round and samples all measurements; other rounds sample CPU time only.
//! Events of the eBPF programs are handled between rounds.

mod agent;
mod budget;
mod cgroups;
mod compare;
mod evidence;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod hierarchy;
mod histograms;
mod host;
mod interfaces;
mod kills;
mod lifecycle;
mod naming;
mod network;
mod oom;
mod pacing;
mod pass;
mod process;
mod processes;
mod publish;
mod round_robin;
mod runqueue;
mod sample;
mod skipped;
mod slow_files;
mod snapshot;
mod sources;
mod start;
mod statuses;
mod throttling;
mod unknown_cgroups;
mod verification;
mod workloads;

use std::{
    io,
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

pub use self::{
    agent::{HeartbeatError, node_name},
    start::StartError,
};
use self::{
    evidence::UsageCollector,
    files::CgroupFiles,
    hierarchy::{ResolvedCgroup, TrackedHierarchy},
    naming::Naming,
    pacing::Pacing,
    publish::Publisher,
    sample::PendingSamples,
    skipped::{Cause, Skipped},
    sources::MeasurementSources,
};
use crate::{
    config::Config,
    cri::CriNames,
    identity::path::NestedNodes,
    kernel::{EbpfPrograms, KernelEvent, KernelEventKind},
    kubernetes::PodWatch,
    model::{AgentRow, HostRow, Verdict},
    store::{KERNEL_REPORT_TIMEOUT, Key, Store},
    values::{Measurement, SourceKind},
    views::CurrentView,
};

/// A part of the sampling thread. Each takes some measurements or detects some events, and keeps only what no other part needs.
trait Component: Send {
    /// Does this part's work of a round. Rounds that only sample CPU time leave it out.
    fn round(&mut self, _round: &mut Round) {}

    /// Handles an event of the eBPF programs in the hierarchy `index`.
    fn event(&mut self, _round: &mut Round, _index: usize, _event: &KernelEvent) {}

    /// A reader wants values of this moment.
    fn refresh(&mut self, _round: &mut Round) {}

    /// Drops what is kept of settled cgroups.
    fn forget(&mut self, _round: &mut Round, _settled: &[Key]) {}

    /// The agent stops.
    fn finish(&mut self, _round: &mut Round) {}
}

/// All components, in the order in which they work.
fn components(round: &mut Round, absent: Option<Verdict>) -> Vec<Box<dyn Component>> {
    let (now, config) = (round.now, &round.config);
    let mut all: Vec<Box<dyn Component>> = vec![
        Box::new(pass::Passes::default()),
        Box::new(files::FileSampler),
        Box::new(verification::Verification::new(now)),
        Box::new(naming::NameSampler),
        Box::new(slow_files::SlowFiles::default()),
    ];
    if config.kubelet_metrics {
        all.push(Box::new(interfaces::InterfaceSampler::default()));
        if config.process_metrics {
            all.push(Box::new(processes::ProcessSampler::default()));
        }
    }
    all.push(Box::new(host::Host::new(config.proc_root.clone(), "/sys".into(), now)));
    all.push(Box::new(kills::KillCounters::default()));
    all.push(Box::new(evidence::UsageHistory));
    all.push(Box::new(network::NetworkSampler::new(config.network_millicores, now)));
    if config.runqueue {
        all.push(Box::new(runqueue::RunqueueSampler::new(config.runqueue_millicores, now)));
    }
    all.push(Box::new(workloads::Workloads));
    all.push(Box::new(throttling::Throttling::default()));
    all.push(Box::new(statuses::Statuses::default()));
    all.push(Box::new(agent::Agent::start(round, absent)));
    all.push(Box::new(process::InitProcesses::start(round)));
    all.push(Box::new(oom::OomKills));
    // Last: the others still find a removed cgroup in its hierarchy.
    all.push(Box::new(lifecycle::Lifecycle));
    all
}

/// What the components share, and the round under way.
struct Round {
    config: Config,
    now: Instant,
    /// Whether all measurements are sampled, not CPU time alone.
    is_full: bool,
    /// Whether CPU time was sampled in this round already, without a pass.
    is_sampled: bool,
    is_first: bool,
    kernel: Option<EbpfPrograms>,
    hierarchies: Vec<TrackedHierarchy>,
    sources: MeasurementSources,
    files: CgroupFiles,
    nested_nodes: NestedNodes,
    naming: Naming,
    /// If there is a history.
    evidence: Option<UsageCollector>,
    store: Store,
    /// Samples that are not in the store yet.
    pending: PendingSamples,
    /// Cgroups that were settled in this round.
    settled: Vec<Key>,
    agent: AgentRow,
    host: Arc<HostRow>,
    skipped: Skipped,
}

impl Round {
    /// What a directory of a hierarchy stands for.
    fn resolve(&self, index: usize, id: u64) -> Option<ResolvedCgroup> {
        self.hierarchies.get(index)?.resolve(id)
    }

    /// Whether an eBPF program runs.
    fn is_running(&self, program: &str) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.is_running(program))
    }

    /// A full round with one cgroup v2 hierarchy, without eBPF.
    #[cfg(test)]
    fn for_tests(mount: &std::path::Path, now: Instant) -> Self {
        use crate::cgroupfs::mounts::{Hierarchies, Hierarchy, Version};
        let unified = Hierarchy {
            mount: mount.to_owned(),
            version: Version::V2,
            controllers: Vec::new(),
            root_in_hierarchy: "/".to_owned(),
        };
        let hierarchies = Hierarchies { unified: Some(unified), v1: Vec::new() };
        Self::new(crate::config::tests::defaults(), &hierarchies, now).unwrap()
    }

    fn name_living(&mut self) {
        if let Some(primary) = self.hierarchies.first() {
            self.naming.refresh(&mut self.store, &primary.hierarchy.mount, self.is_full);
        }
    }
}

/// The sampling thread's state.
pub struct Sampler {
    round: Round,
    components: Vec<Box<dyn Component>>,
    publisher: Publisher,
    views: Arc<CurrentView>,
    /// When the next full round is due.
    full_round: Instant,
    pacing: Pacing,
}

impl Sampler {
    /// Takes names of containers from a watch of the API server.
    #[must_use]
    pub fn with_pod_watch(mut self, watched: Arc<PodWatch>) -> Self {
        self.round.naming.watch(watched);
        self
    }

    /// Takes names of containers that have none otherwise from the container runtime (CRI).
    #[must_use]
    pub fn with_runtime(mut self, runtime: Arc<CriNames>) -> Self {
        self.round.naming.ask(runtime);
        self
    }

    /// The measurements of the eBPF programs that are not verified yet.
    pub fn unverified(&self) -> Vec<Measurement> {
        self.round.sources.unverified()
    }

    /// Samples until the other end of `stop` is written to or closed. Then publishes once more and flushes the usage history.
    ///
    /// # Errors
    /// When waiting for events fails, which only a broken kernel interface can cause.
    pub fn run(mut self, stop: &UnixStream) -> io::Result<()> {
        self.views.listen()?;
        let mut next = Instant::now();
        loop {
            let begun = Instant::now();
            self.round(begun);
            let now = Instant::now();
            self.pacing.record(now.saturating_duration_since(begun), now);
            self.round.agent.slowdown = self.pacing.slowdown();
            next += self.interval() * self.pacing.slowdown();
            // Missed rounds are skipped, for example after the machine was suspended.
            next = next.max(Instant::now());
            loop {
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let stopped = self.wait(stop, left)?;
                self.take_events();
                if self.views.take_refresh_requests() {
                    self.publish_for_reader();
                }
                if stopped {
                    self.finish();
                    return Ok(());
                }
            }
        }
    }

    /// Time between two rounds.
    fn interval(&self) -> Duration {
        let Round { sources, config, .. } = &self.round;
        if sources.with_source(SourceKind::Kernel).is_empty() {
            config.working_set_interval
        } else {
            config.sample_interval
        }
    }

    /// Waits for events, a refresh request of a reader or the stop signal, at most `left`. Returns whether to stop.
    fn wait(&self, stop: &UnixStream, left: Duration) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        let events = self.round.kernel.as_ref().map(EbpfPrograms::events);
        let others = events.into_iter().chain(self.views.refresh_requests());
        fds.extend(others.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(fds.first().is_some_and(|stop| !stop.revents().is_empty())),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// One round: events, the work of all components, publication. Most rounds only sample the CPU time of active cgroups, and do
    /// not publish.
    pub fn round(&mut self, now: Instant) {
        self.take_events();
        let round = &mut self.round;
        round.now = now;
        round.is_full = now >= self.full_round;
        if round.is_full {
            self.full_round = now + round.config.working_set_interval;
        }
        round.flush();
        round.is_sampled = !round.is_full && round.sample_active();
        if round.is_sampled && !round.pending.are_due(now) {
            return;
        }
        round.flush_pending();
        for component in &mut self.components {
            component.round(round);
        }
        let settled = std::mem::take(&mut round.settled);
        if !settled.is_empty() {
            self.components.iter_mut().for_each(|component| component.forget(round, &settled));
        }
        round.is_first = false;
        self.publish();
    }

    /// Handles all available events.
    fn take_events(&mut self) {
        let Self { round, components, .. } = self;
        let mut events = Vec::new();
        let Some(kernel) = &mut round.kernel else { return };
        round.skipped[Cause::Events] += kernel.drain(|event| events.push(event));
        if !events.is_empty() {
            // The pending samples are older than the events, and name cgroups that the events may remove.
            round.flush_pending();
        }
        (round.now, round.is_full) = (Instant::now(), false);
        for event in events {
            let mut hierarchies = round.hierarchies.iter();
            let Some(index) = hierarchies.position(|tracked| tracked.id == event.hierarchy) else { continue };
            if let KernelEventKind::Made { path } | KernelEventKind::Removed { path, .. } = &event.kind {
                round.add_from_event(index, &event, path.as_deref());
            }
            components.iter_mut().for_each(|component| component.event(round, index, &event));
        }
        // At once: the bundle of a short-lived container may be gone in the next round.
        round.name_living();
    }

    /// Publishes a view whose values, also those that are read slowly, are of this moment.
    pub fn publish_for_reader(&mut self) {
        self.round.flush_pending();
        self.round.now = Instant::now();
        self.components.iter_mut().for_each(|component| component.refresh(&mut self.round));
        self.publish();
    }

    /// Publishes a view of the current state.
    pub fn publish_now(&mut self) {
        self.round.flush_pending();
        self.round.now = Instant::now();
        self.publish();
    }

    fn finish(&mut self) {
        self.round.flush_pending();
        // What is not counted now is too old for the next agent.
        self.round.now = Instant::now() + KERNEL_REPORT_TIMEOUT;
        self.components.iter_mut().for_each(|component| component.finish(&mut self.round));
        self.publish_now();
    }

    fn publish(&mut self) {
        self.publisher.publish(&mut self.round, &self.views);
    }
}
