use std::io::Write as _;

use snug_sizing::{
    evidence::PodTotals,
    minutes::{Minute, MinuteRecord},
    workload::{Container, Workload},
};

use super::*;

/// An hour of a container in which so many windows were counted.
fn evidence(workload: &str, hour: u32, windows: u64) -> Evidence {
    let workload =
        Workload { namespace: "shop".to_owned(), name: workload.to_owned(), ..Workload::default() };
    let container = Container { name: "app".to_owned(), ..Container::default() };
    let mut evidence = Evidence::new(workload, container, 100);
    evidence.hour(Hour(hour)).cpu.record(0.5, windows);
    evidence.pods.insert("web-1".to_owned(), PodTotals { observed: windows / 10, ..PodTotals::default() });
    evidence
}

/// Windows of each hour of the only subject.
fn windows(store: &Store, since: u32) -> Vec<(u32, u64)> {
    let hours = store.hours().unwrap();
    let subjects = hours.subjects(Hour(since)).unwrap();
    assert!(subjects.len() <= 1, "{subjects:?}");
    let all = subjects.iter().map(|(subject, of_subject)| hours.evidence(subject, of_subject).unwrap());
    let all = all.flat_map(|(evidence, skipped)| {
        assert_eq!(skipped, 0);
        evidence.unwrap().hours
    });
    all.map(|(hour, record)| (hour.0, record.cpu.count())).collect()
}

/// Changes what is in the database behind the store's back.
fn change(store: &Store, change: impl FnOnce(&redb::WriteTransaction)) {
    let transaction = store.database.read().unwrap().as_ref().unwrap().begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn what_is_added_adds_up_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (store, aside) = Store::open(folder.path()).unwrap();
        assert_eq!(aside, None);
        store.add(&[evidence("web", 7, 10), evidence("web", 8, 20)]).unwrap();
        store.add(&[evidence("web", 8, 5)]).unwrap();
        assert_eq!(windows(&store, 0), [(7, 10), (8, 25)]);
        let locked = Store::open(folder.path()).unwrap_err();
        assert!(locked.to_string().contains("history.redb"), "{locked}");
    }
    let (store, aside) = Store::open(folder.path()).unwrap();
    assert_eq!((windows(&store, 8), aside), (vec![(8, 25)], None));
}

#[test]
fn replicas_are_those_that_were_seen_last() {
    let store = Store::in_memory().unwrap();
    for (hour, replicas) in [(7, 3), (8, 5), (8, 2)] {
        let mut one = evidence("web", hour, 1);
        one.workload.replicas = replicas;
        store.add(&[one]).unwrap();
    }
    let subject = subject(&evidence("web", 7, 1));
    let (sum, _) = store.hours().unwrap().evidence(&subject, &[Hour(7), Hour(8)]).unwrap();
    let sum = sum.unwrap();
    assert_eq!((sum.workload.replicas, sum.hours.len()), (2, 2));
}

#[test]
fn who_is_not_the_same_is_not_added_up() {
    let store = Store::in_memory().unwrap();
    let longer = Evidence { window_millis: 1000, ..evidence("web", 7, 10) };
    let mut of_another = evidence("web", 7, 10);
    of_another.workload.owner = "StatefulSet".to_owned();
    store.add(&[evidence("web", 7, 10), longer, of_another]).unwrap();
    assert_eq!(store.hours().unwrap().subjects(Hour(0)).unwrap().len(), 3);
}

#[test]
fn age_and_size_are_bounded_and_the_newest_stays() {
    let store = Store::in_memory().unwrap();
    for hour in 0..50 {
        let all: Vec<Evidence> = (0..40).map(|number| evidence(&format!("web-{number}"), hour, 1)).collect();
        store.add(&all).unwrap();
    }
    let hours = |store: &Store| -> Vec<u32> {
        let hours = store.hours().unwrap();
        let subjects = hours.subjects(Hour(0)).unwrap();
        subjects[&subject(&evidence("web-0", 0, 1))].iter().map(|hour| hour.0).collect()
    };
    let all = store.prune(Hour(0), Hour(10), u64::MAX).unwrap();
    assert_eq!(hours(&store), (10..50).collect::<Vec<_>>());
    let half = store.prune(Hour(0), Hour(10), all / 2).unwrap();
    assert!(half <= all / 2, "{half} of {all}");
    let left = hours(&store);
    assert_eq!(left, (left[0]..50).collect::<Vec<_>>(), "the oldest go");
    assert!((10..30).contains(&left.len()), "{left:?}");
    store.prune(Hour(0), Hour(100), u64::MAX).unwrap();
    assert!(store.hours().unwrap().subjects(Hour(0)).unwrap().is_empty());
}

#[test]
fn what_is_no_history_is_moved_aside_and_not_deleted() {
    for (what, bytes) in
        [("text", b"not a database, but long enough to look like one".repeat(200)), ("cut", vec![])]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        if what == "cut" {
            let (store, _) = Store::open(folder.path()).unwrap();
            store.add(&[evidence("web", 7, 10)]).unwrap();
            drop(store);
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(5000).unwrap();
        } else {
            fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        }
        let before = fs::read(&path).unwrap();
        let (store, aside) = Store::open(folder.path()).unwrap();
        store.add(&[evidence("web", 7, 10)]).unwrap();
        assert_eq!(windows(&store, 0), [(7, 10)], "{what}");
        assert!(fs::read(aside.unwrap()).unwrap() == before, "{what}");
    }
}

#[test]
fn another_version_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (store, _) = Store::open(folder.path()).unwrap();
        change(&store, |transaction| {
            transaction.open_table(ABOUT).unwrap().insert("schema", SCHEMA + 1).unwrap();
        });
    }
    let (_, aside) = Store::open(folder.path()).unwrap();
    assert!(aside.is_some());
}

#[test]
fn a_directory_that_is_none_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(file.path()).unwrap_err().to_string();
    assert!(error.contains(&*file.path().display().to_string()) && error.contains("--data-dir"), "{error}");
}

#[test]
fn a_record_that_is_none_is_left_out_and_counted() {
    let store = Store::in_memory().unwrap();
    store.add(&[evidence("web", 7, 10), evidence("web", 8, 10)]).unwrap();
    let subject = subject(&evidence("web", 7, 1));
    change(&store, |transaction| {
        transaction.open_table(HOURS).unwrap().insert((7, &*subject), [0xff_u8; 30].as_slice()).unwrap();
    });
    let hours = store.hours().unwrap();
    let (evidence, skipped) = hours.evidence(&subject, &[Hour(7), Hour(8)]).unwrap();
    assert_eq!((evidence.unwrap().hours.len(), skipped), (1, 1));
}

#[test]
fn minutes_add_up_and_only_the_last_hours_have_them() {
    let store = Store::in_memory().unwrap();
    let one = |hour: u32, minute: u32, peak: u64| {
        let mut one = evidence("web", hour, 1);
        let record = MinuteRecord {
            observed_millis: 30_000,
            cpu_millis: 6_000,
            memory_peak: peak,
            ..MinuteRecord::default()
        };
        one.minutes.insert(Minute(hour * 60 + minute), record);
        one
    };
    store.add(&[one(7, 59, 1), one(8, 0, 5), one(8, 1, 5)]).unwrap();
    store.add(&[one(8, 0, 3)]).unwrap();
    let subject = subject(&evidence("web", 7, 1));
    let known = |store: &Store| {
        let hours = store.hours().unwrap();
        let (sum, _) = hours.evidence(&subject, &[Hour(7), Hour(8)]).unwrap();
        let sum = sum.unwrap();
        assert!(sum.minutes.is_empty(), "they are no part of the hours' records");
        (sum.hours.len(), hours.minutes(&subject, &[Hour(7), Hour(8)]).unwrap())
    };
    let (hours, minutes) = known(&store);
    assert_eq!((hours, minutes.keys().map(|minute| minute.0).collect::<Vec<_>>()), (2, vec![479, 480, 481]));
    let sum = minutes[&Minute(480)];
    assert_eq!((sum.observed_millis, sum.cores(), sum.memory_peak), (60_000, Some(0.2), 5));
    store.prune(Hour(8), Hour(0), u64::MAX).unwrap();
    let (hours, minutes) = known(&store);
    assert_eq!((hours, minutes.len()), (2, 2));
    store.prune(Hour(8), Hour(9), u64::MAX).unwrap();
    assert!(
        store.hours().unwrap().minutes(&subject, &[Hour(8)]).unwrap().is_empty(),
        "no longer than the hours"
    );
}

#[test]
fn a_history_of_an_older_form_is_brought_up_to_date() {
    for (version, record) in [(1, &include_bytes!("v1.postcard")[..]), (2, include_bytes!("v2.postcard"))] {
        let folder = tempfile::tempdir().unwrap();
        {
            let database = builder().create(folder.path().join(FILE)).unwrap();
            let transaction = database.begin_write().unwrap();
            {
                transaction.open_table(ABOUT).unwrap().insert("schema", version).unwrap();
                let mut hours = transaction.open_table(HOURS).unwrap();
                hours.insert((7, "shop\0Deployment\0web\0app\x00100"), record).unwrap();
                hours.insert((8, "shop\0Deployment\0bad\0app\x00100"), &[0xff; 3][..]).unwrap();
            }
            transaction.commit().unwrap();
        }
        for _ in 0..2 {
            let (store, aside) = Store::open(folder.path()).unwrap();
            assert_eq!(aside, None);
            is_brought_up_to_date(&store, version);
        }
    }
}

fn is_brought_up_to_date(store: &Store, version: u32) {
    let hours = store.hours().unwrap();
    let subjects = hours.subjects(Hour(0)).unwrap();
    assert_eq!(subjects.len(), 1, "what cannot be understood is left out");
    let (subject, of_subject) = subjects.first_key_value().unwrap();
    let (evidence, skipped) = hours.evidence(subject, of_subject).unwrap();
    let evidence = evidence.unwrap();
    let hour = &evidence.hours[&Hour(7)];
    assert_eq!(
        (skipped, hour.cpu.count(), hour.minutes.count(), hour.working_set.count()),
        (0, 10, 60, 3600)
    );
    assert_eq!((hour.periods, hour.throttled, hour.starts, hour.kills.len()), (100, 7, 2, 1));
    assert_eq!(hour.peak.as_ref().map(|peak| peak.bytes), Some(9_000_000));
    assert!(hour.quota_what_if.is_some());
    // What the first form did not have.
    let second = version == 2;
    assert_eq!(hour.exits.get(&137), second.then_some(&4));
    assert_eq!((hour.waits.count(), hour.stalled.refaults), if second { (9, 4) } else { (0, 0) });
    assert_eq!((evidence.workload.replicas, evidence.container.current.cpu_request), (3, Some(250)));
    assert_eq!(evidence.pods.len(), 1);
}
