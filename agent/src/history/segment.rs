//! The file of one day of the history.
//!
//! The file is a sequence of frames: the header, then the records of the last rewrite ("sealed"), then the records that were
//! appended since. A container may have several records of the same hour, which readers sum. A rewritten file replaces the old
//! one by rename, and current readers of the old one are not affected.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use prost::Message;
use snug_sizing::evidence::Hour;

use super::{
    frame::{Frame, Kind, Position, Scanned, read_at_most, scan},
    health::Health,
    medium::{Medium, aside},
    record::Record,
};

/// Hours in a file.
pub(super) const HOURS: u32 = 24;
/// The version of the file format. New fields of records do not change it: see [`super::record`].
const FORM: u32 = 1;

pub(super) fn day_of(hour: Hour) -> u32 {
    hour.0 / HOURS
}

/// The content of the first frame. All fields have a fixed size, so that the frame can be written last.
#[derive(Clone, Copy, PartialEq, Message)]
struct Header {
    #[prost(fixed32, optional, tag = "1")]
    form: Option<u32>,
    /// Size of the sealed part, bytes, including this frame.
    #[prost(fixed64, optional, tag = "2")]
    sealed: Option<u64>,
    /// Records in the sealed part.
    #[prost(fixed64, optional, tag = "3")]
    records: Option<u64>,
    /// The first hour in the sealed part.
    #[prost(fixed32, optional, tag = "4")]
    first_hour: Option<u32>,
    /// The first hour with minutes in the sealed part, else `u32::MAX`.
    #[prost(fixed32, optional, tag = "5")]
    first_minutes: Option<u32>,
}

impl Header {
    fn new(sealed: u64, records: u64, first_hour: u32, first_minutes: u32) -> Self {
        Self {
            form: Some(FORM),
            sealed: Some(sealed),
            records: Some(records),
            first_hour: Some(first_hour),
            first_minutes: Some(first_minutes),
        }
    }

    fn write(&self, day: u32) -> io::Result<Vec<u8>> {
        let value = self.encode_to_vec();
        let frame = Frame { kind: Kind::FILE, hour: Hour(day.saturating_mul(HOURS)), key: "", value: &value };
        let mut bytes = Vec::new();
        frame.write(Position { day, offset: 0 }, &mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }
}

/// The location of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) hour: Hour,
    /// Index of the segment in the view.
    pub(super) segment: u32,
    offset: u64,
    pub(super) length: u32,
}

/// The locations of the records of each key.
pub(super) type Index = BTreeMap<String, Vec<Entry>>;

/// The file of one day.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) day: u32,
    file: File,
    pub(super) path: Option<PathBuf>,
    header: Header,
    /// The length that readers use. Bytes beyond it are not published.
    length: AtomicU64,
    /// Whether there may be bytes beyond `length`, which must be removed before the next append.
    has_remainder: AtomicBool,
    /// The number of damaged records that were counted already.
    damaged: AtomicU64,
    /// Whether there is damage beyond `length`.
    has_damaged_tail: bool,
}

/// The result of opening a file.
#[derive(Debug)]
pub(super) enum OpenedSegment {
    /// The file has no damage.
    Whole(Segment),
    /// The file has damage and must be rewritten.
    Damaged(Segment),
    /// The file has no usable record.
    Unusable,
}

impl Segment {
    /// Opens the file of a day. Verifies only the appended part; the sealed part is verified when it is read.
    pub(super) fn open(medium: &Medium, day: u32, health: &Health) -> io::Result<OpenedSegment> {
        let Some(path) = medium.path(day) else { return Ok(OpenedSegment::Unusable) };
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let there = file.metadata()?.len();
        let empty = Header::new(0, 0, 0, 0);
        let header = read_header(&file, day)?;
        if header.is_some_and(|header| header.form != Some(FORM)) {
            return Ok(OpenedSegment::Unusable);
        }
        let whole = header.filter(|header| header.sealed.is_some_and(|sealed| sealed <= there));
        let mut segment = Self {
            day,
            file,
            path: Some(path),
            header: header.unwrap_or(empty),
            length: AtomicU64::new(there),
            has_remainder: AtomicBool::new(false),
            damaged: AtomicU64::new(0),
            has_damaged_tail: false,
        };
        let scanned = match whole {
            Some(_) => scan(&segment.file, day, segment.sealed()..there, |_, _| ())?,
            None => {
                let (scanned, damaged) = segment.scan_valid(there, |_, _| ())?;
                if scanned.frames == u64::from(header.is_some()) {
                    health.damaged(damaged.max(1));
                    return Ok(OpenedSegment::Unusable);
                }
                segment.count_damage(damaged.max(1), health);
                scanned
            }
        };
        segment.length = AtomicU64::new(scanned.end);
        segment.has_remainder = AtomicBool::new(scanned.end < there);
        segment.has_damaged_tail = scanned.end < there && !scanned.is_torn;
        segment.count_damage(scanned.gaps, health);
        let is_damaged = whole.is_none() || scanned.gaps > u64::from(scanned.is_torn);
        Ok(if is_damaged { OpenedSegment::Damaged(segment) } else { OpenedSegment::Whole(segment) })
    }

    /// Creates an empty file.
    pub(super) fn create(medium: &Medium, day: u32) -> io::Result<Self> {
        Writing::begin(medium, day)?.finish()
    }

    fn sealed(&self) -> u64 {
        self.header.sealed.unwrap_or_default()
    }

    /// The length that readers use, bytes.
    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Bytes that were appended since the last rewrite.
    pub(super) fn appended(&self) -> u64 {
        self.length().saturating_sub(self.sealed())
    }

    /// Whether the file must be rewritten, because of appended or expired records.
    pub(super) fn should_be_sealed(&self, by_minute: Hour, oldest: Hour) -> bool {
        let first = |hour: Option<u32>| hour.unwrap_or_default();
        self.appended() > 0
            || first(self.header.first_hour) < oldest.0
            || first(self.header.first_minutes) < by_minute.0
    }

    /// Whether the appended part is large in relation to the file.
    pub(super) fn has_much_appended(&self) -> bool {
        self.appended() > MAX_APPENDED.max(self.sealed() / 2)
    }

    /// Whether all its hours are before `oldest`.
    pub(super) fn is_before(&self, oldest: Hour) -> bool {
        self.day < day_of(oldest)
    }

    /// Appends records and syncs the file. Returns the new length. Readers do not see the records before [`Self::publish`];
    /// [`Self::discard_appended`] removes them.
    pub(super) fn append(&self, records: &[Record]) -> io::Result<u64> {
        let begin = self.length();
        if self.has_remainder.load(Ordering::Relaxed) {
            self.file.set_len(begin)?;
        }
        self.has_remainder.store(true, Ordering::Relaxed);
        let mut bytes = Vec::new();
        for Record { kind, hour, key, value } in records {
            let position = Position { day: self.day, offset: begin + bytes.len() as u64 };
            let frame = Frame { kind: *kind, hour: *hour, key, value };
            frame.write(position, &mut bytes).map_err(io::Error::other)?;
        }
        self.file.write_all_at(&bytes, begin)?;
        self.file.sync_data()?;
        Ok(begin + bytes.len() as u64)
    }

    /// Makes appended records visible to readers. `length` comes from [`Self::append`].
    pub(super) fn publish(&self, length: u64) {
        self.length.store(length, Ordering::Release);
        self.has_remainder.store(false, Ordering::Relaxed);
    }

    /// Removes records that were appended and not published. If that fails, the next append removes them.
    pub(super) fn discard_appended(&self) {
        if self.file.set_len(self.length()).is_ok() {
            self.has_remainder.store(false, Ordering::Relaxed);
        }
    }

    /// Calls `found` for all valid records up to the offset `end`. The second value is the number of damaged records: the number
    /// of gaps, or of sealed records that are missing, whichever is larger.
    fn scan_valid(&self, end: u64, mut found: impl FnMut(u64, Frame<'_>)) -> io::Result<(Scanned, u64)> {
        let sealed = self.sealed();
        let mut of_sealed = 0;
        let scanned = scan(&self.file, self.day, 0..end, |offset, frame| {
            if frame.kind != Kind::FILE {
                of_sealed += u64::from(offset < sealed);
                found(offset, frame);
            }
        })?;
        let missing = self.header.records.unwrap_or_default().saturating_sub(of_sealed);
        Ok((scanned, scanned.gaps.max(missing)))
    }

    /// Adds the locations of the selected records up to an offset. Returns the number of damaged records.
    pub(super) fn index(
        &self,
        (segment, end): (u32, u64),
        is_selected: impl Fn(Kind, Hour) -> bool,
        index: &mut Index,
        health: &Health,
    ) -> io::Result<u64> {
        let (_, damaged) = self.scan_valid(end, |offset, frame| {
            if !is_selected(frame.kind, frame.hour) {
                return;
            }
            let Ok(length) = u32::try_from(frame.length()) else { return };
            let entry = Entry { kind: frame.kind, hour: frame.hour, segment, offset, length };
            match index.get_mut(frame.key) {
                Some(entries) => entries.push(entry),
                None => drop(index.insert(frame.key.to_owned(), vec![entry])),
            }
        })?;
        self.count_damage(damaged, health);
        Ok(damaged)
    }

    /// Reads a record; `None` if it was damaged after it was indexed.
    pub(super) fn read<'b>(
        &self,
        entry: &Entry,
        buffer: &'b mut Vec<u8>,
        health: &Health,
    ) -> io::Result<Option<Frame<'b>>> {
        buffer.resize(entry.length as usize, 0);
        let read = read_at_most(&self.file, buffer, entry.offset)?;
        let position = Position { day: self.day, offset: entry.offset };
        let frame = buffer.get(..read).and_then(|bytes| Frame::read(bytes, position));
        if frame.is_none() {
            self.count_damage(1, health);
        }
        Ok(frame)
    }

    /// Counts each damaged record once, and logs the first damage.
    fn count_damage(&self, damaged: u64, health: &Health) {
        let known = self.damaged.fetch_max(damaged, Ordering::Relaxed);
        if damaged > known {
            health.damaged(damaged - known);
        }
        if damaged > 0 && known == 0 {
            let path = self.path.as_deref().unwrap_or(Path::new("memory"));
            tracing::error!(path = %path.display(), damaged, "records of the history fail their checksum and are left out");
        }
    }

    /// Whether the file must be moved aside instead of deleted.
    fn is_damaged(&self, damaged: u64) -> bool {
        damaged > 0 || self.has_damaged_tail
    }

    /// Removes the file. A damaged file is moved aside instead.
    pub(super) fn remove(&self, damaged: u64, health: &Health) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.is_damaged(damaged) {
            let moved_to = aside(path);
            fs::rename(path, &moved_to)?;
            health.moved_aside(path, &moved_to);
            return Ok(());
        }
        fs::remove_file(path)
    }

    /// Keeps a copy of a damaged file under another name.
    fn keep_if_damaged(&self, damaged: u64, health: &Health) -> io::Result<()> {
        let Some(path) = self.path.as_ref().filter(|_| self.is_damaged(damaged)) else { return Ok(()) };
        let kept = aside(path);
        // Some file systems have no hard links.
        fs::hard_link(path, &kept).or_else(|_| fs::copy(path, &kept).map(drop))?;
        health.moved_aside(path, &kept);
        Ok(())
    }

    /// Replaces the file by a rewritten one. A damaged file is kept under another name.
    pub(super) fn replace_by(&self, new: Writing<'_>, damaged: u64, health: &Health) -> io::Result<Self> {
        self.keep_if_damaged(damaged, health)?;
        new.finish()
    }
}

/// The maximum size of the appended part of a small file, bytes.
const MAX_APPENDED: u64 = 1 << 20;

fn read_header(file: &File, day: u32) -> io::Result<Option<Header>> {
    let mut bytes = vec![0; 256];
    let read = read_at_most(file, &mut bytes, 0)?;
    let frame = bytes.get(..read).and_then(|bytes| Frame::read(bytes, Position { day, offset: 0 }));
    Ok(frame.filter(|frame| frame.kind == Kind::FILE).and_then(|frame| Header::decode(frame.value).ok()))
}

/// A new file that is being written.
#[derive(Debug)]
pub(super) struct Writing<'m> {
    medium: &'m Medium,
    day: u32,
    file: BufWriter<File>,
    length: u64,
    records: u64,
    first_hour: u32,
    first_minutes: u32,
    buffer: Vec<u8>,
}

impl<'m> Writing<'m> {
    /// Starts the file of a day.
    pub(super) fn begin(medium: &'m Medium, day: u32) -> io::Result<Self> {
        let mut file = BufWriter::new(medium.create(day)?);
        let header = Header::new(0, 0, 0, 0).write(day)?;
        file.write_all(&vec![0; header.len()])?;
        Ok(Self {
            medium,
            day,
            file,
            length: header.len() as u64,
            records: 0,
            first_hour: u32::MAX,
            first_minutes: u32::MAX,
            buffer: Vec::new(),
        })
    }

    /// Writes a record.
    pub(super) fn push(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        self.buffer.clear();
        let position = Position { day: self.day, offset: self.length };
        frame.write(position, &mut self.buffer).map_err(io::Error::other)?;
        self.file.write_all(&self.buffer)?;
        self.length += self.buffer.len() as u64;
        self.records += 1;
        self.first_hour = self.first_hour.min(frame.hour.0);
        if frame.kind == Kind::MINUTES {
            self.first_minutes = self.first_minutes.min(frame.hour.0);
        }
        Ok(())
    }

    /// Whether the file has no records.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Syncs the file and puts it in its place.
    pub(super) fn finish(self) -> io::Result<Segment> {
        let Self { medium, day, file, length, records, first_hour, first_minutes, .. } = self;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let header = Header::new(length, records, first_hour, first_minutes);
        file.write_all_at(&header.write(day)?, 0)?;
        file.sync_all()?;
        medium.put_in_place(day)?;
        Ok(Segment {
            day,
            file,
            path: medium.path(day),
            header,
            length: AtomicU64::new(length),
            has_remainder: AtomicBool::new(false),
            damaged: AtomicU64::new(0),
            has_damaged_tail: false,
        })
    }
}

/// The first frame of a file with another format version.
#[cfg(test)]
pub(super) fn header_of_form(day: u32, form: u32) -> Vec<u8> {
    Header { form: Some(form), ..Header::new(0, 0, 0, 0) }.write(day).unwrap()
}
