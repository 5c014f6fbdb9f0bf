use proptest::prelude::*;

use super::*;
use crate::history::samples::sample;

/// [`HourRecord`] and [`ContainerHour`] with additional fields, as a newer agent may write them.
#[derive(Clone, PartialEq, Message)]
struct NewerContainerHour {
    #[prost(uint64, tag = "2")]
    replicas: u64,
    #[prost(uint64, optional, tag = "5")]
    cpu_request: Option<u64>,
    #[prost(message, optional, tag = "9")]
    record: Option<NewerHourRecord>,
    #[prost(message, repeated, tag = "10")]
    pods: Vec<NewerPod>,
    #[prost(string, tag = "1011")]
    image: String,
    #[prost(message, optional, tag = "1012")]
    pod_resources: Option<Pod>,
    #[prost(uint64, repeated, tag = "2000")]
    calibration: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct NewerHourRecord {
    #[prost(uint64, tag = "1")]
    observed: u64,
    #[prost(message, optional, tag = "2")]
    cpu: Option<Histogram>,
    #[prost(message, optional, tag = "1019")]
    start_up_seconds: Option<Histogram>,
    #[prost(fixed32, optional, tag = "1020")]
    pod_kills: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct NewerPod {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    observed: u64,
    #[prost(string, tag = "1006")]
    node: String,
}

/// The message without the newer fields, as an older agent wrote it.
#[derive(Clone, PartialEq, Message)]
struct OlderContainerHour {
    #[prost(uint64, tag = "2")]
    replicas: u64,
    #[prost(message, optional, tag = "9")]
    record: Option<OlderHourRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct OlderHourRecord {
    #[prost(uint64, tag = "1")]
    observed: u64,
    #[prost(message, optional, tag = "2")]
    cpu: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct OlderMinutes {
    #[prost(uint32, repeated, tag = "1")]
    steps: Vec<u32>,
    #[prost(uint64, repeated, tag = "2")]
    observed_millis: Vec<u64>,
}

const KEY: &str = "shop\0Deployment\0web\0app\x00100";
const HOUR: Hour = Hour(480_000);

fn histogram() -> impl Strategy<Value = histogram::Histogram> {
    prop::collection::vec((prop_oneof![Just(0.0), 1e-6..1e10_f64], 1..u64::MAX / 64), 0..20).prop_map(
        |values| {
            let mut histogram = histogram::Histogram::default();
            for (value, times) in values {
                histogram.record(value, times);
            }
            histogram
        },
    )
}

fn peak() -> impl Strategy<Value = Option<evidence::Peak>> {
    let peak = (any::<u64>(), any::<u64>(), ".{0,9}");
    prop::option::of(peak.prop_map(|(bytes, at, pod)| evidence::Peak { bytes, at, pod }))
}

fn record() -> impl Strategy<Value = evidence::HourRecord> {
    let what_if = prop::collection::btree_map(any::<u64>(), any::<(u64, u64, u64)>(), 0..17);
    let exits = prop::collection::btree_map(any::<u8>(), any::<u64>(), 0..4);
    let kills = prop::collection::vec((any::<u64>(), any::<u64>(), "[a-z]{0,9}"), 0..3);
    let histograms = prop::collection::vec(histogram(), 7);
    let by_age = prop::collection::vec(any::<(u64, u64)>(), 0..14);
    (histograms, peak(), peak(), prop::option::of(what_if), exits, kills, any::<[u64; 8]>(), by_age).prop_map(
        |(mut histograms, peak, start_peak, what_if, exits, kills, numbers, by_age)| {
            let (observed_micros, cpu_micros) = by_age.into_iter().unzip();
            let mut next = || histograms.pop().unwrap_or_default();
            let [observed, periods, throttled, starts, cpu_millis, memory_millis, io_millis, refaults] =
                numbers;
            evidence::HourRecord {
                observed,
                cpu: next(),
                cpu_start: next(),
                minutes: next(),
                minutes_start: next(),
                peak,
                start_peak,
                working_set: next(),
                kills: kills
                    .into_iter()
                    .map(|(at, limit, pod)| evidence::OomKill { at, limit, pod })
                    .collect(),
                quota_what_if: what_if.map(|what_if| {
                    let outcomes = what_if.into_iter().map(|(quota, outcome)| (quota, outcome.into()));
                    outcomes.collect()
                }),
                periods,
                throttled,
                starts,
                exits,
                waits: next(),
                unreclaimable: next(),
                stalled: evidence::Stalled { cpu_millis, memory_millis, io_millis, refaults },
                by_age: UsageByAge { observed_micros, cpu_micros },
            }
        },
    )
}

/// What the pod's spec says of a container.
fn facts() -> impl Strategy<Value = (workload::Container, BTreeMap<String, u64>)> {
    let images = prop::collection::btree_map("[a-z]{1,9}", any::<u64>(), 0..3);
    let settings = prop::collection::btree_map(".{0,9}", ".{0,9}", 0..4);
    let pod_resources = prop::option::of(any::<[Option<u64>; 4]>());
    ("[a-z]{0,9}", settings, pod_resources, any::<[u64; 2]>(), images, any::<Option<u64>>()).prop_map(
        |(image, settings, pod_resources, [memory_volumes, hugepages], mut images, first)| {
            if let (Some(first), false) = (first, image.is_empty()) {
                images.insert(image.clone(), first);
            }
            let pod_resources = pod_resources.map(resources);
            let container = of_key(KEY).unwrap().container;
            (
                workload::Container {
                    image,
                    settings,
                    pod_resources,
                    memory_volumes,
                    hugepages,
                    ..container
                },
                images,
            )
        },
    )
}

fn resources([cpu_request, cpu_limit, memory_request, memory_limit]: [Option<u64>; 4]) -> Resources {
    Resources { cpu_request, cpu_limit, memory_request, memory_limit }
}

fn evidence_of_an_hour() -> impl Strategy<Value = Evidence> {
    let kind =
        prop_oneof![Just(WorkloadKind::Service), Just(WorkloadKind::DaemonSet), Just(WorkloadKind::Job)];
    let role = prop_oneof![Just(Role::App), Just(Role::Init), Just(Role::Sidecar)];
    let pods = prop::collection::btree_map("[a-z-]{0,9}", (any::<[u64; 3]>(), "[xy]?"), 0..4);
    (kind, role, any::<(u64, u64)>(), any::<[Option<u64>; 4]>(), record(), pods, facts(), peak()).prop_map(
        |(kind, role, (replicas, seen), current, record, pods, (container, images), earlier)| {
            let mut evidence = of_key(KEY).unwrap();
            (evidence.container, evidence.images) = (container, images);
            evidence.earlier_peak =
                earlier.map(|evidence::Peak { bytes, at, pod }| evidence::EarlierPeak { bytes, at, pod });
            (evidence.workload.kind, evidence.workload.replicas) = (kind, replicas);
            (evidence.container.role, evidence.container.seen) = (role, seen);
            evidence.container.current = resources(current);
            evidence.hours.insert(HOUR, record);
            evidence.pods = pods
                .into_iter()
                .map(|(pod, ([observed, cpu_millis, peak], node_class))| {
                    (pod, evidence::PodTotals { observed, cpu_millis, peak, node_class })
                })
                .collect();
            evidence
        },
    )
}

fn minutes() -> impl Strategy<Value = Minutes> {
    prop::collection::btree_map(any::<u32>(), any::<[u64; 5]>(), 0..70).prop_map(|minutes| {
        let record = |[observed_millis, cpu_millis, memory_peak, periods, throttled]: [u64; 5]| {
            MinuteRecord { observed_millis, cpu_millis, memory_peak, periods, throttled }
        };
        minutes.into_iter().map(|(minute, values)| (Minute(minute), record(values))).collect()
    })
}

proptest! {
    #[test]
    fn encoded_records_are_decoded_unchanged(evidence in evidence_of_an_hour(), minutes in minutes()) {
        let bytes = encode_hour(&evidence, &evidence.hours[&HOUR]);
        prop_assert_eq!(decode_hour(KEY, HOUR, &bytes).unwrap(), evidence);
        prop_assert_eq!(decode_minutes(&encode_minutes(&minutes)).unwrap(), minutes);
    }

    #[test]
    fn fields_of_a_newer_agent_are_skipped(
        (replicas, cpu_request, observed) in any::<(u64, Option<u64>, u64)>(),
        (image, calibration, pod_kills) in (".*", any::<Vec<u64>>(), any::<Option<u32>>()),
        (cpu, start_up) in (histogram(), histogram()),
    ) {
        let pod = NewerPod { name: "web-1".to_owned(), observed: 7, node: image.clone() };
        let newer = NewerContainerHour {
            replicas,
            cpu_request,
            record: Some(NewerHourRecord { observed, cpu: written(&cpu), start_up_seconds: written(&start_up), pod_kills }),
            pods: vec![pod],
            image,
            pod_resources: Some(Pod::default()),
            calibration,
        };
        let evidence = decode_hour(KEY, HOUR, &newer.encode_to_vec()).unwrap();
        let mut expected = of_key(KEY).unwrap();
        expected.workload.replicas = replicas;
        expected.container.current.cpu_request = cpu_request;
        expected.pods.insert("web-1".to_owned(), evidence::PodTotals { observed: 7, ..Default::default() });
        expected.hours.insert(HOUR, evidence::HourRecord { observed, cpu, ..Default::default() });
        prop_assert_eq!(evidence, expected);
    }

    #[test]
    fn newer_and_older_agents_decode_records_of_this_one(evidence in evidence_of_an_hour(), minutes in minutes()) {
        let record = &evidence.hours[&HOUR];
        let bytes = encode_hour(&evidence, record);
        let newer = NewerContainerHour::decode(&*bytes).unwrap();
        let of_newer = newer.record.unwrap();
        prop_assert_eq!((newer.replicas, newer.cpu_request), (evidence.workload.replicas, evidence.container.current.cpu_request));
        prop_assert_eq!((of_newer.observed, read(of_newer.cpu).unwrap()), (record.observed, record.cpu.clone()));
        prop_assert_eq!((of_newer.start_up_seconds, of_newer.pod_kills, newer.image, newer.calibration), (None, None, String::new(), vec![]));
        prop_assert_eq!(newer.pods.iter().map(|pod| &pod.name).collect::<Vec<_>>(), evidence.pods.keys().collect::<Vec<_>>());
        let older = OlderContainerHour::decode(&*bytes).unwrap();
        let of_older = older.record.unwrap();
        prop_assert_eq!((older.replicas, of_older.observed), (evidence.workload.replicas, record.observed));
        prop_assert_eq!(read(of_older.cpu).unwrap(), record.cpu.clone());
        let older = OlderMinutes::decode(&*encode_minutes(&minutes)).unwrap();
        prop_assert_eq!(older.observed_millis, minutes.values().map(|minute| minute.observed_millis).collect::<Vec<_>>());
    }

    #[test]
    fn fields_that_an_older_agent_did_not_write_are_the_default((replicas, observed) in any::<(u64, u64)>(), cpu in histogram(), count in 0..60_u32) {
        let record = OlderHourRecord { observed, cpu: written(&cpu) };
        let older = OlderContainerHour { replicas, record: Some(record) };
        let evidence = decode_hour(KEY, HOUR, &older.encode_to_vec()).unwrap();
        let mut expected = of_key(KEY).unwrap();
        expected.workload.replicas = replicas;
        expected.hours.insert(HOUR, evidence::HourRecord { observed, cpu, ..Default::default() });
        prop_assert_eq!(evidence, expected);
        let older = OlderMinutes { steps: vec![1; count as usize], observed_millis: vec![60_000; count as usize] };
        let minutes = decode_minutes(&older.encode_to_vec()).unwrap();
        let one = MinuteRecord { observed_millis: 60_000, ..MinuteRecord::default() };
        prop_assert_eq!(minutes, (1..=count).map(|minute| (Minute(minute), one)).collect::<Minutes>());
    }

    #[test]
    fn random_bytes_are_an_error_and_no_panic(key in "[a-z\\x00]{0,12}", noise in any::<Vec<u8>>()) {
        let _ = decode_hour(&key, HOUR, &noise);
        let _ = decode_hour(KEY, HOUR, &noise);
        let _ = decode_minutes(&noise);
    }
}

#[test]
fn lists_of_unequal_length_lose_no_other_field() {
    let whole = ContainerHour {
        image: "app:2".to_owned(),
        setting_names: vec!["-Xmx".to_owned(), "GOMAXPROCS".to_owned()],
        setting_values: vec!["1g".to_owned()],
        images: vec!["app:1".to_owned(), String::new(), "app:3".to_owned()],
        images_first_seen: vec![7, 8],
        ..ContainerHour::default()
    };
    let evidence = decode_hour(KEY, HOUR, &whole.encode_to_vec()).unwrap();
    let settings =
        [("-Xmx", "1g"), ("GOMAXPROCS", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(evidence.container.settings, settings.into());
    assert_eq!(evidence.images, [("app:1".to_owned(), 7), ("app:2".to_owned(), 8)].into());
}

#[test]
fn the_usual_record_has_its_image_once() {
    let image = "registry.example/shop/web:1.25";
    let mut evidence = sample(1, HOUR.0);
    let length = |evidence: &Evidence| encode_hour(evidence, &evidence.hours[&HOUR]).len();
    let before = length(&evidence);
    evidence.container.image = image.to_owned();
    evidence.images.insert(image.to_owned(), 1_800_000_000);
    let more = length(&evidence) - before;
    assert!(more <= image.len() + 16, "{more} bytes");
}

/// An hour as `cargo xtask bench` has it: windows over some twenty buckets, two replicas, all quotas.
fn busy_hour() -> Evidence {
    let mut evidence = sample(1, HOUR.0);
    let record = evidence.hour(HOUR);
    *record = evidence::HourRecord { observed: 7200, ..evidence::HourRecord::default() };
    for window in 0..72_000_u32 {
        record.cpu.record(0.3 * (f64::from(window % 200) / 70.0 - 1.4).exp2(), 1);
    }
    for minute in 0..120_u32 {
        record.minutes.record(0.28 + f64::from(minute % 9) / 90.0, 1);
    }
    for second in 0..7200_u32 {
        record.working_set.record(180e6 + f64::from(second % 40) * 1e6, 1);
        record.unreclaimable.record(150e6 + f64::from(second % 30) * 1e6, 1);
    }
    record.peak = Some(evidence::Peak { bytes: 228 << 20, at: 1_800_000_000, pod: "web-1-0".to_owned() });
    let outcome = |quota: u64| QuotaOutcome {
        periods: 70_000,
        throttled: 900_000 / quota,
        delayed_millis: 9_000_000 / quota,
    };
    record.quota_what_if = Some(cpu_quota::QUOTAS.into_iter().map(|quota| (quota, outcome(quota))).collect());
    record.stalled.cpu_millis = 2400;
    evidence
}

#[test]
fn records_are_hardly_longer_than_with_postcard() {
    for evidence in [sample(1, HOUR.0), busy_hour()] {
        let [hour, minutes] = &encode(&evidence)[..] else { panic!("an hour and its minutes") };
        let length = |record: &Record| {
            let Record { kind, hour, key, value } = record;
            Frame { kind: *kind, hour: *hour, key, value }.length()
        };
        let without_minutes = Evidence { minutes: Minutes::new(), ..evidence.clone() };
        // With postcard, the key and the hour were stored beside the record, too.
        let key = 4 + key(&evidence).len();
        let before = [
            key + postcard::to_stdvec(&without_minutes).unwrap().len(),
            key + postcard::to_stdvec(&evidence.minutes).unwrap().len(),
        ];
        let now = [length(hour), length(minutes)];
        println!("{now:?} bytes, {before:?} in postcard");
        assert!(now[0] <= before[0] + 64 && now[1] <= before[1], "{now:?} {before:?}");
    }
}

#[test]
fn a_key_names_a_container() {
    for bad in ["", "shop\0Deployment\0web\0app", "a\0b\0c\0d\x00100\0", "a\0b\0c\0d\0ten"] {
        assert!(matches!(of_key(bad), Err(RecordError::Key(_))), "{bad:?}");
    }
    assert_eq!(key(&of_key(KEY).unwrap()), KEY);
}
