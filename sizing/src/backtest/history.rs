//! Back-test of the history of live agents, which is by the hour instead of by the minute.
//!
//! As with traces, decisions are made after the first day and then every six hours, from the hours before, and judged on the
//! day that follows. All pods of a workload's container are judged as one unit, because the history does not keep them
//! apart: memory is that of the highest pod, and CPU samples are those that requests are chosen from
//! ([`RequestUsage`]).

use super::{HORIZON, STEP, score::Sums, validate::Figures};
use crate::{
    engine::{self, Context, LikesScope, Member, Pool, Pools, Risk, Rule, cpu::RequestUsage},
    evidence::{Evidence, HOUR, Hour, HourRecord},
    workload::Resources,
};

/// Hours before the first decision, between decisions, and of the horizon.
const FIRST_HOURS: u32 = (super::FIRST / 60) as u32;
const STEP_HOURS: u32 = (STEP / 60) as u32;
const HORIZON_HOURS: u32 = (HORIZON / 60) as u32;
/// Share of the time in which usage exceeds the oracle's requests, as with traces.
const ORACLE_EXCEEDED: f64 = 0.02;

/// A policy that can be replayed on the history of agents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HistoryPolicy {
    /// The engine.
    Snug(Risk),
    /// The current requests and limits, for the whole history. Unset values are not judged.
    AsIs,
    /// Knows the day that follows: sets the highest memory usage, and the CPU request that usage exceeds 2 % of the time.
    Oracle,
}

impl HistoryPolicy {
    /// All policies but the engine, with their names.
    pub const OTHERS: [(&'static str, Self); 2] = [("as-is", Self::AsIs), ("oracle", Self::Oracle)];
}

/// A CPU request in cores and a memory limit in bytes; `None` is unset.
type RequestAndLimit = (Option<f64>, Option<f64>);

/// State of the replay of one container of a workload.
struct WorkloadReplay<'e> {
    whole: &'e Evidence,
    /// The history before the decision, without current requests and limits: these may have been others in the past.
    past: Evidence,
    /// The last recommendation of the engine.
    set: Option<Resources>,
    /// By policy: the last decision, and sums of memory and CPU.
    sums: Vec<(RequestAndLimit, Sums, Sums)>,
}

/// The result of a replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Of each policy.
    pub figures: Vec<Figures>,
    /// What the engine knows of the cluster at the end of the history.
    pub pool: Pool,
}

/// Replays the policies. All workloads are decided at the same times, so that the pool has all history before a decision.
pub fn replay(all: &[&Evidence], choices: &[(String, HistoryPolicy)]) -> Replayed {
    let spans = || all.iter().filter_map(|evidence| evidence.span());
    let first = spans().map(|(first, _)| first.0).min().unwrap_or_default();
    let end = spans().map(|(_, last)| last.0.saturating_add(1)).max().unwrap_or_default();
    let mut replayed: Vec<WorkloadReplay<'_>> =
        all.iter().map(|evidence| WorkloadReplay::new(evidence, choices.len())).collect();
    let mut pools = Pools::empty(Rule::FITTED, LikesScope::default());
    let decisions = (first..end).step_by(STEP_HOURS as usize);
    for now in decisions.take_while(|now| now + STEP_HOURS <= end) {
        replayed.iter_mut().for_each(|one| one.advance(Hour(now)));
        let members: Vec<Member<'_>> =
            replayed.iter().map(|one| Member::new(&one.past, LikesScope::default())).collect();
        pools.advance(Hour(now), &members);
        if now < first.saturating_add(FIRST_HOURS) {
            continue;
        }
        for one in replayed.iter_mut().filter(|one| one.is_decided()) {
            let next = one.next(Hour(now));
            for (place, (_, choice)) in choices.iter().enumerate() {
                let decision = one.decide(*choice, pools.of(&one.past), &next);
                if let Some(sums) = one.sums.get_mut(place) {
                    judge(decision, &next, sums);
                }
            }
        }
    }
    let figures = choices.iter().enumerate().map(|(place, (name, _))| {
        let (mut memory, mut cpu) = (Sums::default(), Sums::default());
        for (_, of_memory, of_cpu) in replayed.iter().filter_map(|one| one.sums.get(place)) {
            memory += *of_memory;
            cpu += *of_cpu;
        }
        Figures { policy: name.clone(), memory: memory.memory(), cpu: cpu.cpu() }
    });
    let figures = figures.collect();
    // With the days that end with the history.
    replayed.iter_mut().for_each(|one| one.advance(Hour(end)));
    let members: Vec<Member<'_>> =
        replayed.iter().map(|one| Member::new(&one.past, LikesScope::default())).collect();
    pools.advance(Hour(end), &members);
    Replayed { figures, pool: pools.of_cluster() }
}

impl<'e> WorkloadReplay<'e> {
    fn new(whole: &'e Evidence, choices: usize) -> Self {
        let mut container = whole.container.clone();
        container.current = Resources::default();
        let past = Evidence::new(whole.workload.clone(), container, whole.window_millis);
        Self { whole, past, set: None, sums: vec![((None, None), Sums::default(), Sums::default()); choices] }
    }

    /// Adds the hours before a decision to the past.
    fn advance(&mut self, now: Hour) {
        let known = self.past.hours.last_key_value().map_or(Hour(0), |(last, _)| last.later(1));
        let new = self.whole.hours.range(known..now).map(|(hour, record)| (*hour, record.clone()));
        self.past.hours.extend(new);
    }

    /// Whether there is enough history for a decision: one container-hour, as with traces.
    fn is_decided(&self) -> bool {
        self.past.hours.values().map(|hour| hour.observed).sum::<u64>() >= HOUR
    }

    /// The day that follows.
    fn next(&self, now: Hour) -> Evidence {
        let mut next =
            Evidence::new(self.past.workload.clone(), self.past.container.clone(), self.past.window_millis);
        let end = Hour(now.0.saturating_add(HORIZON_HOURS));
        next.hours = self.whole.hours.range(now..end).map(|(hour, record)| (*hour, record.clone())).collect();
        next
    }

    fn decide(&mut self, choice: HistoryPolicy, pool: Pool, next: &Evidence) -> RequestAndLimit {
        let of = |values: Resources| {
            let cores = values.cpu_request.map(|millicores| millicores as f64 / 1000.0);
            (cores, values.memory_limit.map(|bytes| bytes as f64))
        };
        match choice {
            HistoryPolicy::AsIs => of(self.whole.container.current),
            HistoryPolicy::Oracle => {
                let RequestUsage { windows, .. } = RequestUsage::new(next);
                (windows.quantile(1.0 - ORACLE_EXCEEDED), highest(next))
            }
            HistoryPolicy::Snug(risk) => {
                let policy = engine::Policy::new(risk);
                let Ok(decision) =
                    engine::recommend(&self.past, &policy, Context { pool, previous: self.set, qos: None })
                else {
                    return (None, None);
                };
                self.set = Some(decision.values);
                of(decision.values)
            }
        }
    }
}

/// Highest memory usage, bytes.
fn highest(evidence: &Evidence) -> Option<f64> {
    evidence.hours.values().filter_map(HourRecord::highest).map(|peak| peak.bytes as f64).reduce(f64::max)
}

/// Judges a decision on the day that followed.
fn judge(decision: RequestAndLimit, next: &Evidence, sums: &mut (RequestAndLimit, Sums, Sums)) {
    let (before, of_memory, of_cpu) = sums;
    let (request, limit) = decision;
    if let (Some(limit), Some(highest)) = (limit, highest(next)) {
        let working_set =
            next.hours.values().fold(crate::histogram::Histogram::default(), |mut sum, hour| {
                sum.merge(&hour.working_set);
                sum
            });
        of_memory.judge_memory(limit, highest, &working_set, before.1);
    }
    let RequestUsage { windows, .. } = RequestUsage::new(next);
    if let (Some(request), false) = (request, windows.is_empty()) {
        of_cpu.judge_cpu(request, &windows, before.0);
    }
    *before = decision;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::Profile,
        evidence::Peak,
        workload::tests::{container, workload},
    };

    const MIB: u64 = 1 << 20;

    /// Days of half a core in one hour of four and a tenth else, with so much memory; it is eight times as much at last.
    fn evidence(days: u32, mib: u64) -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 100);
        evidence.container.current =
            Resources { cpu_request: Some(200), memory_limit: Some(2 * mib * MIB), ..Resources::default() };
        for hour in 0..days * 24 {
            let record = evidence.hour(Hour(1000 + hour));
            record.observed = HOUR;
            record.minutes.record(if hour % 4 == 0 { 0.5 } else { 0.1 }, 60);
            let bytes = if hour + 1 == days * 24 { 8 * mib * MIB } else { mib * MIB };
            record.working_set.record(bytes as f64, 3600);
            record.peak = Some(Peak { bytes, at: u64::from(hour) * HOUR, pod: "web-1".to_owned() });
        }
        evidence
    }

    fn figures(days: u32) -> Vec<Figures> {
        let one = evidence(days, 100);
        let snug = ("snug".to_owned(), HistoryPolicy::Snug(Profile::Standard.risk()));
        let others = HistoryPolicy::OTHERS.map(|(name, choice)| (name.to_owned(), choice));
        replay(&[&one], &[&[snug][..], &others].concat()).figures
    }

    #[test]
    fn decisions_are_judged_by_the_day_that_follows() {
        let all = figures(4);
        let [snug, as_is, oracle] = &all[..] else { panic!("{all:?}") };
        // After a day, every six hours, while six hours follow: 24, 30, … 90.
        for figures in &all {
            assert_eq!((figures.memory.pod_days, figures.cpu.pod_days), (12, 12), "{figures:?}");
        }
        // The last hour is in the day after hours 72 and later.
        assert!((as_is.memory.violation_pod_days_pct - 100.0 * 4.0 / 12.0).abs() < 1e-9, "{as_is:?}");
        // 0.2 cores: a quarter of the minutes are above it, by 0.3 of 0.8 core-hours in four.
        assert!((as_is.cpu.exceeded_samples_pct - 25.0).abs() < 1.0, "{as_is:?}");
        assert!((as_is.cpu.unserved_work_pct - 37.5).abs() < 4.0, "{as_is:?}");
        assert!((as_is.cpu.footprint_ratio - 1.0).abs() < 0.06, "{as_is:?}");
        assert_eq!(as_is.cpu.changes_per_day, 0.0);
        // A quantile lies within a bucket.
        assert!(
            oracle.memory.violation_pod_days_pct == 0.0 && oracle.cpu.exceeded_samples_pct < 2.1,
            "{oracle:?}"
        );
        assert!(snug.memory.violation_pod_days_pct > 30.0, "nobody foresees it: {snug:?}");
        assert!(snug.cpu.unserved_work_pct < 1.0 && snug.memory.footprint_ratio < 2.0, "{snug:?}");
    }

    #[test]
    fn at_the_end_it_is_known_what_was_delivered() {
        let risk = Profile::Standard.risk();
        let one = evidence(4, 100);
        let found = replay(&[&one], &[]).pool.so_far(risk);
        // The history begins at 16 o'clock: three days end in it that have hours before them.
        assert_eq!((found.cpu.pod_days, found.cpu.asked), (3.0, 0.01));
        assert!(found.cpu.delivered.is_some_and(|share| share < 0.02) && found.cpu.is_prior(), "{found:?}");
        // The last hour exceeds the limit of one decision whose day is over, a quarter of a day of three.
        assert!(found.memory.delivered.is_some_and(|share| (share - 0.25 / 3.0).abs() < 1e-9), "{found:?}");
        assert_eq!(replay(&[], &[]).pool.so_far(risk).cpu.delivered, None);
    }

    #[test]
    fn one_day_of_history_has_no_decision() {
        for figures in figures(1) {
            assert_eq!((figures.memory.pod_days, figures.cpu.pod_days), (0, 0));
        }
        assert_eq!(replay(&[], &[]).figures.len(), 0);
    }
}
