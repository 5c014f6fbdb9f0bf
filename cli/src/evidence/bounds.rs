//! Snapshots that are larger than any, or of no time.

use std::io::{Write as _, repeat};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use snug_sizing::workload::{Container, Workload};

use super::*;

const AT: u64 = 1_800_000_000;

fn header(at: u64) -> String {
    serde_json::to_string(&Header::new("node-1", at)).unwrap() + "\n"
}

fn evidence(name: &str, hours: impl IntoIterator<Item = u32>) -> Evidence {
    let workload = Workload { namespace: "shop".to_owned(), name: name.to_owned(), ..Workload::default() };
    let mut evidence = Evidence::new(workload, Container::default(), 60_000);
    for hour in hours {
        evidence.hour(Hour(hour)).observed = 3600;
    }
    evidence
}

fn read(text: &[u8]) -> Result<Snapshot, SnapshotError> {
    let mut snapshot = Snapshot::default();
    snapshot.read("it", text).map(|()| snapshot)
}

fn hours(snapshot: &Snapshot) -> Vec<u32> {
    snapshot.evidence().flat_map(|evidence| evidence.hours.keys()).map(|hour| hour.0).collect()
}

proptest! {
    #[test]
    fn hours_of_a_wrong_clock_are_left_out(all in prop::collection::btree_set(any::<u32>(), 0..20)) {
        let newest = (AT / 3600) as u32 + 24;
        let known: Vec<u32> = all.iter().copied().chain([newest, newest - MAX_AGE_HOURS]).collect();
        let line = serde_json::to_string(&evidence("web", known.clone())).unwrap();
        let kept = hours(&read(format!("{}{line}\n", header(AT)).as_bytes()).unwrap());
        let mut expected: Vec<u32> =
            known.into_iter().filter(|hour| (newest - MAX_AGE_HOURS..=newest).contains(hour)).collect();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(kept, expected);
    }
}

#[test]
fn a_snapshot_is_of_a_time_that_clocks_show() {
    for at in [u64::MAX, u64::from(u32::MAX) * 3600, MAX_TIME + 1] {
        assert!(matches!(read(header(at).as_bytes()), Err(SnapshotError::Time { .. })), "{at}");
    }
    assert!(read(header(MAX_TIME).as_bytes()).is_ok());
}

#[test]
fn names_have_the_length_of_names() {
    let line = |name: &str| header(AT) + &serde_json::to_string(&evidence(name, [500_000])).unwrap();
    assert!(read(line(&"n".repeat(MAX_NAME_BYTES)).as_bytes()).is_ok());
    let error = read(line(&"n".repeat(70_000)).as_bytes()).unwrap_err();
    assert!(matches!(error, SnapshotError::Name { line: 2, .. }), "{error}");
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(text).unwrap();
    packed.finish().unwrap()
}

#[test]
fn a_packed_file_does_not_grow_without_end() {
    // Lines of spaces, a mebibyte each: any number of them takes a kilobyte each.
    let line = packed(&[&vec![b' '; 1 << 20][..], b"\n"].concat());
    let mut all = packed(header(AT).as_bytes());
    (0..100).for_each(|_| all.extend_from_slice(&line));
    let error = read(&all).unwrap_err();
    assert!(matches!(error, SnapshotError::Packed { .. }), "{error}");

    let lines = packed(&vec![b'\n'; MAX_CONTAINERS + 1]);
    let error = read(&[packed(header(AT).as_bytes()), lines].concat()).unwrap_err();
    assert!(matches!(error, SnapshotError::TooLarge { unit: "containers", .. }), "{error}");
}

#[test]
fn a_line_has_an_end() {
    let endless = io::Cursor::new(header(AT)).chain(repeat(b'x'));
    let mut snapshot = Snapshot::default();
    let error = snapshot.read("it", endless).unwrap_err();
    assert!(matches!(error, SnapshotError::TooLarge { unit: "bytes in a line", .. }), "{error}");
}
