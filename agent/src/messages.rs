//! Text of others in messages: of a bounded length, on one line, and without characters that control a terminal.

use std::error::Error;

/// Characters of one text in a message: enough for a chain of causes, too few for the body of a response.
const MAX_TEXT: usize = 600;

/// An error with all of its causes, without those that the text before already includes.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    excerpt(&whole_chain(error))
}

/// As [`chain`], but of any length.
pub(crate) fn whole_chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source()).map(ToString::to_string);
    causes.fold(
        error.to_string(),
        |text, cause| {
            if text.contains(&cause) { text } else { format!("{text}: {cause}") }
        },
    )
}

/// The start of a text.
pub(crate) fn excerpt(text: &str) -> String {
    let shown: String = text.chars().take(MAX_TEXT).map(|c| if is_hidden(c) { ' ' } else { c }).collect();
    let is_whole = text.chars().nth(MAX_TEXT).is_none();
    if is_whole { shown } else { format!("{shown}… ({} bytes)", text.len()) }
}

/// The longest start of a text with at most this many bytes.
pub(crate) fn start(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Whether a character controls a terminal, ends a line or changes the direction of text.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("middle: {0}")]
    struct Middle(#[source] std::io::Error);

    #[test]
    fn a_chain_names_each_cause_once() {
        let error = Outer(Middle(std::io::Error::other("the cause")));
        assert_eq!(chain(&error), "outer: middle: the cause");
    }

    const TEXT: &str = "(\\PC|[\u{0}-\u{20}\u{202e}\u{2028}\u{9b}]){0,2000}";

    proptest! {
        #[test]
        fn an_excerpt_is_short_and_plain(text in TEXT) {
            let shown = excerpt(&text);
            prop_assert!(shown.chars().count() < MAX_TEXT + 30);
            prop_assert!(!shown.chars().any(is_hidden));
            prop_assert_eq!(shown.chars().take(MAX_TEXT).count() < MAX_TEXT, text.chars().count() < MAX_TEXT);
        }
    }
}
