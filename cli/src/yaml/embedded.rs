//! YAML within a text of YAML: patches of kustomize, values of Argo CD.

use std::ops::Range;

use granit_parser::ScalarStyle;
use similar::{ChangeTag, TextDiff};

use super::{Kind, Node};

/// The replacements that give a literal block another text. Lines that stay are not touched. `None` for other styles.
pub(super) fn replace(source: &str, node: &Node, new: &str) -> Option<Vec<(Range<usize>, String)>> {
    let Kind::Scalar { text: old, style: ScalarStyle::Literal } = &node.kind else { return None };
    // The header is the line of `|`; the span of some parsers begins there, that of others behind it.
    let begin = source.get(..node.range.start)?.rfind('\n').map_or(0, |at| at + 1);
    let header = begin + source.get(begin..)?.find('\n')? + 1;
    let mut lines: Vec<Range<usize>> = Vec::new();
    let mut at = if source.get(begin..header)?.contains('|') { header } else { begin };
    for _ in old.lines() {
        let rest = source.get(at..)?;
        let end = rest.find('\n').map_or(source.len(), |end| at + end + 1);
        lines.push(at..end);
        at = end;
    }
    let mut both = old.lines().zip(&lines).filter(|(line, _)| !line.trim().is_empty());
    let (inner, outer) = both.next()?;
    let outer = source.get(outer.clone())?;
    let indent = outer.get(..outer.find(inner)?)?;
    let eol = if outer.ends_with("\r\n") { "\r\n" } else { "\n" };
    // A last line without an end is compared like all others.
    let all = |text: &str| text.lines().map(|line| format!("{line}\n")).collect::<String>();
    let (old_lines, new_lines) = (all(old), all(new));
    let diff = TextDiff::from_lines(&old_lines, &new_lines);
    let mut splices: Vec<(Range<usize>, String)> = Vec::new();
    let mut next = 0;
    for change in diff.iter_all_changes() {
        match change.tag() {
            ChangeTag::Equal => next += 1,
            ChangeTag::Delete => {
                splices.push((lines.get(next)?.clone(), String::new()));
                next += 1;
            }
            ChangeTag::Insert => {
                let line = change.value().trim_end_matches('\n');
                let text = if line.is_empty() { eol.to_owned() } else { format!("{indent}{line}{eol}") };
                let at = lines.get(next).map_or(lines.last()?.end, |line| line.start);
                match splices.last_mut().filter(|(range, _)| range.end == at) {
                    Some((_, last)) => last.push_str(&text),
                    None => splices.push((at..at, text)),
                }
            }
        }
    }
    // The last line of a file may have no end.
    let end = lines.last()?.end;
    if !source.get(..end)?.ends_with('\n') {
        let (range, text) = splices.last_mut()?;
        if range.end == end {
            if range.start == range.end {
                text.insert_str(0, eol);
            }
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
        }
    }
    Some(splices)
}
