//! The closed loop: usage above the limit is an OOM kill, which the policy gets to know.

use serde::Serialize;

use super::{
    open::{PreparedGroup, Replay},
    policies::PolicyChoice,
    policy::{Kill, Policy, PolicyInput, Values},
    score::part,
    trace::{Group, Series},
};

/// Upper bound of OOM kills between two decisions: a policy that does not react would get one each minute for hours.
const MAX_KILLS: usize = 20;
const DAY: f64 = 1440.0;
/// Minutes after an OOM kill within which the limit should be above the one that was hit.
const RAISED_WITHIN: usize = 360;

/// Sums of the closed loop, over memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    kills: u64,
    units: u64,
    killed: u64,
    minutes: u64,
    limit: f64,
    used: f64,
    raised: u64,
    raised_in_time: u64,
    true_bad: f64,
    true_all: f64,
}

/// Figures of the closed loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Container-days with a decision.
    pub pod_days: f64,
    pub oom_kills_per_pod_day: f64,
    /// Quarters of a day of one container without an OOM kill, percent.
    pub oom_free_quarters_pct: f64,
    /// Σ limit ÷ Σ maximum over quarters of a day of each container.
    pub footprint_ratio: f64,
    /// OOM kills after which the limit was above the one that was hit within six hours, percent; `None` without kills whose six
    /// hours are in the trace.
    pub raised_in_time_pct: Option<f64>,
    /// Mean probability that a decision's limit is exceeded on the next day, percent; only of synthetic usage.
    pub true_pct: Option<f64>,
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        let Self { kills, units, killed, minutes, limit, used, raised, raised_in_time, true_bad, true_all } =
            other;
        self.raised += raised;
        self.raised_in_time += raised_in_time;
        self.true_bad += true_bad;
        self.true_all += true_all;
        self.kills += kills;
        self.units += units;
        self.killed += killed;
        self.minutes += minutes;
        self.limit += limit;
        self.used += used;
    }
}

impl Sums {
    pub fn figures(&self) -> Figures {
        let pod_days = self.minutes as f64 / DAY;
        Figures {
            pod_days,
            oom_kills_per_pod_day: part(self.kills as f64, pod_days),
            oom_free_quarters_pct: 100.0 - 100.0 * part(self.killed as f64, self.units as f64),
            footprint_ratio: part(self.limit, self.used),
            raised_in_time_pct: (self.raised > 0)
                .then(|| 100.0 * part(self.raised_in_time as f64, self.raised as f64)),
            true_pct: (self.true_all > 0.0).then(|| 100.0 * part(self.true_bad, self.true_all)),
        }
    }
}

/// A kill whose limit has not been exceeded by a later one yet: its minute and limit.
#[derive(Clone, Debug, Default)]
struct Unraised(Vec<(usize, f64)>);

impl Unraised {
    /// Counts the kills whose limit is exceeded by one that is set at a minute.
    fn set(&mut self, at: usize, limit: f64, sums: &mut Sums) {
        self.0.retain(|(killed, hit)| {
            let is_raised = limit > *hit;
            if is_raised {
                sums.raised += 1;
                sums.raised_in_time += u64::from(at - killed <= RAISED_WITHIN);
            }
            !is_raised
        });
    }

    /// Counts those that were never exceeded, if there was time.
    fn end(self, minutes: usize, sums: &mut Sums) {
        sums.raised += self.0.iter().filter(|(at, _)| at + RAISED_WITHIN <= minutes).count() as u64;
    }
}

/// The state of one workload under one policy.
struct Loop<'r, 'w> {
    replay: &'r Replay<'w>,
    choice: PolicyChoice,
    prepared: &'r PreparedGroup<'w>,
    policy: Box<dyn Policy + 'w>,
    /// Memory as the policy sees it.
    seen: Vec<Series>,
    kills: Vec<Kill>,
    unraised: Unraised,
    sums: Sums,
}

impl<'w> Replay<'w> {
    /// Sums of each workload under each policy, with feedback.
    pub fn closed(&mut self, choices: &[PolicyChoice]) -> Vec<Vec<Sums>> {
        self.prepare(choices.iter().copied());
        let this = &*self;
        let one = |group: &'w Group| {
            let prepared = PreparedGroup::new(group, this.world);
            let sums = |choice: &PolicyChoice| {
                let mut one = Loop {
                    replay: this,
                    choice: *choice,
                    prepared: &prepared,
                    policy: choice.policy(group, this.world),
                    seen: group.rows.iter().map(|row| row.memory.clone()).collect(),
                    kills: Vec::new(),
                    unraised: Unraised::default(),
                    sums: Sums::default(),
                };
                one.run();
                one.sums
            };
            choices.iter().map(sums).collect()
        };
        this.world.trace.groups.iter().map(one).collect()
    }
}

impl Loop<'_, '_> {
    fn run(&mut self) {
        let minutes = self.replay.world.trace.minutes;
        let decided = &self.prepared.decided;
        for (place, (number, now)) in decided.iter().enumerate() {
            let end = decided.get(place + 1).map_or(minutes, |(_, next)| *next);
            self.until(*number, *now, end);
        }
        std::mem::take(&mut self.unraised).end(minutes, &mut self.sums);
    }

    /// The index of the workload.
    fn place(&self) -> Option<usize> {
        self.replay.world.trace.groups.iter().position(|other| std::ptr::eq(other, self.prepared.group))
    }

    fn decide(&mut self, number: usize, now: usize) -> Option<f64> {
        let group = self.prepared.group;
        let place = self.place();
        let Values { memory, .. } = self.policy.decide(&PolicyInput {
            key: &group.key,
            rows: &group.rows,
            memory: &self.seen,
            cpu: &self.prepared.cpu,
            now,
            minutes: self.replay.world.trace.minutes,
            kills: &self.kills,
            evidence: None,
            pool: place.map(|place| self.replay.pool(self.choice, number, place)).unwrap_or_default(),
            labels: &[],
        })?;
        self.unraised.set(now, memory, &mut self.sums);
        Some(memory)
    }

    /// From a decision to the next one.
    fn until(&mut self, number: usize, now: usize, end: usize) {
        let Some(mut limit) = self.decide(number, now) else { return };
        let group = self.prepared.group;
        let place = self.place();
        if let Some((truth, place)) = self.replay.world.truth.as_ref().zip(place) {
            let pods = truth.pods(place);
            self.sums.true_bad += pods * truth.exceeded(place, now, limit);
            self.sums.true_all += pods;
        }
        let mut from = now;
        let mut killed = vec![false; group.rows.len()];
        let mut limits = Vec::new();
        let before = self.kills.len();
        while let Some(at) = first_above(group, limit, from, end) {
            for (row, killed) in killed.iter_mut().enumerate() {
                let used = group.rows.get(row).and_then(|row| row.memory.at(at));
                if used.is_some_and(|used| used > limit) {
                    self.kills.push(Kill { at, limit, row });
                    self.unraised.0.push((at, limit));
                    *killed = true;
                }
            }
            limits.push((from, at + 1, limit));
            cap(&mut self.seen, from, at + 1, limit);
            from = at + 1;
            if self.kills.len() - before >= MAX_KILLS {
                break;
            }
            limit = self.decide(number, from).unwrap_or(limit);
        }
        limits.push((from, end, limit));
        cap(&mut self.seen, from, end, limit);
        let sums = &mut self.sums;
        sums.kills += (self.kills.len() - before) as u64;
        sums.killed += killed.iter().filter(|killed| **killed).count() as u64;
        for row in &group.rows {
            let Some(highest) = row.memory.highest(now, end) else { continue };
            sums.units += 1;
            sums.minutes += (row.memory.range(now, end).count() * self.replay.world.trace.interval) as u64;
            sums.used += highest;
            let weighted: f64 = limits.iter().map(|(from, to, limit)| limit * (to - from) as f64).sum();
            sums.limit += weighted / (end - now) as f64;
        }
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
