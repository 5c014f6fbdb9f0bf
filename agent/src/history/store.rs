//! The records of the history: one per hour, workload and container, in a file for each day.
//!
//! One thread writes. It appends new records, and when a file has many appended records it rewrites the file with one record
//! per container and hour. Readers take the current list of files and never wait.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use snug_sizing::evidence::{Evidence, Hour};

use super::{
    error::HistoryError,
    frame::{Frame, Kind},
    health::Health,
    medium::{Medium, aside},
    record::{self, Record, Sum},
    segment::{Entry, Index, OpenedSegment, Segment, Writing, day_of},
    view::Hours,
};

/// Name of the directory in the data directory.
pub const DIRECTORY: &str = "history";
/// The files of the history.
#[derive(Debug)]
pub struct Store {
    medium: Medium,
    /// Sorted by day.
    segments: ArcSwap<Vec<Arc<Segment>>>,
    writer: Mutex<()>,
    health: Arc<Health>,
    /// The lock file: locked as long as it is open.
    _lock: Option<File>,
}

/// The file of a day and its length after an append.
type Appended = (Arc<Segment>, u64);

impl Store {
    /// An empty history in memory.
    pub fn in_memory() -> Self {
        Self::new(Medium::Memory, Vec::new(), Arc::default(), None)
    }

    fn new(medium: Medium, segments: Vec<Arc<Segment>>, health: Arc<Health>, lock: Option<File>) -> Self {
        Self {
            medium,
            segments: ArcSwap::from_pointee(segments),
            writer: Mutex::new(()),
            health,
            _lock: lock,
        }
    }

    /// Opens the files of a directory. Adds the new paths of files that were moved aside to `moved`.
    pub(super) fn open_at(
        directory: &Path,
        health: Arc<Health>,
        lock: Option<File>,
        moved: &mut Vec<PathBuf>,
    ) -> Result<Self, HistoryError> {
        let open = |source| HistoryError::Open { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(open)?;
        let medium = Medium::Directory(directory.to_owned());
        let mut segments = Vec::new();
        for day in medium.days().map_err(open)? {
            let segment = match Segment::open(&medium, day, &health).map_err(open)? {
                OpenedSegment::Whole(segment) => Some(segment),
                // If the file cannot be rewritten, it is used as it is.
                OpenedSegment::Damaged(segment) => match seal(&medium, &segment, &health, |_, _| true) {
                    Ok(sealed) => sealed,
                    Err(error) => {
                        tracing::warn!(%error, day, "a damaged file of the history cannot be rewritten");
                        Some(segment)
                    }
                },
                OpenedSegment::Unusable => {
                    let Some(path) = medium.path(day) else { continue };
                    let moved_to = aside(&path);
                    fs::rename(&path, &moved_to)
                        .map_err(|source| HistoryError::Aside { path: path.clone(), source })?;
                    health.moved_aside(&path, &moved_to);
                    moved.push(moved_to);
                    None
                }
            };
            segments.extend(segment.map(Arc::new));
        }
        Ok(Self::new(medium, segments, health, lock))
    }

    /// The counters of the history's state.
    pub(super) fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch completely or not at all. Records that are too long are dropped and counted.
    ///
    /// # Errors
    /// When the files cannot be written. Then no record of the batch was added.
    pub fn add(&self, batch: &[Evidence]) -> Result<(), HistoryError> {
        let _writing = self.lock();
        let mut days: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        for record in batch.iter().flat_map(record::encode) {
            if !Frame::fits(&record.key, &record.value) {
                self.health.drop_records(1);
                continue;
            }
            days.entry(day_of(record.hour)).or_default().push(record);
        }
        let mut appended: Vec<Appended> = Vec::new();
        let result = days.iter().try_for_each(|(day, records)| {
            let segment = self.segment(*day)?;
            appended.push((segment.clone(), segment.length()));
            let length = segment.append(records)?;
            appended.last_mut().into_iter().for_each(|last| last.1 = length);
            Ok(())
        });
        if let Err(error) = result {
            appended.iter().for_each(|(segment, _)| segment.discard_appended());
            return Err(HistoryError::Write(error));
        }
        for (segment, length) in &appended {
            segment.publish(*length);
            if segment.has_much_appended()
                && let Err(error) = self.seal(segment, |_, _| true)
            {
                tracing::debug!(%error, day = segment.day, "a file of the history cannot be rewritten yet");
            }
        }
        Ok(())
    }

    /// The file of a day, created if there is none.
    fn segment(&self, day: u32) -> io::Result<Arc<Segment>> {
        let segments = self.segments.load();
        match segments.binary_search_by_key(&day, |segment| segment.day) {
            Ok(at) => segments.get(at).cloned().ok_or_else(|| io::ErrorKind::NotFound.into()),
            Err(at) => {
                let segment = Arc::new(Segment::create(&self.medium, day)?);
                let mut more = segments.to_vec();
                more.insert(at, segment.clone());
                self.segments.store(Arc::new(more));
                Ok(segment)
            }
        }
    }

    /// Rewrites a file with one record per container and hour, and only those that `keep` accepts.
    fn seal(&self, segment: &Segment, keep: impl Fn(Kind, Hour) -> bool) -> io::Result<()> {
        let sealed = seal(&self.medium, segment, &self.health, keep)?.map(Arc::new);
        let segments = self.segments.load();
        let others = segments.iter().filter(|other| other.day != segment.day).cloned();
        let mut all: Vec<Arc<Segment>> = others.chain(sealed).collect();
        all.sort_unstable_by_key(|segment| segment.day);
        self.segments.store(Arc::new(all));
        Ok(())
    }

    /// Rewrites each file that has appended records. Only in a sealed file can a later truncation be detected.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn seal_all(&self) -> Result<(), HistoryError> {
        let _writing = self.lock();
        for segment in self.segments.load().iter().filter(|segment| segment.appended() > 0) {
            self.seal(segment, |_, _| true).map_err(HistoryError::Write)?;
        }
        Ok(())
    }

    /// Removes minutes before `by_minute` and hours before `oldest`, then the oldest hours until the files have at most
    /// `max_bytes` bytes. Returns the size of the files, bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prune(&self, by_minute: Hour, oldest: Hour, max_bytes: u64) -> Result<u64, HistoryError> {
        let _writing = self.lock();
        self.prune_age(by_minute, oldest).map_err(HistoryError::Write)?;
        self.prune_size(max_bytes).map_err(HistoryError::Write)
    }

    /// The day of the first file, in days since the Unix epoch.
    pub(super) fn first_day(&self) -> Option<u32> {
        self.segments.load().first().map(|segment| segment.day)
    }

    fn prune_age(&self, by_minute: Hour, oldest: Hour) -> io::Result<()> {
        let keep = |kind, hour| hour >= oldest && (kind != Kind::MINUTES || hour >= by_minute);
        for segment in self.segments.load().iter() {
            if segment.is_before(oldest) {
                self.remove(segment)?;
            } else if segment.should_be_sealed(by_minute, oldest) {
                self.seal(segment, keep)?;
            }
        }
        self.medium.remove_aside_before(day_of(oldest))
    }

    fn prune_size(&self, max_bytes: u64) -> io::Result<u64> {
        loop {
            let segments = self.segments.load();
            let stored = segments.iter().map(|segment| segment.length()).sum();
            let Some(segment) = segments.first().filter(|_| stored > max_bytes) else { return Ok(stored) };
            let mut index = Index::new();
            segment.index((0, segment.length()), |_, _| true, &mut index, &self.health)?;
            let mut hours: BTreeMap<Hour, u64> = BTreeMap::new();
            for entry in index.values().flatten() {
                *hours.entry(entry.hour).or_default() += u64::from(entry.length);
            }
            let mut excess = stored - max_bytes;
            let first_kept = hours.into_iter().find_map(|(hour, bytes)| {
                let is_kept = excess == 0;
                excess = excess.saturating_sub(bytes);
                is_kept.then_some(hour)
            });
            match first_kept {
                Some(first) => self.seal(segment, |_, hour| hour >= first)?,
                None => self.remove(segment)?,
            }
        }
    }

    fn remove(&self, segment: &Segment) -> io::Result<()> {
        segment.remove(0, &self.health)?;
        let left = self.segments.load().iter().filter(|other| other.day != segment.day).cloned().collect();
        self.segments.store(Arc::new(left));
        Ok(())
    }

    /// A view of the current records. Later writes do not change it.
    pub fn hours(&self) -> Hours {
        let segments = self.segments.load();
        let segments = segments.iter().map(|segment| (segment.clone(), segment.length())).collect();
        Hours::new(segments, self.health.clone())
    }
}

/// Rewrites a file with one record per container and hour; `None` if no record is left. Records that cannot be decoded are
/// copied, because a newer version may decode them.
fn seal(
    medium: &Medium,
    segment: &Segment,
    health: &Health,
    keep: impl Fn(Kind, Hour) -> bool,
) -> io::Result<Option<Segment>> {
    let mut index = Index::new();
    let mut damaged = segment.index((0, segment.length()), keep, &mut index, health)?;
    let mut writing = Writing::begin(medium, segment.day)?;
    let mut buffer = Vec::new();
    for (key, mut entries) in index {
        entries.sort_unstable();
        for same in entries.chunk_by(|a, b| (a.kind, a.hour) == (b.kind, b.hour)) {
            let mut sum = Sum::default();
            for entry in same {
                match segment.read(entry, &mut buffer, health)? {
                    Some(frame) if same.len() > 1 && sum.add(&frame) => {}
                    Some(frame) => writing.push(&frame)?,
                    None => damaged += 1,
                }
            }
            if let (Some((kind, value)), Some(Entry { hour, .. })) = (sum.record(), same.first()) {
                writing.push(&Frame { kind, hour: *hour, key: &key, value: &value })?;
            }
        }
    }
    if writing.is_empty() {
        segment.remove(damaged, health)?;
        return Ok(None);
    }
    segment.replace_by(writing, damaged, health).map(Some)
}

#[cfg(test)]
pub(super) mod tests;
