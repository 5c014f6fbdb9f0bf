//! Text in the cells of a terminal. Names come from outside and must not control it, imitate parts of the view, or shift what is
//! beside them.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Stands for what was cut off.
const ELLIPSIS: char = '…';

/// Cells that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// A name with characters that every terminal draws alike: one after the other, from left to right, in the cells that
/// [`width`] says. Others are replaced: control characters, combining marks, right-to-left scripts, symbols and box drawings.
pub(crate) fn shown(name: &str) -> String {
    name.chars().map(|c| if is_plain(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

const fn is_plain(c: char) -> bool {
    matches!(c,
        ' '..='~'
        // Latin, Greek and Cyrillic, without the soft hyphen and combining marks.
        | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{2ff}' | '\u{370}'..='\u{377}' | '\u{37a}'..='\u{37f}' | '\u{384}'..='\u{482}'
        | '\u{48a}'..='\u{52f}'
        | '\u{2010}'..='\u{2027}'
        // Kana, Chinese characters, Hangul syllables and full-width forms.
        | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{ff01}'..='\u{ff5e}')
}

/// The beginning of a text, with a mark if something was cut off.
pub(crate) fn head(text: &str, cells: usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    let mut head = take(text.chars(), cells.saturating_sub(1));
    if cells > 0 {
        head.push(ELLIPSIS);
    }
    head
}

/// Both ends of a text, with a mark if something was cut out: the end of a name often tells it from others.
pub(crate) fn ends(text: &str, cells: usize) -> String {
    if width(text) <= cells || cells < 3 {
        return head(text, cells);
    }
    let tail: String = take(text.chars().rev(), (cells - 1) / 2).chars().rev().collect();
    let mut both = take(text.chars(), cells - 1 - width(&tail));
    both.push(ELLIPSIS);
    both + &tail
}

fn take(chars: impl Iterator<Item = char>, cells: usize) -> String {
    let mut left = cells;
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    chars.take_while(fits).collect()
}

/// Fills up to a number of cells: numbers on the left, words on the right.
pub(crate) fn pad(text: &str, cells: usize, is_number: bool) -> String {
    let padding = " ".repeat(cells.saturating_sub(width(text)));
    if is_number { padding + text } else { text.to_owned() + &padding }
}

/// A bar per value, scaled to the largest value. A dot is no usage, a space is no data.
pub(crate) fn bars(values: &[Option<f64>]) -> String {
    let highest = values.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |value: &Option<f64>| match *value {
        None => ' ',
        Some(value) if value <= 0.0 => '·',
        Some(value) => block(value / highest),
    };
    values.iter().map(bar).collect()
}

/// A block that is filled to this share from below, in eighths; at least one.
pub(crate) fn block(share: f64) -> char {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let eighths = (share * BLOCKS.len() as f64).ceil() as usize;
    BLOCKS[eighths.clamp(1, BLOCKS.len()) - 1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_cut_where_they_say_least() {
        assert_eq!(head("checkout", 8), "checkout");
        assert_eq!(head("checkout", 5), "chec…");
        assert_eq!(ends("checkout-5swmw54p9t-86n5p", 12), "checko…86n5p");
        assert_eq!(ends("日本語の名前", 7), "日本…前");
        assert_eq!((ends("abcdef", 2), head("abc", 0)), ("a…".to_owned(), String::new()));
    }

    #[test]
    fn names_cannot_draw() {
        assert_eq!(shown("a\x1b[2J\u{202e}b\u{301}█│\u{200b}עב"), "a�[2J�b������");
        assert_eq!(shown("größe-日本"), "größe-日本");
    }

    #[test]
    fn bars_are_scaled_to_the_largest() {
        let values = [None, Some(0.0), Some(0.001), Some(0.5), Some(1.0), Some(0.51)];
        assert_eq!(bars(&values), " ·▁▄█▅");
        assert_eq!(bars(&[Some(0.0), None]), "· ");
    }

    proptest! {
        #[test]
        fn any_name_fits_into_any_cell(name in any::<String>(), cells in 0..40_usize) {
            let name = shown(&name);
            prop_assert!(name.chars().all(|c| c.width().is_some_and(|width| width > 0)));
            for text in [head(&name, cells), ends(&name, cells)] {
                prop_assert!(width(&text) <= cells, "{text:?}");
                prop_assert!(text.chars().map(|c| c.width().unwrap_or(0)).sum::<usize>() == width(&text));
                prop_assert_eq!(width(&pad(&text, cells, true)), cells);
            }
        }
    }
}
