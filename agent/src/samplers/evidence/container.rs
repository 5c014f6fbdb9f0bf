//! Usage of one container.

use std::sync::Arc;

use snug_sizing::{
    cpu_quota::{QuotaWhatIf, TokenBuckets},
    evidence::{EarlierPeak, Evidence, Hour, HourRecord, OomKill, Peak, PodTotals, START_UP},
    histogram::ZERO_THRESHOLD,
    minutes::{Minute, Minutes},
    workload::{Container, Resources, Role, Workload, WorkloadKind},
};

use super::{
    MIN_LIFETIME_SECONDS,
    memory::ContainerMemory,
    pod, role_of,
    sample_clock::{SampleClock, SampleTime},
};
use crate::{
    identity::{Identity, Level},
    model::{AgentRule, WorkloadKey},
    store::Stamp,
    values::{Cpu, Distribution, MemoryStat, Pressure, Throttling, Values},
};

/// Maximum number of minutes counted at once, after a stall.
const MAX_MINUTES: u64 = 600;
/// An idle container is observed again after this many full rounds.
const MAX_IDLE_SECONDS: u64 = 4;
const MINUTE_NS: u64 = 60_000_000_000;

/// Usage of one container since it was last moved to the pending usage of its workload.
#[derive(Debug)]
pub(super) struct ContainerUsage {
    pub(super) identity: Arc<Identity>,
    created_unix: f64,
    /// CPU time in the last sample of the container, nanoseconds, and the time of the sample.
    pub(super) cpu: Option<(u64, SampleTime)>,
    pub(super) memory: ContainerMemory,
    throttling: Option<Throttling>,
    pressure: Option<Pressure>,
    memory_stat: Option<Arc<MemoryStat>>,
    runqueue: Option<Arc<Distribution>>,
    /// Whether the container was created while the agent ran.
    is_new: bool,
    ended: bool,
    limits: Resources,
    /// Observed time of the current minute of `record.minutes`, nanoseconds, and CPU time used in it.
    minute_ns: u64,
    minute_used_ns: u64,
    /// Observed time, nanoseconds, and CPU time used in it.
    observed_ns: u64,
    used_ns: u64,
    /// The same, as far as it is not in `minutes` yet.
    since_minute_ns: (u64, u64),
    minutes: Minutes,
    /// Idle windows, and their time in nanoseconds, that are not counted yet. Samples update only these fields of an idle
    /// container, ten times a second. Large fields are boxed so that containers stay small in the CPU caches.
    idle_windows: (u64, u64),
    /// Whether an idle window changes the state of `what_if`: simulated quotas still have delayed CPU time.
    what_if_is_active: bool,
    pub(super) record: Box<HourRecord>,
    /// CPU windows since the first observation, cores.
    pub(super) windows: Box<Distribution>,
    pub(super) has_new_windows: bool,
    /// Whether the container was observed since its values were last taken.
    pub(super) is_seen: bool,
    /// The store's stamp after the values were last taken.
    pub(super) seen: Stamp,
    /// The minute of the last observation, and full rounds since then in which the container was idle.
    minute: Minute,
    idle_seconds: u64,
    /// Quota simulation; `None` if windows are not as long as a CFS period.
    what_if: Option<Box<TokenBuckets>>,
    /// Results of the quota simulation that were already taken.
    what_if_taken: Option<Box<QuotaWhatIf>>,
}

impl ContainerUsage {
    /// `is_new`: the container was created while the agent ran. `is_period`: windows are as long as a CFS period.
    pub(super) fn new(
        identity: Arc<Identity>,
        created_unix: f64,
        is_new: bool,
        is_period: bool,
        memory_histograms: bool,
    ) -> Self {
        Self {
            identity,
            created_unix,
            cpu: None,
            memory: ContainerMemory::new(is_new, memory_histograms),
            throttling: None,
            pressure: is_new.then(Pressure::default),
            memory_stat: None,
            runqueue: None,
            is_new,
            ended: false,
            limits: Resources::default(),
            minute_ns: 0,
            minute_used_ns: 0,
            observed_ns: 0,
            used_ns: 0,
            since_minute_ns: (0, 0),
            minutes: Minutes::new(),
            idle_windows: (0, 0),
            what_if_is_active: false,
            windows: Box::new(Distribution::new(ZERO_THRESHOLD)),
            has_new_windows: false,
            is_seen: false,
            seen: 0,
            minute: Minute::default(),
            idle_seconds: 0,
            record: Box::new(HourRecord { starts: is_new.into(), ..HourRecord::default() }),
            what_if: is_period.then(Box::default),
            what_if_taken: None,
        }
    }

    /// A run of which only an OOM kill at a `limit` is known, bytes.
    pub(super) fn killed(identity: Arc<Identity>, at_unix: f64, limit: u64) -> Self {
        let mut container = Self::new(identity, at_unix, false, false, false);
        container.limits =
            container.identity.names.as_deref().map(|names| names.resources).unwrap_or_default();
        let pod = pod(&container.identity).to_owned();
        container.record.kills.push(OomKill { at: at_unix as u64, limit, pod });
        container
    }

    /// Whether the container is ignored: it has no name and is new. An OOM kill is never ignored.
    pub(super) fn is_unowned(&self, now_unix: f64) -> bool {
        let unnamed = self.identity.names.is_none() && self.identity.of_path.level == Level::Container;
        let is_short = now_unix - self.created_unix < MIN_LIFETIME_SECONDS;
        unnamed && is_short && self.record.kills.is_empty() && AgentRule::ShortUnnamedRuns.is_on()
    }

    /// The container has ended. An incomplete minute counts, too: the container may have lived less than one.
    pub(super) fn end(&mut self, now_unix: f64) {
        self.ended = true;
        if self.minute_ns > 0 {
            self.end_minute(self.in_start_up(now_unix));
        }
    }

    pub(super) fn in_start_up(&self, now_unix: f64) -> bool {
        now_unix - self.created_unix < START_UP as f64
    }

    /// Whether samples must include the container even if it is idle.
    pub(super) const fn needs_every_window(&self) -> bool {
        self.what_if_is_active
    }

    /// CPU time in a sample.
    pub(super) fn cpu(&mut self, cpu: Cpu, clock: SampleClock, now_unix: f64) {
        let Some(now) = clock.now else { return };
        if let Some(before) = clock.before {
            self.count_idle_until(before);
        }
        // The first sample of a new container covers its life so far; its CPU time is spread evenly over that time.
        let before = self.cpu.replace((cpu.usage_ns, now));
        let (used_ns, elapsed_ns) = match before {
            Some((usage_ns, then)) => (
                cpu.usage_ns.saturating_sub(usage_ns),
                now.at.saturating_duration_since(then.at).as_nanos() as f64,
            ),
            None if self.is_new => (cpu.usage_ns, (now_unix - self.created_unix).max(0.0) * 1e9),
            None => return,
        };
        if elapsed_ns <= 0.0 {
            return;
        }
        let windows = clock.windows_of(elapsed_ns);
        if used_ns == 0 && !self.needs_every_window() {
            self.add_idle_windows(windows, elapsed_ns as u64);
            return;
        }
        let cores = used_ns as f64 / elapsed_ns.max(clock.window_ns());
        if let Some(what_if) = &mut self.what_if {
            let (used, elapsed) = (used_ns as f64 / windows as f64, elapsed_ns / windows as f64);
            for _ in 0..windows {
                what_if.feed(used as u64, elapsed as u64);
            }
            self.what_if_is_active = what_if.is_active();
        }
        // Earlier idle windows first: they may complete a minute.
        self.count_idle_windows(now_unix);
        self.count_windows(cores, windows, now_unix);
        self.count_time(elapsed_ns as u64, used_ns, now_unix);
    }

    /// Counts idle windows up to a sample: the samples since the last one left the container out.
    pub(super) fn count_idle_until(&mut self, look: SampleTime) {
        if let Some((_, then)) = &mut self.cpu
            && let Some(elapsed) = look.at.checked_duration_since(then.at)
            && let Some(windows) = look.windows.checked_sub(then.windows).filter(|windows| *windows > 0)
        {
            *then = look;
            self.add_idle_windows(windows, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn add_idle_windows(&mut self, windows: u64, elapsed_ns: u64) {
        let (idle, idle_ns) = &mut self.idle_windows;
        *idle = idle.saturating_add(windows);
        *idle_ns = idle_ns.saturating_add(elapsed_ns);
    }

    fn count_time(&mut self, elapsed_ns: u64, used_ns: u64, now_unix: f64) {
        // The age in the middle of the time that is counted.
        let age = now_unix - self.created_unix - elapsed_ns as f64 / 2e9;
        if age < START_UP as f64 {
            self.record.by_age.add(age, elapsed_ns / 1000, used_ns / 1000);
        }
        let (since_minute_ns, of_which_used) = &mut self.since_minute_ns;
        for (sum, more) in [
            (&mut self.observed_ns, elapsed_ns),
            (since_minute_ns, elapsed_ns),
            (&mut self.minute_ns, elapsed_ns),
            (&mut self.used_ns, used_ns),
            (of_which_used, used_ns),
            (&mut self.minute_used_ns, used_ns),
        ] {
            *sum = sum.saturating_add(more);
        }
        if self.minute_ns >= MINUTE_NS {
            self.end_minute(self.in_start_up(now_unix));
        }
    }

    fn count_windows(&mut self, cores: f64, windows: u64, now_unix: f64) {
        let start_up = self.in_start_up(now_unix);
        let record = &mut self.record;
        let histogram = if start_up { &mut record.cpu_start } else { &mut record.cpu };
        histogram.record(cores, windows);
        self.windows.record(cores, windows);
        self.has_new_windows = true;
    }

    /// Counts the collected idle windows: in each observation, and before usage is taken.
    fn count_idle_windows(&mut self, now_unix: f64) {
        let (idle, idle_ns) = std::mem::take(&mut self.idle_windows);
        if idle > 0 {
            self.count_windows(0.0, idle, now_unix);
            self.count_time(idle_ns, 0, now_unix);
        }
    }

    /// Completes a minute of `record.minutes`. After a stall it counts as several minutes with the same usage.
    fn end_minute(&mut self, start_up: bool) {
        let (elapsed, used) = (std::mem::take(&mut self.minute_ns), std::mem::take(&mut self.minute_used_ns));
        let times = (elapsed + MINUTE_NS / 2) / MINUTE_NS;
        let record = &mut self.record;
        let minutes = if start_up { &mut record.minutes_start } else { &mut record.minutes };
        minutes.record(used as f64 / elapsed as f64, times.clamp(1, MAX_MINUTES));
    }

    /// Whether the container may be left out of this full round, because its values have not changed. Such seconds are counted
    /// later.
    pub(super) fn is_idle(&mut self, stamp: Stamp, minute: Minute) -> bool {
        let is_idle = stamp == self.seen && minute == self.minute && self.idle_seconds < MAX_IDLE_SECONDS;
        self.idle_seconds += u64::from(is_idle);
        is_idle
    }

    /// Counts the full rounds that left the idle container out.
    fn count_idle_seconds(&mut self) {
        let idle_seconds = std::mem::take(&mut self.idle_seconds);
        if let Some(working_set) =
            (idle_seconds > 0).then(|| self.memory.add_idle_seconds(idle_seconds)).flatten()
        {
            self.record.working_set.record(working_set as f64, idle_seconds);
        }
    }

    /// Observes the values of a full round. `peak`: highest memory usage since the last observation, if the kernel reports it.
    pub(super) fn observe(&mut self, values: &Values, peak: Option<u64>, now_unix: f64) {
        self.is_seen = true;
        self.count_idle_windows(now_unix);
        let minute = Minute::from_seconds(now_unix as u64);
        self.minute = minute;
        self.count_idle_seconds();
        self.count_minute(minute);
        if let Some(memory) = values.memory {
            self.limits.memory_limit = memory.limit_bytes;
        }
        if let Some(throttling) = values.throttling {
            self.limits.cpu_limit = throttling
                .quota_ns
                .filter(|_| throttling.period_ns > 0)
                .map(|quota| (quota as f64 * 1000.0 / throttling.period_ns as f64).round() as u64);
            if let Some(before) = self.throttling.replace(throttling) {
                let periods = throttling.periods.saturating_sub(before.periods);
                let throttled = throttling.throttled_periods.saturating_sub(before.throttled_periods);
                self.record.periods += periods;
                self.record.throttled += throttled;
                if periods > 0 {
                    let minute = self.minutes.entry(minute).or_default();
                    minute.periods += periods;
                    minute.throttled += throttled;
                }
            }
        }
        self.observe_memory(values, peak, now_unix);
        self.observe_stalls(values);
        self.observe_waits(values);
    }

    fn observe_stalls(&mut self, values: &Values) {
        let Some(pressure) = values.pressure else { return };
        let Some(before) = self.pressure.replace(pressure) else { return };
        let stalled = &mut self.record.stalled;
        // Each value is rounded before the subtraction, so that rounding errors do not add up.
        for (millis, now, before) in [
            (&mut stalled.cpu_millis, pressure.cpu, before.cpu),
            (&mut stalled.memory_millis, pressure.memory, before.memory),
            (&mut stalled.io_millis, pressure.io, before.io),
        ] {
            *millis += (now.some_ns / 1_000_000).saturating_sub(before.some_ns / 1_000_000);
        }
    }

    fn observe_waits(&mut self, values: &Values) {
        let Some(waits) = &values.runqueue else { return };
        if self.runqueue.as_ref().is_some_and(|before| Arc::ptr_eq(before, waits)) {
            return;
        }
        let before = self.runqueue.replace(Arc::clone(waits));
        let new = match before {
            Some(before) => waits.histogram.since(&before.histogram),
            None => Some(waits.histogram.clone()),
        };
        if let Some(new) = new {
            self.record.waits.merge(&new);
        }
    }

    /// Observes a new reading of memory.stat.
    fn observe_memory_stat(&mut self, values: &Values) {
        let Some(stat) = &values.memory_stat else { return };
        if self.memory_stat.as_ref().is_some_and(|before| Arc::ptr_eq(before, stat)) {
            return;
        }
        self.record.unreclaimable.record(self.memory.unreclaimable(stat) as f64, 1);
        let refaults = |stat: &MemoryStat| {
            stat.refaults_anon.unwrap_or(0).saturating_add(stat.refaults_file.unwrap_or(0))
        };
        let before = self.memory_stat.replace(Arc::clone(stat)).map(|before| refaults(&before));
        if let Some(before) = before.or(self.is_new.then_some(0)) {
            self.record.stalled.refaults += refaults(stat).saturating_sub(before);
        }
    }

    /// Adds the CPU time since the last call to a minute of `minutes`.
    fn count_minute(&mut self, minute: Minute) {
        let (observed_ns, used_ns) = &mut self.since_minute_ns;
        let observed_millis = *observed_ns / 1_000_000;
        if observed_millis == 0 {
            return;
        }
        // A remainder of less than a millisecond stays for the next call.
        let cpu_millis = *used_ns / 1_000_000;
        *observed_ns -= observed_millis * 1_000_000;
        *used_ns -= cpu_millis * 1_000_000;
        let record = self.minutes.entry(minute).or_default();
        record.observed_millis += observed_millis;
        record.cpu_millis += cpu_millis;
    }

    fn observe_memory(&mut self, values: &Values, peak: Option<u64>, now_unix: f64) {
        self.observe_memory_stat(values);
        let start_up = self.in_start_up(now_unix);
        let Some(second) = self.memory.second(values, peak, now_unix, !start_up) else { return };
        let bytes = second.highest;
        if let Some(working_set) = second.working_set {
            self.record.working_set.record(working_set as f64, 1);
        }
        let minute = self.minutes.entry(Minute::from_seconds(now_unix as u64)).or_default();
        minute.memory_peak = minute.memory_peak.max(bytes);
        let highest = if start_up { &mut self.record.start_peak } else { &mut self.record.peak };
        if highest.as_ref().is_none_or(|peak| peak.bytes < bytes) {
            *highest = Some(Peak { bytes, at: now_unix as u64, pod: pod(&self.identity).to_owned() });
        }
    }

    /// Takes the collected usage, as usage history of the container's workload.
    pub(super) fn take(
        &mut self,
        key: &WorkloadKey,
        hour: Hour,
        window_millis: u64,
        lives: bool,
        now_unix: f64,
    ) -> Evidence {
        self.count_idle_windows(now_unix);
        self.count_idle_seconds();
        self.count_minute(Minute::from_seconds(now_unix as u64));
        let names = self.identity.names.as_deref();
        let (namespace, owner, name, container) = key.parts();
        let workload = Workload {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            owner: owner.to_owned(),
            kind: WorkloadKind::from_owner(owner),
            replicas: lives.into(),
        };
        let mut container = Container {
            name: container.to_owned(),
            role: names.and_then(|names| names.kind).map_or(Role::App, role_of),
            seen: now_unix as u64,
            current: self.current_resources(),
            ..Container::default()
        };
        if let Some(spec) = names.map(|names| &*names.spec) {
            container.pod_resources = spec.pod_resources;
            container.image.clone_from(&spec.image);
            container.settings.clone_from(&spec.settings);
            container.memory_volumes = spec.memory_volumes;
            container.hugepages = spec.hugepages;
        }
        let mut evidence = Evidence::new(workload, container, window_millis);
        // A remainder of less than a second stays for the next call. There is none after the end: then a run counts at least a second.
        let is_whole = self.ended && AgentRule::ShortRuns.is_on();
        let whole = |ns: u64| if is_whole { ns.div_ceil(1_000_000_000) } else { ns / 1_000_000_000 };
        let observed = whole(self.observed_ns);
        if observed == 0 && *self.record == HourRecord::default() {
            return evidence;
        }
        self.observed_ns = self.observed_ns.saturating_sub(observed * 1_000_000_000);
        let cpu_millis = self.used_ns / 1_000_000;
        self.used_ns -= cpu_millis * 1_000_000;
        let mut record = std::mem::take(&mut *self.record);
        record.observed = observed;
        record.quota_what_if = self.what_if.as_mut().and_then(|what_if| what_if.take());
        self.what_if_taken = sum(self.what_if_taken.take(), record.quota_what_if.clone());
        // The name of the pod may be newer than the record.
        let pod = pod(&self.identity);
        record.kills.iter_mut().for_each(|kill| pod.clone_into(&mut kill.pod));
        record.kills.sort();
        for peak in record.peak.iter_mut().chain(&mut record.start_peak) {
            pod.clone_into(&mut peak.pod);
        }
        let peak = record.highest().map_or(0, |peak| peak.bytes);
        let totals = PodTotals { observed, cpu_millis, peak, node_class: String::new() };
        evidence.pods.insert(pod.to_owned(), totals);
        if !evidence.container.image.is_empty() {
            let first_seen = if AgentRule::ImageAge.is_on() { self.created_unix } else { now_unix };
            evidence.images.insert(evidence.container.image.clone(), first_seen as u64);
        }
        evidence.hours.insert(hour, record);
        evidence.minutes = std::mem::take(&mut self.minutes);
        let earlier_peak = self.memory.take_earlier_peak();
        evidence.earlier_peak =
            earlier_peak.map(|(bytes, at)| EarlierPeak { bytes, at, pod: pod.to_owned() });
        evidence
    }

    /// Results of the quota simulation since the first observation.
    pub(super) fn quota_what_if(&self) -> Option<QuotaWhatIf> {
        let counted = self.what_if.as_ref().and_then(|what_if| what_if.counted());
        sum(self.what_if_taken.clone(), counted).map(|what_if| *what_if)
    }

    /// Current requests and limits: requests from the pod's spec, limits from the kernel. In a pod with requests and limits of its
    /// own all are from the spec, because there the cgroup of a container without a limit has the pod's.
    fn current_resources(&self) -> Resources {
        let names = self.identity.names.as_deref();
        let of_pod = names.map(|names| names.resources).unwrap_or_default();
        let has_pod_resources = names.is_some_and(|names| names.spec.pod_resources.is_some());
        if has_pod_resources && AgentRule::PodResources.is_on() {
            return of_pod;
        }
        Resources { cpu_limit: self.limits.cpu_limit, memory_limit: self.limits.memory_limit, ..of_pod }
    }
}

/// The sum of two results of the quota simulation.
fn sum(mine: Option<Box<QuotaWhatIf>>, more: Option<QuotaWhatIf>) -> Option<Box<QuotaWhatIf>> {
    match (mine, more) {
        (Some(mut mine), Some(more)) => {
            mine.merge(&more);
            Some(mine)
        }
        (mine, more) => mine.or_else(|| more.map(Box::new)),
    }
}
