//! Tables of text.

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

/// A text without control characters, so that names cannot control the terminal; `-` if it is empty.
pub fn plain(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    if text.is_empty() { crate::units::NONE.to_owned() } else { text }
}
