//! Labels in the text formats of Prometheus, escaped.

/// Writes labels behind an opening brace, which the line closes.
pub(super) fn render<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut String) {
    let mut separator = '{';
    for (name, value) in labels {
        out.push(separator);
        separator = ',';
        push_label(name, value, out);
    }
}

/// A label, rendered.
pub(super) fn label(name: &str, value: &str) -> String {
    let mut label = String::with_capacity(name.len() + value.len() + 3);
    push_label(name, value, &mut label);
    label
}

/// Writes a label: of its value backslash, quote and newline are all that the format reserves.
fn push_label(name: &str, value: &str, out: &mut String) {
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}
