use proptest::prelude::*;
use snug_sizing::{
    evidence::{Hour, HourRecord, PodTotals},
    workload::{Container, QosClass, Workload},
};

use super::*;

const NOW: u64 = 1_800_000_000 / HOUR * HOUR;

/// A history of hours before now, oldest first, each with some observed seconds.
fn history(owner: &str, name: &str, container: &str, window: u64, hours: &[(u64, u64)]) -> Evidence {
    let workload = Workload {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        owner: owner.to_owned(),
        kind: WorkloadKind::from_owner(owner),
        replicas: 1,
    };
    let container = Container { name: container.to_owned(), ..Container::default() };
    let mut evidence = Evidence::new(workload, container, window);
    for (ago, observed) in hours {
        let mut record = HourRecord { observed: *observed, ..HourRecord::default() };
        record.cpu.record(0.1, 10);
        record.minutes.record(0.1, 1);
        record.working_set.record(1e6, 1);
        evidence.hours.insert(Hour::from_seconds(NOW - ago * HOUR), record);
        evidence.container.seen = evidence.container.seen.max(NOW - ago * HOUR + HOUR);
    }
    evidence.pods.insert(format!("{name}-0"), PodTotals::default());
    evidence
}

fn snapshot(all: impl IntoIterator<Item = Evidence>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    all.into_iter().for_each(|one| snapshot.insert(one));
    snapshot
}

fn rows(snapshot: &Snapshot) -> Vec<(String, String, String, u64)> {
    let row = |it: &Evidence| {
        let Workload { owner, name, .. } = it.workload.clone();
        (owner, name, it.container.name.clone(), it.window_millis)
    };
    snapshot.evidence().map(row).collect()
}

/// Hours before now, with observed seconds.
type Hours = Vec<(u64, u64)>;

fn hours() -> impl Strategy<Value = Hours> {
    prop::collection::vec((1..200_u64, 1..3600_u64), 1..8)
}

fn holds(condition: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why()) }
}

#[test]
fn a_container_is_one_row_whatever_the_lengths_of_its_windows() {
    let windows = prop::sample::subsequence(vec![100, 200, 1_000, 60_000, 240_000_u64], 1..4);
    let cases = (windows, prop::collection::vec(hours(), 3));
    let histories = |(windows, hours): &(Vec<u64>, Vec<Hours>)| -> Vec<Evidence> {
        let one = |(window, hours): (&u64, &Hours)| history("Deployment", "web", "app", *window, hours);
        windows.iter().zip(hours).map(one).collect()
    };
    CommandRule::OneRow.prove(
        &cases,
        |(windows, _)| windows.len() > 1,
        |case| {
            let all = histories(case);
            let observed = |all: &[Evidence]| -> u64 {
                all.iter().flat_map(|one| one.hours.values()).map(|hour| hour.observed).sum()
            };
            let unified = snapshot(all.clone()).unified();
            let [one] = &unified.evidence().collect::<Vec<_>>()[..] else {
                return Err(format!("{:?}", rows(&unified)));
            };
            holds(observed(std::slice::from_ref(one)) == observed(&all), || "hours are lost".to_owned())?;
            holds(one.workload.replicas == 1, || format!("{} replicas of one pod", one.workload.replicas))?;
            // CPU windows are those of one history: as many as its hours have.
            let windows = |one: &Evidence| one.hours.values().map(|hour| hour.cpu.count()).sum::<u64>();
            let of_base: Vec<&Evidence> =
                all.iter().filter(|it| it.window_millis == one.window_millis).collect();
            holds(windows(one) == of_base.iter().map(|it| windows(it)).sum::<u64>(), || {
                "windows are mixed".to_owned()
            })?;
            let left_out = unified.other_windows_of(["shop", "Deployment", "web", "app"]);
            holds(left_out.len() + 1 == all.len(), || format!("left out: {left_out:?}"))
        },
    );
}

#[test]
fn runs_of_a_cron_job_are_one_workload() {
    let run = (1..300_u64, 0..59_u64, any::<bool>());
    let cases = ("[a-z]([a-z0-9-]{0,12}[a-z])?", prop::collection::vec(run, 1..6));
    CommandRule::RunsOfACronJob.prove(
        &cases,
        |(_, runs)| runs.len() > 1,
        |(name, runs)| {
            let job = |(ago, minute, in_seconds): &(u64, u64, bool)| {
                let scheduled = NOW - ago * HOUR + minute * 60;
                let number = if *in_seconds { scheduled } else { scheduled / 60 };
                history("Job", &format!("{name}-{number}"), "app", 100, &[(*ago, 30)])
            };
            let unified = snapshot(runs.iter().map(job)).unified();
            let found = rows(&unified);
            let expected = [("CronJob".to_owned(), name.clone(), "app".to_owned(), 100)];
            holds(found == expected, || format!("{found:?}"))
        },
    );
}

#[test]
fn jobs_that_are_no_runs_stay_apart() {
    let jobs = ["import", "import-7", "import-12345678", "import-1234567890"];
    let unified = snapshot(jobs.map(|name| history("Job", name, "app", 100, &[(5, 30)]))).unified();
    assert_eq!(rows(&unified).len(), jobs.len());
    assert!(unified.evidence().all(|it| it.workload.owner == "Job"));
}

#[test]
fn there_are_no_more_replicas_than_pods() {
    let cases = (0..6_u64, 0..4_usize, hours());
    CommandRule::LivingReplicas.prove(
        &cases,
        |(replicas, pods, _)| *pods > 0 && *replicas > *pods as u64,
        |(replicas, pods, hours)| {
            let mut one = history("Deployment", "web", "app", 100, hours);
            one.workload.replicas = *replicas;
            one.pods = (0..*pods).map(|pod| (format!("web-{pod}"), PodTotals::default())).collect();
            let unified = snapshot([one]).unified();
            let found = unified.evidence().next().map(|it| it.workload.replicas);
            holds(found == Some(*pods as u64), || format!("{found:?} replicas of {pods} pods"))
        },
    );
}

#[test]
fn what_is_gone_is_found_and_what_runs_is_not() {
    let age = prop_oneof![0..3_u64, 3..24_u64, 24..300_u64];
    let kind = prop::sample::select(vec!["Deployment", "StatefulSet", "Pod", "CronJob", "Unit"]);
    let role = prop::sample::select(vec![Role::App, Role::Sidecar, Role::Init]);
    let cases = (kind, role, age.clone(), age);
    let last = |ago: u64| [(ago + 30, 3600), (ago, 3600)];
    CommandRule::Gone.prove(
        &cases,
        |(kind, role, workload, container)| {
            let is_gone = *workload > 24 || (container.saturating_sub(*workload) > 1 && *role != Role::Init);
            is_gone && !matches!(*kind, "CronJob" | "Unit")
        },
        |(kind, role, workload, container)| {
            let container = workload.max(container);
            let mut old = history(kind, "web", "old", 100, &last(*container));
            old.container.role = *role;
            let all = [
                history("Deployment", "other", "app", 100, &last(0)),
                history(kind, "web", "app", 100, &last(*workload)),
                old.clone(),
            ];
            let snapshot = snapshot(all);
            let gone = Gone::new(&snapshot);
            let found = gone.since(&old);
            let expected = if *workload > 24 {
                Some(GoneFor::Workload(workload * HOUR))
            } else {
                Some(GoneFor::Container((container - workload) * HOUR))
            };
            let living =
                snapshot.evidence().find(|it| it.workload.name == "other").and_then(|it| gone.since(it));
            holds(found == expected && living.is_none(), || format!("{found:?}, {living:?}"))
        },
    );
}

#[test]
fn rare_runs_are_not_gone() {
    let daily = |owner: &str, ago| history(owner, "rare", "app", 100, &[(ago, 60)]);
    for (owner, ago, is_gone) in [
        ("CronJob", 30 * 24, false),
        ("CronJob", 33 * 24, true),
        ("Unit", 7 * 24, false),
        ("Unit", 9 * 24, true),
        ("Deployment", 20, false),
        ("Deployment", 25, true),
    ] {
        let rare = daily(owner, ago);
        let snapshot = snapshot([history("Deployment", "other", "app", 100, &[(0, 3600)]), rare.clone()]);
        assert_eq!(Gone::new(&snapshot).since(&rare).is_some(), is_gone, "{owner} {ago}");
    }
}

#[test]
fn limits_that_limit_nothing_are_none_from_every_source() {
    let number = || {
        prop_oneof![
            Just(None),
            Just(Some(0)),
            (1..1_u64 << 40).prop_map(Some),
            (1_u64 << 62..=u64::MAX).prop_map(Some),
        ]
        .boxed()
    };
    let small = || prop_oneof![Just(None), Just(Some(0)), (1..1_u64 << 40).prop_map(Some)].boxed();
    CommandRule::Unlimited.prove(
        &[small(), number(), small(), number()],
        |values| values.iter().flatten().any(|value| *value == 0 || *value >= 1 << 62),
        |[cpu_request, cpu_limit, memory_request, memory_limit]| {
            let set = Resources {
                cpu_request: *cpu_request,
                cpu_limit: *cpu_limit,
                memory_request: *memory_request,
                memory_limit: *memory_limit,
            };
            let mut one = history("Deployment", "web", "app", 100, &[(1, 3600)]);
            one.container.current = set;
            let unified = snapshot([one]).unified();
            let now = unified.evidence().next().ok_or("it is gone")?.container.current;
            let limit = |value: &Option<u64>| value.filter(|value| (1..1 << 62).contains(value));
            let is_real = |value: Option<u64>, limit: Option<u64>| {
                value.is_none_or(|value| value < 1 << 62 && (value > 0 || limit.is_some()))
            };
            let limits = now.cpu_limit == limit(cpu_limit) && now.memory_limit == limit(memory_limit);
            let requests =
                is_real(now.cpu_request, now.cpu_limit) && is_real(now.memory_request, now.memory_limit);
            let same_class = QosClass::from_containers(&[now]) == class(set);
            holds(limits && requests && same_class, || format!("{now:?}, {:?}", class(set)))
        },
    );
}

/// The QoS class as the kubelet has it: amounts of 0 do not count, and a request that is not set is the limit.
fn class(set: Resources) -> QosClass {
    let limited = |value: Option<u64>| value.filter(|value| (1..1 << 62).contains(value));
    let both =
        |request: Option<u64>, limit: Option<u64>| (limited(request.or(limited(limit))), limited(limit));
    let pairs = [both(set.cpu_request, set.cpu_limit), both(set.memory_request, set.memory_limit)];
    match pairs {
        [(None, None), (None, None)] => QosClass::BestEffort,
        [(Some(cpu), Some(max_cpu)), (Some(memory), Some(max_memory))]
            if cpu == max_cpu && memory == max_memory =>
        {
            QosClass::Guaranteed
        }
        _ => QosClass::Burstable,
    }
}
