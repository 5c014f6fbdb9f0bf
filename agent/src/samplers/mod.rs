//! The sampling thread: it alone asks the kernel, it alone writes the store, and it publishes after each round.
//!
//! A round is driven by the clock (ten times a second where the kernel half works, else once); events of the kernel half
//! are taken in between.

mod agent;
mod compare;
mod detectors;
mod evidence;
mod files;
mod hierarchy;
mod histograms;
mod host;
mod interfaces;
mod lifecycle;
mod look;
mod naming;
mod network;
mod oom;
mod pass;
mod process;
mod processes;
mod proving;
mod publish;
mod runqueue;
mod snapshot;
mod sources;
mod start;
mod statuses;
mod strangers;
mod throttling;
mod turn;

use std::{
    collections::HashMap,
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
    evidence::Gatherer,
    files::Files,
    hierarchy::{Followed, Known},
    host::Host,
    interfaces::Interfaces,
    look::Untold,
    naming::Naming,
    network::NetworkSampler,
    processes::ProcessSampler,
    runqueue::RunqueueSampler,
    sources::Origins,
};
pub use self::{
    agent::HeartbeatError,
    start::{StartError, node_name},
};
use crate::{
    cgroupfs::{
        Measurements,
        walk::{CgroupDir, MAX_DEPTH, walk},
    },
    clock::unix_now,
    config::Config,
    cri::Runtime,
    identity::path,
    kernel::KernelHalf,
    kubernetes::PodWatch,
    model::{AgentRow, Verdict},
    store::{Appearance, Key, Store},
    values::Source,
    views::CurrentView,
};

/// Between two listings of a hierarchy's directories, at least.
const LISTING: Duration = Duration::from_secs(1);
/// The longest pause between listings that tell nothing new.
const LONGEST_LISTING: Duration = Duration::from_secs(60);

/// The sampling thread's state.
pub struct Sampler {
    config: Config,
    kernel: Option<KernelHalf>,
    /// Why there is no kernel half.
    kernel_absent: Option<Verdict>,
    followed: Vec<Followed>,
    origins: Origins,
    files: Files,
    naming: Naming,
    /// Where pods are watched.
    watched: Option<Arc<PodWatch>>,
    network: NetworkSampler,
    runqueue: Option<RunqueueSampler>,
    interfaces: Interfaces,
    /// Where they are asked for.
    processes: Option<ProcessSampler>,
    host: Host,
    heartbeat: Option<Heartbeat>,
    /// Where there is a history to gather for.
    evidence: Option<Gatherer>,
    detectors: EventDetectors,
    store: Store,
    /// Looks of which the store does not know yet.
    untold: Untold,
    views: Arc<CurrentView>,
    agent: AgentRow,
    skipped: HashMap<&'static str, u64>,
    due: Due,
    /// Comparisons wait longer after each round that proved nothing.
    compare_pause: Duration,
    first_round: bool,
    /// Whether the log has said that the kernel's table is full.
    said_full: bool,
}

/// A directory that was not known before.
#[derive(Clone, Copy, Debug)]
struct Found<'a> {
    id: u64,
    path: &'a str,
    created_unix: f64,
    present_at_start: bool,
}

/// When the next of each is due.
#[derive(Debug)]
struct Due {
    second: Instant,
    listing: Vec<Instant>,
    /// Grows while listings tell nothing new (directories whose names are not UTF-8, say).
    listing_pause: Vec<Duration>,
    compare: Instant,
    heartbeat: Instant,
}

impl Sampler {
    /// Names containers as a watch tells.
    #[must_use]
    pub fn watching(mut self, watched: Arc<PodWatch>) -> Self {
        self.naming.watch(Arc::clone(&watched));
        self.watched = Some(watched);
        self
    }

    /// Names containers as their runtime tells, where nothing else does.
    #[must_use]
    pub fn asking(mut self, runtime: Arc<Runtime>) -> Self {
        self.naming.ask(runtime);
        self
    }

    /// Samples until the other end of `stop` is written to or closed.
    ///
    /// # Errors
    /// When waiting for events fails, which only a broken kernel interface can cause.
    pub fn run(mut self, stop: &UnixStream) -> io::Result<()> {
        self.views.listen()?;
        let mut next = Instant::now();
        loop {
            self.round(Instant::now());
            next += self.interval();
            // After a stall (a suspended machine, say) rounds are not made up for.
            next = next.max(Instant::now());
            loop {
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let stopped = self.wait(stop, left)?;
                self.take_events();
                if self.views.take_refresh_requests() {
                    self.tell();
                }
                if stopped {
                    self.leave_sign_of_life();
                    self.tell();
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
        if self.origins.with(Source::Kernel).is_empty() {
            self.config.working_set_interval
        } else {
            self.config.sample_interval
        }
    }

    /// Waits until events, a reader's wish or the stop signal come, or the time is over. Returns whether to stop.
    fn wait(&self, stop: &UnixStream, left: Duration) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        let events = self.kernel.as_ref().map(KernelHalf::events);
        let others = events.into_iter().chain(self.views.refresh_requests());
        fds.extend(others.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(fds.first().is_some_and(|stop| !stop.revents().is_empty())),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// One round: events, passes, files, names, publication. Nine of ten are no more than a look, which is told later.
    pub fn round(&mut self, now: Instant) {
        self.take_events();
        let second = now >= self.due.second;
        if second {
            self.due.second = now + self.config.working_set_interval;
        }
        self.flush(second);
        let looked = !second && self.look();
        if looked && !self.untold.are_due(now) {
            return;
        }
        self.tell_looks();
        if !looked {
            self.sample_kernel(now, second);
        }
        if second {
            self.sample_files(now);
            self.compare(now);
        }
        self.name_living(second);
        self.sample_slowly(now);
        if second {
            self.host.refresh(&self.store, now);
        }
        self.naming.name_leaving(&mut self.store);
        self.gather_evidence(now, second);
        let settled = self.store.settle(now);
        self.gather_exits(&settled);
        if !settled.is_empty() {
            self.naming.forget(&settled);
            self.files.forget(&settled);
            self.network.forget(&settled);
            self.detectors.forget(&settled);
            if let Some(runqueue) = &mut self.runqueue {
                runqueue.forget(&settled);
            }
            for followed in &mut self.followed {
                followed.forget(&settled);
            }
        }
        if second {
            self.sample_network();
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

    /// Publishes what is known now.
    pub fn tell(&mut self) {
        self.tell_looks();
        self.publish(Instant::now());
    }

    fn name_living(&mut self, second: bool) {
        if let Some(primary) = self.followed.first() {
            self.naming.refresh(&mut self.store, &primary.hierarchy.mount, second);
        }
    }

    /// Whether the kernel half walks the hierarchy.
    fn walks(&self, index: usize) -> bool {
        !self.origins.kernel_of(index).is_empty()
    }

    fn final_records_come(&self) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.runs("cgroup_removed"))
    }

    /// Lists a hierarchy's directories, to learn which path belongs to which id. Not more often than [`LISTING`].
    fn list(&mut self, index: usize, now: Instant) {
        let Some(one) = self.followed.get_mut(index) else { return };
        if self.due.listing.get(index).is_none_or(|due| now < *due) {
            return;
        }
        let listing = match walk(&one.hierarchy, MAX_DEPTH) {
            Ok(listing) => listing,
            Err(error) => {
                let source = &error.source;
                tracing::warn!(%error, %source, "cgroups cannot be listed; tried again");
                *self.skipped.entry("listings").or_default() += 1;
                return;
            }
        };
        *self.skipped.entry("cgroup_names_not_utf8").or_default() += listing.skipped_names;
        *self.skipped.entry("cgroups_too_deep").or_default() += listing.too_deep;
        one.begin();
        let fresh: Vec<_> =
            listing.cgroups.into_iter().filter(|directory| one.see(directory.inode).is_none()).collect();
        let walked = self.walks(index);
        if let (Some(due), Some(pause)) =
            (self.due.listing.get_mut(index), self.due.listing_pause.get_mut(index))
        {
            *pause = if walked && fresh.is_empty() { (*pause * 2).min(LONGEST_LISTING) } else { LISTING };
            *due = now + *pause;
        }
        let present_at_start = self.first_round;
        for CgroupDir { path, inode: id, created } in &fresh {
            let created_unix = created.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
            self.appear(index, &Found { id: *id, path, created_unix, present_at_start }, now);
        }
        if listing.unreadable == 0 {
            self.end_pass(index, now);
        }
        if index == 0 {
            self.refresh_flush_points();
        }
    }

    /// A directory has appeared in a hierarchy.
    fn appear(&mut self, index: usize, found: &Found<'_>, now: Instant) -> Option<Key> {
        let Found { id, path, created_unix, present_at_start } = *found;
        let one = self.followed.get_mut(index)?;
        let Some(of_path) = path::parse(path) else {
            one.learn(id, Known::Inner(self.store.around(path)));
            return None;
        };
        self.naming.appeared(&of_path);
        let appearance = Appearance { path: path.into(), of_path, created_unix, present_at_start };
        let key = self.store.appear(appearance, index, now);
        one.learn(id, Known::Cgroup(key));
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

    /// What only files can tell, for all living cgroups, and the root's values.
    fn sample_files(&mut self, now: Instant) {
        for index in 0..self.followed.len() {
            if !self.walks(index) {
                self.list(index, now);
            }
        }
        let by_files = self.origins.with(Source::Files).minus(Measurements::ONLY_IN_FILES);
        let beside_primary: Vec<Key> =
            self.store.living().map(|(key, _)| key).filter(|key| !self.store.is_in(*key, 0)).collect();
        self.files.sample(&mut self.store, by_files, &beside_primary, &mut self.skipped);
        self.origins.sampled(by_files, now);
    }

    /// What is read of a few cgroups in each round.
    fn sample_slowly(&mut self, now: Instant) {
        let Self { store, files, skipped, interfaces, .. } = self;
        let interval = self.config.slow_interval;
        files.slow_rows(store, now, interval, skipped);
        self.origins.sampled(Measurements::ONLY_IN_FILES, now);
        if self.config.kubelet_metrics {
            interfaces.sample(store, files, now, interval, skipped);
            if let Some(processes) = &mut self.processes {
                processes.sample(store, files, now, interval, skipped);
            }
        }
    }
}
