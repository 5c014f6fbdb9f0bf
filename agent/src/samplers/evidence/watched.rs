//! What is gathered of one container.

use std::sync::Arc;

use snug_sizing::{
    evidence::{Evidence, Hour, HourRecord, Peak, PodTotals, START_UP},
    histogram::ZERO_THRESHOLD,
    ladder::{Buckets, Ladder},
    minutes::{Minute, Minutes},
    workload::{Container, Kind, Resources, Role, Workload},
};

use super::{
    LEAST_LIFE,
    looks::{Look, Looks},
    memory::MemoryWatch,
    pod, role_of,
};
use crate::{
    identity::{Identity, Level},
    model::WorkloadKey,
    store::Stamp,
    values::{Cpu, Distribution, MemoryStat, Pressure, Throttling, Values},
};

/// After a longer stall it is counted as so many minutes and no more.
const MOST_MINUTES: u64 = 600;
/// Seconds in which one at rest is passed over before it is observed again.
const LONGEST_REST: u64 = 4;
const MINUTE_NS: u64 = 60_000_000_000;

/// What is gathered of one container since the last hand-over.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) identity: Arc<Identity>,
    created_unix: f64,
    /// CPU time when last seen, and the look that saw it.
    pub(super) cpu: Option<(u64, Look)>,
    pub(super) memory: MemoryWatch,
    throttling: Option<Throttling>,
    pressure: Option<Pressure>,
    memory_stat: Option<Arc<MemoryStat>>,
    runqueue: Option<Arc<Distribution>>,
    /// Whether it appeared while the agent ran.
    is_new: bool,
    limits: Resources,
    /// Nanoseconds of the minute that has begun, and CPU time used in them.
    pub(super) minute_ns: u64,
    minute_used_ns: u64,
    /// Nanoseconds watched, and CPU time used in them.
    observed_ns: u64,
    used_ns: u64,
    /// The same of what no minute of `minutes` has yet.
    since_minute_ns: (u64, u64),
    minutes: Minutes,
    /// Idle windows and their nanoseconds that are not counted yet: ten times a second for each container, the less is touched the
    /// better. For the same reason what is large lies elsewhere.
    idle: (u64, u64),
    /// Whether an idle window would change `ladder`.
    ladder_is_active: bool,
    pub(super) record: Box<HourRecord>,
    /// CPU windows since it was first seen, and whether there are new ones.
    pub(super) windows: Box<Distribution>,
    pub(super) has_new_windows: bool,
    /// Whether it was seen since what is shown of it was last taken.
    pub(super) is_seen: bool,
    /// The stamp in the store that it had then.
    pub(super) seen: Stamp,
    /// The minute of the last second, and seconds since then in which nothing of it had changed.
    minute: Minute,
    rested: u64,
    /// Of what quotas would have done; `None` where windows are not as long as a CFS period.
    ladder: Option<Box<Buckets>>,
    /// What was taken of it so far.
    ladder_taken: Option<Box<Ladder>>,
}

impl Watched {
    /// `is_new`: made while the agent ran. `is_period`: windows are as long as a CFS period.
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
            memory: MemoryWatch::new(is_new, memory_histograms),
            throttling: None,
            pressure: is_new.then(Pressure::default),
            memory_stat: None,
            runqueue: None,
            is_new,
            limits: Resources::default(),
            minute_ns: 0,
            minute_used_ns: 0,
            observed_ns: 0,
            used_ns: 0,
            since_minute_ns: (0, 0),
            minutes: Minutes::new(),
            idle: (0, 0),
            ladder_is_active: false,
            windows: Box::new(Distribution::new(ZERO_THRESHOLD)),
            has_new_windows: false,
            is_seen: false,
            seen: 0,
            minute: Minute::default(),
            rested: 0,
            record: Box::new(HourRecord { starts: is_new.into(), ..HourRecord::default() }),
            ladder: is_period.then(Box::default),
            ladder_taken: None,
        }
    }

    pub(super) fn is_nobodys(&self, now_unix: f64) -> bool {
        let unnamed = self.identity.names.is_none() && self.identity.of_path.level == Level::Container;
        unnamed && now_unix - self.created_unix < LEAST_LIFE
    }

    pub(super) fn in_start_up(&self, now_unix: f64) -> bool {
        now_unix - self.created_unix < START_UP as f64
    }

    /// Whether it may be passed over as long as it uses nothing.
    pub(super) const fn may_rest(&self) -> bool {
        !self.ladder_is_active
    }

    /// CPU time at a look.
    pub(super) fn cpu(&mut self, cpu: Cpu, looks: Looks, now_unix: f64) {
        let Some(now) = looks.now else { return };
        if let Some(before) = looks.before {
            self.rest_until(before);
        }
        // Of a container that appeared while the agent ran, all is its own: what it did before it was seen is spread over that time.
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
        let windows = looks.windows_of(elapsed_ns);
        if used_ns == 0 && self.may_rest() {
            self.rest(windows, elapsed_ns as u64);
            return;
        }
        let cores = used_ns as f64 / elapsed_ns.max(looks.window_ns());
        if let Some(ladder) = &mut self.ladder {
            let (used, elapsed) = (used_ns as f64 / windows as f64, elapsed_ns / windows as f64);
            for _ in 0..windows {
                ladder.feed(used as u64, elapsed as u64);
            }
            self.ladder_is_active = ladder.is_active();
        }
        // What lies before it comes first: minutes end where they ended.
        self.count_idle_windows(now_unix);
        self.count_windows(cores, windows, now_unix);
        self.count_time(elapsed_ns as u64, used_ns, now_unix);
    }

    /// It was passed over at all looks up to this one, because it had used nothing.
    pub(super) fn rest_until(&mut self, look: Look) {
        if let Some((_, then)) = &mut self.cpu
            && let Some(elapsed) = look.at.checked_duration_since(then.at)
            && let Some(windows) = look.windows.checked_sub(then.windows).filter(|windows| *windows > 0)
        {
            *then = look;
            self.rest(windows, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn rest(&mut self, windows: u64, elapsed_ns: u64) {
        let (idle, idle_ns) = &mut self.idle;
        *idle = idle.saturating_add(windows);
        *idle_ns = idle_ns.saturating_add(elapsed_ns);
    }

    fn count_time(&mut self, elapsed_ns: u64, used_ns: u64, now_unix: f64) {
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

    /// What is counted once a second, and before anything is taken away.
    fn count_idle_windows(&mut self, now_unix: f64) {
        let (idle, idle_ns) = std::mem::take(&mut self.idle);
        if idle > 0 {
            self.count_windows(0.0, idle, now_unix);
            self.count_time(idle_ns, 0, now_unix);
        }
    }

    /// What was used since the last minute ended is one more; after a stall it is as many as it was long.
    pub(super) fn end_minute(&mut self, start_up: bool) {
        let (elapsed, used) = (std::mem::take(&mut self.minute_ns), std::mem::take(&mut self.minute_used_ns));
        let times = (elapsed + MINUTE_NS / 2) / MINUTE_NS;
        let record = &mut self.record;
        let minutes = if start_up { &mut record.minutes_start } else { &mut record.minutes };
        minutes.record(used as f64 / elapsed as f64, times.clamp(1, MOST_MINUTES));
    }

    /// Once a second: whether it may be passed over, because nothing of it has changed. What such seconds say is counted later.
    pub(super) fn rests(&mut self, stamp: Stamp, minute: Minute) -> bool {
        let rests = stamp == self.seen && minute == self.minute && self.rested < LONGEST_REST;
        self.rested += u64::from(rests);
        rests
    }

    /// Counts the seconds that were passed over.
    fn count_rested(&mut self) {
        let rested = std::mem::take(&mut self.rested);
        if let Some(working_set) = (rested > 0).then(|| self.memory.rest(rested)).flatten() {
            self.record.working_set.record(working_set as f64, rested);
        }
    }

    /// Once a second, or later after seconds at rest. `peak`: the kernel's own highest memory usage since the last time, where it says it.
    pub(super) fn observe(&mut self, values: &Values, peak: Option<u64>, now_unix: f64) {
        self.is_seen = true;
        self.count_idle_windows(now_unix);
        let minute = Minute::of(now_unix as u64);
        self.minute = minute;
        self.count_rested();
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
        // Differences of whole milliseconds lose none of them.
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

    /// What is read of memory.stat, each time that it is.
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

    /// CPU time of the last second goes to the minute that has begun.
    fn count_minute(&mut self, minute: Minute) {
        let (observed_ns, used_ns) = &mut self.since_minute_ns;
        let observed_millis = *observed_ns / 1_000_000;
        if observed_millis == 0 {
            return;
        }
        // What is less than a millisecond stays for the next time.
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
        self.record.working_set.record(second.working_set as f64, 1);
        let minute = self.minutes.entry(Minute::of(now_unix as u64)).or_default();
        minute.memory_peak = minute.memory_peak.max(bytes);
        let highest = if start_up { &mut self.record.start_peak } else { &mut self.record.peak };
        if highest.as_ref().is_none_or(|peak| peak.bytes < bytes) {
            *highest = Some(Peak { bytes, at: now_unix as u64, pod: pod(&self.identity).to_owned() });
        }
    }

    /// What was gathered, as evidence of its workload; nothing of it is left.
    pub(super) fn take(
        &mut self,
        key: &WorkloadKey,
        hour: Hour,
        window_millis: u64,
        lives: bool,
        now_unix: f64,
    ) -> Evidence {
        self.count_idle_windows(now_unix);
        self.count_rested();
        self.count_minute(Minute::of(now_unix as u64));
        let names = self.identity.names.as_deref();
        let (namespace, owner, name, container) = key.parts();
        let workload = Workload {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            owner: owner.to_owned(),
            kind: Kind::of_owner(owner),
            replicas: lives.into(),
        };
        let container = Container {
            name: container.to_owned(),
            role: names.and_then(|names| names.kind).map_or(Role::App, role_of),
            seen: now_unix as u64,
            in_force: self.in_force(),
        };
        let mut evidence = Evidence::new(workload, container, window_millis);
        // What is less than a second stays for the next time.
        let observed = self.observed_ns / 1_000_000_000;
        if observed == 0 && *self.record == HourRecord::default() {
            return evidence;
        }
        self.observed_ns -= observed * 1_000_000_000;
        let cpu_millis = self.used_ns / 1_000_000;
        self.used_ns -= cpu_millis * 1_000_000;
        let mut record = std::mem::take(&mut *self.record);
        record.observed = observed;
        record.ladder = self.ladder.as_mut().and_then(|ladder| ladder.take());
        self.ladder_taken = sum(self.ladder_taken.take(), record.ladder.clone());
        record.kills.sort();
        let peak = record.highest().map_or(0, |peak| peak.bytes);
        let totals = PodTotals { observed, cpu_millis, peak, node_class: String::new() };
        evidence.pods.insert(pod(&self.identity).to_owned(), totals);
        evidence.hours.insert(hour, record);
        evidence.minutes = std::mem::take(&mut self.minutes);
        evidence
    }

    /// What each quota would have done since it was first seen.
    pub(super) fn ladder(&self) -> Option<Ladder> {
        let counted = self.ladder.as_ref().and_then(|ladder| ladder.counted());
        sum(self.ladder_taken.clone(), counted).map(|ladder| *ladder)
    }

    /// Requests are what the pod says; limits are what the kernel enforces.
    fn in_force(&self) -> Resources {
        let of_pod = self.identity.names.as_ref().map(|names| names.resources).unwrap_or_default();
        Resources { cpu_limit: self.limits.cpu_limit, memory_limit: self.limits.memory_limit, ..of_pod }
    }
}

/// Both have all quotas, or nothing.
fn sum(mine: Option<Box<Ladder>>, more: Option<Ladder>) -> Option<Box<Ladder>> {
    match (mine, more) {
        (Some(mut mine), Some(more)) => {
            mine.merge(&more);
            Some(mine)
        }
        (mine, more) => mine.or_else(|| more.map(Box::new)),
    }
}
