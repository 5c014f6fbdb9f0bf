//! `cpu.stat`, `cpu.max`, and on v1 `cpu.cfs_*` and `cpuacct.*`.

use super::{Field, NS_PER_US, ParseError, Problem, only_line, required, rows};
use crate::values::CpuSplit;

/// v2 `cpu.stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuStat {
    /// `usage_usec`, in nanoseconds.
    pub usage_ns: u64,
    /// `user_usec` and `system_usec`.
    pub split: CpuSplit,
    /// The rows that exist if the cpu controller is enabled for the cgroup.
    pub bandwidth: Option<BandwidthStat>,
}

/// The counters of CFS bandwidth control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandwidthStat {
    /// `nr_periods`.
    pub periods: u64,
    /// `nr_throttled`.
    pub throttled_periods: u64,
    /// `throttled_usec`, v1 `throttled_time`, in nanoseconds.
    pub throttled_ns: u64,
    /// `nr_bursts`; 0 before Linux 5.15, which has no bursts.
    pub burst_periods: u64,
    /// `burst_usec`, v1 `burst_time`, in nanoseconds; 0 before Linux 5.15.
    pub burst_ns: u64,
}

/// `cpu.max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMax {
    /// Nanoseconds of CPU time allowed in each period; `None` = no limit.
    pub quota_ns: Option<u64>,
    /// Length of a period in nanoseconds.
    pub period_ns: u64,
}

/// v2 `cpu.stat`.
pub fn cpu_stat(text: &[u8]) -> Result<CpuStat, ParseError> {
    let (mut usage, mut user, mut system) = (None, None, None);
    for row in rows(text) {
        match row.key {
            b"usage_usec" => usage = Some(row.number_of(NS_PER_US)?),
            b"user_usec" => user = Some(row.number_of(NS_PER_US)?),
            b"system_usec" => system = Some(row.number_of(NS_PER_US)?),
            _ => {}
        }
    }
    Ok(CpuStat {
        usage_ns: required(usage, "usage_usec", text)?,
        split: CpuSplit {
            user_ns: required(user, "user_usec", text)?,
            system_ns: required(system, "system_usec", text)?,
        },
        bandwidth: bandwidth(text, "throttled_usec", "burst_usec", NS_PER_US)?,
    })
}

/// v1 `cpu.stat`.
pub fn cpu_stat_v1(text: &[u8]) -> Result<BandwidthStat, ParseError> {
    required(bandwidth(text, "throttled_time", "burst_time", 1)?, "nr_periods", text)
}

fn bandwidth(
    text: &[u8],
    throttled_row: &'static str,
    burst_row: &str,
    unit: u64,
) -> Result<Option<BandwidthStat>, ParseError> {
    let (mut periods, mut throttled_periods, mut throttled) = (None, None, None);
    let (mut burst_periods, mut burst) = (None, None);
    for row in rows(text) {
        match row.key {
            b"nr_periods" => periods = Some(row.number()?),
            b"nr_throttled" => throttled_periods = Some(row.number()?),
            b"nr_bursts" => burst_periods = Some(row.number()?),
            key if key == throttled_row.as_bytes() => throttled = Some(row.number_of(unit)?),
            key if key == burst_row.as_bytes() => burst = Some(row.number_of(unit)?),
            _ => {}
        }
    }
    let Some(periods) = periods else { return Ok(None) };
    Ok(Some(BandwidthStat {
        periods,
        throttled_periods: required(throttled_periods, "nr_throttled", text)?,
        throttled_ns: required(throttled, throttled_row, text)?,
        burst_periods: burst_periods.unwrap_or(0),
        burst_ns: burst.unwrap_or(0),
    }))
}

/// `cpu.max`: quota (or `max`) and period in microseconds.
pub fn cpu_max(text: &[u8]) -> Result<CpuMax, ParseError> {
    let line = only_line(text)?;
    let mut words = line.words();
    let no_value = || line.error(Problem::NoValue);
    let quota = words.next().ok_or_else(no_value)?;
    let period = words.next().ok_or_else(no_value)?;
    if let Some(extra) = words.next() {
        return Err(extra.error(Problem::Trailing));
    }
    Ok(CpuMax {
        quota_ns: if quota.text == b"max" { None } else { Some(quota.number_of(NS_PER_US)?) },
        period_ns: period.number_of(NS_PER_US)?,
    })
}

/// v1 `cpu.cfs_quota_us`: nanoseconds; -1 stands for no limit.
pub fn cfs_quota_v1(text: &[u8]) -> Result<Option<u64>, ParseError> {
    let line = only_line(text)?;
    match line.text.strip_prefix(b"-") {
        Some(digits) => Field { text: digits, ..line }.number().map(|_| None),
        None => line.number_of(NS_PER_US).map(Some),
    }
}

/// A file with microseconds (`cpu.max.burst`, `cpu.cfs_period_us`, `cpu.cfs_burst_us`), as nanoseconds.
pub fn microseconds(text: &[u8]) -> Result<u64, ParseError> {
    only_line(text)?.number_of(NS_PER_US)
}

/// v1 `cpuacct.stat`, which counts in ticks of `tick_ns` nanoseconds (`USER_HZ`).
///
/// Since Linux 5.17 the kernel scales the two to add up to `cpuacct.usage`. `cpuacct.usage_user` and `usage_sys` have a finer
/// unit, but before 5.17 guest time is in the wrong one, and since then they are not scaled.
pub fn cpuacct_stat(text: &[u8], tick_ns: u64) -> Result<CpuSplit, ParseError> {
    let (mut user, mut system) = (None, None);
    for row in rows(text) {
        match row.key {
            b"user" => user = Some(row.number_of(tick_ns)?),
            b"system" => system = Some(row.number_of(tick_ns)?),
            _ => {}
        }
    }
    Ok(CpuSplit { user_ns: required(user, "user", text)?, system_ns: required(system, "system", text)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpu_stat_of_each_kernel() {
        let before_bursts = b"usage_usec 41\nuser_usec 30\nsystem_usec 11\nnr_periods 9\nnr_throttled 2\nthrottled_usec 700\n";
        let stat = cpu_stat(before_bursts).unwrap();
        assert_eq!(stat.usage_ns, 41_000);
        assert_eq!(stat.split, CpuSplit { user_ns: 30_000, system_ns: 11_000 });
        let expected =
            BandwidthStat { periods: 9, throttled_periods: 2, throttled_ns: 700_000, ..Default::default() };
        assert_eq!(stat.bandwidth, Some(expected));

        let newest =
            b"usage_usec 41\nuser_usec 30\nsystem_usec 11\nnice_usec 0\ncore_sched.force_idle_usec 0\n\
            nr_periods 9\nnr_throttled 2\nthrottled_usec 700\nnr_bursts 3\nburst_usec 5\n";
        assert_eq!(
            cpu_stat(newest).unwrap().bandwidth,
            Some(BandwidthStat { burst_periods: 3, burst_ns: 5_000, ..expected })
        );

        let without_controller = b"usage_usec 41\nuser_usec 30\nsystem_usec 11\nnice_usec 0\n";
        assert_eq!(cpu_stat(without_controller).unwrap().bandwidth, None);
    }

    #[test]
    fn cpu_stat_v1_counts_nanoseconds() {
        let stat =
            cpu_stat_v1(b"nr_periods 9\nnr_throttled 2\nthrottled_time 700\nnr_bursts 1\nburst_time 4\n")
                .unwrap();
        assert_eq!(
            stat,
            BandwidthStat {
                periods: 9,
                throttled_periods: 2,
                throttled_ns: 700,
                burst_periods: 1,
                burst_ns: 4
            }
        );
    }

    #[test]
    fn limits() {
        assert_eq!(cpu_max(b"max 100000\n"), Ok(CpuMax { quota_ns: None, period_ns: 100_000_000 }));
        assert_eq!(
            cpu_max(b"5000 100000\n"),
            Ok(CpuMax { quota_ns: Some(5_000_000), period_ns: 100_000_000 })
        );
        assert_eq!(cfs_quota_v1(b"-1\n"), Ok(None));
        assert_eq!(cfs_quota_v1(b"5000\n"), Ok(Some(5_000_000)));
        assert_eq!(microseconds(b"100000\n"), Ok(100_000_000));
        assert_eq!(
            cpuacct_stat(b"user 12\nsystem 3\n", 10_000_000),
            Ok(CpuSplit { user_ns: 120_000_000, system_ns: 30_000_000 })
        );
    }

    #[test]
    fn malformed() {
        let line = |result: Result<CpuStat, ParseError>| result.unwrap_err().to_string();
        assert_eq!(line(cpu_stat(b"usage_usec 1\nuser_usec 1\n")), "line 2: the row system_usec is missing");
        assert_eq!(line(cpu_stat(b"usage_usec 1\nuser_usec 1 2\n")), "line 2: \"1 2\" is not a number");
        assert_eq!(line(cpu_stat(b"usage_usec\n")), "line 1: \"usage_usec\" has no value");
        assert_eq!(
            line(cpu_stat(b"usage_usec 18446744073709551615\n")),
            "line 1: \"18446744073709551615\" is too large"
        );
        let half = b"usage_usec 1\nuser_usec 1\nsystem_usec 0\nnr_periods 4\n";
        assert_eq!(line(cpu_stat(half)), "line 4: the row nr_throttled is missing");
        assert_eq!(cpu_max(b"max\n").unwrap_err().to_string(), "line 1: \"max\" has no value");
        assert!(cpu_max(b"1 2 3\n").is_err() && cpu_max(b"100000 max\n").is_err() && cpu_max(b"").is_err());
        assert!(cfs_quota_v1(b"-\n").is_err() && cfs_quota_v1(b"--1\n").is_err());
        assert!(cpu_stat_v1(b"").is_err() && cpuacct_stat(b"user 1\n", 1).is_err());
    }

    proptest! {
        #[test]
        fn rendered_cpu_stat_parses_back(
            usage in 0..u64::MAX / 1000, user in 0..u64::MAX / 1000, system in 0..u64::MAX / 1000,
            bandwidth: Option<(u32, u32, u32, u32, u32)>,
        ) {
            let mut text = format!("usage_usec {usage}\nuser_usec {user}\nsystem_usec {system}\n");
            if let Some((periods, throttled, time, bursts, burst)) = bandwidth {
                text += &format!("nr_periods {periods}\nnr_throttled {throttled}\nthrottled_usec {time}\n");
                text += &format!("nr_bursts {bursts}\nburst_usec {burst}\n");
            }
            let expected = CpuStat {
                usage_ns: usage * 1000,
                split: CpuSplit { user_ns: user * 1000, system_ns: system * 1000 },
                bandwidth: bandwidth.map(|(periods, throttled, time, bursts, burst)| BandwidthStat {
                    periods: periods.into(),
                    throttled_periods: throttled.into(),
                    throttled_ns: u64::from(time) * 1000,
                    burst_periods: bursts.into(),
                    burst_ns: u64::from(burst) * 1000,
                }),
            };
            prop_assert_eq!(cpu_stat(text.as_bytes()), Ok(expected));
        }

        #[test]
        fn rendered_cpu_max_parses_back(quota: Option<u32>, period: u32) {
            let shown = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            let expected = CpuMax {
                quota_ns: quota.map(|us| u64::from(us) * 1000),
                period_ns: u64::from(period) * 1000,
            };
            prop_assert_eq!(cpu_max(format!("{shown} {period}\n").as_bytes()), Ok(expected));
            let v1 = quota.map_or(-1, i64::from);
            prop_assert_eq!(cfs_quota_v1(format!("{v1}\n").as_bytes()), Ok(expected.quota_ns));
        }
    }
}
