use proptest::{prelude::*, strategy::ValueTree as _};

use super::*;
use crate::{
    engine::{Context, Policy, Profile, recommend},
    evidence::Peak,
    workload::{
        Resources,
        tests::{container, workload},
    },
};

const MIB: f64 = 1024.0 * 1024.0;
/// Seconds of one sample.
const SAMPLE: u64 = 10;

/// A container whose usage stays alike: a level, and noise on each sample.
#[derive(Clone, Debug)]
struct Usage {
    /// Second of the hour in which it starts.
    start: u64,
    cores: f64,
    mib: f64,
    /// Share of the level.
    noise: f64,
    seed: u64,
    replicas: u64,
}

impl Usage {
    /// A number from 0 to 1 for a sample, always the same.
    fn random(&self, sample: u64) -> f64 {
        let mixed = (sample ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 40) as f64 / (1_u64 << 24) as f64
    }

    /// The history from its start to a time in seconds. Hours that ended have a sample a minute, to be quick.
    fn until(&self, now: u64) -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 60_000);
        let last = now / HOUR * HOUR;
        let mut at = self.start;
        while at < now {
            let length = if at < last { 60 } else { SAMPLE };
            let end = (at + length).min(now);
            let share = 1.0 + self.noise * self.random(at / SAMPLE);
            let record = evidence.hour(Hour::from_seconds(at));
            record.observed += (end - at) * self.replicas;
            // A minute is recorded at its end.
            if end.is_multiple_of(60) {
                record.cpu.record(self.cores * share, self.replicas);
            }
            let bytes = (self.mib * share * MIB) as u64;
            record.peak = record.peak.take().max(Some(Peak { bytes, at, pod: "web-1".to_owned() }));
            at = end;
        }
        evidence
    }

    /// The recommended values at a time in seconds.
    fn values(&self, now: u64) -> Option<Resources> {
        let mut evidence = self.until(now);
        settle(&mut evidence, now);
        let policy = Policy::new(Profile::Standard.risk());
        recommend(&evidence, &policy, Context::default()).ok().map(|found| found.values)
    }
}

fn usage() -> impl Strategy<Value = Usage> {
    (0..HOUR, 0.001..4.0_f64, 16.0..4000.0_f64, 0.0..0.5_f64, any::<u64>(), 1..4_u64).prop_map(
        |(start, cores, mib, noise, seed, replicas)| Usage { start, cores, mib, noise, seed, replicas },
    )
}

/// Usage, the time of a question in seconds, and the seconds until it is asked again.
fn questions(hours: std::ops::Range<u64>) -> impl Strategy<Value = (Usage, u64, u64)> {
    (usage(), hours, 0..HOUR, 10..600_u64)
        .prop_map(|(usage, hours, second, later)| (usage, hours * HOUR + second, later))
}

#[test]
fn the_same_question_within_an_hour_has_the_same_answer() {
    AdviceRule::WholeHours.prove(
        &questions(2..60),
        |(_, now, later)| Hour::first_unfinished(*now) == Hour::first_unfinished(now + later),
        |(usage, now, later)| {
            let (first, second) = (usage.values(*now), usage.values(now + later));
            if first == second { Ok(()) } else { Err(format!("{first:?}, then {second:?}")) }
        },
    );
}

#[test]
fn usage_above_the_limit_counts_at_once() {
    AdviceRule::UnfinishedPeak.prove(
        &(questions(3..60), 2.0..20.0_f64),
        |((_, now, _), _)| now % HOUR > 200,
        |((usage, now, _), factor)| {
            let mut evidence = usage.until(*now);
            let bytes = (usage.mib * factor * 3.0 * MIB) as u64;
            let peak = Peak { bytes, at: *now, pod: "web-2".to_owned() };
            evidence.hour(Hour::from_seconds(*now)).peak = Some(peak);
            settle(&mut evidence, *now);
            let policy = Policy::new(Profile::Standard.risk());
            let limit = recommend(&evidence, &policy, Context::default()).unwrap().values.memory_limit;
            // Without one while it grows.
            if limit.is_none_or(|limit| limit >= bytes) {
                Ok(())
            } else {
                Err(format!("{limit:?} for {bytes}"))
            }
        },
    );
}

/// Also across the ends of hours, where the history grows by an hour, and while a history is young.
#[test]
fn the_same_question_later_rarely_has_another_answer() {
    for (what, hours, max_percent) in
        [("old", 24..200_u64, 1.0), ("of some hours", 2..24, 2.0), ("young", 1..2, 5.0)]
    {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let cases = questions(hours);
        let (mut asked, mut changed) = (0, 0);
        while asked < 1_000 {
            let (usage, now, later) = cases.new_tree(&mut runner).unwrap().current();
            let Some(first) = usage.values(now) else { continue };
            asked += 1;
            changed += u32::from(usage.values(now + later) != Some(first));
        }
        let percent = f64::from(changed) / 10.0;
        println!("{what} histories: {percent} % of {asked} answers changed within 10 to 600 seconds");
        assert!(percent <= max_percent, "{what}: {percent} %");
    }
}

#[test]
fn a_short_history_keeps_its_unfinished_hour() {
    let usage = Usage { start: 1800, cores: 0.1, mib: 100.0, noise: 0.1, seed: 7, replicas: 1 };
    let settled = |now| {
        let mut evidence = usage.until(now);
        settle(&mut evidence, now);
        (evidence.hours.len(), evidence.unfinished.len())
    };
    assert_eq!(settled(2 * HOUR + 100), (3, 0), "half an hour and the hour that just ended");
    assert_eq!(settled(2 * HOUR + 120), (2, 1));
    assert_eq!(settled(3 * HOUR + 60), (2, 2), "the agents may still write the hour that ended");
}
