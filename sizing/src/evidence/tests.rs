use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    minutes::{Minute, MinuteRecord},
    workload::tests::{container, workload},
};

fn record() -> impl Strategy<Value = HourRecord> {
    (0..7200_u64, prop::collection::vec(0.0..4.0_f64, 0..5), 0..3_u64, 0..1_000_000_u64, any::<bool>())
        .prop_map(|(observed, cpu, kills, bytes, start)| {
            let mut record = HourRecord { observed, starts: kills, ..HourRecord::default() };
            for value in cpu {
                record.cpu.record(value, 1);
                record.by_age.add(value * 100.0, bytes, observed);
            }
            let peak = Some(Peak { bytes, at: observed, pod: format!("pod-{kills}") });
            if start {
                record.start_peak = peak;
            } else {
                record.peak = peak;
            }
            record.kills = (0..kills).map(|at| OomKill { at, limit: bytes, pod: "pod".to_owned() }).collect();
            record
        })
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let pods = prop::collection::btree_map("[ab]", (0..9_u64, 0..9_u64, "[xy]?"), 0..3);
    let minutes = prop::collection::btree_map(0..5_u32, (0..60_000_u64, 0..9_u64), 0..4);
    let hours = prop::collection::btree_map(0..5_u32, record(), 0..4);
    let earlier_peak = prop::option::of((0..9_u64, 0..9_u64));
    let images = prop::collection::btree_map("[ab]", 0..9_u64, 0..3);
    (hours, pods, minutes, earlier_peak, images).prop_map(|(hours, pods, minutes, earlier_peak, images)| {
        let mut evidence = Evidence::new(workload("web"), container("app"), 60_000);
        evidence.hours = hours.into_iter().map(|(hour, record)| (Hour(hour), record)).collect();
        evidence.minutes = minutes
            .into_iter()
            .map(|(minute, (observed_millis, memory_peak))| {
                (Minute(minute), MinuteRecord { observed_millis, memory_peak, ..MinuteRecord::default() })
            })
            .collect();
        evidence.earlier_peak =
            earlier_peak.map(|(bytes, at)| EarlierPeak { bytes, at, pod: "pod".to_owned() });
        evidence.images = images;
        evidence.pods = pods
            .into_iter()
            .map(|(pod, (observed, peak, node_class))| {
                (pod, PodTotals { observed, cpu_millis: peak, peak, node_class })
            })
            .collect();
        evidence
    })
}

fn merged(a: &Evidence, b: &Evidence) -> Evidence {
    let mut sum = a.clone();
    sum.merge(b).unwrap();
    sum
}

proptest! {
    #[test]
    fn merging_is_associative_and_commutative(a in evidence(), b in evidence(), c in evidence()) {
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
    }

    #[test]
    fn more_evidence_never_lowers_a_maximum(a in evidence(), b in evidence()) {
        let sum = merged(&a, &b);
        for (hour, record) in &a.hours {
            prop_assert!(sum.hours[hour].highest() >= record.highest());
        }
        prop_assert!(sum.pod_days() >= a.pod_days() && sum.weekdays() >= a.weekdays());
    }
}

#[test]
fn of_earlier_peaks_the_highest_counts_since_it_was_first_read() {
    let read = |bytes, at| {
        let mut evidence = Evidence::new(workload("web"), container("app"), 100);
        evidence.earlier_peak = Some(EarlierPeak { bytes, at, pod: "pod".to_owned() });
        evidence
    };
    let sum = [read(7, 1), read(8, 3), read(8, 2)]
        .iter()
        .fold(Evidence::new(workload("web"), container("app"), 100), |sum, one| merged(&sum, one));
    assert_eq!(sum.earlier_peak, read(8, 2).earlier_peak);
}

#[test]
fn different_containers_and_windows_are_not_merged() {
    let mut evidence = Evidence::new(workload("web"), container("app"), 100);
    let other = Evidence::new(workload("web"), container("app"), 60_000);
    assert_eq!(evidence.merge(&other), Err(MergeError::Window(100, 60_000)));
    let other = Evidence::new(workload("db"), container("app"), 100);
    assert!(matches!(evidence.merge(&other), Err(MergeError::Container(..))));
}

#[test]
fn old_names_of_fields_are_read() {
    let mut evidence = Evidence::new(workload("web"), container("app"), 100);
    evidence.container.current.cpu_request = Some(250);
    evidence.hour(Hour(1)).quota_what_if = Some(QuotaWhatIf::from_iter([(50, (3, 2, 1).into())]));
    let written = serde_json::to_string(&evidence).unwrap();
    let old = written.replace("\"current\"", "\"in_force\"").replace("\"quota_what_if\"", "\"ladder\"");
    assert_ne!(old, written);
    assert_eq!(serde_json::from_str::<Evidence>(&old).unwrap(), evidence);
}

/// Objects whose keys are data.
const MAPS: [&str; 6] = ["hours", "exits", "pods", "images", "quota_what_if", "minutes"];
/// Fields that the first agents did not write.
const ADDED: [&str; 9] =
    ["exits", "waits", "unreclaimable", "stalled", "by_age", "minutes", "earlier_peak", "images", "partial"];

/// Changes each object that has fields.
fn change_fields(name: &str, value: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            object.iter_mut().for_each(|(name, value)| change_fields(name, value, change));
            // Of an hour, `minutes` is a histogram.
            if !MAPS.contains(&name) || object.contains_key("counts") {
                change(object);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| change_fields(name, value, change)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn fields_of_a_newer_agent_are_ignored(evidence in evidence()) {
        let mut newer = serde_json::to_value(&evidence).unwrap();
        let mut added = 0;
        change_fields("", &mut newer, &mut |object| {
            object.insert("of_a_later_version".to_owned(), json!({ "some": [1, null] }));
            added += 1;
        });
        // The evidence, its workload, the container and its resources.
        prop_assert!(added >= 4 + evidence.hours.len());
        prop_assert_eq!(serde_json::from_value::<Evidence>(newer).unwrap(), evidence);
    }

    #[test]
    fn fields_that_an_older_agent_lacks_are_empty(evidence in evidence()) {
        let mut older = serde_json::to_value(&evidence).unwrap();
        change_fields("", &mut older, &mut |object| {
            // `minutes` of an hour is older than that of a container.
            let of_hour = object.contains_key("minutes_start");
            object.retain(|name, _| (of_hour && name == "minutes") || !ADDED.contains(&name.as_str()));
        });
        let mut expected = evidence;
        for hour in expected.hours.values_mut() {
            let HourRecord { exits, waits, unreclaimable, stalled, by_age, .. } = HourRecord::default();
            *hour = HourRecord { exits, waits, unreclaimable, stalled, by_age, ..hour.clone() };
        }
        let Evidence { minutes, earlier_peak, images, partial, .. } =
            Evidence::new(expected.workload.clone(), expected.container.clone(), expected.window_millis);
        let expected = Evidence { minutes, earlier_peak, images, partial, ..expected };
        prop_assert_eq!(serde_json::from_value::<Evidence>(older).unwrap(), expected);
    }
}

#[test]
fn gaps_count() {
    let mut evidence = Evidence::new(workload("web"), container("app"), 100);
    for hour in [0, 1, 2, 24, 47] {
        evidence.hour(Hour(hour)).observed = 3600;
    }
    assert_eq!((evidence.weekdays(), evidence.coverage()), (2, 5.0 / 48.0));
    assert_eq!(evidence.pod_days(), 5.0 / 24.0);
}
