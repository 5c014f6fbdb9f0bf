//! The closed loop: usage above the limit is an OOM kill, which the policy gets to know.

use serde::Serialize;

use super::{
    open::{PreparedGroup, Replay},
    policies::PolicyChoice,
    policy::{Kill, PolicyInput, Values},
    score::part,
    trace::{Group, Series},
};

/// Upper bound of OOM kills between two decisions: a policy that does not react would get one each minute for hours.
const MAX_KILLS: usize = 20;
const DAY: f64 = 1440.0;

/// Sums of the closed loop, over memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    kills: u64,
    units: u64,
    killed: u64,
    minutes: u64,
    limit: f64,
    used: f64,
}

/// Figures of the closed loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Container-days with a decision.
    pub pod_days: f64,
    /// OOM kills per pod-day.
    pub oom_kills_per_pod_day: f64,
    /// Quarters of a day of one container without an OOM kill, percent.
    pub oom_free_quarters_pct: f64,
    /// Σ limit ÷ Σ maximum over quarters of a day of each container.
    pub footprint_ratio: f64,
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        let Self { kills, units, killed, minutes, limit, used } = other;
        self.kills += kills;
        self.units += units;
        self.killed += killed;
        self.minutes += minutes;
        self.limit += limit;
        self.used += used;
    }
}

impl Sums {
    /// The figures.
    pub fn figures(&self) -> Figures {
        let pod_days = self.minutes as f64 / DAY;
        Figures {
            pod_days,
            oom_kills_per_pod_day: part(self.kills as f64, pod_days),
            oom_free_quarters_pct: 100.0 - 100.0 * part(self.killed as f64, self.units as f64),
            footprint_ratio: part(self.limit, self.used),
        }
    }
}

impl Replay<'_> {
    /// Sums of each workload under each policy, with feedback.
    pub fn closed(&self, choices: &[PolicyChoice]) -> Vec<Vec<Sums>> {
        let minutes = self.trace.minutes;
        let one = |group: &Group| {
            let prepared = PreparedGroup::new(group, minutes);
            choices.iter().map(|choice| self.feed_back(&prepared, *choice)).collect()
        };
        self.trace.groups.iter().map(one).collect()
    }

    fn feed_back(&self, prepared: &PreparedGroup<'_>, choice: PolicyChoice) -> Sums {
        let PreparedGroup { group, cpu, decided } = prepared;
        let minutes = self.trace.minutes;
        let mut sums = Sums::default();
        let mut policy = choice.policy(group);
        let mut seen: Vec<Series> = group.rows.iter().map(|row| row.memory.clone()).collect();
        let mut kills: Vec<Kill> = Vec::new();
        for (place, (number, now)) in decided.iter().enumerate() {
            let end = decided.get(place + 1).map_or(minutes, |(_, next)| *next);
            let pools = self.pools.get(*number);
            let mut decide = |now: usize, memory: &[Series], kills: &[Kill]| {
                policy.decide(&PolicyInput {
                    key: &group.key,
                    rows: &group.rows,
                    memory,
                    cpu,
                    now,
                    minutes,
                    kills,
                    evidence: None,
                    pools,
                })
            };
            let Some(Values { memory: mut limit, .. }) = decide(*now, &seen, &kills) else { continue };
            let mut from = *now;
            let mut killed = vec![false; group.rows.len()];
            let mut limits = Vec::new();
            let before = kills.len();
            while let Some(at) = first_above(group, limit, from, end) {
                let rows = group
                    .rows
                    .iter()
                    .enumerate()
                    .filter(|(_, row)| row.memory.at(at).is_some_and(|used| used > limit));
                for (row, _) in rows {
                    kills.push(Kill { at, limit, row });
                    if let Some(killed) = killed.get_mut(row) {
                        *killed = true;
                    }
                }
                limits.push((from, at + 1, limit));
                cap(&mut seen, from, at + 1, limit);
                from = at + 1;
                if kills.len() - before >= MAX_KILLS {
                    break;
                }
                if let Some(values) = decide(from, &seen, &kills) {
                    limit = values.memory;
                }
            }
            limits.push((from, end, limit));
            cap(&mut seen, from, end, limit);
            sums.kills += (kills.len() - before) as u64;
            sums.killed += killed.iter().filter(|killed| **killed).count() as u64;
            for row in &group.rows {
                let Some(highest) = row.memory.highest(*now, end) else { continue };
                sums.units += 1;
                sums.minutes += row.memory.range(*now, end).count() as u64;
                sums.used += highest;
                let weighted: f64 = limits.iter().map(|(from, to, limit)| limit * (to - from) as f64).sum();
                sums.limit += weighted / (end - now) as f64;
            }
        }
        sums
    }
}

/// The first minute in which a container uses more than the limit.
fn first_above(group: &Group, limit: f64, from: usize, to: usize) -> Option<usize> {
    let first = |series: &Series| series.range(from, to).find(|(_, used)| *used > limit).map(|(at, _)| at);
    group.rows.iter().filter_map(|row| first(&row.memory)).min()
}

fn cap(seen: &mut [Series], from: usize, to: usize, limit: f64) {
    for series in seen {
        series.cap(from, to, limit);
    }
}
