use std::io::Write as _;

use snug_sizing::{
    evidence::PodTotals,
    minutes::{Minute, MinuteRecord, Minutes},
    workload::{Container, Workload},
};

use super::*;

pub(in crate::history) mod damage;

/// One hour of a container with this number of windows.
fn evidence(workload: &str, hour: u32, windows: u64) -> Evidence {
    let workload =
        Workload { namespace: "shop".to_owned(), name: workload.to_owned(), ..Workload::default() };
    let container = Container { name: "app".to_owned(), ..Container::default() };
    let mut evidence = Evidence::new(workload, container, 100);
    evidence.hour(Hour(hour)).cpu.record(0.5, windows);
    evidence.pods.insert("web-1".to_owned(), PodTotals { observed: windows / 10, ..PodTotals::default() });
    evidence
}

/// The windows of each hour of the only container.
fn windows(store: &Store, since: u32) -> Vec<(u32, u64)> {
    let hours = store.hours();
    let subjects = hours.subjects(Hour(since)).unwrap();
    assert!(subjects.len() <= 1, "{subjects:?}");
    let all = subjects.values().map(|records| hours.evidence(records).unwrap());
    let all = all.flat_map(|(evidence, skipped)| {
        assert_eq!(skipped, 0);
        evidence.unwrap().hours
    });
    all.map(|(hour, record)| (hour.0, record.cpu.count())).collect()
}

/// The usage history and the minutes of the only container.
fn only(store: &Store) -> (Evidence, Minutes) {
    let hours = store.hours();
    let subjects = hours.subjects(Hour(0)).unwrap();
    let records: Vec<_> = subjects.values().collect();
    let [records] = records[..] else { panic!("{subjects:?}") };
    let (evidence, skipped) = hours.evidence(records).unwrap();
    assert_eq!(skipped, 0);
    (evidence.unwrap(), hours.minutes(records).unwrap())
}

/// The names of the files.
fn files(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder.join(DIRECTORY)).unwrap().map(|entry| entry.unwrap().path());
    let mut days: Vec<PathBuf> = all.filter(|path| path.extension().is_none()).collect();
    days.sort();
    days
}

#[test]
fn added_records_are_summed_and_persist() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (store, aside) = Store::open(folder.path()).unwrap();
        assert!(aside.is_empty(), "{aside:?}");
        store.add(&[evidence("web", 7, 10), evidence("web", 8, 20)]).unwrap();
        store.add(&[evidence("web", 8, 5)]).unwrap();
        assert_eq!(windows(&store, 0), [(7, 10), (8, 25)]);
        let locked = Store::open(folder.path()).unwrap_err();
        assert!(matches!(locked, HistoryError::Locked { .. }), "{locked:?}");
        assert!(locked.to_string().contains("/history is in use by another agent"), "{locked}");
    }
    let (store, aside) = Store::open(folder.path()).unwrap();
    assert_eq!((windows(&store, 8), aside), (vec![(8, 25)], vec![]));
}

#[test]
fn replicas_are_those_of_the_last_record() {
    let store = Store::in_memory();
    for (hour, replicas) in [(7, 3), (8, 5), (8, 2)] {
        let mut one = evidence("web", hour, 1);
        one.workload.replicas = replicas;
        store.add(&[one]).unwrap();
    }
    let (sum, _) = only(&store);
    assert_eq!((sum.workload.replicas, sum.hours.len()), (2, 2));
    store.seal_all().unwrap();
    assert_eq!(only(&store).0, sum);
}

#[test]
fn records_of_different_containers_are_not_summed() {
    let store = Store::in_memory();
    let longer = Evidence { window_millis: 1000, ..evidence("web", 7, 10) };
    let mut of_another = evidence("web", 7, 10);
    of_another.workload.owner = "StatefulSet".to_owned();
    store.add(&[evidence("web", 7, 10), longer, of_another]).unwrap();
    assert_eq!(store.hours().subjects(Hour(0)).unwrap().len(), 3);
}

#[test]
fn age_and_size_are_bounded_and_the_newest_file_stays() {
    let store = Store::in_memory();
    for hour in 0..50 {
        let all: Vec<Evidence> = (0..40).map(|number| evidence(&format!("web-{number}"), hour, 1)).collect();
        store.add(&all).unwrap();
    }
    let hours = |store: &Store| -> Vec<u32> {
        let hours = store.hours();
        let subjects = hours.subjects(Hour(0)).unwrap();
        let records = subjects.iter().find(|(subject, _)| subject.contains("web-0\0"));
        records.unwrap().1.hours().iter().map(|hour| hour.0).collect()
    };
    let all = store.prune(Hour(0), Hour(10), u64::MAX).unwrap();
    assert_eq!(hours(&store), (10..50).collect::<Vec<_>>());
    let half = store.prune(Hour(0), Hour(10), all / 2).unwrap();
    assert!(half <= all / 2, "{half} of {all}");
    let left = hours(&store);
    assert_eq!(left, (left[0]..50).collect::<Vec<_>>(), "the oldest go");
    assert!((10..30).contains(&left.len()), "{left:?}");
    store.prune(Hour(0), Hour(100), u64::MAX).unwrap();
    assert!(store.hours().subjects(Hour(0)).unwrap().is_empty());
}

#[test]
fn a_file_that_is_no_history_is_moved_aside_and_not_deleted() {
    for (what, bytes) in
        [("text", b"no history, but long enough".repeat(200)), ("cut", vec![]), ("empty", vec![])]
    {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        store.add(&[evidence("web", 7, 10)]).unwrap();
        store.seal_all().unwrap();
        drop(store);
        let path = folder.path().join("history/day-0");
        match what {
            "cut" => File::options().write(true).open(&path).unwrap().set_len(100).unwrap(),
            _ => fs::write(&path, &bytes).unwrap(),
        }
        let before = fs::read(&path).unwrap();
        let (store, aside) = Store::open(folder.path()).unwrap();
        assert_eq!((windows(&store, 0), aside.len()), (vec![], 1), "{what}");
        assert_eq!((store.health().row().damaged, store.health().row().moved_aside), (1, 1), "{what}");
        store.add(&[evidence("web", 7, 10)]).unwrap();
        assert_eq!(windows(&store, 0), [(7, 10)], "{what}");
        assert!(fs::read(&aside[0]).unwrap() == before, "{what}");
        // The file is removed with the expired days.
        store.prune(Hour(0), Hour(24), u64::MAX).unwrap();
        assert!(!aside[0].exists() && files(folder.path()).is_empty());
    }
}

#[test]
fn a_file_of_another_format_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    store.add(&[evidence("web", 7, 10)]).unwrap();
    drop(store);
    let path = folder.path().join("history/day-0");
    let newer = crate::history::segment::header_of_form(0, 2);
    File::options().write(true).open(&path).unwrap().write_all(&newer).unwrap();
    let (store, aside) = Store::open(folder.path()).unwrap();
    assert_eq!((aside.len(), store.health().row().damaged), (1, 0));
}

#[test]
fn damaged_records_are_left_out_and_the_file_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    store.add(&[evidence("web", 7, 10)]).unwrap();
    store.add(&[evidence("web", 8, 20)]).unwrap();
    drop(store);
    let path = folder.path().join("history/day-0");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() * 2 / 3 - 40;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (store, aside) = Store::open(folder.path()).unwrap();
    assert_eq!((windows(&store, 0), aside), (vec![(8, 20)], vec![]));
    let row = store.health().row();
    assert_eq!((row.damaged, row.moved_aside), (1, 1));
    let mut all: Vec<PathBuf> =
        fs::read_dir(folder.path().join(DIRECTORY)).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.to_string_lossy().contains("day-0.unusable-"));
    assert!(fs::read(&all[0]).unwrap() == bytes);
    drop(store);
    let (store, _) = Store::open(folder.path()).unwrap();
    assert_eq!((windows(&store, 0), store.health().row().damaged), (vec![(8, 20)], 0));
}

#[test]
fn the_error_for_an_unusable_directory_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(file.path()).unwrap_err().to_string();
    assert!(error.contains(&*file.path().display().to_string()) && error.contains("--data-dir"), "{error}");
}

#[test]
fn a_record_that_cannot_be_decoded_is_skipped_and_counted() {
    let store = Store::in_memory();
    store.add(&[evidence("web", 7, 10), evidence("web", 8, 10)]).unwrap();
    let key = record::key(&evidence("web", 7, 1));
    let segment = store.segment(0).unwrap();
    let value = vec![0xff; 30];
    let length = segment.append(&[Record { kind: Kind::HOUR, hour: Hour(9), key, value }]).unwrap();
    segment.publish(length);
    for _ in 0..2 {
        let hours = store.hours();
        let subjects = hours.subjects(Hour(0)).unwrap();
        let (evidence, skipped) = hours.evidence(subjects.values().next().unwrap()).unwrap();
        assert_eq!((evidence.unwrap().hours.len(), skipped), (2, 1));
        // The record is copied, for a version that can decode it.
        store.seal_all().unwrap();
    }
}

#[test]
fn minutes_add_up_and_only_the_last_hours_have_them() {
    let store = Store::in_memory();
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
    let known = |store: &Store| {
        let (sum, minutes) = only(store);
        assert!(sum.minutes.is_empty(), "they are no part of the hours' records");
        (sum.hours.len(), minutes)
    };
    let (hours, minutes) = known(&store);
    assert_eq!((hours, minutes.keys().map(|minute| minute.0).collect::<Vec<_>>()), (2, vec![479, 480, 481]));
    let sum = minutes[&Minute(480)];
    assert_eq!((sum.observed_millis, sum.cores(), sum.memory_peak), (60_000, Some(0.2), 5));
    store.prune(Hour(8), Hour(0), u64::MAX).unwrap();
    let (hours, minutes) = known(&store);
    assert_eq!((hours, minutes.len()), (2, 2));
    store.prune(Hour(8), Hour(9), u64::MAX).unwrap();
    assert!(store.hours().subjects(Hour(0)).unwrap().is_empty(), "no longer than the hours");
}

#[test]
fn later_writes_do_not_change_a_view() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    store.add(&[evidence("web", 7, 10)]).unwrap();
    let hours = store.hours();
    store.add(&[evidence("web", 7, 5)]).unwrap();
    store.seal_all().unwrap();
    store.prune(Hour(0), Hour(100), u64::MAX).unwrap();
    assert!(files(folder.path()).is_empty() && windows(&store, 0).is_empty());
    let subjects = hours.subjects(Hour(0)).unwrap();
    let (evidence, skipped) = hours.evidence(subjects.values().next().unwrap()).unwrap();
    assert_eq!((evidence.unwrap().hours[&Hour(7)].cpu.count(), skipped), (10, 0));
    assert_eq!(store.health().row().damaged, 0);
}

#[test]
fn a_file_with_many_appended_records_is_rewritten_with_their_sums() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let mut last = 0;
    let mut shrank = 0;
    for _ in 0..40 {
        let batch: Vec<Evidence> =
            (0..100).map(|number| crate::history::samples::sample(number, 500_000)).collect();
        store.add(&batch).unwrap();
        let length = fs::metadata(&files(folder.path())[0]).unwrap().len();
        shrank += u32::from(length < last);
        last = length;
    }
    assert!(shrank > 2 && last < 3 << 20, "{shrank} times, {last} bytes");
    let hours = store.hours();
    let subjects = hours.subjects(Hour(0)).unwrap();
    assert_eq!(subjects.len(), 100);
    for records in subjects.values() {
        let (evidence, _) = hours.evidence(records).unwrap();
        assert_eq!(evidence.unwrap().hours[&Hour(500_000)].observed, 40 * 7200);
    }
}

#[test]
fn a_failed_batch_is_removed_completely() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    store.add(&[evidence("web", 7, 10)]).unwrap();
    // The file of the next day cannot be created, so the record of this day must not stay.
    let obstacle = folder.path().join("history/day-1.new");
    fs::create_dir(&obstacle).unwrap();
    let both = [evidence("web", 7, 5), evidence("web", 30, 5)];
    assert!(matches!(store.add(&both), Err(HistoryError::Write(_))));
    assert_eq!(windows(&store, 0), [(7, 10)]);
    fs::remove_dir(&obstacle).unwrap();
    store.add(&both).unwrap();
    drop(store);
    let (store, _) = Store::open(folder.path()).unwrap();
    assert_eq!(windows(&store, 0), [(7, 15), (30, 5)]);
    assert_eq!(store.health().row().damaged, 0);
}

#[test]
fn a_name_with_the_separator_of_keys_is_escaped() {
    let store = Store::in_memory();
    store.add(&[evidence("web\0app", 7, 10)]).unwrap();
    assert_eq!(only(&store).0.workload.name, "web\u{fffd}app");
}
