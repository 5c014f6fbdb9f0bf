//! The usage history behind one recommendation, as what people look at: distributions, peaks over time, simulated limits, and
//! values at other risks.

use std::collections::BTreeMap;

use serde::Serialize;
use snug_sizing::{
    engine::{self, Context, Policy, Pools, Profile, Reason, cpu, memory::PeakHistory, oom},
    evidence::{Evidence, HOUR, HourRecord, Peak, Stalled},
    histogram::Histogram,
    simulate::{self, CurrentLimit, Throttled},
    workload::{QosClass, Resources},
};

use super::report::{Entry, Report};
use crate::{evidence::Snapshot, policy::Policies};

/// Bounds are at so many times the asked risk, and at its part.
const BOUND: f64 = 4.0;
/// Usage below it is one row of a distribution, cores.
const SMALLEST: f64 = 1.0 / 1024.0;

/// What is known of the past of one container.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Detail {
    /// Pods in the history.
    pub pods: usize,
    /// Share of the hours from the first to the last that were observed, 0..=1.
    pub coverage: f64,
    /// Weekdays with an observed hour, of 7.
    pub weekdays: u32,
    /// `None` without CPU usage.
    pub cpu: Option<CpuDetail>,
    /// What the current CPU limit did in the last day; `None` without a limit or its counters.
    pub current_limit: Option<CurrentLimit>,
    /// Throttling by simulated CPU limits; empty without a quota simulation.
    pub quotas: Vec<Throttled>,
    /// `None` without memory usage.
    pub memory: Option<MemoryDetail>,
    /// OOM kills in order of time.
    pub oom_kills: Vec<KillDetail>,
    /// Containers started.
    pub started: u64,
    /// Starts of containers by hour.
    pub starts: Vec<Counted>,
    /// Terminations by exit code.
    pub exits: BTreeMap<u8, u64>,
    pub contention: Contention,
    /// What past recommendations would have delivered; empty where nothing was judged.
    pub calibration: Vec<Reason>,
}

/// CPU usage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct CpuDetail {
    /// Length of a window, milliseconds.
    pub window_millis: u64,
    /// Number of windows.
    pub windows: u64,
    /// Whether all usage is from the first hour of pods.
    pub is_start_up: bool,
    /// Shares of windows by powers of two, ascending and without gaps.
    pub distribution: Vec<CpuShare>,
    /// Usage in cores that these shares of windows do not exceed.
    pub quantiles: Vec<Quantile>,
    /// How often usage exceeded the current and the recommended request.
    pub requests: Vec<RequestDetail>,
}

/// A share of the windows of CPU usage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct CpuShare {
    /// Cores. Usage is above the bound of the row before.
    pub up_to: f64,
    /// 0..=1.
    pub share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Quantile {
    /// 0..=1.
    pub share: f64,
    pub cores: f64,
}

/// How often usage exceeded a CPU request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct RequestDetail {
    /// Whether it is the recommended one; else the current one.
    pub is_recommended: bool,
    #[serde(flatten)]
    pub outcome: simulate::CpuRequest,
}

/// Memory usage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct MemoryDetail {
    /// The highest usage.
    pub highest: Peak,
    /// The usage that decided: the highest one, or a more recent one, because older peaks weigh less.
    pub basis: Peak,
    /// The usage that the limit is based on, bytes: older peaks weigh less.
    pub counted: f64,
    /// The recommended limit above that usage, as a share of it; `None` without a recommended limit.
    pub headroom: Option<f64>,
    /// The highest usage of each hour, in order of time.
    pub peaks: Vec<PeakDetail>,
    /// Limits at other risks.
    pub profiles: Vec<ProfileDetail>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct PeakDetail {
    /// Beginning of the hour, seconds since the Unix epoch.
    pub at: u64,
    pub bytes: u64,
}

/// The values for one of the risk profiles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct ProfileDetail {
    pub profile: Profile,
    /// Asked OOM kills per pod-day.
    pub oom_kills: f64,
    /// Asked share of CPU time above the request.
    pub cpu_work: f64,
    pub values: Resources,
}

/// An OOM kill.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct KillDetail {
    /// Seconds since the Unix epoch.
    pub at: u64,
    /// The limit that was hit, bytes; `None` if it is not known.
    pub limit: Option<u64>,
    pub pod: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Counted {
    /// Beginning of the hour, seconds since the Unix epoch.
    pub at: u64,
    pub count: u64,
}

/// Waits, stalls and unreclaimable memory, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Contention {
    /// Waits of tasks for a CPU.
    pub waits: u64,
    /// 99 % of waits are up to it, seconds.
    pub waits_p99: Option<f64>,
    pub waits_max: Option<f64>,
    /// Share of the time in which some task was stalled (PSI), 0..=1.
    pub stalled_cpu: f64,
    pub stalled_memory: f64,
    pub stalled_io: f64,
    /// Pages that were needed again soon after reclaim.
    pub refaults: u64,
    /// Unreclaimable memory that half of the time is not exceeded, bytes.
    pub unreclaimable_p50: Option<f64>,
    pub unreclaimable_max: Option<f64>,
}

/// Finds the usage history behind recommendations.
pub struct Details<'s> {
    pools: &'s Pools,
    policies: &'s Policies,
    by_subject: BTreeMap<[&'s str; 4], (&'s Evidence, Option<QosClass>)>,
}

impl<'s> Details<'s> {
    pub fn new(snapshot: &'s Snapshot, pools: &'s Pools, policies: &'s Policies) -> Self {
        let by_subject = snapshot.with_qos().into_iter().map(|(evidence, qos)| {
            let workload = &evidence.workload;
            let names = [&workload.namespace, &workload.owner, &workload.name, &evidence.container.name];
            (names.map(String::as_str), (evidence, qos))
        });
        Self { pools, policies, by_subject: by_subject.collect() }
    }

    /// The evidence of a recommendation.
    pub fn evidence(&self, entry: &Entry) -> Option<&'s Evidence> {
        self.by_subject.get(&entry.subject()).map(|(evidence, _)| *evidence)
    }

    /// The values of a container at multiples of its asked risk.
    fn at_risks(&self, entry: &Entry, times: [f64; 2]) -> Option<[Resources; 2]> {
        let (evidence, qos) = self.by_subject.get(&entry.subject())?;
        let policy = self.policies.for_container(evidence)?;
        let context = Context { pool: self.pools.of(evidence), qos: *qos, previous: None };
        let values = |times: f64| {
            let policy = Policy { risk: policy.risk.times(times), ..policy.clone() };
            engine::recommend(evidence, &policy, context).ok().map(|it| it.values)
        };
        let [loose, strict] = times.map(values);
        Some([loose?, strict?])
    }

    /// The history behind a recommendation; `None` if there is none.
    pub fn of(&self, entry: &Entry) -> Option<Detail> {
        let (evidence, qos) = self.by_subject.get(&entry.subject())?;
        let policy = self.policies.for_container(evidence)?;
        let context = Context { pool: self.pools.of(evidence), qos: *qos, previous: None };
        Some(Detail::new(evidence, entry, &policy, context))
    }
}

impl Report {
    /// Adds the values at four times and at a quarter of the asked risk.
    pub(super) fn bound(&mut self, details: &Details<'_>) {
        for entry in &mut self.recommendations {
            entry.bounds = details.at_risks(entry, [BOUND, 1.0 / BOUND]);
        }
    }

    /// Groups rows by the value of a label that most of their pods have.
    pub(super) fn group(
        &mut self,
        label: &str,
        details: &Details<'_>,
        values: &BTreeMap<(String, String), String>,
    ) {
        self.group_by = Some(label.to_owned());
        for entry in &mut self.recommendations {
            let pods = details.evidence(entry).into_iter().flat_map(|evidence| evidence.pods.keys());
            let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
            for pod in pods {
                if let Some(value) = values.get(&(entry.namespace.clone(), pod.clone())) {
                    *counted.entry(value).or_default() += 1;
                }
            }
            let most = counted.into_iter().max_by_key(|(value, count)| (*count, std::cmp::Reverse(*value)));
            entry.group = Some(most.map(|(value, _)| value.to_owned()).unwrap_or_default());
        }
    }

    /// The risks of all recommendations whose values were changed after they were made.
    pub(super) fn expect(&mut self, details: &Details<'_>) {
        for entry in &mut self.recommendations {
            if let Some(evidence) = details.evidence(entry) {
                entry.expect(evidence, &details.pools.of(evidence).cpu.lent);
            }
        }
    }
}

impl Detail {
    fn new(evidence: &Evidence, entry: &Entry, policy: &Policy, context: Context) -> Self {
        let mut sum = HourRecord::default();
        evidence.hours.values().for_each(|hour| sum.merge(hour));
        let hours = || evidence.hours.iter().map(|(hour, record)| (u64::from(hour.0) * HOUR, record));
        let simulated = evidence.quota_what_if().unwrap_or_default();
        let outcomes = simulated.iter().filter(|(_, outcome)| outcome.periods > 0);
        Self {
            pods: evidence.pods.len(),
            coverage: evidence.coverage(),
            weekdays: evidence.weekdays(),
            cpu: CpuDetail::new(evidence, entry),
            current_limit: simulate::current_limit(evidence),
            quotas: outcomes
                .map(|(quota, outcome)| Throttled {
                    quota,
                    periods: outcome.share(),
                    delayed_millis: outcome.delayed_millis,
                })
                .collect(),
            memory: MemoryDetail::new(evidence, entry, policy, context),
            oom_kills: evidence
                .kills()
                .map(|kill| KillDetail {
                    at: kill.at,
                    limit: oom::is_known(kill).then_some(kill.limit),
                    pod: kill.pod.clone(),
                })
                .collect(),
            started: sum.starts,
            starts: hours()
                .filter(|(_, record)| record.starts > 0)
                .map(|(at, record)| Counted { at, count: record.starts })
                .collect(),
            exits: sum.exits.clone(),
            contention: Contention::new(&sum),
            calibration: entry.reasons.iter().map(|it| it.reason.clone()).filter(is_calibration).collect(),
        }
    }

    /// The highest usage of columns of equal length over the whole history, and that length in seconds. At most `columns`.
    pub fn peaks_in(&self, columns: usize) -> (Vec<Option<f64>>, u64) {
        let peaks = self.memory.as_ref().map_or(&[][..], |memory| &memory.peaks);
        let Some((first, last)) = peaks.first().zip(peaks.last()) else { return (Vec::new(), HOUR) };
        let hours = (last.at - first.at) / HOUR + 1;
        let each = hours.div_ceil(columns.max(1) as u64).max(1);
        let mut found: Vec<Option<f64>> = vec![None; usize::try_from(hours.div_ceil(each)).unwrap_or(0)];
        for peak in peaks {
            let at = usize::try_from((peak.at - first.at) / HOUR / each).unwrap_or(usize::MAX);
            if let Some(slot) = found.get_mut(at) {
                *slot = Some(slot.unwrap_or(0.0).max(peak.bytes as f64));
            }
        }
        (found, each * HOUR)
    }
}

const fn is_calibration(reason: &Reason) -> bool {
    matches!(reason, Reason::Calibrated { .. } | Reason::ClusterRecord { .. } | Reason::CpuDelivered { .. })
}

impl CpuDetail {
    fn new(evidence: &Evidence, entry: &Entry) -> Option<Self> {
        let (windows, is_start_up) = cpu::windows(evidence);
        if windows.is_empty() {
            return None;
        }
        let quantile = |share| windows.quantile(share).map(|cores| Quantile { share, cores });
        let requests =
            [(false, entry.current.cpu_request), (true, entry.recommended.cpu_request)].into_iter();
        let requests = requests.filter_map(|(is_recommended, request)| {
            Some(RequestDetail { is_recommended, outcome: simulate::cpu_request(evidence, request?)? })
        });
        Some(Self {
            window_millis: evidence.window_millis,
            windows: windows.count(),
            is_start_up,
            distribution: doublings(&windows),
            quantiles: [0.5, 0.9, 0.99, 0.999, 1.0].into_iter().filter_map(quantile).collect(),
            requests: requests.collect(),
        })
    }
}

/// Shares of windows by powers of two, without gaps between the lowest and the highest.
fn doublings(windows: &Histogram) -> Vec<CpuShare> {
    let all = windows.count() as f64;
    let mut rows: Vec<CpuShare> = Vec::new();
    for (count, _, upper) in windows.buckets() {
        let up_to = if upper > 0.0 { upper.log2().ceil().exp2().max(SMALLEST) } else { 0.0 };
        let share = count as f64 / all;
        while let Some(last) = rows.last().copied().filter(|last| last.up_to > 0.0 && last.up_to < up_to) {
            rows.push(CpuShare { up_to: last.up_to * 2.0, share: 0.0 });
        }
        match rows.last_mut().filter(|last| last.up_to == up_to) {
            Some(last) => last.share += share,
            None => rows.push(CpuShare { up_to, share }),
        }
    }
    rows
}

impl MemoryDetail {
    fn new(evidence: &Evidence, entry: &Entry, policy: &Policy, context: Context) -> Option<Self> {
        let basis = &entry.memory.as_ref()?.basis;
        let history = PeakHistory::new(evidence);
        let peak = |peak: Peak| PeakDetail { at: peak.at / HOUR * HOUR, bytes: peak.bytes };
        let mut peaks: Vec<PeakDetail> = history.highest().map(peak).collect();
        peaks.sort_by_key(|peak| peak.at);
        let profiles = Profile::ALL.into_iter().filter_map(|profile| {
            let risk = profile.risk();
            let other = Policy { risk, ..policy.clone() };
            let values = engine::recommend(evidence, &other, context).ok()?.values;
            Some(ProfileDetail { profile, oom_kills: risk.oom_kills, cpu_work: risk.cpu_work, values })
        });
        let above = |limit: u64| limit as f64 / basis.bytes - 1.0;
        Some(Self {
            highest: history.highest().max().unwrap_or_else(|| basis.peak.clone()),
            basis: basis.peak.clone(),
            counted: basis.bytes,
            headroom: entry.recommended.memory_limit.map(above).filter(|share| share.is_finite()),
            peaks,
            profiles: profiles.collect(),
        })
    }
}

impl Contention {
    fn new(sum: &HourRecord) -> Self {
        let Stalled { cpu_millis, memory_millis, io_millis, refaults } = sum.stalled;
        let share = |millis: u64| millis as f64 / 1000.0 / sum.observed.max(1) as f64;
        Self {
            waits: sum.waits.count(),
            waits_p99: sum.waits.quantile(0.99),
            waits_max: sum.waits.quantile(1.0),
            stalled_cpu: share(cpu_millis),
            stalled_memory: share(memory_millis),
            stalled_io: share(io_millis),
            refaults,
            unreclaimable_p50: sum.unreclaimable.quantile(0.5),
            unreclaimable_max: sum.unreclaimable.quantile(1.0),
        }
    }
}
