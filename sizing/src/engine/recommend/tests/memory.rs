//! The rules of memory, over random histories.

use std::collections::BTreeMap;

use super::*;
use crate::evidence::EarlierPeak;

const DAY: u64 = 24 * HOUR;

/// A container with everything that the rules look at.
pub(super) fn containers() -> impl Strategy<Value = Evidence> {
    let hour = (0..200_u32, 1..2000_u64, 0.0..1.0_f64, any::<bool>(), prop::option::of(0.0..1.0_f64));
    let kill = (0..200_u32, prop_oneof![1 => Just(0), 4 => 1..2000_u64]);
    (
        prop::collection::vec(hour, 1..25),
        prop::option::of((1..4000_u64, 0.0..=1.0_f64)),
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(kill, 1..4)],
        prop::option::of((1..4000_u64, 0..300_u64)),
        prop_oneof![2 => Just(0), 1 => (1..500_u64).prop_map(|mib| mib * MIB), 1 => Just(u64::MAX)],
        settings(),
        prop::option::of(0..200_u64),
    )
        .prop_map(|(hours, current, kills, earlier, volumes, settings, image)| {
            let seen: Vec<PodHour> = hours
                .iter()
                .map(|(hour, mib, cores, start, _)| PodHour {
                    hour: *hour,
                    mib: *mib,
                    cores: *cores,
                    start: *start,
                })
                .collect();
            let mut evidence = evidence(&seen);
            for (hour, mib, .., unreclaimable) in hours {
                if let Some(share) = unreclaimable {
                    let record = evidence.hour(Hour(hour));
                    record.unreclaimable.record(share * (mib * MIB) as f64, 1);
                }
            }
            for (hour, mib) in kills {
                let at = u64::from(hour) * HOUR;
                let kill = OomKill { at, limit: mib * MIB, pod: "web-1".to_owned() };
                evidence.hour(Hour(hour)).kills.push(kill);
            }
            let container = &mut evidence.container;
            container.seen = 1;
            if let Some((limit, share)) = current {
                let limit = limit * MIB;
                container.current.memory_limit = Some(limit);
                container.current.memory_request = Some((limit as f64 * share) as u64);
            }
            container.memory_volumes = volumes;
            container.settings = settings;
            if let Some(hour) = image {
                container.image = "app:2".to_owned();
                evidence.images =
                    BTreeMap::from([("app:1".to_owned(), 0), ("app:2".to_owned(), hour * HOUR)]);
            }
            evidence.earlier_peak = earlier.map(|(mib, hour)| EarlierPeak {
                bytes: mib * MIB,
                at: hour * HOUR,
                pod: "web-1".to_owned(),
            });
            evidence
        })
}

fn settings() -> impl Strategy<Value = BTreeMap<String, String>> {
    let setting = prop_oneof![
        (1..4000_u64).prop_map(|mib| ("-Xmx", format!("{mib}m"))),
        (1..4000_u64).prop_map(|mib| ("GOMEMLIMIT", format!("{mib}MiB"))),
        (1..4000_u64).prop_map(|mib| ("NODE_OPTIONS --max-old-space-size", format!("{mib}"))),
        (10..=100_u64).prop_map(|share| ("-XX:MaxRAMPercentage", format!("{share}"))),
        Just(("WEB_CONCURRENCY", "4".to_owned())),
        Just(("GOMAXPROCS", String::new())),
        Just(("java", String::new())),
    ];
    let some = prop::collection::btree_map(
        setting.clone().prop_map(|(name, value)| (name.to_owned(), value)),
        Just(()),
        1..3,
    )
    .prop_map(|pairs| pairs.into_keys().collect());
    prop_oneof![1 => Just(BTreeMap::new()), 1 => some]
}

pub(super) fn advised(evidence: &Evidence) -> Recommendation {
    recommend(evidence, &policy(), Context::default()).unwrap()
}

pub(super) fn memory_limit(evidence: &Evidence) -> Option<u64> {
    advised(evidence).values.memory_limit
}

/// The end of the last hour, seconds.
fn end(evidence: &Evidence) -> u64 {
    (u64::from(evidence.span().unwrap().1.0) + 1) * HOUR
}

pub(super) fn at_least(value: Option<u64>, bound: f64) -> Result<(), String> {
    match value {
        Some(value) if (value as f64) < bound => Err(format!("{value} is below {bound}")),
        _ => Ok(()),
    }
}

#[test]
fn no_memory_limit_is_below_what_a_container_needs_to_start() {
    let small = prop::collection::vec((0..72_u32, 1..12_u64, 0.0..0.1_f64), 1..20).prop_map(|hours| {
        let seen: Vec<PodHour> = hours
            .iter()
            .map(|(hour, mib, cores)| PodHour { hour: *hour, mib: *mib, cores: *cores, start: false })
            .collect();
        evidence(&seen)
    });
    AdviceRule::RuntimeMinimum.prove(
        &small,
        |evidence| evidence.hours.values().all(|hour| hour.highest().unwrap().bytes < 8 * MIB),
        |evidence| at_least(memory_limit(evidence), 16.0 * MIB as f64),
    );
}

/// Large containers that used most of their memory once, long ago: their headroom is less than what old peaks lose of their weight.
fn once_large() -> impl Strategy<Value = Evidence> {
    (20_000..60_000_u64, 0.95..1.0_f64, 150..250_u32).prop_map(|(mib, share, hours)| {
        let seen: Vec<PodHour> = (0..hours)
            .map(|hour| PodHour {
                hour,
                mib: if hour == 0 { mib } else { mib / 4 },
                cores: 0.1,
                start: false,
            })
            .collect();
        let mut evidence = evidence(&seen);
        evidence.hour(Hour(0)).unreclaimable.record(share * (mib * MIB) as f64, 1);
        evidence
    })
}

#[test]
fn no_memory_limit_is_below_the_peak_of_unreclaimable_memory() {
    // A bucket of the histogram is 9 % wide.
    let lowest = |record: &HourRecord| record.unreclaimable.quantile(1.0).unwrap_or(0.0) / 1.091;
    AdviceRule::UnreclaimablePeak.prove(
        &prop_oneof![containers(), once_large()],
        |evidence| evidence.hours.values().any(|hour| lowest(hour) > 0.0),
        |evidence| at_least(memory_limit(evidence), evidence.hours.values().map(lowest).fold(0.0, f64::max)),
    );
}

#[test]
fn nothing_is_lowered_below_the_highest_usage_from_before_the_agent_for_a_week() {
    AdviceRule::EarlierPeak.prove(
        &containers(),
        |evidence| {
            let earlier = evidence.earlier_peak.as_ref();
            earlier.is_some_and(|peak| end(evidence) < peak.at + 7 * DAY)
        },
        |evidence| {
            let earlier = evidence.earlier_peak.as_ref().unwrap().bytes;
            let current = evidence.container.current;
            let values = advised(evidence).values;
            at_least(values.memory_limit, earlier.min(current.memory_limit.unwrap_or(u64::MAX)) as f64)?;
            let request = earlier.min(current.memory_request.unwrap_or(0));
            at_least(values.memory_request, request as f64)
        },
    );
}

#[test]
fn a_peak_from_before_the_agent_does_not_hold_a_limit_up_for_ever() {
    let mut evidence = steady();
    evidence.container.current.memory_limit = Some(200 * MIB);
    let earlier = |at| Some(EarlierPeak { bytes: 160 * MIB, at, pod: "web-0".to_owned() });
    evidence.earlier_peak = earlier(335 * HOUR);
    assert_eq!(memory_limit(&evidence), Some(160 * MIB));
    evidence.earlier_peak = earlier(100 * HOUR);
    assert_eq!(memory_limit(&evidence), Some(144 * MIB));
}

#[test]
fn a_peak_from_before_the_agent_raises_no_request() {
    // Without a limit, page cache may have filled the node.
    let mut evidence = steady();
    evidence.earlier_peak =
        Some(EarlierPeak { bytes: 50_000 * MIB, at: 335 * HOUR, pod: "web-0".to_owned() });
    let values = advised(&evidence).values;
    // Rounded up to a step.
    assert_eq!((values.memory_request, values.memory_limit), (Some(144 * MIB), Some(50_176 * MIB)));
}

/// Containers whose page cache fills the limit.
fn caching() -> impl Strategy<Value = Evidence> {
    (200..2000_u64, prop::collection::vec((0..200_u32, 0.01..0.15_f64), 1..20)).prop_map(|(limit, hours)| {
        let seen: Vec<PodHour> = hours
            .iter()
            .map(|(hour, _)| PodHour { hour: *hour, mib: limit, cores: 0.1, start: false })
            .collect();
        let mut evidence = evidence(&seen);
        evidence.container.current.memory_limit = Some(limit * MIB);
        for (hour, share) in hours {
            evidence.hour(Hour(hour)).unreclaimable.record(share * (limit * MIB) as f64, 1);
        }
        evidence
    })
}

#[test]
fn page_cache_that_fills_the_limit_does_not_raise_it() {
    AdviceRule::PageCache.prove(
        &caching(),
        |_| true,
        |evidence| {
            let current = evidence.container.current.memory_limit;
            let advised = advised(evidence);
            let (limit, risk) = (advised.values.memory_limit, advised.oom_risk.unwrap().0);
            if limit <= current && risk < 0.1 { Ok(()) } else { Err(format!("{limit:?}, {risk}")) }
        },
    );
}

#[test]
fn page_cache_is_needed_where_the_container_waits_for_memory() {
    let hour = PodHour { hour: 0, mib: 500, cores: 0.1, start: false };
    let mut evidence = evidence(&[hour]);
    evidence.container.current.memory_limit = Some(500 * MIB);
    evidence.hour(Hour(0)).unreclaimable.record(50.0 * MIB as f64, 1);
    assert!(memory_limit(&evidence) < Some(500 * MIB));
    evidence.hour(Hour(0)).stalled.memory_millis = HOUR * 50;
    assert!(memory_limit(&evidence) > Some(500 * MIB));
}

#[test]
fn without_use_there_is_no_advice() {
    let hours = prop::collection::vec((0..72_u32, 0..3_u64, prop_oneof![Just(0.0), 0.0..0.1_f64]), 1..5);
    let idle = hours.prop_map(|hours| {
        let seen: Vec<PodHour> = hours
            .iter()
            .map(|(hour, mib, cores)| PodHour { hour: *hour, mib: *mib, cores: *cores, start: false })
            .collect();
        let mut evidence = evidence(&seen);
        evidence.container.current.cpu_request = Some(500);
        evidence
    });
    let peak = |evidence: &Evidence| evidence.hours.values().map(|hour| hour.highest().unwrap().bytes).max();
    let has_cpu =
        |evidence: &Evidence| evidence.hours.values().any(|hour| hour.cpu.quantile(1.0) > Some(0.0));
    AdviceRule::NoUse.prove(
        &idle,
        |evidence| peak(evidence) == Some(0) || !has_cpu(evidence),
        |evidence| match recommend(evidence, &policy(), Context::default()) {
            Err(NotEnoughData::NoMemoryUse) if peak(evidence) == Some(0) => Ok(()),
            Ok(advised) if peak(evidence) > Some(0) && advised.values.cpu_request == Some(500) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}

#[test]
fn a_sandboxed_container_is_refused_with_the_reason() {
    // One day of zeros, and a limit of 4Gi.
    let seen: Vec<PodHour> = (0..24).map(|hour| PodHour { hour, mib: 0, cores: 0.0, start: false }).collect();
    let mut evidence = evidence(&seen);
    evidence.container.current.memory_limit = Some(4096 * MIB);
    let refused = recommend(&evidence, &policy(), Context::default()).unwrap_err().to_string();
    assert!(refused.contains("no task ran") && refused.contains("gVisor, Kata"), "{refused}");
    evidence.hours.values_mut().for_each(|hour| hour.peak = None);
    let refused = recommend(&evidence, &policy(), Context::default());
    assert_eq!(
        refused,
        Err(NotEnoughData::NoMemoryUse),
        "there are samples of CPU time alone, and all are 0"
    );
}

#[test]
fn tiny_containers_get_what_they_need_to_start() {
    for (name, bytes) in [("sleeper", 160_418), ("nanny", 427_619), ("pgbouncer", 1_710_856)] {
        let seen: Vec<PodHour> =
            (0..168).map(|hour| PodHour { hour, mib: 1, cores: 0.001, start: false }).collect();
        let mut evidence = evidence(&seen);
        evidence.hours.values_mut().for_each(|hour| hour.peak.as_mut().unwrap().bytes = bytes);
        evidence.container.current.memory_limit = Some(32 * MIB);
        assert_eq!(memory_limit(&evidence), Some(16 * MIB), "{name}");
    }
}

#[test]
fn kills_count_however_short_the_history_is() {
    let looping = (0..60_u64, prop::option::of(1..300_u64), prop::collection::vec(1..300_u64, 0..4));
    let looping = looping.prop_map(|(observed, mib, kills)| {
        let seen: Vec<PodHour> =
            mib.into_iter().map(|mib| PodHour { hour: 5, mib, cores: 0.5, start: true }).collect();
        let mut evidence = evidence(&seen);
        evidence.container.current.memory_limit = Some(300 * MIB);
        evidence.hour(Hour(5)).observed = observed;
        for (number, limit) in kills.iter().enumerate() {
            let at = 5 * HOUR + number as u64;
            let kill = OomKill { at, limit: limit * MIB, pod: "web-1".to_owned() };
            evidence.hour(Hour(5)).kills.push(kill);
        }
        evidence
    });
    AdviceRule::ShortHistory.prove(
        &looping,
        |evidence| evidence.kills().next().is_some(),
        |evidence| {
            let advised =
                recommend(evidence, &policy(), Context::default()).map_err(|error| error.to_string())?;
            let failed = evidence.kills().map(|kill| kill.limit).max();
            if advised.values.memory_limit > failed && advised.confidence == Confidence::Low {
                Ok(())
            } else {
                Err(format!("{advised:?}"))
            }
        },
    );
}

#[test]
fn a_crash_loop_is_expected_to_go_on() {
    let mut evidence = evidence(&[]);
    evidence.container.current.memory_limit = Some(256 * MIB);
    evidence.container.current.cpu_request = Some(200);
    let kill = OomKill { at: 100, limit: 256 * MIB, pod: "web-1".to_owned() };
    evidence.hour(Hour(0)).kills = vec![kill; 12];
    let advised = advised(&evidence);
    assert!(advised.values.memory_limit >= Some(307 * MIB), "{advised:?}");
    assert_eq!(advised.oom_risk.unwrap().0, 1.0);
    assert_eq!(advised.values.cpu_request, Some(200), "nothing is known of CPU");
}

#[test]
fn after_a_kill_no_limit_is_at_or_below_the_one_that_was_hit() {
    let last_day = |evidence: &Evidence, kill: &OomKill| kill.at + DAY > end(evidence);
    AdviceRule::KillRaises.prove(
        &containers(),
        |evidence| evidence.kills().next().is_some(),
        |evidence| {
            let limit = memory_limit(evidence);
            let current = evidence.container.current.memory_limit;
            let hit = evidence.kills().map(|kill| match kill.limit {
                // The kernel did not report the limit.
                0 if last_day(evidence, kill) => current.unwrap_or(0),
                0 => current.map_or(0, |current| current - 1),
                limit => limit,
            });
            let hit = hit.max();
            if limit > hit { Ok(()) } else { Err(format!("{limit:?} after a kill at {hit:?}")) }
        },
    );
}

#[test]
fn values_are_lowered_by_a_part_at_a_time_and_by_less_with_less_confidence() {
    AdviceRule::LargestStep.prove(
        &containers(),
        |evidence| evidence.container.current.memory_limit.is_some(),
        |evidence| {
            let Recommendation { values, confidence, .. } = advised(evidence);
            let share = match confidence {
                _ if evidence.kills().next().is_some() => 0.75,
                Confidence::Low => 0.75,
                Confidence::Medium => 0.5,
                Confidence::High => 0.25,
            };
            let current = evidence.container.current;
            at_least(values.memory_limit, current.memory_limit.unwrap() as f64 * share)?;
            let request = current.memory_request.unwrap() as f64 * share;
            at_least(values.memory_request, request.min(values.memory_limit.unwrap_or(0) as f64))
        },
    );
}

#[test]
fn a_limit_that_is_lowered_step_by_step_does_not_raise_the_request() {
    let mut evidence = steady();
    evidence.container.current.memory_request = Some(180 * MIB);
    evidence.container.current.memory_limit = Some(1024 * MIB);
    let values = advised(&evidence).values;
    assert_eq!((values.memory_request, values.memory_limit), (Some(144 * MIB), Some(256 * MIB)));
    evidence.container.current.cpu_request = Some(100);
    evidence.container.current.cpu_limit = Some(100);
    evidence.container.current.memory_request = Some(1024 * MIB);
    let values = advised(&evidence).values;
    assert_eq!(values.memory_request, values.memory_limit, "a Guaranteed pod stays one");
}

#[test]
fn a_limit_is_not_lowered_below_usage_and_what_volumes_in_memory_may_hold() {
    AdviceRule::VolumesFit.prove(
        &containers(),
        |evidence| evidence.container.memory_volumes > 0 && evidence.container.current.memory_limit.is_some(),
        |evidence| {
            let Recommendation { values, memory, .. } = advised(evidence);
            let needed = memory.unwrap().basis.bytes + evidence.container.memory_volumes as f64;
            at_least(values.memory_limit, needed.min(evidence.container.current.memory_limit.unwrap() as f64))
        },
    );
}

#[test]
fn usage_of_earlier_images_does_not_make_a_recommendation_sure() {
    let replaced = (0..192_u64, 168..192_u32).prop_map(|(first, hours)| {
        let seen: Vec<PodHour> =
            (0..hours).map(|hour| PodHour { hour, mib: 100, cores: 0.1, start: false }).collect();
        let mut evidence = evidence(&seen);
        evidence.container.image = "app:2".to_owned();
        evidence.images = BTreeMap::from([("app:1".to_owned(), 0), ("app:2".to_owned(), first * HOUR)]);
        evidence
    });
    let age = |evidence: &Evidence| end(evidence).saturating_sub(evidence.images["app:2"]);
    AdviceRule::NewImage.prove(
        &replaced,
        |evidence| age(evidence) < 7 * DAY,
        |evidence| {
            let confidence = advised(evidence).confidence;
            let highest = if age(evidence) < DAY { Confidence::Low } else { Confidence::Medium };
            if confidence <= highest { Ok(()) } else { Err(format!("{confidence:?}")) }
        },
    );
}
