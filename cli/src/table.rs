//! Tables that fit the width of a terminal: a line per row, whatever the width.

use unicode_width::UnicodeWidthStr as _;

use crate::{
    columns::Align,
    terminal::{Style, Terminal},
};

/// Spaces between two columns.
const GAP: usize = 2;

/// What happens to a column where the terminal is too narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It stays. Its cells are cut only if nothing else is left.
    Keep,
    /// It is left out; those with higher numbers first.
    Drop(u8),
    /// Its cells are cut to at least so many columns, and then it stays.
    Shrink(usize),
    /// Its cells are cut to at least so many columns, and then it is left out as by [`Self::Drop`].
    ShrinkDrop(usize, u8),
}

#[derive(Clone, Debug)]
pub struct Column {
    pub heading: String,
    pub align: Align,
    pub fit: Fit,
}

impl Column {
    pub fn new(heading: &str, align: Align, fit: Fit) -> Self {
        Self { heading: heading.to_owned(), align, fit }
    }
}

/// A row: a text for each column, and the colour of the first one.
#[derive(Clone, Debug)]
pub struct Line {
    pub cells: Vec<String>,
    pub style: Option<Style>,
}

/// Rows under a title. An empty title is not shown.
#[derive(Clone, Debug)]
pub struct Section {
    pub title: String,
    pub lines: Vec<Line>,
}

/// A table as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// Headings of columns that were left out.
    pub left_out: Vec<String>,
}

/// Renders sections under one line of headings.
pub fn render(columns: &[Column], sections: &[Section], terminal: Terminal) -> Rendered {
    let mut widths: Vec<usize> = columns.iter().map(|column| column.heading.width()).collect();
    for line in sections.iter().flat_map(|section| &section.lines) {
        for (width, cell) in widths.iter_mut().zip(&line.cells) {
            *width = cell.width().max(*width);
        }
    }
    let shown = terminal
        .width
        .map_or_else(|| widths.iter().copied().map(Some).collect(), |width| fit(columns, &widths, width));
    let headings: Vec<String> = columns.iter().map(|column| column.heading.clone()).collect();
    let line = |cells: &[String], style: Option<Style>| {
        let parts = cells.iter().zip(columns).zip(&shown).filter_map(|((cell, column), width)| {
            let width = (*width)?;
            let cell = cut(cell, width, terminal);
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            Some(match column.align {
                Align::Left => (cell, padding, true),
                Align::Right => (cell, padding, false),
            })
        });
        let mut text = String::new();
        let mut pending = String::new();
        for (number, (cell, padding, is_left)) in parts.enumerate() {
            if number > 0 {
                pending.push_str(&" ".repeat(GAP));
            }
            if !is_left {
                pending.push_str(&padding);
            }
            // Padding at the end of a line is left out.
            if !cell.is_empty() {
                text.push_str(&std::mem::take(&mut pending));
            }
            let painted = style.filter(|_| number == 0);
            text.push_str(&painted.map_or_else(|| cell.clone(), |style| terminal.paint(style, &cell)));
            if is_left {
                pending.push_str(&padding);
            }
        }
        text + "\n"
    };
    let mut text = terminal.paint(Style::Heading, line(&headings, None).trim_end_matches('\n')) + "\n";
    for section in sections {
        if !section.title.is_empty() {
            let title = cut(&section.title, terminal.width.unwrap_or(usize::MAX), terminal);
            text += &format!("{}\n", terminal.paint(Style::Heading, &title));
        }
        section.lines.iter().for_each(|row| text += &line(&row.cells, row.style));
    }
    let left_out = columns.iter().zip(&shown).filter(|(_, width)| width.is_none());
    Rendered { text, left_out: left_out.map(|(column, _)| column.heading.clone()).collect() }
}

/// The width of each column in a terminal; `None` if it is left out.
fn fit(columns: &[Column], natural: &[usize], width: usize) -> Vec<Option<usize>> {
    let mut shown: Vec<Option<usize>> = natural.iter().copied().map(Some).collect();
    let total = |shown: &[Option<usize>]| {
        let widths = || shown.iter().flatten();
        widths().sum::<usize>() + GAP * widths().count().saturating_sub(1)
    };
    loop {
        let excess = total(&shown).saturating_sub(width);
        if excess == 0 {
            add_back(columns, natural, width, &mut shown);
            return shown;
        }
        // What may be cut is cut first, the widest first.
        let room = |(at, width): (usize, &Option<usize>)| {
            let min = match columns.get(at)?.fit {
                Fit::Shrink(min) | Fit::ShrinkDrop(min, _) => min,
                Fit::Keep | Fit::Drop(_) => return None,
            };
            let width = (*width)?;
            (width > min).then_some((width, min, at))
        };
        if let Some((current, min, at)) = shown.iter().enumerate().filter_map(room).max() {
            let wanted = current.saturating_sub(excess).max(min);
            if let Some(slot) = shown.get_mut(at) {
                *slot = Some(wanted);
            }
            continue;
        }
        let is_one_of_several = shown.iter().flatten().count() > 1;
        let rank = |(at, width): (usize, &Option<usize>)| match (columns.get(at)?.fit, width) {
            (Fit::Drop(rank) | Fit::ShrinkDrop(_, rank), Some(_)) if is_one_of_several => Some((rank, at)),
            _ => None,
        };
        if let Some((_, at)) = shown.iter().enumerate().filter_map(rank).max() {
            if let Some(slot) = shown.get_mut(at) {
                *slot = None;
            }
            // There is room again for what was cut.
            for (at, slot) in shown.iter_mut().enumerate() {
                if slot.is_some() {
                    *slot = natural.get(at).copied();
                }
            }
            continue;
        }
        // Nothing else is left: the widest column, down to one, and then the last one.
        let widest = shown.iter().enumerate().filter_map(|(at, width)| Some(((*width)?, at))).max();
        match widest {
            Some((current, at)) if current > 1 => {
                if let Some(slot) = shown.get_mut(at) {
                    *slot = Some(current.saturating_sub(excess).max(1));
                }
            }
            Some(_) if shown.iter().flatten().count() > 1 => {
                if let Some(slot) = shown.iter_mut().rev().find(|slot| slot.is_some()) {
                    *slot = None;
                }
            }
            _ => return shown,
        }
    }
}

/// Shows again what fits beside the rest, because something wider was left out after it.
fn add_back(columns: &[Column], natural: &[usize], width: usize, shown: &mut [Option<usize>]) {
    let rank = |at: usize| match columns.get(at).map(|column| column.fit) {
        Some(Fit::Drop(rank) | Fit::ShrinkDrop(_, rank)) => rank,
        _ => 0,
    };
    let mut left_out: Vec<usize> = (0..shown.len()).filter(|at| shown.get(*at) == Some(&None)).collect();
    left_out.sort_by_key(|at| rank(*at));
    for at in left_out {
        let used: usize = shown.iter().flatten().map(|width| width + GAP).sum();
        if let Some((wanted, slot)) = natural.get(at).zip(shown.get_mut(at))
            && used + wanted <= width
        {
            *slot = Some(*wanted);
        }
    }
}

/// A text of at most so many columns, with a mark where it was cut.
pub fn cut(text: &str, width: usize, terminal: Terminal) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mark = terminal.ellipsis();
    let room = width.saturating_sub(mark.width());
    let fits = |end: &usize| text.get(..*end).is_some_and(|part| part.width() <= room);
    let ends = text.char_indices().map(|(at, _)| at);
    let end = ends.take_while(fits).last().unwrap_or(0);
    let mark = if mark.width() <= width { mark } else { mark.get(..width).unwrap_or_default() };
    format!("{}{mark}", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column(fit: Fit) -> Column {
        Column::new("HEADING", Align::Left, fit)
    }

    #[test]
    fn what_matters_less_is_left_out_first() {
        let columns = [
            Column::new("NAME", Align::Left, Fit::Shrink(6)),
            Column::new("PODS", Align::Right, Fit::Drop(1)),
            Column::new("WHY", Align::Left, Fit::ShrinkDrop(8, 2)),
        ];
        let cells = ["a-long-name", "12", "because of something"].map(str::to_owned).to_vec();
        let sections = [Section { title: String::new(), lines: vec![Line { cells, style: None }] }];
        let at = |width| render(&columns, &sections, Terminal { width: Some(width), ..Terminal::PIPE });
        let all = render(&columns, &sections, Terminal::PIPE);
        assert_eq!(all.text, "NAME         PODS  WHY\na-long-name    12  because of something\n");
        assert_eq!(at(30).text, "NAME         PODS  WHY\na-long-name    12  because of…\n");
        assert_eq!(at(30).left_out, Vec::<String>::new());
        let narrow = at(18);
        assert_eq!(
            (narrow.text.as_str(), narrow.left_out),
            ("NAME         PODS\na-long-name    12\n", vec!["WHY".to_owned()])
        );
        assert_eq!(at(8).text, "NAME\na-long-…\n");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let columns =
            [Column::new("NAME", Align::Left, Fit::Keep), Column::new("N", Align::Right, Fit::Keep)];
        let line = |name: &str| Line { cells: vec![name.to_owned(), "1".to_owned()], style: None };
        let sections = [Section { title: String::new(), lines: vec![line("商店"), line("shop")] }];
        assert_eq!(render(&columns, &sections, Terminal::PIPE).text, "NAME  N\n商店  1\nshop  1\n");
        assert_eq!(cut("商店商店", 6, Terminal::PIPE), "商店…");
    }

    fn any_fit() -> impl Strategy<Value = Fit> {
        prop_oneof![
            Just(Fit::Keep),
            (0..9_u8).prop_map(Fit::Drop),
            (1..12_usize).prop_map(Fit::Shrink),
            (1..12_usize, 0..9_u8).prop_map(|(min, rank)| Fit::ShrinkDrop(min, rank)),
        ]
    }

    proptest! {
        #[test]
        fn each_row_is_one_line_within_the_width(
            fits in prop::collection::vec(any_fit(), 1..10),
            texts in prop::collection::vec("[a-zäß商 ]{0,40}", 40),
            width in 12..200_usize,
            is_ascii: bool,
        ) {
            let columns: Vec<Column> = fits.into_iter().map(column).collect();
            let lines: Vec<Line> = texts
                .chunks_exact(columns.len())
                .map(|cells| Line { cells: cells.to_vec(), style: Some(Style::Danger) })
                .collect();
            let rows = lines.len();
            let terminal = Terminal { width: Some(width), is_ascii, ..Terminal::PIPE };
            let rendered = render(&columns, &[Section { title: String::new(), lines }], terminal);
            prop_assert_eq!(rendered.text.lines().count(), rows + 1);
            for line in rendered.text.lines() {
                prop_assert!(line.width() <= width, "{} of {width}: {line}", line.width());
            }
            prop_assert!(rendered.left_out.len() < columns.len());
        }
    }
}
