//! Tables of text.

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under their headings, in columns two spaces apart.
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

/// A name without what a terminal would obey; what is empty is shown as missing.
pub fn plain(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    if text.is_empty() { crate::units::NONE.to_owned() } else { text }
}
