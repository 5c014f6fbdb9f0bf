use proptest::prelude::*;

use super::{super::*, LimitKept};
use crate::{
    cpu_quota::{QUOTAS, QuotaOutcome},
    engine::{Profile, stability},
    evidence::{HOUR, Hour, Peak},
    workload::tests::{container, workload},
};

const MIB: u64 = 1 << 20;

/// A container and the periods that are known of it.
#[derive(Clone, Debug)]
struct Case {
    hours: u32,
    /// Cores in most minutes, and in one of 30.
    cores: (f64, f64),
    mib: u64,
    /// Current CPU limit in millicores.
    limit: u64,
    /// The simulation throttles half of the periods below the first quota, 2 % below the second, and none from there on.
    quotas: Option<(u64, u64)>,
    /// Share of periods that the current limit throttled.
    throttled: Option<f64>,
    guaranteed: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    let limit = prop_oneof![50..8000_u64, (1..9_u64).prop_map(|cores| cores * 1000)];
    let quotas = prop::option::of((50..20_000_u64, 50..20_000_u64));
    let throttled = prop::option::of(prop_oneof![Just(0.0), 0.0..0.5_f64]);
    // Usage is below the limit.
    let usage = (0.01..1.0_f64, 1.0..8.0_f64, 64..2000_u64);
    (1..72_u32, usage, limit, quotas, throttled, any::<bool>()).prop_map(
        |(hours, (highest, burst, mib), limit, quotas, throttled, guaranteed)| {
            let highest = highest * limit as f64 / 1000.0;
            Case { hours, cores: (highest / burst, highest), mib, limit, quotas, throttled, guaranteed }
        },
    )
}

impl Case {
    fn evidence(&self) -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 60_000);
        let memory = Some(self.mib * 2 * MIB);
        let cpu_request = if self.guaranteed { self.limit } else { self.limit / 2 };
        evidence.container.current = Resources {
            cpu_request: Some(cpu_request),
            cpu_limit: Some(self.limit),
            memory_request: memory,
            memory_limit: memory,
        };
        for hour in 0..self.hours {
            let record = evidence.hour(Hour(hour));
            record.observed = HOUR;
            record.cpu.record(self.cores.0, 58);
            record.cpu.record(self.cores.1, 2);
            let at = u64::from(hour) * HOUR;
            record.peak = Some(Peak { bytes: self.mib * MIB, at, pod: "web-1".to_owned() });
            if let Some(share) = self.throttled {
                (record.periods, record.throttled) = (10_000, (share * 10_000.0) as u64);
            }
            record.quota_what_if = self.quotas.map(|(half, some)| {
                let throttled = |quota| {
                    if quota < half {
                        500
                    } else if quota < some {
                        20
                    } else {
                        0
                    }
                };
                let outcome =
                    |quota| QuotaOutcome { periods: 1000, throttled: throttled(quota), delayed_millis: 0 };
                QUOTAS.into_iter().map(|quota| (quota, outcome(quota))).collect()
            });
        }
        evidence
    }

    /// The smallest quota that the simulation shows to be enough.
    fn enough(&self) -> Option<u64> {
        let (half, some) = self.quotas?;
        QUOTAS.into_iter().find(|quota| *quota >= half.max(some))
    }

    fn is_above_risk(&self) -> bool {
        self.throttled.is_some_and(|share| share > 0.0105)
    }

    fn said(&self, policy: &Policy) -> Recommendation {
        let qos = if self.guaranteed { QosClass::Guaranteed } else { QosClass::Burstable };
        let context = Context { qos: Some(qos), ..Context::default() };
        recommend(&self.evidence(), policy, context).unwrap()
    }
}

fn policy() -> Policy {
    Policy { cpu_limit: CpuLimit::ByRisk, ..Policy::new(Profile::Standard.risk()) }
}

/// `Ok` if the values are as promised.
fn check(holds: bool, found: &Recommendation) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{:?} {:?}", found.values, found.reasons)) }
}

#[test]
fn without_periods_the_current_limit_stays_and_says_why() {
    AdviceRule::PeriodsCarryLimits.prove(
        &cases(),
        |case| case.quotas.is_none(),
        |case| {
            let said = case.said(&policy());
            let is_said = said
                .reasons
                .iter()
                .any(|reason| matches!(reason, Reason::CpuLimitKept { limit, .. } if *limit == case.limit));
            check(said.values.cpu_limit == Some(case.limit) && is_said, &said)
        },
    );
}

#[test]
fn a_limit_that_throttled_too_much_is_raised_as_far_as_the_simulation_shows() {
    AdviceRule::ThrottledLimitRises.prove(
        &cases(),
        |case| case.is_above_risk() && case.quotas.is_some(),
        |case| {
            let said = case.said(&policy());
            let limit = said.values.cpu_limit.unwrap_or(0);
            let request = said.values.cpu_request.unwrap_or(0);
            let enough = case.enough().is_some_and(|enough| enough.max(request).max(case.limit) < 16_000);
            check(if enough { limit > case.limit } else { limit >= case.limit }, &said)
        },
    );
}

#[test]
fn a_limit_is_not_lowered_in_the_first_day() {
    AdviceRule::LimitFallsAfterADay.prove(
        &cases(),
        |case| case.hours < 24,
        |case| {
            let said = case.said(&policy());
            check(said.values.cpu_limit >= Some(case.limit), &said)
        },
    );
}

/// Bounds as of a policy file: one for CPU, one for memory.
fn bounded(max: Option<u64>) -> Policy {
    let max = Resources { cpu_request: max, cpu_limit: max, ..Resources::default() };
    Policy { max, ..Policy::new(Profile::Standard.risk()) }
}

#[test]
fn the_request_of_a_guaranteed_pod_follows_its_limit() {
    AdviceRule::RequestFollowsLimit.prove(
        &(cases(), prop::option::of(50..4000_u64)),
        |(case, _)| case.guaranteed,
        |(case, max)| {
            let said = case.said(&bounded(*max));
            let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = said.values;
            let is_guaranteed =
                cpu_limit.is_some() && cpu_request == cpu_limit && memory_request == memory_limit;
            check(is_guaranteed && max.is_none_or(|max| cpu_limit <= Some(max)), &said)
        },
    );
}

#[test]
fn whole_cores_stay_whole() {
    AdviceRule::WholeCores.prove(
        &(cases(), prop::option::of(1000..4000_u64)),
        |(case, _)| case.guaranteed && case.limit.is_multiple_of(1000),
        |(case, max)| {
            let said = case.said(&bounded(*max));
            let is_whole =
                |value: Option<u64>| value.is_some_and(|value| value > 0 && value.is_multiple_of(1000));
            check(is_whole(said.values.cpu_request) && is_whole(said.values.cpu_limit), &said)
        },
    );
}

#[test]
fn small_changes_of_current_values_are_not_proposed() {
    // Near what would be proposed.
    let near = (0.8..1.3_f64, 0.8..1.3_f64, 0.8..1.3_f64);
    AdviceRule::MinimalChange.prove(
        &(cases(), near),
        |(case, _)| !case.guaranteed && !case.is_above_risk(),
        |(case, near)| {
            let qos = Some(QosClass::Burstable);
            let context = Context { qos, ..Context::default() };
            let mut evidence = case.evidence();
            let wanted = recommend(&evidence, &policy(), context).unwrap().values;
            let times = |value: Option<u64>, factor: f64| value.map(|value| (value as f64 * factor) as u64);
            let memory = times(wanted.memory_limit, near.1);
            evidence.container.current = Resources {
                cpu_request: times(wanted.cpu_request, near.0),
                cpu_limit: times(wanted.cpu_limit, near.2),
                memory_request: memory,
                memory_limit: memory,
            };
            let said = recommend(&evidence, &policy(), context).unwrap();
            let now = evidence.container.current;
            // A request stays below its limit, however small the change.
            if now.cpu_limit.is_some_and(|limit| now.cpu_request.max(wanted.cpu_request) >= Some(limit)) {
                return Ok(());
            }
            type Small = fn(u64, u64) -> bool;
            let fields: [(Option<u64>, Option<u64>, Small); 3] = [
                (now.cpu_request, said.values.cpu_request, stability::is_small_cpu_change),
                (now.memory_limit, said.values.memory_limit, stability::is_small_memory_change),
                (now.cpu_limit, said.values.cpu_limit, stability::is_small_cpu_change),
            ];
            let is_worth_it = fields.into_iter().all(|(now, then, is_small)| {
                now.zip(then).is_none_or(|(now, then)| now == then || !is_small(now, then))
            });
            let is_below_limit =
                said.values.cpu_request < said.values.cpu_limit || said.values.cpu_limit.is_none();
            check(is_worth_it && is_below_limit, &said)
        },
    );
}

#[test]
fn a_risk_far_above_the_asked_one_is_said() {
    AdviceRule::ExpectedRisk.prove(
        &cases(),
        |case| case.cores.1 > 2.0 * case.cores.0,
        |case| {
            let bursty = Case { cores: (case.cores.0 / 100.0, case.cores.1), limit: 100_000, ..case.clone() };
            let mut evidence = bursty.evidence();
            evidence.container.current = Resources::default();
            // One minute of an hour is above the request.
            evidence.hours.values_mut().for_each(|hour| {
                hour.cpu = crate::histogram::Histogram::default();
                hour.cpu.record(bursty.cores.0, 119);
                hour.cpu.record(bursty.cores.1, 1);
            });
            let said = recommend(&evidence, &policy(), Context::default()).unwrap();
            let expected = said.cpu_work_above.map_or(0.0, |(_, expected)| expected);
            let is_said = said.reasons.iter().any(|reason| {
                matches!(reason, Reason::ExpectedRisk { resource: "cpu", expected: said, .. } if *said == expected)
            });
            check(is_said == (expected > 0.02), &said)
        },
    );
}

/// Postgres: two cores in its highest minute, bursts of four.
fn postgres() -> Case {
    Case {
        hours: 48,
        cores: (1.9, 2.38),
        mib: 1000,
        limit: 4000,
        quotas: Some((2000, 3000)),
        throttled: Some(0.0),
        guaranteed: true,
    }
}

#[test]
fn no_cores_are_pinned_that_are_not_pinned_today() {
    let bound = prop::option::of((1..9_u64).prop_map(|cores| cores * 1000));
    let whole = |limit: u64| limit > 0 && limit.is_multiple_of(1000);
    let applies = |(case, min, max): &(Case, Option<u64>, Option<u64>)| {
        // Equal bounds are what the user asks for.
        case.guaranteed && !whole(case.limit) && min.zip(*max).is_none_or(|(min, max)| min < max)
    };
    AdviceRule::NotPinned.prove(&(cases(), bound.clone(), bound), applies, |(case, min, max)| {
        let of = |cpu_limit: Option<u64>| Resources { cpu_limit, ..Resources::default() };
        let said = case.said(&Policy { min: of(*min), max: of(*max), ..policy() });
        let limit = said.values.cpu_limit.unwrap_or(0);
        let is_within = min.is_none_or(|min| limit >= min) && max.is_none_or(|max| limit <= max);
        check(!whole(limit) && is_within && said.values.cpu_request == Some(limit), &said)
    });
}

#[test]
fn cpu_values_are_lowered_by_a_part_at_a_time() {
    let applies = |case: &Case| case.cores.1 * 1000.0 < case.limit as f64 / 4.0;
    AdviceRule::LargestCpuStep.prove(&cases(), applies, |case| {
        let said = case.said(&policy());
        let lowest =
            |now: Option<u64>| now.unwrap_or(0) as f64 * (1.0 - stability::largest_step(said.confidence));
        let (now, then) = (case.evidence().container.current, said.values);
        let is_high = |now: Option<u64>, then: Option<u64>| then.is_some_and(|it| it as f64 >= lowest(now));
        check(is_high(now.cpu_request, then.cpu_request) && is_high(now.cpu_limit, then.cpu_limit), &said)
    });
}

#[test]
fn limits_by_hand() {
    let limit = |case: &Case| {
        let said = case.said(&Policy::new(Profile::Standard.risk()));
        let why = said.reasons.iter().find_map(|reason| match reason {
            Reason::CpuLimitKept { why, .. } => Some(*why),
            _ => None,
        });
        assert_eq!(said.values.cpu_request, said.values.cpu_limit);
        (said.values.cpu_limit.unwrap(), why)
    };
    assert_eq!(limit(&postgres()), (4000, None), "3200 of the simulation, in whole cores");
    assert_eq!(limit(&Case { limit: 4500, ..postgres() }), (3200, None));
    let eight = Case { quotas: Some((8000, 8000)), throttled: Some(0.2), limit: 4500, ..postgres() };
    assert_eq!(limit(&eight), (8100, None), "whole cores would be pinned");
    let unsimulated = Case { quotas: None, ..postgres() };
    assert_eq!(limit(&unsimulated), (4000, Some(LimitKept::WithinRisk)));
    assert_eq!(
        limit(&Case { throttled: Some(0.2), ..unsimulated.clone() }),
        (4000, Some(LimitKept::AboveRisk))
    );
    assert_eq!(limit(&Case { throttled: None, ..unsimulated }), (4000, Some(LimitKept::NotMeasured)));
    assert_eq!(limit(&Case { throttled: Some(0.2), limit: 4500, ..postgres() }), (4800, None));
    let beyond = Case { quotas: Some((17_000, 17_000)), ..postgres() };
    assert_eq!(limit(&beyond), (4000, Some(LimitKept::BeyondSimulation)));
    assert_eq!(limit(&Case { hours: 20, limit: 9500, ..postgres() }), (9500, Some(LimitKept::ShortHistory)));
    // Between two simulated quotas, where the counters show that the current limit is enough.
    assert_eq!(limit(&Case { limit: 3100, ..postgres() }), (3100, Some(LimitKept::WithinRisk)));
}

#[test]
fn reasons_of_limits_are_sentences() {
    let said = |case: &Case| {
        let reasons = case.said(&Policy::new(Profile::Standard.risk())).reasons;
        reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for (case, text) in [
        (
            Case { quotas: None, ..postgres() },
            "CPU limit unchanged at 4000m: it throttled 0.00 % of CFS periods; without a quota simulation a lower limit is not known to be enough",
        ),
        (
            Case { quotas: None, throttled: None, ..postgres() },
            "CPU limit unchanged at 4000m: there are no throttling counters, and mean usage does not show what a limit throttles",
        ),
        (
            Case { throttled: Some(0.2), limit: 4500, ..postgres() },
            "the CPU limit of 4500m throttled 20 % of CFS periods, above the risk",
        ),
        (postgres(), "whole cores: the kubelet may have pinned the current ones"),
    ] {
        let said = said(&case);
        assert!(said.contains(text), "{said}");
    }
}
