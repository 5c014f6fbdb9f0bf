//! Why a recommendation is what it is, in words that can be checked by hand.

use std::fmt;

use serde::Serialize;

use crate::quantity::Quantity;

/// How much a recommendation is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Less than a day of one pod, or less than half of the hours.
    Low,
    /// More, but not every day of a week.
    Medium,
    /// Every day of a week, and at least nine of ten hours.
    High,
}

impl Confidence {
    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// From pod-days, days of the week (0..=7) and the share of hours that were seen.
    pub fn from_coverage(days: f64, weekdays: u32, coverage: f64) -> Self {
        if days < 1.0 || coverage < 0.5 {
            Self::Low
        } else if weekdays < 7 || coverage < 0.9 {
            Self::Medium
        } else {
            Self::High
        }
    }
}

/// One thing that decided, or that should be known.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// What a memory limit is built on.
    MemoryBasis {
        /// The peak, bytes.
        peak: u64,
        /// What of it still counts, bytes.
        counted: u64,
        /// The pod.
        pod: String,
        /// Seconds since the Unix epoch.
        at: u64,
        /// Whether it happened in start-up.
        start_up: bool,
    },
    /// The margin on it.
    MemoryMargin {
        /// As a part of the basis.
        margin: f64,
        /// Pod-days of history.
        days: f64,
        /// OOM kills per pod-day that are accepted.
        risk: f64,
    },
    /// The rule has failed more or less often than expected, here or on similar workloads.
    Calibrated {
        /// Factor on the margin from the workload's own past.
        own: f64,
        /// Factor from the pool.
        pool: f64,
    },
    /// A kill demands more.
    OomKill {
        /// The limit that failed, bytes.
        limit: u64,
        /// The pod.
        pod: String,
        /// Seconds since the Unix epoch.
        at: u64,
        /// Kills in the window.
        kills: usize,
        /// Whether the bound on raises was reached.
        bounded: bool,
    },
    /// Memory grows without end.
    Leak {
        /// Bytes per day.
        bytes_per_day: f64,
        /// Days until the limit is reached.
        days_to_limit: Option<f64>,
    },
    /// What the CPU request is built on.
    CpuQuantile {
        /// Share of time in which use was above it.
        exceeded: f64,
        /// Share of the work that was above it.
        work_above: f64,
        /// Length of a window, milliseconds.
        window_millis: u64,
        /// Pod-days of windows.
        days: f64,
    },
    /// Nothing but start-up was seen, as in short jobs.
    OnlyStartUp,
    /// The CPU limit comes from the quota simulation.
    CpuLimit {
        /// Share of periods that it would have throttled.
        throttled: f64,
    },
    /// No CPU limit: the default.
    NoCpuLimit,
    /// A limit was asked for, but no quota kept the risk, or none was watched.
    NoQuota,
    /// Request and limit are one, because the pod is in the class Guaranteed.
    Guaranteed,
    /// The pod had nothing set and is in the class BestEffort no longer.
    NoLongerBestEffort,
    /// What was set before is kept.
    Kept {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// What would have been said without it: millicores or bytes.
        wanted: u64,
    },
    /// The user's bounds decided.
    Bounded {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// Without them: millicores or bytes.
        wanted: u64,
    },
    /// Days of the week that were not seen.
    Weekdays {
        /// Days seen.
        seen: u32,
    },
    /// Hours that were not seen.
    Gaps {
        /// Share of hours seen.
        coverage: f64,
    },
    /// Less than a day of one pod.
    Young {
        /// Pod-days.
        days: f64,
    },
    /// A few replicas do most of the work.
    Skew(crate::skew::Skew),
}

/// Bytes as people write them.
fn bytes(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= 10 * MIB {
        format!("{} MiB", bytes.div_ceil(MIB))
    } else {
        Quantity::from_bytes(bytes).to_string()
    }
}

/// Pod-days in words; where there is not one, what there is.
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

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = usize::from(percent < 10.0) + usize::from(percent < 1.0);
    format!("{percent:.digits$} %")
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemoryBasis { peak, counted, pod, start_up, .. } => {
                write!(f, "highest use {} in {pod}", bytes(*peak))?;
                if *start_up {
                    f.write_str(" while starting")?;
                }
                if counted < peak { write!(f, ", of which {} still count", bytes(*counted)) } else { Ok(()) }
            }
            Self::MemoryMargin { margin, days, risk } => {
                write!(
                    f,
                    "{} on top for one OOM kill in {:.0} pod-days, after {} of history",
                    percent(*margin),
                    1.0 / risk,
                    span(*days)
                )
            }
            Self::Calibrated { own, pool } => {
                write!(
                    f,
                    "margin × {own:.2} for how the rule did on this workload's past, × {pool:.2} for similar ones"
                )
            }
            Self::OomKill { limit, pod, kills, bounded, .. } => {
                let times = if *kills == 1 { "an OOM kill".to_owned() } else { format!("{kills} OOM kills") };
                write!(f, "{times}, at a limit of {} in {pod}", bytes(*limit))?;
                if *bounded { f.write_str("; not raised further, see whether it leaks") } else { Ok(()) }
            }
            Self::Leak { bytes_per_day, days_to_limit } => {
                write!(f, "memory grows by {} a day without slowing down", bytes(*bytes_per_day as u64))?;
                days_to_limit.map_or(Ok(()), |days| write!(f, " and reaches the limit in {days:.1} days"))
            }
            Self::CpuQuantile { exceeded, work_above, window_millis, days } => write!(
                f,
                "use was above it {} of the time with {} of the work, in windows of {} over {}",
                percent(*exceeded),
                percent(*work_above),
                if window_millis % 1000 == 0 {
                    format!("{} s", window_millis / 1000)
                } else {
                    format!("{window_millis} ms")
                },
                span(*days)
            ),
            Self::OnlyStartUp => f.write_str("no pod lived past its first hour"),
            Self::CpuLimit { throttled } => write!(
                f,
                "the smallest quota that would have throttled {} of the periods",
                percent(*throttled)
            ),
            Self::NoCpuLimit => {
                f.write_str("no CPU limit: the request is what is set aside, and idle CPU time is free")
            }
            Self::NoQuota => f.write_str("no CPU limit: no quota that was watched keeps the risk"),
            Self::Guaranteed => f.write_str("requests equal limits, as the class Guaranteed needs"),
            Self::NoLongerBestEffort => f.write_str("nothing was set: the pod's class becomes Burstable"),
            Self::Kept { resource, wanted } => {
                write!(f, "{resource} stays: a change to {} is not worth it", amount(resource, *wanted))
            }
            Self::Bounded { resource, wanted } => {
                write!(f, "{resource} would be {} without the policy's bounds", amount(resource, *wanted))
            }
            Self::Weekdays { seen } => write!(f, "{seen} of 7 days of the week seen"),
            Self::Gaps { coverage } => write!(f, "{} of the hours seen", percent(*coverage)),
            Self::Young { days } => write!(f, "only {} of history", span(*days)),
            Self::Skew(skew) => skew.fmt(f),
        }
    }
}

fn amount(resource: &str, value: u64) -> String {
    if resource == "cpu" { format!("{value}m") } else { bytes(value) }
}
