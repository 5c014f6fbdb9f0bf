//! Tables of text.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use unicode_width::UnicodeWidthStr as _;

use crate::{advice::CommandRule, progress};

/// The message of an error with its causes, without causes that the message already includes.
pub fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |message, cause| match message.as_str() {
        "" => cause,
        known if known.contains(&cause) => message,
        _ => format!("{message}: {cause}"),
    })
}

/// Alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// Renders rows under headings, in columns separated by two spaces.
pub fn render(headings: &[(&str, Align)], rows: &[impl AsRef<[String]>]) -> String {
    let headings_row: Vec<String> = headings.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let all = || std::iter::once(headings_row.as_slice()).chain(rows.iter().map(AsRef::as_ref));
    let mut widths = vec![0; headings.len()];
    for row in all() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).zip(headings).map(|((cell, width), (_, align))| {
            // Not by the width of a format, which is at most 65,535.
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            match align {
                Align::Left => format!("{cell}{padding}"),
                Align::Right => format!("{padding}{cell}"),
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    all().map(line).collect()
}

/// A text without control characters, so that names cannot control the terminal or end a line; `-` if it is empty.
///
/// Line and paragraph separators end a line (and a comment) in YAML 1.1; marks that turn the direction of text can make a line
/// look like another one.
pub fn plain(text: &str) -> String {
    let text = visible(text);
    if text.is_empty() { crate::units::NONE.to_owned() } else { text }
}

/// As [`plain`], but empty where nothing is left.
pub fn visible(text: &str) -> String {
    let is_separator = |c| matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_left_out =
        |c: char| c.is_control() || (CommandRule::PlainNames.is_on() && (is_separator(c) || turns(c)));
    text.chars().filter(|c| !is_left_out(*c)).collect()
}

/// Prints a remark to standard error, after the name of the command. It may quote a server, a file or a name.
pub fn remark(text: impl std::fmt::Display) {
    progress::clear();
    eprintln!("{}: {}", command_name(), one_line(&text.to_string()));
}

/// What the command is called: `kubectl snug` where kubectl runs it as a plugin.
pub fn command_name() -> &'static str {
    static NAME: LazyLock<&str> = LazyLock::new(|| {
        let program = std::env::args_os().next().map(PathBuf::from);
        let name = program.as_deref().and_then(Path::file_stem).and_then(OsStr::to_str);
        if name == Some("kubectl-snug") { "kubectl snug" } else { "snug" }
    });
    *NAME
}

/// As [`remark`], with a format.
#[macro_export]
macro_rules! remark {
    ($($text:tt)*) => { $crate::columns::remark(format_args!($($text)*)) };
}

/// Bytes of a remark or of an error message.
const MAX_MESSAGE: usize = 4096;

/// A text on one line, of a bounded length.
pub fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }).collect();
    let mut text = visible(&text);
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cell_may_be_longer_than_the_width_of_a_format() {
        let long = "x".repeat(70_000);
        let rows = [vec![long.clone(), "1".to_owned()], vec!["y".to_owned(), "20".to_owned()]];
        let table = render(&[("NAME", Align::Left), ("NUMBER", Align::Right)], &rows);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.chars().count() == 70_000 + 2 + "NUMBER".len()));
    }

    const TEXT: &str = "(\\PC|[\u{0}-\u{20}\u{202e}\u{2028}\u{9b}]){0,5000}";

    proptest! {
        #[test]
        fn a_remark_is_one_short_line(text in TEXT) {
            let shown = one_line(&text);
            prop_assert!(shown.len() <= MAX_MESSAGE + 4);
            let is_plain = |c: char| !c.is_control() && c != '\u{202e}' && c != '\u{2028}';
            prop_assert!(shown.chars().all(is_plain));
        }
    }
}
