//! Labels in the text formats of Prometheus, escaped.

/// Writes labels after an opening brace. The caller closes the brace.
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

/// Writes a label. The format reserves only backslash, quote and newline in its value.
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
