//! Text of others in a page: names of a cluster can have any characters.

use crate::columns::visible;

/// A text in an element or in a quoted attribute.
pub(super) fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// JSON in a `script` element: nothing in it ends the element or begins a comment (HTML, "Restrictions for contents of script
/// elements"). It stays the same JSON.
pub(super) fn json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_is_text() {
        assert_eq!(
            text("</script><img src=x onerror='a'>&\u{202e}"),
            "&lt;/script&gt;&lt;img src=x onerror=&#39;a&#39;&gt;&amp;"
        );
        assert_eq!(json("\"</script>\""), "\"\\u003c/script\\u003e\"");
    }

    proptest! {
        #[test]
        fn json_stays_the_same_without_markup(name in "(\\PC|[<>&\u{2028}/!-]){0,40}") {
            let value = serde_json::json!({ name.clone(): name });
            let escaped = json(&value.to_string());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
            let has_markup = escaped.contains(['<', '>', '&', '\u{2028}']);
            prop_assert!(!has_markup);
        }

        #[test]
        fn text_has_no_markup(name in "(\\PC|[<>&\"'\u{0}-\u{1f}]){0,40}") {
            let escaped = text(&name);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']) && !escaped.chars().any(char::is_control));
        }
    }
}
