//! How containers and remarks are shown.

use crate::{
    columns::{plain, visible},
    manifests::{Target, Unplaced},
};

/// How a container is called: its namespace and names, and what deploys it.
pub(super) fn title(target: &Target) -> String {
    let root = if target.root.is_empty() { String::new() } else { format!(" ({})", target.root) };
    plain(&format!("{}{root}", target.title()))
}

/// Something that no value can be placed in, with its line.
pub(super) fn unplaced(one: &Unplaced) -> String {
    let line = if one.line > 0 { format!(":{}", one.line) } else { String::new() };
    format!("{}{line}: {}", one.file.display(), visible(&one.why))
}

/// A text as a cell of a Markdown table.
pub(super) fn markdown_cell(text: &str) -> String {
    let special = |c| matches!(c, '\\' | '|' | '<' | '[' | '`' | '*');
    visible(text).chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}
