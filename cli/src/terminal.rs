//! What the terminal can show, or the pipe in its place.

use std::io::{self, IsTerminal as _};

use anstream::{AutoStream, ColorChoice};
use terminal_size::{Width, terminal_size_of};

/// What standard output can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Columns; `None` without a terminal, where lines have any length.
    pub width: Option<usize>,
    /// Whether colours are shown. They are never the only sign.
    pub is_colored: bool,
    /// Whether only ASCII is shown, apart from names.
    pub is_ascii: bool,
}

/// A meaning that has a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// What fails or will fail.
    Danger,
    /// What costs time or money.
    Warning,
    /// What is as it should be.
    Good,
    Heading,
    /// What is less important.
    Faint,
}

impl Style {
    /// The parameter of the escape sequence (ECMA-48, SGR).
    const fn code(self) -> &'static str {
        match self {
            Self::Danger => "1;31",
            Self::Warning => "33",
            Self::Good => "32",
            Self::Heading => "1",
            Self::Faint => "2",
        }
    }
}

impl Terminal {
    /// A pipe or a file.
    pub const PIPE: Self = Self { width: None, is_colored: false, is_ascii: false };

    /// Standard output. `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM=dumb` decide about colours.
    pub fn detect() -> Self {
        let out = io::stdout();
        let width = terminal_size_of(&out).map(|(Width(width), _)| usize::from(width));
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(|name| std::env::var(name).unwrap_or_default());
        Self {
            width: width.filter(|width| *width > 0),
            is_colored: AutoStream::choice(&out) != ColorChoice::Never,
            is_ascii: is_ascii(&locale)
                || (out.is_terminal() && std::env::var("TERM").is_ok_and(|name| name == "dumb")),
        }
    }

    /// A text in the colour of its meaning.
    pub fn paint(self, style: Style, text: &str) -> String {
        if self.is_colored && !text.is_empty() {
            format!("\u{1b}[{}m{text}\u{1b}[0m", style.code())
        } else {
            text.to_owned()
        }
    }

    /// Between a current and a recommended value.
    pub const fn arrow(self) -> &'static str {
        if self.is_ascii { "->" } else { "→" }
    }

    /// The end of a text that was cut.
    pub const fn ellipsis(self) -> &'static str {
        if self.is_ascii { "..." } else { "…" }
    }

    /// A horizontal bar with a share of `width` columns, 0..=1. Every share above 0 is visible.
    pub fn bar(self, share: f64, width: usize) -> String {
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        let eighths = (share * width as f64 * 8.0).round() as usize;
        let eighths = eighths.max(usize::from(share > 0.0));
        if self.is_ascii {
            return "#".repeat((eighths + 4) / 8 + usize::from(eighths > 0 && eighths < 4));
        }
        "█".repeat(eighths / 8) + PARTS.get(eighths % 8).copied().unwrap_or_default()
    }

    /// A column for each value, as high as its share of the highest. A missing value is a space.
    pub fn columns(self, values: &[Option<f64>]) -> String {
        const HIGH: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];
        let most = values.iter().flatten().copied().fold(0.0, f64::max);
        let levels = if self.is_ascii { ASCII } else { HIGH };
        let level = |value: f64| {
            let share = if most > 0.0 { value / most } else { 0.0 };
            let level = (share * levels.len() as f64).ceil() as usize;
            levels.get(level.clamp(1, levels.len()) - 1).copied().unwrap_or(' ')
        };
        values.iter().map(|value| value.map_or(' ', level)).collect()
    }
}

/// Whether the locale, the first variable that is set, has another character set than UTF-8. Without a locale, terminals of today
/// show UTF-8.
fn is_ascii(locale: &[String]) -> bool {
    let set = locale.iter().find(|value| !value.is_empty());
    set.is_some_and(|value| {
        let value = value.to_ascii_lowercase();
        !value.contains("utf-8") && !value.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASCII: Terminal = Terminal { is_ascii: true, ..Terminal::PIPE };

    #[test]
    fn the_locale_decides_about_ascii() {
        let of = |values: [&str; 3]| is_ascii(&values.map(str::to_owned));
        assert!(!of(["", "", ""]) && !of(["", "", "de_DE.UTF-8"]) && !of(["C.utf8", "", "C"]));
        assert!(of(["C", "", "de_DE.UTF-8"]) && of(["", "POSIX", ""]) && of(["", "", "de_DE@euro"]));
    }

    #[test]
    fn colours_are_off_in_pipes() {
        assert_eq!(Terminal::PIPE.paint(Style::Danger, "x"), "x");
        let colored = Terminal { is_colored: true, ..Terminal::PIPE };
        assert_eq!(colored.paint(Style::Danger, "x"), "\u{1b}[1;31mx\u{1b}[0m");
        assert_eq!(colored.paint(Style::Danger, ""), "");
    }

    #[test]
    fn pictures_show_shares() {
        assert_eq!(Terminal::PIPE.bar(0.5, 4), "██");
        assert_eq!(Terminal::PIPE.bar(1e-9, 4), "▏");
        assert_eq!((Terminal::PIPE.bar(0.0, 4), ASCII.bar(0.5, 4)), (String::new(), "##".to_owned()));
        assert_eq!(Terminal::PIPE.columns(&[Some(8.0), None, Some(1.0), Some(0.0)]), "█ ▁▁");
        assert_eq!(ASCII.columns(&[Some(8.0), None, Some(0.5)]), "# _");
    }

    proptest! {
        #[test]
        fn bars_grow_with_shares_within_their_width(one in 0.0..1.0_f64, more in 0.0..1.0_f64, width in 1..80_usize, is_ascii: bool) {
            let terminal = Terminal { is_ascii, ..Terminal::PIPE };
            let length = |share: f64| terminal.bar(share, width).chars().count();
            prop_assert!(length(one) <= width && length(one) <= length((one + more).min(1.0)));
            prop_assert!(one == 0.0 || length(one) > 0);
            prop_assert!(!is_ascii || terminal.bar(one, width).is_ascii());
        }
    }
}
