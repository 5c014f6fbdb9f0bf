//! Parsers of the cgroup files of v1 and v2: text in, numbers out, no I/O.
//!
//! Formats: Linux `Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/*.rst` and `Documentation/accounting/psi.rst`.
//! Unknown rows are ignored, because new kernels add some. A missing or malformed row that is required is an error.

mod cpu;
mod io;
mod memory;
mod pressure;

use std::fmt;

pub use self::{
    cpu::{
        BandwidthStat, CpuMax, CpuStat, cfs_quota_v1, cpu_max, cpu_stat, cpu_stat_v1, cpuacct_stat,
        microseconds,
    },
    io::{BlkioRow, IoStat, blkio_throttle, io_stat, merge_blkio},
    memory::{
        OomControl, inactive_file, inactive_file_v1, limit_v1, memory_events, memory_stat, memory_stat_v1,
        oom_control,
    },
    pressure::stall,
};

/// Why a file could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// The line, counted from 1; for a missing row the number of lines.
    pub line: usize,
    pub problem: Problem,
}

/// The problem of a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not a number.
    #[error("{0} is not a number")]
    NotANumber(Excerpt),
    /// A number that is too large after conversion to Snug's unit.
    #[error("{0} is too large")]
    TooLarge(Excerpt),
    /// A row without a value, or with too few values.
    #[error("{0} has no value")]
    NoValue(Excerpt),
    /// A required row is missing.
    #[error("the row {0} is missing")]
    MissingRow(&'static str),
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// Unexpected text at the end.
    #[error("unexpected text after the end: {0}")]
    Trailing(Excerpt),
}

/// The first bytes of the text, quoted and escaped, for a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt(Box<[u8]>);

impl Excerpt {
    const LENGTH: usize = 40;

    fn new(text: &[u8]) -> Self {
        Self(text.iter().copied().take(Self::LENGTH).collect())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file with a single number.
pub fn number(text: &[u8]) -> Result<u64, ParseError> {
    only_line(text)?.number()
}

/// A file with a single number or `max`, which means no limit (`None`).
pub fn number_or_max(text: &[u8]) -> Result<Option<u64>, ParseError> {
    let line = only_line(text)?;
    if line.text == b"max" { Ok(None) } else { line.number().map(Some) }
}

/// A piece of text and its line.
#[derive(Clone, Copy)]
struct Field<'a> {
    line: usize,
    text: &'a [u8],
}

impl<'a> Field<'a> {
    fn error(self, problem: impl FnOnce(Excerpt) -> Problem) -> ParseError {
        ParseError { line: self.line, problem: problem(Excerpt::new(self.text)) }
    }

    fn number(self) -> Result<u64, ParseError> {
        if self.text.is_empty() || !self.text.iter().all(u8::is_ascii_digit) {
            return Err(self.error(Problem::NotANumber));
        }
        self.text
            .iter()
            .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
            .ok_or_else(|| self.error(Problem::TooLarge))
    }

    /// A number times `unit`, for example microseconds as nanoseconds.
    fn number_of(self, unit: u64) -> Result<u64, ParseError> {
        self.number()?.checked_mul(unit).ok_or_else(|| self.error(Problem::TooLarge))
    }

    /// The words between white space.
    fn words(self) -> impl Iterator<Item = Self> {
        let Self { line, text } = self;
        text.split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .map(move |text| Self { line, text })
    }

    /// Splits `key=value`; `None` without `=`.
    fn assignment(self) -> Option<(&'a [u8], Self)> {
        let equals = self.text.iter().position(|&byte| byte == b'=')?;
        let (key, value) = self.text.split_at_checked(equals)?;
        Some((key, Self { line: self.line, text: value.get(1..)? }))
    }
}

/// The lines that are not blank.
fn lines(text: &[u8]) -> impl Iterator<Item = Field<'_>> {
    text.split(|&byte| byte == b'\n')
        .enumerate()
        .map(|(index, text)| Field { line: index + 1, text: text.trim_ascii() })
        .filter(|line| !line.text.is_empty())
}

fn only_line(text: &[u8]) -> Result<Field<'_>, ParseError> {
    let mut lines = lines(text);
    let first = lines.next().ok_or(ParseError { line: 1, problem: Problem::Empty })?;
    match lines.next() {
        Some(second) => Err(second.error(Problem::Trailing)),
        None => Ok(first),
    }
}

/// A row of a flat-keyed file: `key value`.
struct FlatRow<'a> {
    key: &'a [u8],
    value: Field<'a>,
}

/// The rows of a flat-keyed file. Values are not parsed, so unknown rows can contain anything.
fn rows(text: &[u8]) -> impl Iterator<Item = FlatRow<'_>> {
    lines(text).map(|line| {
        let space = line.text.iter().position(u8::is_ascii_whitespace).unwrap_or(line.text.len());
        let (key, value) = line.text.split_at_checked(space).unwrap_or((line.text, b""));
        FlatRow { key, value: Field { line: line.line, text: value.trim_ascii() } }
    })
}

impl FlatRow<'_> {
    fn number(&self) -> Result<u64, ParseError> {
        self.number_of(1)
    }

    fn number_of(&self, unit: u64) -> Result<u64, ParseError> {
        if self.value.text.is_empty() {
            return Err(ParseError {
                line: self.value.line,
                problem: Problem::NoValue(Excerpt::new(self.key)),
            });
        }
        self.value.number_of(unit)
    }
}

fn required<T>(value: Option<T>, row: &'static str, text: &[u8]) -> Result<T, ParseError> {
    value.ok_or_else(|| ParseError {
        line: text.trim_ascii_end().split(|&byte| byte == b'\n').count(),
        problem: Problem::MissingRow(row),
    })
}

/// Reads rows of a text into a structure: each field with its row, and whether that is required or optional.
macro_rules! fields_of {
    ($text:ident: $type:ident { $($field:ident: $need:ident $row:literal,)+ $(..$rest:expr)? }) => {{
        $(let mut $field = None;)+
        for row in $crate::cgroupfs::parse::rows($text) {
            $(if row.key == $row.as_bytes() {
                $field = Some(row.number()?);
                continue;
            })+
        }
        $type { $($field: fields_of!(@$need $field $row $text),)+ $(..$rest)? }
    }};
    (@required $found:ident $row:literal $text:ident) => {
        $crate::cgroupfs::parse::required($found, $row, $text)?
    };
    (@optional $found:ident $row:literal $text:ident) => { $found };
}
use fields_of;

const NS_PER_US: u64 = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0\n"), Ok(0));
        assert_eq!(number(b"18446744073709551615\n"), Ok(u64::MAX));
        assert_eq!(number_or_max(b"max\n"), Ok(None));
        assert_eq!(number_or_max(b"17\n"), Ok(Some(17)));
    }

    #[test]
    fn blank_lines_count_but_hold_nothing() {
        assert!(lines(b"\n \n").next().is_none());
        assert_eq!(lines(b"\n\nlow 1").next().map(|line| line.line), Some(3));
    }

    #[test]
    fn errors_say_where_and_why() {
        let say = |result: Result<u64, ParseError>| result.unwrap_err().to_string();
        assert_eq!(say(number(b"")), "line 1: the file is empty");
        assert_eq!(say(number(b"+5\n")), "line 1: \"+5\" is not a number");
        assert_eq!(say(number(b"-1\n")), "line 1: \"-1\" is not a number");
        assert_eq!(say(number(b"max\n")), "line 1: \"max\" is not a number");
        assert_eq!(say(number(b"18446744073709551616\n")), "line 1: \"18446744073709551616\" is too large");
        assert_eq!(say(number(b"1\n\nx\xff\n")), "line 3: unexpected text after the end: \"x\\xff\"");
        assert_eq!(
            number(&[b'a'; 1000]).unwrap_err().to_string().len(),
            "line 1: \"\" is not a number".len() + 40
        );
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64) {
            prop_assert_eq!(number(format!("{value}\n").as_bytes()), Ok(value));
            prop_assert_eq!(number_or_max(format!("{value}\n").as_bytes()), Ok(Some(value)));
        }

        /// All parsers on random bytes that resemble cgroup files.
        #[test]
        fn no_parser_panics(
            text in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..400),
                "((some|full|usage_usec|nr_periods|inactive_file|total_rss|max|8:0|\\(unknown\\)|total|rbytes|wios|Read|low|user|anon)[ =:\n]?[0-9a-z.-]{0,25}[ \n]?){0,30}".prop_map(String::into_bytes),
            ],
            unit: u64,
        ) {
            let _ = (number(&text), number_or_max(&text), cpu_stat(&text), cpu_stat_v1(&text), cpu_max(&text));
            let _ = (cfs_quota_v1(&text), microseconds(&text), cpuacct_stat(&text, unit), stall(&text));
            let _ = (memory_stat(&text), memory_stat_v1(&text, Some(unit)), memory_events(&text), oom_control(&text));
            let _ = (inactive_file(&text), inactive_file_v1(&text), limit_v1(&text), io_stat(&text));
            if let Ok((rows, _)) = blkio_throttle(&text) {
                merge_blkio(&rows, &rows);
            }
        }
    }
}
