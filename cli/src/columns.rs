//! Tables of text.

use crate::advice::CommandRule;

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
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).zip(headings).map(|((cell, width), (_, align))| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
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
