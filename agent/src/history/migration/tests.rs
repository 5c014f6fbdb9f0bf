//! The fixtures were written by version 0.1: 30 hours of four containers, from [`sample`]. `closed` is from an agent that stopped,
//! `killed` from a killed one. `v1` and `v2` have records of the two older formats.

use std::{collections::BTreeMap, env, io::Read as _};

use flate2::read::GzDecoder;

use super::*;
use crate::history::{
    samples::{Random, sample, scratch},
    store::{DIRECTORY, tests::damage::damage},
};
use snug_sizing::evidence::Hour;

const CLOSED: &[u8] = include_bytes!("fixtures/closed.redb.gz");
const KILLED: &[u8] = include_bytes!("fixtures/killed.redb.gz");
const FIRST: u32 = 500_000;
const HOURS: u32 = 30;
const CONTAINERS: u64 = 4;
const PAGE: usize = 4096;

const OLD: &str = "SNUG_TEST_CONVERT_OLD";
const NEW: &str = "SNUG_TEST_CONVERT_NEW";

/// Runs [`converter`] in a separate process, as the agent does.
fn this_test(old: &Path, new: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "history::migration::tests::converter", "--nocapture"]);
    command.env(OLD, old).env(NEW, new).env("RUST_BACKTRACE", "0").stderr(Stdio::null());
    command
}

/// Not a test: the converting process.
#[test]
fn converter() {
    if let (Some(old), Some(new)) = (env::var_os(OLD), env::var_os(NEW)) {
        std::process::exit(exit_code(Path::new(&old), Path::new(&new)).into());
    }
}

fn unpacked(fixture: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(fixture).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Each hour of each container, with its minutes.
fn all(store: &Store) -> BTreeMap<(String, u32), Evidence> {
    let hours = store.hours();
    let mut all = BTreeMap::new();
    for (subject, records) in hours.subjects(Hour(0)).unwrap() {
        for hour in records.hours() {
            let mut of_hour = records.clone();
            of_hour.retain(|other| other == hour);
            let (evidence, skipped) = hours.evidence(&of_hour).unwrap();
            assert_eq!(skipped, 0);
            let minutes = hours.minutes(&of_hour).unwrap();
            all.insert((subject.clone(), hour.0), Evidence { minutes, ..evidence.unwrap() });
        }
    }
    all
}

fn expected() -> BTreeMap<(String, u32), Evidence> {
    let hours = FIRST..FIRST + HOURS;
    let samples = hours.flat_map(|hour| (0..CONTAINERS).map(move |number| (hour, sample(number, hour))));
    samples.map(|(hour, sample)| ((crate::history::record::key(&sample), hour), sample)).collect()
}

/// The names in a directory, without the lock file.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".lock")).collect();
    names.sort();
    names
}

#[test]
fn all_records_of_the_last_version_are_converted() {
    for fixture in [CLOSED, KILLED] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), unpacked(fixture)).unwrap();
        for _ in 0..2 {
            let (store, aside) = Store::open_with(folder.path(), this_test).unwrap();
            assert!(aside.is_empty(), "{aside:?}");
            assert!(all(&store) == expected());
            assert_eq!(store.health().row(), Default::default());
        }
        assert_eq!(names(folder.path()), [DIRECTORY], "the old file is of no use any more");
        assert!(names(&folder.path().join(DIRECTORY)).iter().all(|name| name.starts_with("day-")));
    }
}

#[test]
fn records_of_all_formats_are_converted() {
    let records =
        [(1, &include_bytes!("fixtures/v1.postcard")[..]), (2, include_bytes!("fixtures/v2.postcard"))];
    for (version, record) in records {
        let folder = tempfile::tempdir().unwrap();
        {
            let database = Builder::new().create(folder.path().join(FILE)).unwrap();
            let transaction = database.begin_write().unwrap();
            {
                transaction.open_table(ABOUT).unwrap().insert("schema", version).unwrap();
                let mut hours = transaction.open_table(HOURS_TABLE).unwrap();
                hours.insert((7, "shop\0Deployment\0web\0app\x00100"), record).unwrap();
                hours.insert((8, "shop\0Deployment\0bad\0app\x00100"), &[0xff; 3][..]).unwrap();
            }
            transaction.commit().unwrap();
        }
        let (store, aside) = Store::open_with(folder.path(), this_test).unwrap();
        assert_eq!(aside.len(), 1, "one record was not understood, so the old file is kept");
        assert_eq!((store.health().row().damaged, store.health().row().moved_aside), (1, 1));
        is_taken_over(&store, version);
        drop(store);
        let (store, aside) = Store::open_with(folder.path(), this_test).unwrap();
        assert!(aside.is_empty(), "{aside:?}");
        is_taken_over(&store, version);
    }
}

const HOURS_TABLE: Records = super::HOURS;

fn is_taken_over(store: &Store, version: u32) {
    let all = all(store);
    assert_eq!(all.len(), 1, "what cannot be understood is left out");
    let evidence = &all[&("shop\0Deployment\0web\0app\x00100".to_owned(), 7)];
    let hour = &evidence.hours[&Hour(7)];
    assert_eq!((hour.cpu.count(), hour.minutes.count(), hour.working_set.count()), (10, 60, 3600));
    assert_eq!((hour.periods, hour.throttled, hour.starts, hour.kills.len()), (100, 7, 2, 1));
    assert_eq!(hour.peak.as_ref().map(|peak| peak.bytes), Some(9_000_000));
    assert!(hour.quota_what_if.is_some());
    // Fields that the first format did not have.
    let second = version == 2;
    assert_eq!(hour.exits.get(&137), second.then_some(&4));
    assert_eq!((hour.waits.count(), hour.stalled.refaults), if second { (9, 4) } else { (0, 0) });
    assert_eq!((evidence.workload.replicas, evidence.container.current.cpu_request), (3, Some(250)));
    assert_eq!(evidence.pods.len(), 1);
}

#[test]
fn a_file_of_an_unknown_format_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    {
        let database = Builder::new().create(folder.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(ABOUT).unwrap().insert("schema", 4).unwrap();
        transaction.commit().unwrap();
    }
    let (_, aside) = Store::open_with(folder.path(), this_test).unwrap();
    assert_eq!(aside.len(), 1);
}

/// Checks that the file is converted completely, or moved aside and counted, and that the agent then writes. Returns whether the
/// new history has all records. The file of a killed agent may lack its last commit: if redb cannot use the last commit, it
/// falls back to the previous one.
fn survives(bytes: &[u8], is_closed: bool, what: &str) -> bool {
    let expected = expected();
    let folder = scratch();
    fs::write(folder.path().join(FILE), bytes).unwrap();
    let (store, aside) = Store::open_with(folder.path(), this_test).unwrap();
    let found = all(&store);
    assert!(found.iter().all(|(key, evidence)| expected.get(key) == Some(evidence)), "{what}: another value");
    let row = store.health().row();
    let without_last = expected.keys().filter(|(_, hour)| *hour < FIRST + HOURS - 1).count();
    let is_earlier = !is_closed && found.len() == without_last;
    assert!(
        found == expected || is_earlier || (row.damaged > 0 && aside.len() == 1),
        "{what}: {} of {}, {row:?}, {aside:?}",
        found.len(),
        expected.len()
    );
    store.add(&[sample(9, FIRST)]).unwrap();
    assert_eq!(all(&store).len(), found.len() + 1, "{what}");
    found == expected
}

#[test]
fn damage_to_a_file_of_the_last_version_fails_only_the_converter() {
    let mut whole = 0;
    for (fixture, is_closed, seeds) in [(CLOSED, true, 1..31), (KILLED, false, 31..61)] {
        let bytes = unpacked(fixture);
        for page in (0..8).chain((8..bytes.len() / PAGE).step_by(7)) {
            let mut damaged = bytes.clone();
            damaged[page * PAGE..(page + 1) * PAGE].fill(0);
            whole += u32::from(survives(&damaged, is_closed, &format!("page {page}")));
        }
        for seed in seeds {
            let mut damaged = bytes.clone();
            let what = damage(&mut damaged, &mut Random::new(seed));
            whole += u32::from(survives(&damaged, is_closed, &format!("damage {seed}: {what}")));
        }
    }
    println!("{whole} files had all their records");
    assert!(whole > 0, "some pages are not used");
}

#[test]
fn a_failing_converter_loses_only_the_old_file() {
    let dies = |_: &Path, new: &Path| {
        let mut command = Command::new("sh");
        command.args(["-c", "mkdir \"$1\" && echo noise > \"$1/day-7\" && kill -ABRT $$", "sh"]).arg(new);
        command
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), unpacked(CLOSED)).unwrap();
    let (store, aside) = Store::open_with(folder.path(), dies).unwrap();
    assert!(all(&store).is_empty());
    assert!(fs::read(&aside[0]).unwrap() == unpacked(CLOSED));
    assert_eq!((store.health().row().damaged, store.health().row().moved_aside), (1, 1));
    assert!(!folder.path().join("history.new").exists());
}

#[test]
fn a_file_in_use_by_an_older_agent_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    fs::write(&path, unpacked(CLOSED)).unwrap();
    let in_use = Builder::new().open(&path).unwrap();
    let error = Store::open_with(folder.path(), this_test).unwrap_err();
    assert!(error.to_string().contains("another agent uses the file"), "{error}");
    drop(in_use);
    let (store, _) = Store::open_with(folder.path(), this_test).unwrap();
    assert!(all(&store) == expected());
}

#[test]
fn a_kill_between_two_steps_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join(FILE);
    fs::write(&old, unpacked(CLOSED)).unwrap();
    // Killed during the conversion.
    fs::create_dir(folder.path().join("history.new")).unwrap();
    fs::write(folder.path().join("history.new/day-1"), "half").unwrap();
    drop(Store::open_with(folder.path(), this_test).unwrap());
    // Killed before the old file was removed.
    fs::write(&old, unpacked(CLOSED)).unwrap();
    fs::write(folder.path().join(DIRECTORY).join(CONVERTED), "0").unwrap();
    let (store, aside) = Store::open_with(folder.path(), this_test).unwrap();
    assert!(all(&store) == expected() && aside.is_empty());
    assert_eq!(names(folder.path()), [DIRECTORY]);
    drop(store);
    // An older agent ran in between: its file is neither converted nor deleted.
    fs::write(&old, unpacked(CLOSED)).unwrap();
    let (store, aside) = Store::open_with(folder.path(), this_test).unwrap();
    assert!(all(&store) == expected() && aside.len() == 1);
}

#[test]
fn only_the_exact_arguments_start_a_conversion() {
    for arguments in [&["snug-agent"][..], &["snug-agent", ARGUMENT], &["snug-agent", "--listen", "a", "b"]] {
        assert!(convert_if_asked(arguments).is_none());
    }
    assert!(convert_if_asked(&["snug-agent", ARGUMENT, "/none/old", "/none/new"]).is_some());
}
