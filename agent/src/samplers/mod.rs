//! The sampling thread. Only this thread uses the kernel interfaces and writes the store; it publishes a view after each round.
//!
//! Rounds are periodic: every `sample-interval` (100 ms) with eBPF, else every `working-set-interval` (1 s). A round that
//! starts a new `working-set-interval` is a *full* round and samples all measurements; other rounds sample CPU time only.
//! Events of the eBPF programs are handled between rounds.

mod agent;
mod budget;
mod compare;
mod detectors;
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
mod snapshot;
mod sources;
mod start;
mod statuses;
mod throttling;
mod unknown_cgroups;
mod verification;

use std::{
    io,
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use self::{
    agent::Heartbeat,
    detectors::EventDetectors,
    evidence::UsageCollector,
    files::FileSampler,
    hierarchy::{ResolvedCgroup, TrackedHierarchy},
    host::Host,
    interfaces::InterfaceSampler,
    kills::KillCounters,
    naming::Naming,
    network::NetworkSampler,
    pacing::Pacing,
    processes::ProcessSampler,
    runqueue::RunqueueSampler,
    sample::PendingSamples,
    skipped::{Cause, Skipped},
    sources::MeasurementSources,
};
pub use self::{
    agent::HeartbeatError,
    start::{StartError, node_name},
};
use crate::{
    cgroupfs::{
        Measurements,
        list::{CgroupDir, MAX_DEPTH, list_cgroups},
    },
    clock::unix_now,
    config::Config,
    cri::CriNames,
    identity::{
        Level,
        path::{self, NestedNodes},
    },
    kernel::EbpfPrograms,
    kubernetes::PodWatch,
    model::{AgentRow, Verdict},
    store::{Appearance, KERNEL_REPORT_TIMEOUT, Key, Store},
    values::{Measurement, SourceKind},
    views::CurrentView,
};

/// Minimum time between two listings of a hierarchy's directories.
const MIN_LISTING_PAUSE: Duration = Duration::from_secs(1);
/// Directories that a listing takes below a container.
const MAX_LISTED_IN_CONTAINER: usize = 256;
/// Directories that a listing takes below a systemd unit, which may contain containers.
const MAX_LISTED_IN_UNIT: usize = 4096;
/// Maximum time between listings that find no new cgroup.
const MAX_LISTING_PAUSE: Duration = Duration::from_secs(60);

/// The sampling thread's state.
pub struct Sampler {
    config: Config,
    kernel: Option<EbpfPrograms>,
    /// Why there are no eBPF programs.
    kernel_absent: Option<Verdict>,
    hierarchies: Vec<TrackedHierarchy>,
    sources: MeasurementSources,
    files: FileSampler,
    nested_nodes: NestedNodes,
    naming: Naming,
    /// The watch of pods, if enabled.
    watched: Option<Arc<PodWatch>>,
    network: NetworkSampler,
    runqueue: Option<RunqueueSampler>,
    interfaces: InterfaceSampler,
    /// If `process-metrics` is on.
    processes: Option<ProcessSampler>,
    host: Host,
    heartbeat: Option<Heartbeat>,
    /// If there is a history.
    evidence: Option<UsageCollector>,
    detectors: EventDetectors,
    kill_counters: KillCounters,
    store: Store,
    /// Samples that are not in the store yet.
    pending: PendingSamples,
    views: Arc<CurrentView>,
    lent_views: publish::LentViews,
    agent: AgentRow,
    skipped: Skipped,
    schedule: Schedule,
    pacing: Pacing,
    /// Pause until the next comparison; doubles each time.
    compare_pause: Duration,
    first_round: bool,
    /// Whether it was logged that a pass had more cgroups than `max-cgroups`.
    capacity_error_logged: bool,
}

/// A cgroup that was not known before.
#[derive(Clone, Copy, Debug)]
struct NewCgroup<'a> {
    id: u64,
    path: &'a str,
    created_unix: f64,
    present_at_start: bool,
}

/// When each periodic task is due.
#[derive(Debug)]
struct Schedule {
    full_round: Instant,
    listing: Vec<Instant>,
    /// Pause between listings by hierarchy; doubles while listings find nothing new (for example only names that are not UTF-8).
    listing_pause: Vec<Duration>,
    compare: Instant,
    heartbeat: Instant,
}

impl Sampler {
    /// Takes names of containers from a watch of the API server.
    #[must_use]
    pub fn with_pod_watch(mut self, watched: Arc<PodWatch>) -> Self {
        self.naming.watch(Arc::clone(&watched));
        self.watched = Some(watched);
        self
    }

    /// Takes names of containers that have none otherwise from the container runtime (CRI).
    #[must_use]
    pub fn with_runtime(mut self, runtime: Arc<CriNames>) -> Self {
        self.naming.ask(runtime);
        self
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
            self.agent.slowdown = self.pacing.slowdown();
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
                    self.write_heartbeat();
                    // What is not counted now is too old for the next agent.
                    self.count_unreported_kills(Instant::now() + KERNEL_REPORT_TIMEOUT);
                    self.publish_now();
                    if let Some(evidence) = &mut self.evidence {
                        evidence.finish(&self.store, unix_now());
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Time between two rounds.
    fn interval(&self) -> Duration {
        if self.sources.with_source(SourceKind::Kernel).is_empty() {
            self.config.working_set_interval
        } else {
            self.config.sample_interval
        }
    }

    /// Waits for events, a refresh request of a reader or the stop signal, at most `left`. Returns whether to stop.
    fn wait(&self, stop: &UnixStream, left: Duration) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        let events = self.kernel.as_ref().map(EbpfPrograms::events);
        let others = events.into_iter().chain(self.views.refresh_requests());
        fds.extend(others.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(fds.first().is_some_and(|stop| !stop.revents().is_empty())),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// One round: events, passes, files, names, publication. Most rounds only sample the CPU time of active cgroups, and do
    /// not publish.
    pub fn round(&mut self, now: Instant) {
        self.take_events();
        let full = now >= self.schedule.full_round;
        if full {
            self.schedule.full_round = now + self.config.working_set_interval;
        }
        self.flush(full);
        let sampled = !full && self.sample_active();
        if sampled && !self.pending.are_due(now) {
            return;
        }
        self.flush_pending();
        if !sampled {
            self.sample_kernel(now, full);
        }
        if full {
            self.sample_files(now);
            self.compare(now);
        }
        self.name_living(full);
        self.sample_slowly(now);
        if full {
            self.host.refresh(&self.store, now);
        }
        self.naming.name_ended(&mut self.store, now);
        if full {
            self.count_unreported_kills(now);
        }
        self.collect_usage(now, full);
        let settled = self.store.settle(now);
        self.collect_exits(&settled);
        if !settled.is_empty() {
            self.naming.forget(&settled);
            self.files.forget(&settled);
            self.network.forget(&settled);
            self.detectors.forget(&settled);
            self.kill_counters.forget(&settled);
            if let Some(runqueue) = &mut self.runqueue {
                runqueue.forget(&settled);
            }
            for tracked in &mut self.hierarchies {
                tracked.forget(&settled);
            }
        }
        if full {
            self.sample_network(now);
            self.sample_round_trips(now);
            self.sample_runqueue(now);
            let AgentRow { started_unix, downtime_seconds, .. } = self.agent;
            self.store.count_reported(self.naming.pods(), started_unix, downtime_seconds, now);
            self.store.count_workloads(now);
            self.detectors.detect(&mut self.store, self.naming.pods(), now, unix_now());
            self.refresh_agent(now);
        }
        self.first_round = false;
        self.publish(now);
    }

    /// Publishes a view whose values, also those that are read slowly, are of this moment.
    pub fn publish_for_reader(&mut self) {
        self.flush_pending();
        let now = Instant::now();
        let Self { store, files, skipped, .. } = self;
        files.read_slow_files_together(store, now, self.config.slow_interval, skipped);
        self.note_slow_readings();
        self.publish(now);
    }

    /// Publishes a view of the current state.
    pub fn publish_now(&mut self) {
        self.flush_pending();
        self.publish(Instant::now());
    }

    fn name_living(&mut self, full: bool) {
        if let Some(primary) = self.hierarchies.first() {
            self.naming.refresh(&mut self.store, &primary.hierarchy.mount, full);
        }
    }

    /// Whether the eBPF programs sample the hierarchy.
    fn is_walked(&self, index: usize) -> bool {
        !self.sources.kernel_measurements(index).is_empty()
    }

    fn expects_final_records(&self) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.is_running("cgroup_removed"))
    }

    /// Lists a hierarchy's directories, to find the paths of new kernfs ids; at most once per [`MIN_LISTING_PAUSE`].
    fn list_directories(&mut self, index: usize, now: Instant) {
        let Some(tracked) = self.hierarchies.get_mut(index) else { return };
        if self.schedule.listing.get(index).is_none_or(|due| now < *due) {
            return;
        }
        let nested_nodes = &self.nested_nodes;
        // Inside a container only so many directories are listed, for the counters of their sockets.
        let room_below = |path: &str| match path::parse_with(path, nested_nodes).map(|of_path| of_path.level)
        {
            _ if nested_nodes.is_around(path) => None,
            Some(Level::Container | Level::Sandbox) => Some(MAX_LISTED_IN_CONTAINER),
            Some(Level::Unit) => Some(MAX_LISTED_IN_UNIT),
            _ => None,
        };
        let listing = match list_cgroups(&tracked.hierarchy, MAX_DEPTH, room_below) {
            Ok(listing) => listing,
            Err(error) => {
                let source = &error.source;
                tracing::warn!(%error, %source, "cannot list cgroups; will retry");
                self.skipped[Cause::Listings] += 1;
                return;
            }
        };
        self.skipped[Cause::CgroupNames] += listing.skipped_names;
        self.skipped[Cause::DeepCgroups] += listing.too_deep;
        self.skipped[Cause::InnerCgroups] += listing.too_many;
        tracked.begin_pass();
        let new: Vec<_> = listing
            .cgroups
            .into_iter()
            .filter(|directory| tracked.visit(directory.inode).is_none())
            .collect();
        let walked = self.is_walked(index);
        if let (Some(due), Some(pause)) =
            (self.schedule.listing.get_mut(index), self.schedule.listing_pause.get_mut(index))
        {
            *pause = if walked && new.is_empty() {
                (*pause * 2).min(MAX_LISTING_PAUSE)
            } else {
                MIN_LISTING_PAUSE
            };
            *due = now + *pause;
        }
        let present_at_start = self.first_round;
        for CgroupDir { path, inode: id, created } in &new {
            let created_unix = created.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
            self.add_cgroup(index, &NewCgroup { id: *id, path, created_unix, present_at_start }, now);
        }
        if listing.unreadable == 0 {
            self.end_pass(index, now, false);
        }
        if index == 0 {
            self.refresh_flush_points();
        }
    }

    /// Adds a new cgroup of a hierarchy. Returns its key in the store; `None` for cgroups inside containers.
    fn add_cgroup(&mut self, index: usize, found: &NewCgroup<'_>, now: Instant) -> Option<Key> {
        let NewCgroup { id, path, created_unix, present_at_start } = *found;
        let tracked = self.hierarchies.get_mut(index)?;
        let Some(of_path) = path::parse_with(path, &self.nested_nodes) else {
            tracked.insert(id, ResolvedCgroup::Inner(self.store.enclosing(path)));
            return None;
        };
        self.naming.appeared(&of_path);
        let level = of_path.level;
        let appearance = Appearance { path: path.into(), of_path, created_unix, present_at_start };
        let key = self.store.appear(appearance, index, now);
        tracked.insert(id, ResolvedCgroup::Cgroup(key));
        self.limit_subtree(index, id, path, level);
        Some(key)
    }

    fn refresh_flush_points(&mut self) {
        let tops: Vec<Arc<str>> = self
            .store
            .living()
            .map(|(_, identity)| identity.path.clone())
            .filter(|path| path.rfind('/') == Some(0) && path.len() > 1)
            .collect();
        self.files.refresh_flush_points(&tops);
    }

    /// Samples the measurements that come from files, of all present cgroups, and the values of the root.
    fn sample_files(&mut self, now: Instant) {
        for index in 0..self.hierarchies.len() {
            if !self.is_walked(index) {
                self.list_directories(index, now);
            }
        }
        let by_files = self.sources.with_source(SourceKind::Files).minus(Measurements::ONLY_IN_FILES);
        let outside_primary: Vec<Key> =
            self.store.living().map(|(key, _)| key).filter(|key| !self.store.is_in(*key, 0)).collect();
        self.files.sample(&mut self.store, by_files, &outside_primary, &mut self.skipped);
        self.sources.sampled(by_files, now);
    }

    /// Sets the age of what is read slowly: that of the oldest value.
    fn note_slow_readings(&mut self) {
        if let Some((oldest, complete)) = self.files.oldest_slow_reading() {
            self.sources.sampled(Measurements::ONLY_IN_FILES, oldest);
            self.sources.sampled(Measurements::NONE.with(Measurement::Spec), complete);
        }
    }

    /// Samples what is read of a few cgroups in each round, so that all are read once per `slow-interval`.
    fn sample_slowly(&mut self, now: Instant) {
        let Self { store, files, skipped, .. } = self;
        let interval = self.config.slow_interval;
        files.sample_slow_files(store, now, interval, skipped);
        self.note_slow_readings();
        let Self { store, files, skipped, interfaces, .. } = self;
        if self.config.kubelet_metrics {
            interfaces.sample(store, files, now, interval, skipped);
            if let Some(processes) = &mut self.processes {
                processes.sample(store, files, now, interval, skipped);
            }
        }
    }
}
