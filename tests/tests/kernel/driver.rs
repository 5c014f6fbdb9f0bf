//! Samplers under the test's control, and access to published values and cgroup files.

use std::{
    env,
    ffi::OsString,
    io,
    os::unix::net::UnixStream,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use snug_agent::{
    cgroupfs::{Measurements, reader::CgroupReader},
    config::{self, Config, Request},
    history::Sink,
    model::{
        CgroupRow, OomKill, SourceRow, TerminatedContainer, TerminationReason, Verdict, View, WorkloadRow,
    },
    samplers::Sampler,
    values::{Measurement, Stall, Values},
    views::CurrentView,
};
use snug_ebpf::abi::offsets::Offsets;
use snug_tests::{
    cannot_run,
    cgroup::{Cgroup, Host},
    required,
    worker::{Job, Worker},
};

/// The host, if kernel tests can run here.
pub(crate) fn host() -> Option<Host> {
    required(Host::find())
}

/// Whether the machine is for the tests only: a virtual one.
pub(crate) fn own_machine() -> bool {
    env::var_os("SNUG_TEST_OWN_MACHINE").is_some()
}

/// A configuration from command-line options.
pub(crate) fn configured(options: &[&str]) -> Config {
    let line = ["snug-agent"].iter().chain(options).map(OsString::from);
    let request = config::load(line, [], |_| Err(io::ErrorKind::NotFound.into())).unwrap();
    let Request::Run(loaded) = request else { panic!("{options:?} do not run") };
    loaded.config
}

/// A sampler whose rounds the test starts. Every round is a full one, unless the test sets `--working-set-interval`.
pub(crate) struct Driver {
    pub(crate) sampler: Sampler,
    views: Arc<CurrentView>,
}

impl Driver {
    /// With `--source kernel`: eBPF without verification.
    pub(crate) fn kernel(options: &[&str]) -> Option<Self> {
        Self::start(&[&["--source", "kernel"], options].concat(), None)
    }

    /// With these options. `None` if they need the eBPF programs and these do not run here.
    pub(crate) fn start(options: &[&str], adjust_offsets: Option<fn(&mut Offsets)>) -> Option<Self> {
        let mut driver = Self::new(options, adjust_offsets);
        let first = driver.round();
        (options.contains(&"files") || programs_run(&first)).then_some(driver)
    }

    /// With these options, whatever does not run here.
    pub(crate) fn as_far_as_supported(options: &[&str]) -> Self {
        Self::new(options, None)
    }

    fn new(options: &[&str], adjust_offsets: Option<fn(&mut Offsets)>) -> Self {
        let mut config = configured(options);
        if !options.contains(&"--working-set-interval") {
            config.working_set_interval = Duration::ZERO;
        }
        let views = Arc::new(CurrentView::default());
        let sampler = Sampler::start_with(config, Arc::clone(&views), adjust_offsets).unwrap();
        Self { sampler, views }
    }

    /// Collects usage history from now on.
    pub(crate) fn with_history(self, sink: Sink) -> Self {
        Self { sampler: self.sampler.with_history(sink), ..self }
    }

    /// One more round, then stops the sampler, which hands all usage to the history.
    pub(crate) fn end(self) {
        let (_, stopped) = UnixStream::pair().unwrap();
        self.sampler.run(&stopped).unwrap();
    }

    /// Runs a round and returns the view after it.
    pub(crate) fn round(&mut self) -> Arc<View> {
        self.round_at(Instant::now())
    }

    /// As [`Self::round`], at another time of the sampler.
    pub(crate) fn round_at(&mut self, now: Instant) -> Arc<View> {
        self.sampler.round(now);
        self.sampler.publish_now();
        self.views.last().unwrap()
    }

    /// The view for a reader that requests a newer one.
    pub(crate) fn for_reader(&mut self) -> Arc<View> {
        self.sampler.publish_for_reader();
        self.views.last().unwrap()
    }

    /// Has the kernel kill the only process of a container for its memory, removes the container, and returns its final record and
    /// the kill, with the view that has them.
    pub(crate) fn oom_kill(
        &mut self,
        cgroup: &Cgroup,
        init: &mut Worker,
    ) -> (Arc<View>, Arc<TerminatedContainer>, OomKill) {
        assert_eq!(init.run(&Job::Touch { bytes: 64 << 20 }), None, "it should have been killed");
        init.kill();
        cgroup.remove();
        self.round();
        let published = self.round();
        let end = end_of(&published, cgroup.path()).unwrap();
        let kill = end.last_oom_kill.clone().unwrap();
        (published, end, kill)
    }

    /// Values of the files, and published values, of a cgroup in a round during which the files did not change.
    pub(crate) fn quiet(
        &mut self,
        reader: &mut CgroupReader,
        path: &str,
        which: Measurements,
    ) -> (Values, Values) {
        for _ in 0..200 {
            let before = reader.read(path, which).unwrap();
            assert!(before.problems.is_empty(), "{:?}", before.problems);
            let published = self.round();
            let after = reader.read(path, which).unwrap();
            if before.values == after.values {
                let row = row_of(&published, path).unwrap_or_else(|| panic!("{path} is not published"));
                return (before.values, row.values.clone());
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the files of {path} keep changing");
    }
}

/// A sampler in a thread of its own, as in the agent.
pub(crate) struct Running {
    views: Arc<CurrentView>,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        Self::start_with(options, |sampler| sampler)
    }

    /// As [`Self::start`], and collects usage history.
    pub(crate) fn with_history(options: &[&str], sink: Sink) -> Option<Self> {
        Self::start_with(options, |sampler| sampler.with_history(sink))
    }

    fn start_with(options: &[&str], change: impl FnOnce(Sampler) -> Sampler) -> Option<Self> {
        let views = Arc::new(CurrentView::default());
        let sampler = change(Sampler::start(configured(options), Arc::clone(&views)).unwrap());
        let (stop, stopped) = UnixStream::pair().unwrap();
        let thread = Some(thread::spawn(move || sampler.run(&stopped)));
        let running = Self { views, stop: Some(stop), thread };
        programs_run(&running.published()).then_some(running)
    }

    /// The current view.
    pub(crate) fn published(&self) -> Arc<View> {
        snug_tests::wait::until("the first view", Duration::from_secs(20), || self.views.last())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Ok(result)) = self.thread.take().map(JoinHandle::join) {
            result.unwrap();
        }
    }
}

/// Whether all eBPF programs run; if not, prints why.
fn programs_run(published: &View) -> bool {
    for program in &published.agent.programs {
        if program.verdict != Verdict::Running {
            cannot_run(&format!("{}: {}", program.name, program.verdict.reason()));
            return false;
        }
    }
    !published.agent.programs.is_empty()
}

pub(crate) fn row_of<'a>(published: &'a View, path: &str) -> Option<&'a CgroupRow> {
    published.cgroups.iter().find(|row| &*row.identity.path == path)
}

/// The row's values.
pub(crate) fn values_of(published: &View, path: &str) -> Values {
    row_of(published, path).unwrap_or_else(|| panic!("{path} is not published")).values.clone()
}

pub(crate) fn below<'a>(published: &'a View, path: &str) -> Vec<&'a CgroupRow> {
    let prefix = format!("{path}/");
    published.cgroups.iter().filter(|row| row.identity.path.starts_with(&prefix)).collect()
}

/// The workload of cgroups without a container id below the top-level cgroup `path`.
pub(crate) fn workload_of(published: &View, path: &str) -> WorkloadRow {
    let name = path.split('/').nth(1).unwrap();
    published
        .workloads
        .iter()
        .find(|row| &*row.workload_kind == "Cgroup" && &*row.workload == name)
        .cloned()
        .unwrap_or_default()
}

/// Terminations of a workload's init processes by reason and exit code.
pub(crate) fn terminations(workload: &WorkloadRow) -> Vec<(TerminationReason, Option<u8>, u64)> {
    workload.terminations.iter().collect()
}

/// The final record of the cgroup at a path.
pub(crate) fn end_of(published: &View, path: &str) -> Option<Arc<TerminatedContainer>> {
    published.terminated.iter().find(|end| &*end.identity.path == path).cloned()
}

pub(crate) fn source_of(published: &View, measurement: Measurement) -> SourceRow {
    let mut rows = published.agent.sources.iter();
    rows.find(|row| row.measurement == measurement).unwrap().clone()
}

/// Number of lost events of a kind.
pub(crate) fn lost(published: &View, kind: &str) -> u64 {
    published.agent.lost_events.iter().find(|(name, _)| *name == kind).unwrap().1
}

pub(crate) fn skipped(published: &View, what: &str) -> u64 {
    published.agent.skipped.iter().find(|(kind, _)| *kind == what).map_or(0, |(_, count)| *count)
}

/// Reduces values to those that eBPF and the files of both cgroup versions have: nanoseconds are rounded to the microseconds
/// of the files, and memory events that v1 has in no file are left out.
pub(crate) fn comparable(mut values: Values, unified: bool) -> Values {
    let round = |ns: &mut u64| *ns -= *ns % 1_000;
    if let Some(cpu) = &mut values.cpu {
        round(&mut cpu.usage_ns);
    }
    if let Some(throttling) = &mut values.throttling {
        round(&mut throttling.throttled_ns);
        round(&mut throttling.burst_ns);
    }
    if let Some(pressure) = &mut values.pressure {
        for Stall { some_ns, full_ns } in [&mut pressure.cpu, &mut pressure.memory, &mut pressure.io] {
            round(some_ns);
            round(full_ns);
        }
    }
    if let Some(events) = values.memory_events.as_mut().filter(|_| !unified) {
        (events.low, events.high, events.oom) = (0, 0, 0);
    }
    // Only eBPF has these.
    (values.network, values.tcp) = (None, None);
    // Always from files, and read less often.
    (values.cpu_split, values.memory_stat, values.io, values.spec) = (None, None, None, None);
    values
}

/// All measurements that the eBPF programs have.
pub(crate) const FAST: Measurements = Measurements::ALL.minus(Measurements::ONLY_IN_FILES);
