//! Any damage to a file causes no panic, no record is served that was not written, and missing records are counted.

use std::collections::BTreeSet;

use super::*;
use crate::history::samples::{Random, sample, scratch};

const FIRST: u32 = 480_000;
const CONTAINERS: u64 = 3;
const HOURS: u32 = 9;
const PAGE: usize = 4096;
const DAMAGES: u64 = 1000;

/// Kind, hour, key and value of a record.
type Raw = (u8, u32, String, Vec<u8>);

/// All records of a view.
fn raw(store: &Store) -> BTreeSet<Raw> {
    let mut all = BTreeSet::new();
    let mut buffer = Vec::new();
    for segment in store.segments.load().iter() {
        let mut index = Index::new();
        segment.index((0, segment.length()), |_, _| true, &mut index, &store.health).unwrap();
        for entry in index.values().flatten() {
            let frame = segment.read(entry, &mut buffer, &store.health).unwrap().unwrap();
            all.insert((frame.kind.0, frame.hour.0, frame.key.to_owned(), frame.value.to_vec()));
        }
    }
    all
}

/// Reads all records as `/api/v1/evidence` does. Returns the number of hours.
fn read_all(store: &Store) -> usize {
    let hours = store.hours();
    let subjects = hours.subjects(Hour(0)).unwrap();
    let read = subjects.values().map(|records| {
        let (evidence, skipped) = hours.evidence(records).unwrap();
        let minutes = hours.minutes(records).unwrap();
        assert!(skipped == 0 && minutes.len() <= 60 * HOURS as usize + 60);
        evidence.map_or(0, |evidence| evidence.hours.len())
    });
    read.sum()
}

/// A file as a stopped or killed agent leaves it, with its records and the offsets of the last appended frames.
struct Whole {
    bytes: Vec<u8>,
    has: BTreeSet<Raw>,
    is_closed: bool,
}

impl Whole {
    fn make(is_closed: bool) -> Self {
        let folder = scratch();
        let (store, _) = Store::open(folder.path()).unwrap();
        for hour in 0..HOURS {
            let batch: Vec<Evidence> = (0..CONTAINERS).map(|number| sample(number, FIRST + hour)).collect();
            store.add(&batch).unwrap();
            if hour == HOURS / 2 {
                store.seal_all().unwrap();
            }
        }
        if is_closed {
            store.seal_all().unwrap();
        }
        let has = raw(&store);
        assert_eq!(has.len(), CONTAINERS as usize * HOURS as usize * 2);
        assert_eq!(read_all(&store), CONTAINERS as usize * HOURS as usize);
        Self { bytes: fs::read(&files(folder.path())[0]).unwrap(), has, is_closed }
    }

    /// Opens the damaged file, reads all records, and continues to write.
    fn survives(&self, folder: &Path, damaged: &[u8], what: &str) {
        let path = folder.join(DIRECTORY).join(format!("day-{}", FIRST / 24));
        let _ = fs::remove_dir_all(folder.join(DIRECTORY));
        fs::create_dir(folder.join(DIRECTORY)).unwrap();
        fs::write(&path, damaged).unwrap();
        let (store, _) = Store::open(folder).unwrap();
        let found = raw(&store);
        read_all(&store);
        assert!(found.is_subset(&self.has), "{what}: something was served that was not written");
        let row = store.health().row();
        // The file of a killed agent may end anywhere after its sealed part.
        let is_shorter = !self.is_closed && self.bytes.starts_with(damaged);
        assert!(row.damaged > 0 || damaged == self.bytes || is_shorter, "{what}: the damage was not counted");
        assert!(row.damaged > 0 || is_shorter || found == self.has, "{what}: something is missing");
        assert!(row.damaged as usize <= self.has.len() + 1, "{what}: {row:?}");

        let new = [sample(CONTAINERS, FIRST + HOURS), sample(0, FIRST + HOURS)];
        store.add(&new).unwrap();
        assert_eq!(raw(&store).difference(&found).count(), 4, "{what}");
        store.seal_all().unwrap();
        assert_eq!(raw(&store).len(), found.len() + 4, "{what}");
        // The damaged file is kept under another name, except after an incomplete write.
        let is_kept = fs::read_dir(folder.join(DIRECTORY)).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            path.to_string_lossy().contains(".unusable-") && fs::read(&path).unwrap().starts_with(damaged)
        });
        assert!(is_kept || row.damaged == 0 || is_torn(&self.bytes, damaged), "{what}: it is gone");
        assert_eq!(store.health().row().damaged, row.damaged, "{what}: the same damage is counted once");
        drop(store);
        let (store, aside) = Store::open(folder).unwrap();
        assert_eq!(raw(&store).len(), found.len() + 4, "{what}");
        assert_eq!((store.health().row().damaged, aside.len()), (0, 0), "{what}: it has none any more");
    }
}

/// Whether only the last frames are missing or zeroed.
fn is_torn(whole: &[u8], damaged: &[u8]) -> bool {
    let same = whole.iter().zip(damaged).take_while(|(a, b)| a == b).count();
    let Some(rest) = damaged.get(same..) else { return true };
    rest.iter().all(|byte| *byte == 0) || whole.len() - same < 2000
}

#[test]
fn each_page_can_be_zeroed() {
    for is_closed in [true, false] {
        let whole = Whole::make(is_closed);
        let folder = scratch();
        for page in 0..whole.bytes.len().div_ceil(PAGE) {
            let mut damaged = whole.bytes.clone();
            let end = (page * PAGE + PAGE).min(damaged.len());
            damaged[page * PAGE..end].fill(0);
            whole.survives(folder.path(), &damaged, &format!("page {page} of {is_closed}"));
        }
        whole.survives(folder.path(), &whole.bytes, "no damage");
    }
}

#[test]
fn a_thousand_random_damages_cause_no_panic() {
    for is_closed in [true, false] {
        let whole = Whole::make(is_closed);
        let folder = scratch();
        for seed in 1..=DAMAGES {
            let mut damaged = whole.bytes.clone();
            let what = damage(&mut damaged, &mut Random::new(seed));
            whole.survives(folder.path(), &damaged, &format!("damage {seed} of {is_closed}: {what}"));
        }
    }
}

/// Damages a file in a random way.
pub(in crate::history) fn damage(bytes: &mut Vec<u8>, random: &mut Random) -> &'static str {
    let length = bytes.len();
    let at = random.below(length);
    let range = |random: &mut Random, at: usize| at..(at + 1 + random.below(5000)).min(length);
    match random.below(7) {
        0 => {
            for _ in 0..=random.below(8) {
                let at = random.below(length);
                bytes[at] ^= 1 << random.below(8);
            }
            "bits flipped"
        }
        1 => {
            let range = range(random, at);
            bytes[range].fill(0);
            "zeros"
        }
        2 => {
            let range = range(random, at);
            bytes[range].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
            "noise"
        }
        3 => {
            bytes.truncate(at);
            "cut"
        }
        4 => {
            let size = [512, PAGE, 1 + random.below(2000)][random.below(3)].min(length / 2);
            let [a, b] = [0; 2].map(|_| random.below(length / size) * size);
            if a != b {
                let [first, second] = [a.min(b), a.max(b)];
                let (left, right) = bytes.split_at_mut(second);
                left[first..first + size].swap_with_slice(&mut right[..size]);
            }
            "blocks swapped"
        }
        5 => {
            let source = range(random, at);
            let to = random.below(length - source.len() + 1);
            bytes.copy_within(source, to);
            "a piece over another"
        }
        _ => {
            let piece = bytes[range(random, at)].to_vec();
            let to = random.below(length);
            bytes.splice(to..to, piece);
            "a piece twice"
        }
    }
}
