//! The reasons of a recommendation, as data and as sentences that can be checked by hand.

use std::fmt;

use serde::Serialize;

pub use super::confidence::Confidence;
use super::{
    note::{MemoryNote, SettingNote},
    oom::AssumedLimit,
    text::{bytes, percent},
};

/// A calibration of requests that differs by less from one is not worth a sentence.
const SMALL_CALIBRATION: f64 = 0.05;

/// One input or decision of a recommendation, or a remark on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// The highest memory usage: the basis of the memory limit.
    MemoryBasis {
        /// The peak, bytes.
        peak: u64,
        /// The peak times the weight of its age, bytes.
        counted: u64,
        /// The pod with the peak.
        pod: String,
        /// Seconds since the Unix epoch.
        at: u64,
        /// Whether the peak was in the pod's first hour.
        start_up: bool,
    },
    /// The headroom above that usage.
    MemoryMargin {
        /// Headroom as a share of the counted usage.
        margin: f64,
        /// Pod-days of history.
        days: f64,
        /// Accepted OOM kills per pod-day.
        risk: f64,
        /// The price of a failure in the cluster. Level × factor × shape is the headroom, which has an upper bound.
        level: f64,
        /// The factor by the workload's own past and by its likes.
        factor: f64,
        /// The headroom at level one: the less, the larger the usage and the longer the history.
        shape: f64,
    },
    /// The headroom was adjusted, because replayed recommendations would have failed more or less often than expected.
    Calibrated {
        /// Factor from the workload's own history.
        own: f64,
        /// Factor from its likes.
        likes: f64,
        /// Workload-days of likes.
        likes_days: f64,
    },
    /// What past recommendations for this cluster would have delivered.
    ClusterRecord {
        /// The risk that they were made for, OOM kills per pod-day.
        risk: f64,
        /// Pod-days that may fail at that risk.
        asked: f64,
        /// Pod-days that failed.
        seen: f64,
        /// Pod-days judged.
        pod_days: f64,
    },
    /// OOM kills require a higher limit.
    OomKill {
        /// The highest limit that was hit, bytes.
        limit: u64,
        /// What stands for that limit where it is not known.
        #[serde(skip_serializing_if = "Option::is_none")]
        assumed: Option<AssumedLimit>,
        /// The pod of that kill.
        pod: String,
        /// Seconds since the Unix epoch.
        at: u64,
        /// OOM kills in the history.
        kills: usize,
        /// Whether the upper bound of raises was reached.
        bounded: bool,
    },
    /// Memory grows.
    Leak {
        bytes_per_day: f64,
        /// Days until the current limit is reached.
        days_to_limit: Option<f64>,
        /// Days for which a limit must last.
        horizon_days: f64,
        /// Whether the recommended limit lasts that long. Otherwise growth changes nothing but that memory is not lowered.
        covered: bool,
    },
    /// What a rule did to the memory limit, or what to mind about memory.
    Memory(MemoryNote),
    /// A setting of the language runtime that belongs to the values.
    Setting(SettingNote),
    /// No usage of a resource was observed, so its values are not changed.
    NoUse {
        /// `cpu`.
        resource: &'static str,
    },
    /// How often usage exceeded the CPU request, and how often it will.
    CpuQuantile {
        /// The CPU request that this is about, millicores: before rounding, and before rules keep or bound it.
        request: u64,
        /// Share of the time in which usage was above the request.
        exceeded: f64,
        /// Share of all CPU time that was above the request.
        work_above: f64,
        /// Share of the next day's CPU time that is expected above it.
        expected: f64,
        /// Chance that the next day's usage is above all before.
        rise: f64,
        /// Length of a window, milliseconds.
        window_millis: u64,
        /// Pod-days of usage history.
        days: f64,
    },
    /// The usage of likes counts beside the container's own.
    CpuLikes {
        /// Pod-days that it counts as.
        likes_days: f64,
        /// Pod-days of the container's own usage.
        days: f64,
    },
    /// What CPU requests delivered on the past days of all workloads, with the requests that would have been chosen before each.
    CpuDelivered {
        /// The accepted share of CPU time above requests.
        asked: f64,
        /// The mean share over workloads; `None` before any day was judged.
        delivered: Option<f64>,
        /// Pod-days judged.
        pod_days: f64,
        /// Pod-days from which on these days decide, and not the prior.
        needed: f64,
        /// Factor on the share of the time in which usage may exceed requests.
        calibration: f64,
    },
    /// The history has start-up alone, as in short jobs.
    OnlyStartUp,
    /// Containers use more CPU than the request while they start.
    StartUp(crate::start_up::StartUp),
    /// The CPU limit was chosen by the quota simulation.
    CpuLimit {
        /// Share of CFS periods that the limit would have throttled.
        throttled: f64,
    },
    /// The current CPU limit stays, because CFS periods show no other one.
    CpuLimitKept {
        /// The current limit, millicores.
        limit: u64,
        /// Share of CFS periods that it throttled in the last day; `None` without throttling counters.
        throttled: Option<f64>,
        /// Why it stays.
        why: LimitKept,
    },
    /// The current CPU limit throttled more than the risk allows, so it is raised.
    Throttled {
        /// The current limit, millicores.
        limit: u64,
        /// Share of CFS periods that it throttled in the last day.
        throttled: f64,
    },
    /// No CPU limit, which is the default.
    NoCpuLimit,
    /// A CPU limit was asked for, but there is no quota simulation, or no simulated quota is within the risk.
    NoQuota,
    /// CPU request and limit are equal, because the pod's QoS class is Guaranteed.
    Guaranteed,
    /// CPU request and limit are whole cores, because the current ones are.
    WholeCores,
    /// CPU request and limit are a little above whole cores, because the kubelet would pin those and the current ones are not
    /// pinned.
    NotPinned,
    /// A CPU value is lowered by a part at a time.
    LargestCpuStep {
        /// `cpu` (the request) or `cpu limit`.
        resource: &'static str,
        /// The value without this rule, millicores.
        wanted: u64,
        /// The largest share by which the current value is lowered at once.
        share: f64,
    },
    /// The pod's QoS class will no longer be BestEffort.
    NoLongerBestEffort,
    /// The previously recommended value is kept.
    Kept {
        /// `cpu` (the request), `cpu limit` or `memory`.
        resource: &'static str,
        /// The new value that was not worth a change: millicores or bytes.
        wanted: u64,
    },
    /// The `min` or `max` of the policy changed the value.
    Bounded {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// The value without them: millicores or bytes.
        wanted: u64,
    },
    /// The expected risk of this container is far above the asked one, which is an average over all workloads.
    ExpectedRisk {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// The asked risk: the share of CPU time above the request, or OOM kills per pod-day.
        asked: f64,
        /// The same number for this container with the recommended values.
        expected: f64,
    },
    /// Some weekdays were not observed.
    Weekdays {
        /// Weekdays observed.
        seen: u32,
    },
    /// Some hours were not observed.
    Gaps {
        /// Share of hours observed.
        coverage: f64,
    },
    /// The source says that a part of the history is missing.
    Partial {
        /// In the words of the source.
        why: String,
    },
    /// Less than one pod-day of history.
    Young {
        /// Pod-days.
        days: f64,
    },
    /// A few replicas use most of a resource.
    Skew(crate::skew::Skew),
}

/// Why a current CPU limit stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKept {
    /// There is neither a quota simulation nor a throttling counter.
    NotMeasured,
    /// It throttled no more than the risk allows, and nothing shows what a lower one would.
    WithinRisk,
    /// It throttled more than the risk allows, but nothing shows which higher one is enough.
    AboveRisk,
    /// No simulated quota is within the risk.
    BeyondSimulation,
    /// A lower one is within the risk, but there is less than a day of history.
    ShortHistory,
}

/// Pod-days in words, in a smaller unit below one pod-day.
pub fn span(days: f64) -> String {
    let minutes = days * 24.0 * 60.0;
    let plural =
        |count: f64, one: &str| format!("{count:.0} {one}{}", if count.round() == 1.0 { "" } else { "s" });
    if days >= 1.0 {
        format!("{days:.1} pod-days")
    } else if minutes >= 60.0 {
        format!("{:.1} hours", minutes / 60.0)
    } else if minutes >= 1.0 {
        plural(minutes, "minute")
    } else {
        plural(minutes * 60.0, "second")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemoryBasis { peak, counted, pod, start_up, .. } => {
                write!(f, "highest memory usage {} in {pod}", bytes(*peak))?;
                if *start_up {
                    f.write_str(" during start-up")?;
                }
                if counted < peak {
                    write!(f, "; older peaks weigh less: {} counted", bytes(*counted))
                } else {
                    Ok(())
                }
            }
            Self::MemoryMargin { margin, days, risk, .. } => {
                write!(
                    f,
                    "{} headroom, for at most one OOM kill in {:.0} pod-days on average over the cluster; history of {}",
                    percent(*margin),
                    1.0 / risk,
                    span(*days)
                )
            }
            Self::Calibrated { own, likes, likes_days } => {
                let often = |factor: f64| if factor > 1.0 { "more often" } else { "less often" };
                if is_adjusted(*own) {
                    write!(
                        f,
                        "headroom × {own:.2}: usage of this workload rose above its past {} than that of its likes",
                        often(*own)
                    )?;
                }
                if is_adjusted(*likes) {
                    let gap = if is_adjusted(*own) { "; " } else { "" };
                    write!(
                        f,
                        "{gap}headroom × {likes:.2}: usage of its likes (the same image and container name, {likes_days:.0} days) rose {} than that \
                         of all workloads",
                        often(*likes)
                    )?;
                }
                Ok(())
            }
            Self::ClusterRecord { risk, asked, seen, pod_days } => write!(
                f,
                "past recommendations for this cluster at one OOM kill in {:.0} pod-days, replayed over {pod_days:.0} pod-days: {seen:.1} pod-days \
                 above their limit, where {asked:.1} were accepted",
                1.0 / risk
            ),
            Self::OomKill { limit, assumed, pod, kills, bounded, .. } => {
                let limit = bytes(*limit);
                let instead = assumed.map(|assumed| match assumed {
                    AssumedLimit::CurrentLimit => "the current limit",
                    AssumedLimit::PodLimit => "the current limit of the pod",
                    AssumedLimit::HighestUsage => "the highest usage",
                });
                match (instead, *kills) {
                    (None, 1) => write!(f, "OOM kill at a memory limit of {limit} in {pod}")?,
                    (None, _) => {
                        write!(f, "{kills} OOM kills; the highest memory limit hit was {limit} in {pod}")?;
                    }
                    (Some(instead), 1) => {
                        write!(f, "OOM kill in {pod} at an unknown memory limit: {instead} of {limit} counts as hit")?;
                    }
                    (Some(instead), _) => write!(
                        f,
                        "{kills} OOM kills, the last of them in {pod}, at an unknown memory limit: {instead} of {limit} counts as hit"
                    )?,
                }
                if *bounded {
                    f.write_str("; limit not raised further: check for a memory leak")
                } else {
                    Ok(())
                }
            }
            Self::Leak { bytes_per_day, days_to_limit, horizon_days, covered } => {
                write!(f, "memory grows by {} a day", bytes(*bytes_per_day as u64))?;
                if let Some(days) = days_to_limit {
                    write!(f, "; it reaches the current limit in {days:.1} days")?;
                }
                if *covered {
                    write!(f, "; the recommended limit lasts {horizon_days:.1} days")
                } else {
                    write!(
                        f,
                        "; memory is not lowered, and not raised for it: growth is too irregular, too fast or too recent for a limit that \
                         lasts {horizon_days:.1} days; check for a memory leak"
                    )
                }
            }
            Self::Memory(note) => note.fmt(f),
            Self::Setting(note) => note.fmt(f),
            Self::NoUse { resource } => {
                write!(f, "{resource} unchanged: no usage of this resource was observed")
            }
            Self::CpuQuantile { request, exceeded, work_above, expected, rise, window_millis, days } => write!(
                f,
                "a CPU request of {request}m: {} of the next day's CPU time is expected above it, with a chance of {} of usage above all before; so far \
                 usage exceeded it {} of the time, by {} of all CPU time (windows of {} over {})",
                percent(*expected),
                percent(*rise),
                percent(*exceeded),
                percent(*work_above),
                if window_millis % 1000 == 0 {
                    format!("{} s", window_millis / 1000)
                } else {
                    format!("{window_millis} ms")
                },
                span(*days)
            ),
            Self::CpuLikes { likes_days, days } => write!(
                f,
                "CPU usage of its likes (the same image and container name) counts as {} beside {} of its own; how much it counts is learned from past days",
                span(*likes_days),
                span(*days)
            ),
            Self::CpuDelivered { asked, delivered, pod_days, needed, calibration } => {
                write!(f, "asked: {} of CPU time above requests, as an average over workloads; ", percent(*asked))?;
                match delivered {
                    None => f.write_str("no past day of this cluster is judged yet, so the prior (other clusters) decides")?,
                    Some(share) => {
                        write!(f, "delivered on this cluster so far: {} over {pod_days:.0} pod-days", percent(*share))?;
                        if pod_days < needed {
                            write!(f, ", fewer than {needed:.0}, so the prior (other clusters) decides in part")?;
                        }
                    }
                }
                if (calibration - 1.0).abs() < SMALL_CALIBRATION {
                    return Ok(());
                }
                let direction = if *calibration < 1.0 { "higher" } else { "lower" };
                write!(
                    f,
                    "; requests are {direction} than with the prior alone: usage may exceed them {calibration:.2} times as long"
                )
            }
            Self::OnlyStartUp => {
                f.write_str("no pod ran longer than an hour: usage during start-up was used")
            }
            Self::StartUp(start_up) => start_up.fmt(f),
            Self::CpuLimit { throttled } => write!(
                f,
                "CPU limit: the smallest simulated quota within the risk; it would have throttled {} of CFS periods",
                percent(*throttled)
            ),
            Self::CpuLimitKept { limit, throttled, why } => {
                write!(f, "CPU limit unchanged at {}: ", amount("cpu", *limit))?;
                if let Some(share) = throttled {
                    write!(f, "it throttled {} of CFS periods; ", percent(*share))?;
                }
                f.write_str(match why {
                    LimitKept::NotMeasured => {
                        "there are no throttling counters, and mean usage does not show what a limit throttles"
                    }
                    LimitKept::WithinRisk => "without a quota simulation a lower limit is not known to be enough",
                    LimitKept::AboveRisk => {
                        "that is above the risk: raise it; a quota simulation (an agent with eBPF) shows how far"
                    }
                    LimitKept::BeyondSimulation => "no simulated quota is within the risk",
                    LimitKept::ShortHistory => "it is lowered only after a day of history",
                })
            }
            Self::Throttled { limit, throttled } => write!(
                f,
                "the CPU limit of {} throttled {} of CFS periods, above the risk",
                amount("cpu", *limit),
                percent(*throttled)
            ),
            Self::NoCpuLimit => {
                f.write_str("no CPU limit: a request guarantees CPU under contention, a limit only throttles")
            }
            Self::NoQuota => f.write_str(
                "no CPU limit: there is no quota simulation, or no simulated quota is within the risk",
            ),
            Self::Guaranteed => f.write_str("CPU request equals the limit, to keep the QoS class Guaranteed"),
            Self::WholeCores => f.write_str("whole cores: the kubelet may have pinned the current ones"),
            Self::NotPinned => f.write_str(
                "a little above whole cores: the kubelet may pin those (static CPU manager), and the current ones are not pinned",
            ),
            Self::LargestCpuStep { resource, wanted, share } => write!(
                f,
                "{resource} would be {}, but is lowered by at most {} at once: apply, observe and ask again",
                amount(resource, *wanted),
                percent(*share)
            ),
            Self::NoLongerBestEffort => {
                f.write_str("QoS class changes from BestEffort: the pod had no requests and limits")
            }
            Self::Kept { resource, wanted } => {
                write!(f, "{resource} unchanged: a change to {} is too small", amount(resource, *wanted))
            }
            Self::Bounded { resource, wanted } => {
                write!(
                    f,
                    "{resource} would be {} without the min and max of the policy",
                    amount(resource, *wanted)
                )
            }
            Self::ExpectedRisk { resource: "cpu", asked, expected } => write!(
                f,
                "expected: {} of CPU time above the CPU request, because usage comes in bursts; the asked {} is an average over all workloads",
                percent(*expected),
                percent(*asked)
            ),
            Self::ExpectedRisk { asked, expected, .. } => {
                write!(
                    f,
                    "expected: {expected:.3} OOM kills per pod-day at this memory limit; the asked {asked} is an average over all pods"
                )
            }
            Self::Weekdays { seen } => write!(f, "{seen} of 7 weekdays observed"),
            Self::Gaps { coverage } => write!(f, "{} of the hours observed", percent(*coverage)),
            Self::Partial { why } => {
                write!(f, "a part of the usage history is missing, so values may be too low: {why}")
            }
            Self::Young { days } => write!(f, "only {} of history", span(*days)),
            Self::Skew(skew) => skew.fmt(f),
        }
    }
}

/// Whether a factor changes headroom by as much as is shown.
fn is_adjusted(factor: f64) -> bool {
    (factor - 1.0).abs() >= 0.005
}

fn amount(resource: &str, value: u64) -> String {
    if resource.starts_with("cpu") { format!("{value}m") } else { bytes(value) }
}
