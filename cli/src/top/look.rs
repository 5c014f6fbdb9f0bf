//! Lines of text with looks, and drawing them. What a look means is never in its colour alone.

use ratatui_core::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};
use unicode_width::UnicodeWidthChar as _;

use super::{severity::Severity, text};

/// How a part of a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Look {
    #[default]
    Plain,
    /// Less important.
    Dim,
    /// Titles and the keys.
    Strong,
    /// The heading of the column by which rows are sorted.
    Sorted,
    Warning,
    Danger,
    /// The bars of plots.
    Bar,
}

impl From<Severity> for Look {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Normal => Self::Plain,
            Severity::Warning => Self::Warning,
            Severity::Danger => Self::Danger,
        }
    }
}

/// A part of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) look: Look,
}

/// A line, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans {
    pub(crate) parts: Vec<Span>,
    pub(crate) is_selected: bool,
}

impl Spans {
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::default().and(text, Look::Plain)
    }

    pub(crate) fn strong(text: impl Into<String>) -> Self {
        Self::default().and(text, Look::Strong)
    }

    pub(crate) fn and(mut self, text: impl Into<String>, look: Look) -> Self {
        self.parts.push(Span { text: text.into(), look });
        self
    }

    /// Its characters without looks, and without spaces at the end.
    pub(crate) fn text(&self) -> String {
        let text: String = self.parts.iter().map(|part| part.text.as_str()).collect();
        text.trim_end().to_owned()
    }

    /// The line, or several that fit: broken between words, all but the first after an indentation.
    pub(crate) fn wrapped(self, width: usize, indent: usize) -> Vec<Self> {
        let (mut lines, mut line, mut at) = (Vec::new(), Self::default(), 0);
        for Span { text, look } in self.parts {
            for word in text.split_inclusive(' ') {
                let cells = text::width(word.trim_end());
                if at > indent && cells > 0 && at + cells > width {
                    lines.push(std::mem::replace(&mut line, Self::plain(" ".repeat(indent))));
                    at = indent;
                }
                at += text::width(word);
                match line.parts.last_mut().filter(|last| last.look == look) {
                    Some(last) => last.text += word,
                    None => line.parts.push(Span { text: word.to_owned(), look }),
                }
            }
        }
        lines.push(line);
        lines
    }

    pub(crate) fn width(&self) -> usize {
        self.parts.iter().map(|part| text::width(&part.text)).sum()
    }
}

/// Looks as a terminal shows them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    /// Whether colours may be used (`NO_COLOR` is not set).
    pub(crate) has_color: bool,
}

impl Theme {
    fn style(self, look: Look) -> Style {
        let (color, modifier) = match look {
            Look::Plain => (None, Modifier::empty()),
            Look::Dim => (None, Modifier::DIM),
            Look::Strong => (None, Modifier::BOLD),
            Look::Sorted => (None, Modifier::BOLD.union(Modifier::UNDERLINED)),
            Look::Warning => (Some(Color::Yellow), Modifier::BOLD),
            Look::Danger => (Some(Color::Red), Modifier::BOLD.union(Modifier::UNDERLINED)),
            Look::Bar => (Some(Color::Cyan), Modifier::empty()),
        };
        let style = Style::new().add_modifier(modifier);
        match color.filter(|_| self.has_color) {
            Some(color) => style.fg(color),
            None => style,
        }
    }

    /// Draws lines from the top, each cut at the right edge.
    pub(crate) fn draw(self, lines: &[Spans], area: Rect, buffer: &mut Buffer) {
        for (line, y) in lines.iter().zip(area.top()..area.bottom()) {
            let turned = if line.is_selected { Modifier::REVERSED } else { Modifier::empty() };
            let mut x = area.left();
            for Span { text, look } in &line.parts {
                let style = self.style(*look).add_modifier(turned);
                x = put(buffer, (x, y), area.right(), text, style);
            }
            if line.is_selected {
                put(
                    buffer,
                    (x, y),
                    area.right(),
                    &" ".repeat(usize::from(area.width)),
                    Style::new().add_modifier(turned),
                );
            }
        }
    }
}

/// Writes one character to a cell, or to two if it is wide. Returns the column behind.
fn put(buffer: &mut Buffer, (mut x, y): (u16, u16), end: u16, text: &str, style: Style) -> u16 {
    for c in text.chars() {
        let width = u16::try_from(c.width().unwrap_or(0)).unwrap_or(0);
        if width == 0 {
            continue;
        }
        if x.saturating_add(width) > end {
            break;
        }
        for at in x..x + width {
            if let Some(cell) = buffer.cell_mut((at, y)) {
                cell.reset();
                cell.set_style(style);
                if at == x {
                    cell.set_char(c);
                }
            }
        }
        x += width;
    }
    x
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans(text: &str) -> Spans {
        let middle = text.chars().count() / 2;
        let (head, tail): (String, String) =
            (text.chars().take(middle).collect(), text.chars().skip(middle).collect());
        Spans::strong(head).and(tail, Look::Plain)
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        let lines = spans("Restarts  3 restarts of the workload; last end: OOMKilled").wrapped(30, 10);
        let lines: Vec<String> = lines.iter().map(Spans::text).collect();
        assert_eq!(
            lines,
            ["Restarts  3 restarts of the", "          workload; last end:", "          OOMKilled"]
        );
        assert_eq!(spans("short line").wrapped(30, 10), [spans("short line")]);
    }

    proptest! {
        #[test]
        fn no_word_is_lost(text in "([a-z日]{1,9} {1,2}){0,20}", width in 40..80_usize) {
            let lines = spans(&text).wrapped(width, 10);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let all: Vec<String> = lines.iter().flat_map(|line| words(&line.text())).collect();
            // A word may be cut in two where the look changes.
            prop_assert_eq!(all.concat(), words(&text).concat());
            prop_assert!(lines.iter().all(|line| text::width(&line.text()) <= width));
        }
    }
}
