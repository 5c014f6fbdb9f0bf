use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    engine::{
        calibration::Delivered,
        memory::{self, TRIAL_STEP, tests::history},
        risk::Profile,
    },
    evidence::{HOUR, Peak},
    random::Random,
    workload::tests::{container, workload},
};

const MIB: u64 = 1 << 20;
const SCOPE: LikesScope = LikesScope::Namespace;

/// A container of a workload with one pod: hours and their peaks in MiB.
fn evidence(name: &str, peaks: &[(u32, u64)]) -> Evidence {
    let mut evidence = Evidence::new(workload(name), container("app"), 100);
    for (hour, mib) in peaks {
        let record = evidence.hour(Hour(*hour));
        record.observed = HOUR;
        record.peak = Some(Peak { bytes: mib * MIB, at: u64::from(*hour) * HOUR, pod: format!("{name}-1") });
    }
    evidence
}

fn members(all: &[Evidence]) -> Vec<Member<'_>> {
    all.iter().map(|evidence| Member::new(evidence, SCOPE)).collect()
}

fn limit(evidence: &Evidence, pools: &Pools, oom_kills: f64) -> f64 {
    let risk = crate::engine::Risk { oom_kills, ..Profile::Standard.risk() };
    memory::size(evidence, Rule::FITTED, risk, pools.of(evidence).memory).unwrap().bytes
}

fn cluster() -> impl Strategy<Value = Vec<Evidence>> {
    let peaks = prop::collection::vec((0..240_u32, 1..2000_u64), 1..60);
    prop::collection::vec(peaks, 1..5).prop_map(|all| {
        all.iter().enumerate().map(|(number, peaks)| evidence(&format!("web{number}x"), peaks)).collect()
    })
}

/// Containers with gaps, equal peaks, starts and kills.
fn cluster_with_gaps() -> impl Strategy<Value = Vec<Evidence>> {
    prop::collection::vec(history(), 1..5).prop_map(|mut all| {
        for (number, evidence) in all.iter_mut().enumerate() {
            evidence.workload = workload(&format!("web{number}x"));
        }
        all
    })
}

/// With a decision at each step from the beginning of time, whether anything was observed or not.
fn stepped(all: &[Evidence]) -> Pools {
    let members = members(all);
    let mut pools = Pools::empty(Rule::FITTED, SCOPE);
    let end = members.iter().filter_map(|member| member.history.last()).max().map_or(0, |last| last.0 + 1);
    (0..end).step_by(TRIAL_STEP as usize).chain([end]).for_each(|at| pools.advance(Hour(at), &members));
    pools
}

fn before(evidence: &Evidence, now: u32) -> Evidence {
    let mut past = evidence.clone();
    past.hours.retain(|hour, _| hour.0 < now);
    past
}

proptest! {
    #[test]
    fn nothing_after_a_decision_changes_it(all in cluster(), steps in 4..40_u32) {
        let now = steps * 6;
        let past: Vec<Evidence> = all.iter().map(|evidence| before(evidence, now)).collect();
        let (whole, past_only) = (members(&all), members(&past));
        let mut with_future = Pools::empty(Rule::FITTED, SCOPE);
        let mut without = Pools::empty(Rule::FITTED, SCOPE);
        for at in (0..=now).step_by(6) {
            with_future.advance(Hour(at), &whole);
            without.advance(Hour(at), &past_only);
        }
        for evidence in &past {
            prop_assert_eq!(with_future.of(evidence), without.of(evidence));
        }
    }

    #[test]
    fn steps_and_the_whole_history_agree(all in cluster()) {
        let all_members = members(&all);
        let whole = Pools::new(&all_members, Rule::FITTED, SCOPE);
        let mut steps = Pools::empty(Rule::FITTED, SCOPE);
        let end = all.iter().filter_map(Evidence::span).map(|(_, last)| last.0 + 1).max().unwrap();
        (0..end).step_by(6).chain([end]).for_each(|at| steps.advance(Hour(at), &all_members));
        for evidence in &all {
            prop_assert_eq!(whole.of(evidence), steps.of(evidence));
        }
    }

    #[test]
    fn gaps_make_no_difference_between_steps_and_the_whole_history(all in cluster_with_gaps()) {
        let (whole, steps) = (Pools::new(&members(&all), Rule::FITTED, SCOPE), stepped(&all));
        for evidence in &all {
            prop_assert_eq!(whole.of(evidence), steps.of(evidence));
        }
    }

    #[test]
    fn a_history_at_the_end_of_all_hours_is_like_any_other(all in cluster(), to_the_end in 0..30_u32) {
        let advice = |all: &[Evidence]| {
            let pools = Pools::new(&members(all), Rule::FITTED, SCOPE);
            all.iter().map(|evidence| {
                let pool = pools.of(evidence);
                let usage = cpu::RequestUsage::new(evidence);
                let risk = Profile::Standard.risk();
                let memory = memory::size(evidence, Rule::FITTED, risk, pool.memory).map(|it| it.bytes);
                (memory, cpu::size(&usage, Rule::FITTED, risk, &pool.cpu).map(|it| it.cores))
            }).collect::<Vec<_>>()
        };
        let now = later(&all, 0);
        prop_assert_eq!(advice(&later(&all, (u32::MAX - 300) / 24 * 24)), advice(&now));
        // There, the day after the last decisions ends beyond the last hour.
        let last = all.iter().filter_map(Evidence::span).map(|(_, last)| last.0).max().unwrap();
        let at_the_end = advice(&later(&all, u32::MAX - to_the_end - last));
        prop_assert!(at_the_end.iter().all(|(bytes, cores)| bytes.is_some_and(f64::is_finite) && cores.is_some_and(f64::is_finite)));
    }

    #[test]
    fn a_lower_risk_never_gets_a_lower_limit(all in cluster(), risk in 0.0001..0.5_f64, part in 0.01..1.0_f64) {
        let pools = Pools::new(&members(&all), Rule::FITTED, SCOPE);
        for evidence in &all {
            prop_assert!(limit(evidence, &pools, risk * part) >= limit(evidence, &pools, risk));
        }
    }

    #[test]
    fn the_expected_risk_falls_with_the_limit(all in cluster(), bytes in 1.0..4e9_f64, more in 0.0..4e9_f64) {
        let pools = Pools::new(&members(&all), Rule::FITTED, SCOPE);
        for evidence in &all {
            let sized = memory::size(evidence, Rule::FITTED, Profile::Standard.risk(), pools.of(evidence).memory).unwrap();
            let (low, high) = (memory::risk_of(bytes, &sized), memory::risk_of(bytes + more, &sized));
            prop_assert!((0.0..=1.0).contains(&low) && high <= low * (1.0 + 1e-9), "{low} {high}");
        }
    }
}

/// The same containers so many hours later, with CPU usage.
fn later(all: &[Evidence], hours: u32) -> Vec<Evidence> {
    let moved = |evidence: &Evidence| {
        let mut moved = Evidence { hours: BTreeMap::new(), ..evidence.clone() };
        for (hour, record) in &evidence.hours {
            let used = record.highest().map_or(0, |peak| peak.bytes / MIB);
            let record_later = moved.hour(Hour(hour.0 + hours));
            *record_later = record.clone();
            record_later.cpu.record(used as f64 / 1000.0, 36_000);
        }
        moved
    };
    all.iter().map(moved).collect()
}

/// Workloads that double their usage together in every fourth of so many hours.
fn doubling(hours: &[u32]) -> Vec<Evidence> {
    let usage = |number: usize| 100 << (number / 4);
    let peaks: Vec<(u32, u64)> =
        hours.iter().enumerate().map(|(number, hour)| (*hour, usage(number))).collect();
    (0..20).map(|number| evidence(&format!("web{number}x"), &peaks)).collect()
}

#[test]
fn a_day_without_usage_is_no_time_of_trials() {
    // Nothing follows the decisions of the hours 42, 48 and 54.
    let hours: Vec<u32> = (0..=36).step_by(6).chain((80..110).step_by(6)).collect();
    let all = doubling(&hours);
    assert_eq!(Pools::new(&members(&all), Rule::FITTED, SCOPE).of_cluster(), stepped(&all).of_cluster());
}

#[test]
fn the_past_begins_with_the_first_decision_that_something_followed() {
    // Nothing follows the decision of hour 6.
    let hours: Vec<u32> = (0..1).chain((35..100).step_by(6)).collect();
    let all = doubling(&hours);
    assert_eq!(Pools::new(&members(&all), Rule::FITTED, SCOPE).of_cluster(), stepped(&all).of_cluster());
}

/// Workloads whose highest usage of each six hours has a heavy tail.
fn noisy(workloads: usize, days: u32, tail: f64) -> Vec<Evidence> {
    let mut random = Random::new(1);
    (0..workloads)
        .map(|number| {
            let mib = 50.0 * 40.0_f64.powf(random.unit());
            let peaks: Vec<(u32, u64)> = (0..days * 4)
                .map(|quarter| {
                    (quarter * 6 + 5, (mib * (1.0 + 0.02 * ((1.0 - random.unit()).powf(-tail) - 1.0))) as u64)
                })
                .collect();
            evidence(&format!("web{number}x"), &peaks)
        })
        .collect()
}

/// Seen ÷ asked from one day to another, by risk.
fn delivered(all: &[Evidence], from: u32, to: u32) -> Vec<(f64, f64)> {
    let members = members(all);
    let mut pools = Pools::empty(Rule::FITTED, SCOPE);
    let mut start = [Delivered::default(); STEPS];
    for at in (0..=to * 24).step_by(6) {
        pools.advance(Hour(at), &members);
        if at == from * 24 {
            start = pools.memory.delivered;
        }
    }
    let ratio = |(now, start): (Delivered, Delivered)| (now.seen - start.seen) / (now.asked - start.asked);
    RISKS.into_iter().zip(pools.memory.delivered.into_iter().zip(start).map(ratio)).collect()
}

#[test]
fn delivers_what_was_asked() {
    // One hour in six is observed, so 800 workloads have 133 pod-days a day: 20 ÷ risk after two days at 10 % and after three at 5 %.
    for tail in [0.2, 0.5] {
        let all = noisy(800, 30, tail);
        for (risk, ratio) in delivered(&all, 12, 30).into_iter().take(2) {
            assert!(
                (0.7..1.3).contains(&ratio),
                "tail {tail}, asked {risk}: delivered {ratio} times as much"
            );
        }
    }
}

/// Workloads of four pods whose usage is higher on one day of ten, of all four pods at once: the factor of each day.
fn shaken(workloads: usize, days: usize) -> Vec<Vec<f64>> {
    let mut random = Random::new(7);
    let mut day = || if random.unit() < 0.1 { 1.0 + 0.1 * random.exponential() } else { 1.0 };
    (0..workloads).map(|_| (0..days).map(|_| day()).collect()).collect()
}

#[test]
fn pods_that_fail_together_are_delivered_what_was_asked() {
    const DAYS: usize = 120;
    const PODS: u64 = 4;
    let factors = shaken(60, DAYS);
    let past = |number: usize, days: usize| {
        let name = format!("web{number}x");
        let mut evidence = Evidence::new(workload(&name), container("app"), 100);
        for (day, factor) in factors[number].iter().enumerate().take(days).skip(days.saturating_sub(14)) {
            for quarter in 0..4 {
                let record = evidence.hour(Hour((day * 24 + quarter * 6) as u32));
                record.observed = PODS * HOUR * 6;
                let bytes = (200.0 * MIB as f64 * factor) as u64;
                record.working_set.record(bytes as f64, PODS * HOUR * 6);
                record.peak =
                    Some(Peak { bytes, at: day as u64 * 24 * HOUR, pod: format!("{name}-{quarter}") });
            }
        }
        evidence
    };
    let mut pools = Pools::empty(Rule::FITTED, SCOPE).with_step(Hour(24));
    let (mut failed, mut all) = (0.0, 0.0);
    for day in 1..DAYS {
        let evidence: Vec<Evidence> = (0..factors.len()).map(|number| past(number, day)).collect();
        pools.advance(Hour((day * 24) as u32), &members(&evidence));
        // 240 pod-days a day, so 20 ÷ risk are known after five days at 2 %.
        for (number, evidence) in evidence.iter().enumerate().filter(|_| day > 30) {
            all += 1.0;
            let need = 200.0 * MIB as f64 * factors[number][day];
            failed += if need > limit(evidence, &pools, 0.02) { 1.0 } else { 0.0 };
        }
    }
    let ratio = failed / all / 0.02;
    assert!((0.8..1.2).contains(&ratio), "delivered {ratio} times what was asked");
}

#[test]
fn own_past_outweighs_likes_with_time() {
    let varying = |days: u32| {
        let peaks: Vec<(u32, u64)> =
            (0..days * 4).map(|quarter| (quarter * 6, 100 * (1 + u64::from(quarter) / 4))).collect();
        evidence("odd", &peaks)
    };
    let mut all = noisy(50, 40, 0.2);
    all.push(varying(40));
    let pools = Pools::new(&members(&all), Rule::FITTED, SCOPE);
    let factor = |days: u32| {
        let evidence = varying(days);
        memory::size(&evidence, Rule::FITTED, Profile::Standard.risk(), pools.of(&evidence).memory)
            .unwrap()
            .factors
            .own
    };
    assert!(factor(2) <= factor(5) && factor(5) < factor(40), "{} {} {}", factor(2), factor(5), factor(40));
}

#[test]
fn likes_are_of_one_namespace_unless_asked() {
    let mut other = noisy(30, 20, 0.9);
    for evidence in &mut other {
        evidence.workload.namespace = "other".to_owned();
    }
    let calm = evidence("calm", &(0..80).map(|quarter| (quarter * 6, 100)).collect::<Vec<_>>());
    other.push(calm.clone());
    let days = |scope| {
        let members: Vec<Member<'_>> = other.iter().map(|evidence| Member::new(evidence, scope)).collect();
        let pools = Pools::new(&members, Rule::FITTED, scope);
        pools.of(&calm).memory.likes_days()
    };
    assert_eq!(days(LikesScope::Namespace), 0.0);
    assert!(days(LikesScope::Cluster) > 500.0);
}
