//! The frame of one record in a file, with a checksum.
//!
//! | Bytes | Content |
//! |---:|---|
//! | 4 | [`MAGIC`], to find the next frame after a damaged one |
//! | 4 | CRC-32 of the position (day and offset) and of the rest of the frame |
//! | 1 | [`Kind`] |
//! | 1 | 0 |
//! | 2 | length of the key |
//! | 4 | length of the value |
//! | 4 | hour since the Unix epoch |
//! | … | key, UTF-8 |
//! | … | value |
//!
//! Numbers are little-endian. The checksum covers the position, so a frame is valid only where it was written: swapped or
//! duplicated blocks are damage, and no record counts twice.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _};

use snug_sizing::evidence::Hour;

/// The first bytes of each frame. A new frame format needs a new magic.
pub(super) const MAGIC: [u8; 4] = *b"SnH1";
/// The size of the header, bytes.
const HEADER: usize = 20;
/// The maximum size of a value, bytes. A damaged length must not make a reader allocate all memory.
const MAX_VALUE: usize = 4 << 20;
/// The size of one read, bytes.
const CHUNK: usize = 256 << 10;

/// The kind of a frame. Unknown kinds are kept but not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind(pub(super) u8);

impl Kind {
    /// The header of the file: see [`super::segment`].
    pub(super) const FILE: Self = Self(1);
    /// An hour of a container.
    pub(super) const HOUR: Self = Self(2);
    /// The minutes of an hour of a container.
    pub(super) const MINUTES: Self = Self(3);
}

/// A record with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'b> {
    pub(super) kind: Kind,
    pub(super) hour: Hour,
    /// The workload and container.
    pub(super) key: &'b str,
    /// The encoded record.
    pub(super) value: &'b [u8],
}

/// The position of a frame: the day of its file and the offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// Days since the Unix epoch.
    pub(super) day: u32,
    /// Bytes from the start of the file.
    pub(super) offset: u64,
}

/// A record is too long for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of {value} bytes with a key of {key} is too long for the history")]
pub(super) struct TooLong {
    key: usize,
    value: usize,
}

impl<'b> Frame<'b> {
    /// Appends the frame to `out`. `position` is where it will be in the file.
    pub(super) fn write(&self, position: Position, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let too_long = TooLong { key: self.key.len(), value: self.value.len() };
        let key_length = u16::try_from(self.key.len()).map_err(|_| too_long)?;
        let value_length =
            u32::try_from(self.value.len()).ok().filter(|_| self.value.len() <= MAX_VALUE).ok_or(too_long)?;
        let begin = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&[self.kind.0, 0]);
        out.extend_from_slice(&key_length.to_le_bytes());
        out.extend_from_slice(&value_length.to_le_bytes());
        out.extend_from_slice(&self.hour.0.to_le_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(self.value);
        let sum = checksum(position, &out[begin + 8..]);
        out[begin + 4..begin + 8].copy_from_slice(&sum.to_le_bytes());
        Ok(())
    }

    /// Whether a record fits into a frame.
    pub(super) fn fits(key: &str, value: &[u8]) -> bool {
        key.len() <= usize::from(u16::MAX) && value.len() <= MAX_VALUE
    }

    /// The frame at the start of `bytes`; `None` if it is not valid.
    pub(super) fn read(bytes: &'b [u8], position: Position) -> Option<Self> {
        let (key_length, length) = lengths(bytes)?;
        let frame = bytes.get(..length)?;
        if u32_at(frame, 4)? != checksum(position, frame.get(8..)?) {
            return None;
        }
        let (key, value) = frame.get(HEADER..)?.split_at_checked(key_length)?;
        Some(Self {
            kind: Kind(*frame.get(8)?),
            hour: Hour(u32_at(frame, 16)?),
            key: std::str::from_utf8(key).ok()?,
            value,
        })
    }

    /// The size of the frame, bytes.
    pub(super) fn length(&self) -> usize {
        HEADER + self.key.len() + self.value.len()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// Length of the key and of the whole frame, from the frame header in `bytes`.
fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let key = usize::from(u16::from_le_bytes(*bytes.get(10..)?.first_chunk()?));
    let value = usize::try_from(u32_at(bytes, 12)?).ok()?;
    (bytes.len() >= HEADER && value <= MAX_VALUE).then_some((key, HEADER + key + value))
}

fn checksum(position: Position, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&position.day.to_le_bytes());
    sum.update(&position.offset.to_le_bytes());
    sum.update(bytes);
    sum.finalize()
}

/// The result of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    /// The number of valid frames.
    pub(super) frames: u64,
    /// The number of gaps: ranges without a valid frame.
    pub(super) gaps: u64,
    /// End of the last valid frame, else start of the range.
    pub(super) end: u64,
    /// Whether the last gap is an incomplete write: it extends to the end of the range and has the start of a frame, or zeros.
    pub(super) is_torn: bool,
}

/// Calls `found` for each valid frame in a range of a file, with the offset of the frame.
///
/// # Errors
/// When the file cannot be read. A file that is shorter than the range is no error: it has a gap there.
pub(super) fn scan(
    file: &File,
    day: u32,
    range: Range<u64>,
    mut found: impl FnMut(u64, Frame<'_>),
) -> io::Result<Scanned> {
    let mut window = Window { file, end: range.end, start: 0, bytes: Vec::new() };
    let mut scanned = Scanned { end: range.start, ..Scanned::default() };
    let mut at = range.start;
    while at < range.end {
        let length = lengths(window.at(at, HEADER)?).map_or(0, |(_, length)| length);
        if let Some(frame) = Frame::read(window.at(at, length)?, Position { day, offset: at }) {
            scanned.gaps += u64::from(at > scanned.end);
            scanned.frames += 1;
            found(at, frame);
            at += length as u64;
            scanned.end = at;
        } else {
            at = window.next_magic(at + 1)?;
        }
    }
    if scanned.end < range.end {
        scanned.gaps += 1;
        scanned.is_torn = window.is_torn(scanned.end)?;
    }
    Ok(scanned)
}

/// The part of a file that is in memory.
struct Window<'f> {
    file: &'f File,
    /// End of the range.
    end: u64,
    /// Offset of `bytes` in the file.
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// At least `length` bytes from `at` on; fewer at the end of the range.
    fn at(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let there = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let needed = length.min(there);
        let known = at.checked_sub(self.start).and_then(|skip| self.bytes.get(usize::try_from(skip).ok()?..));
        if known.is_none_or(|known| known.len() < needed) {
            self.bytes.resize(needed.max(CHUNK).min(there), 0);
            let read = read_at_most(self.file, &mut self.bytes, at)?;
            self.bytes.truncate(read);
            self.start = at;
        }
        let skip = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(skip..).unwrap_or_default())
    }

    /// The offset of the next [`MAGIC`] from `at` on, else the end of the range.
    fn next_magic(&mut self, mut at: u64) -> io::Result<u64> {
        loop {
            let bytes = self.at(at, CHUNK)?;
            if let Some(skip) = bytes.windows(MAGIC.len()).position(|window| window == MAGIC) {
                return Ok(at + skip as u64);
            }
            // The last bytes may be the start of a magic.
            let passed = (bytes.len() + 1).saturating_sub(MAGIC.len());
            if passed == 0 || at + bytes.len() as u64 >= self.end {
                return Ok(self.end);
            }
            at += passed as u64;
        }
    }

    /// Whether the bytes from `at` on are an incomplete frame, or zeros.
    fn is_torn(&mut self, at: u64) -> io::Result<bool> {
        let end = self.end;
        let bytes = self.at(at, HEADER)?;
        let is_cut = match lengths(bytes) {
            Some((_, length)) => at + length as u64 > end,
            None => bytes.len() < HEADER,
        };
        if is_cut {
            return Ok(true);
        }
        let mut rest = at;
        while rest < end {
            let bytes = self.at(rest, CHUNK)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            if bytes.is_empty() {
                break;
            }
            rest += bytes.len() as u64;
        }
        Ok(true)
    }
}

/// Reads until `buffer` is full or the file ends. Returns the number of bytes.
pub(super) fn read_at_most(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const DAY: u32 = 20_000;

    fn frame<'b>(key: &'b str, value: &'b [u8]) -> Frame<'b> {
        Frame { kind: Kind::HOUR, hour: Hour(480_007), key, value }
    }

    /// A file of frames with these values, and what it has.
    fn bytes(values: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for value in values {
            let position = Position { day: DAY, offset: out.len() as u64 };
            frame("shop", value).write(position, &mut out).unwrap();
        }
        out
    }

    fn scanned(bytes: &[u8]) -> (Vec<(u64, Vec<u8>)>, Scanned) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut all = Vec::new();
        let scanned = scan(&file, DAY, 0..bytes.len() as u64, |offset, frame| {
            assert_eq!((frame.key, frame.hour, frame.kind), ("shop", Hour(480_007), Kind::HOUR));
            all.push((offset, frame.value.to_vec()));
        });
        (all, scanned.unwrap())
    }

    #[test]
    fn a_frame_is_valid_only_where_it_was_written() {
        let mut out = Vec::new();
        let position = Position { day: DAY, offset: 40 };
        let written = frame("key", b"value");
        written.write(position, &mut out).unwrap();
        assert_eq!(out.len(), written.length());
        assert_eq!(Frame::read(&out, position), Some(written));
        assert_eq!(Frame::read(&out, Position { offset: 41, ..position }), None);
        assert_eq!(Frame::read(&out, Position { day: DAY + 1, ..position }), None);
        for bit in 0..out.len() * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::read(&out, position), None, "bit {bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn records_that_are_too_long_are_refused() {
        let mut out = Vec::new();
        let position = Position { day: DAY, offset: 0 };
        let long = "k".repeat(70_000);
        assert!(frame(&long, b"").write(position, &mut out).is_err());
        assert!(frame("key", &vec![0; MAX_VALUE + 1]).write(position, &mut out).is_err());
        assert!(out.is_empty());
        frame("key", &vec![0; MAX_VALUE]).write(position, &mut out).unwrap();
        assert!(Frame::read(&out, position).is_some());
    }

    #[test]
    fn an_incomplete_write_is_distinguished_from_damage() {
        let whole = bytes(&[b"first".to_vec(), vec![7; 100]]);
        for (cut, frames) in [(whole.len() - 1, 1), (whole.len() - 110, 1), (whole.len() - 150, 0)] {
            let (_, scanned) = scanned(&whole[..cut]);
            assert_eq!((scanned.frames, scanned.gaps, scanned.is_torn), (frames, 1, true), "{cut}");
        }
        let mut with_zeros = whole.clone();
        with_zeros.resize(whole.len() + 600_000, 0);
        let (_, scanned_zeros) = scanned(&with_zeros);
        assert_eq!((scanned_zeros.frames, scanned_zeros.gaps, scanned_zeros.is_torn), (2, 1, true));
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let (_, scanned_flipped) = scanned(&flipped);
        assert_eq!((scanned_flipped.frames, scanned_flipped.gaps, scanned_flipped.is_torn), (1, 1, false));
    }

    proptest! {
        #[test]
        fn frames_outside_of_an_overwritten_range_are_found(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
            at in any::<prop::sample::Index>(),
            noise in prop::collection::vec(any::<u8>(), 1..50),
        ) {
            let whole = bytes(&values);
            let (all, clean) = scanned(&whole);
            prop_assert_eq!(all.iter().map(|(_, value)| value).collect::<Vec<_>>(), values.iter().collect::<Vec<_>>());
            prop_assert_eq!((clean.gaps, clean.end), (0, whole.len() as u64));
            let mut damaged = whole.clone();
            let at = at.index(whole.len());
            for (byte, noise) in damaged[at..].iter_mut().zip(&noise) {
                *byte = *noise;
            }
            let changed = at as u64..(at + noise.len()) as u64;
            let (left, scanned) = scanned(&damaged);
            for (offset, value) in &all {
                let end = offset + frame("shop", value).length() as u64;
                if end <= changed.start || *offset >= changed.end {
                    prop_assert!(left.contains(&(*offset, value.clone())));
                }
            }
            prop_assert!(left.iter().all(|one| all.contains(one)));
            prop_assert_eq!(scanned.gaps > 0, damaged != whole);
        }

        #[test]
        fn random_bytes_have_no_frames(noise in prop::collection::vec(any::<u8>(), 0..2000)) {
            let (all, scanned) = scanned(&noise);
            prop_assert!(all.is_empty());
            prop_assert_eq!(scanned.gaps, u64::from(!noise.is_empty()));
        }
    }
}
