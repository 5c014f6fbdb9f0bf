//! Changes values of a YAML file and leaves all other bytes as they are.
//!
//! Each change replaces as few bytes as possible, so comments, order, quotes, anchors and line ends stay. After the changes of a
//! document, the new text is read again: unless it says what the old one said, but for the changed paths, nothing is changed. An
//! anchor that others use cannot be changed for one of them unnoticed, therefore.

use std::ops::Range;

use granit_parser::ScalarStyle;

use super::{Document, Kind, New, Node, Step, Value, YamlError, content, embedded, parse, shown};

/// A change of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The document of the file, from 0.
    pub document: usize,
    pub path: Vec<Step>,
    pub change: Change,
}

/// What becomes of the value at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is this. Mappings on the way are made. An index after the last item adds one.
    Set(New),
    /// The entry of a mapping is gone.
    Remove,
}

/// Why a file is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error(transparent)]
    Yaml(#[from] YamlError),
    #[error("there is no document {0}")]
    NoDocument(usize),
    #[error("{path}: {why}")]
    Unsupported { path: String, why: &'static str },
    #[error("{path} is shared through an anchor or a merge key, so others would change with it")]
    Shared { path: String },
}

/// One replacement of bytes.
type Splice = (Range<usize>, String);

/// The text with all changes. Without any, it is the same.
///
/// # Errors
/// When a change is not possible, or others would change with it.
pub fn apply(text: &str, edits: &[Edit]) -> Result<String, EditError> {
    let documents = parse(text)?;
    if let Some(edit) = edits.iter().find(|edit| edit.document >= documents.len()) {
        return Err(EditError::NoDocument(edit.document));
    }
    let mut changed = String::with_capacity(text.len());
    changed += text.get(..documents.first().map_or(0, |document| document.range.start)).unwrap_or_default();
    for (number, document) in documents.iter().enumerate() {
        let own: Vec<&Edit> = edits.iter().filter(|edit| edit.document == number).collect();
        let source = text.get(document.range.clone()).unwrap_or_default();
        if own.is_empty() {
            changed += source;
        } else {
            changed += &apply_to_document(source, &own)?;
        }
    }
    Ok(if documents.is_empty() { text.to_owned() } else { changed })
}

fn only(text: &str) -> Result<Document, EditError> {
    parse(text)?.into_iter().next().ok_or(EditError::NoDocument(0))
}

fn apply_to_document(source: &str, edits: &[&Edit]) -> Result<String, EditError> {
    let mut text = source.to_owned();
    let mut expected = only(&text)?.value()?;
    let mut done: Vec<&[Step]> = Vec::new();
    for edit in edits {
        let Some(at) = edit.path.iter().position(|step| *step == Step::Text) else {
            expect(&mut expected, edit);
            text = apply_one(text, &edit.path, &edit.change)?;
            continue;
        };
        // All changes within one text are made at once.
        let (outer, _) = edit.path.split_at(at);
        if done.contains(&outer) {
            continue;
        }
        done.push(outer);
        let own = edits.iter().filter(|edit| edit.path.get(..at) == Some(outer));
        let inner: Vec<Edit> = own
            .filter(|edit| edit.path.get(at) == Some(&Step::Text))
            .map(|edit| Edit {
                document: 0,
                path: edit.path.iter().skip(at + 1).cloned().collect(),
                ..(*edit).clone()
            })
            .collect();
        let document = only(&text)?;
        let node = document.root.at(outer).ok_or_else(|| unsupported(outer, "there is no such text"))?;
        let old = node.text().ok_or_else(|| unsupported(outer, "it is no text"))?;
        let new = apply(old, &inner)?;
        let splices = embedded::replace(&text, node, &new)
            .ok_or_else(|| unsupported(outer, "YAML within a text is only changed in literal blocks (|)"))?;
        expected.set(outer, Value::Text(new));
        text = splice(text, splices);
    }
    let is_expected = only(&text)?.value()? == expected;
    if is_expected {
        return Ok(text);
    }
    let path = edits.iter().map(|edit| shown(&edit.path)).collect::<Vec<_>>().join(", ");
    Err(EditError::Shared { path })
}

/// Changes what the document should say.
fn expect(expected: &mut Value, edit: &Edit) {
    match &edit.change {
        Change::Set(new) => expected.set(&edit.path, new.value()),
        Change::Remove => expected.remove(&edit.path),
    };
}

fn unsupported(path: &[Step], why: &'static str) -> EditError {
    EditError::Unsupported { path: shown(path), why }
}

/// Replaces bytes. The ranges must not overlap.
pub(super) fn splice(mut text: String, mut splices: Vec<Splice>) -> String {
    splices.sort_by_key(|(range, _)| range.start);
    for (range, new) in splices.into_iter().rev() {
        if text.get(range.clone()).is_some() {
            text.replace_range(range, &new);
        }
    }
    text
}

fn apply_one(text: String, path: &[Step], change: &Change) -> Result<String, EditError> {
    let document = only(&text)?;
    let editor = Editor { text: &text, document: &document, path };
    let splice = match change {
        Change::Set(new) => editor.set(new)?,
        Change::Remove => editor.remove()?,
    };
    Ok(match splice {
        Some((range, new)) => {
            // Of a file with other line ends, new lines have those, too.
            let new = if text.contains("\r\n") { new.replace('\n', "\r\n") } else { new };
            self::splice(text, vec![(range, new)])
        }
        None => text,
    })
}

struct Editor<'t> {
    text: &'t str,
    document: &'t Document,
    path: &'t [Step],
}

impl Editor<'_> {
    fn error(&self, why: &'static str) -> EditError {
        unsupported(self.path, why)
    }

    fn set(&self, new: &New) -> Result<Option<Splice>, EditError> {
        let mut node = &self.document.root;
        let mut parent: Option<(&Node, &Node)> = None;
        let mut is_in_flow = false;
        for (at, step) in self.path.iter().enumerate() {
            let rest = self.path.get(at + 1..).unwrap_or_default();
            // Whether the node itself is within a collection in flow style, and whether its value is.
            let is_node_in_flow = is_in_flow;
            is_in_flow |= matches!(
                node.kind,
                Kind::Mapping { is_flow: true, .. } | Kind::Sequence { is_flow: true, .. }
            );
            if matches!(node.kind, Kind::Alias { .. }) {
                // What the alias stands for, with the change, takes its place.
                let mut value = self.document.value_of(node)?;
                let path: Vec<Step> = std::iter::once(step.clone()).chain(rest.iter().cloned()).collect();
                value.set(&path, new.value());
                return self.replace(node, parent, &New::from(value), is_node_in_flow).map(Some);
            }
            let found = match (step, &node.kind) {
                (Step::Key(key), Kind::Mapping { .. }) => {
                    node.entry(key).map(|(key, value)| (Some((node, key)), value))
                }
                (Step::Index(index), Kind::Sequence { items, .. }) => {
                    items.get(*index).map(|item| (None, item))
                }
                _ if node.is_null() => None,
                _ => return Err(self.error("something else is there")),
            };
            match found {
                Some((of, value)) => (parent, node) = (of, value),
                None => return self.insert(node, parent, step, wrap(rest, new)?, is_node_in_flow).map(Some),
            }
        }
        if let (Kind::Scalar { text, .. }, New::Text(new)) = (&node.kind, new)
            && text == new
            && !node.is_null()
        {
            return Ok(None);
        }
        if *new == New::Null && node.is_null() {
            return Ok(None);
        }
        self.replace(node, parent, new, is_in_flow).map(Some)
    }

    /// Puts content in the place of a scalar, an alias or an empty collection.
    fn replace(
        &self,
        node: &Node,
        parent: Option<(&Node, &Node)>,
        new: &New,
        is_in_flow: bool,
    ) -> Result<Splice, EditError> {
        let range = node.range.clone();
        match (&node.kind, new) {
            // The quotes stay.
            (Kind::Scalar { style: ScalarStyle::DoubleQuoted, .. }, New::Text(new)) => {
                Ok((range, content::double_quoted(new)))
            }
            (Kind::Scalar { style: ScalarStyle::SingleQuoted, .. }, New::Text(new))
                if !new.contains(['\'', '\n']) =>
            {
                Ok((range, format!("'{new}'")))
            }
            // A number that was written plain is again.
            (Kind::Scalar { text, style: ScalarStyle::Plain }, New::Text(new))
                if text.parse::<f64>().is_ok() && new.parse::<f64>().is_ok() =>
            {
                Ok((range, new.clone()))
            }
            (Kind::Scalar { style: ScalarStyle::Plain, .. }, New::Text(_) | New::Null)
                if !range.is_empty() =>
            {
                Ok((range, new.flow(self.is_json())))
            }
            (Kind::Mapping { entries, .. }, _) if !entries.is_empty() => {
                Err(self.error("a mapping is there"))
            }
            (Kind::Sequence { items, .. }, _) if !items.is_empty() => Err(self.error("a sequence is there")),
            (Kind::Scalar { style: ScalarStyle::Literal | ScalarStyle::Folded, .. }, _) => {
                Err(self.error("a block of text is there"))
            }
            _ if is_in_flow => match (parent, range.is_empty()) {
                (Some((_, key)), true) => {
                    Ok((self.after_colon(key)?, format!(" {}", new.flow(self.is_json()))))
                }
                _ => Ok((range, new.flow(self.is_json()))),
            },
            _ => {
                let Some((_, key)) = parent else {
                    // An item of a sequence.
                    return match range.is_empty() {
                        true => Err(self.error("an empty item is there")),
                        false => Ok((range, new.flow(self.is_json()))),
                    };
                };
                let text = new.after_key(self.column(key.range.start));
                if range.is_empty() {
                    // A comment on the line of the key stays there.
                    let colon = self.after_colon(key)?.end;
                    let at = if text.starts_with('\n') { self.line_end(colon) } else { colon };
                    return Ok((at..at, text));
                }
                // Without the space before it, and behind a comment after it.
                let from =
                    self.text.get(..range.start).map_or(0, |before| before.trim_end_matches(' ').len());
                let rest = self.text.get(range.end..self.line_end(range.end)).unwrap_or_default();
                let is_block = text.starts_with('\n');
                match (is_block && !rest.trim().is_empty()).then_some(rest) {
                    Some(rest) => Ok((from..range.end + rest.len(), format!("{}{text}", rest.trim_end()))),
                    None => Ok((from..range.end, text)),
                }
            }
        }
    }

    /// Inserts an entry or an item into a collection, or makes one where there is none.
    fn insert(
        &self,
        node: &Node,
        parent: Option<(&Node, &Node)>,
        step: &Step,
        new: New,
        is_in_flow: bool,
    ) -> Result<Splice, EditError> {
        let wrapped = |new| match step {
            Step::Key(key) => New::entry(key, new),
            _ => New::List(vec![new]),
        };
        match (&node.kind, step) {
            (Kind::Mapping { entries, is_flow: false }, Step::Key(key)) => {
                if node.ends_with_empty_item() {
                    return Err(self.error("an empty item is there"));
                }
                let Some((first, _)) = entries.first() else {
                    return Err(self.error("a mapping without entries"));
                };
                let text = New::block_map(&[(key.clone(), new)], self.column(first.range.start));
                Ok(self.after_block(node, &text))
            }
            (Kind::Sequence { items, is_flow: false }, Step::Index(index)) if *index == items.len() => {
                let dash = items.first().and_then(|first| self.dash(first.range.start));
                let dash = dash.ok_or_else(|| self.error("a sequence without dashes"))?;
                Ok(self.after_block(node, &new.item(dash)))
            }
            (Kind::Mapping { entries, .. }, Step::Key(key)) if !entries.is_empty() => {
                let new = New::entry(key, new).flow(self.is_json());
                Ok(self.after_flow(node, new.get(1..new.len() - 1).unwrap_or_default()))
            }
            (Kind::Sequence { items, .. }, Step::Index(index)) if *index == items.len() && *index > 0 => {
                Ok(self.after_flow(node, &new.flow(self.is_json())))
            }
            (Kind::Sequence { items, .. }, Step::Index(_)) if !items.is_empty() => {
                Err(self.error("there are fewer items"))
            }
            _ => self.replace(node, parent, &wrapped(new), is_in_flow),
        }
    }

    /// The column of the dash before an item: on its line, or above, with comments and empty lines between.
    fn dash(&self, item: usize) -> Option<usize> {
        let mut end = item;
        loop {
            let start = self.line_start(end);
            let line = self.text.get(start..end)?;
            let content = line.split_once('#').map_or(line, |(content, _)| content).trim_end();
            if content.ends_with('-') {
                return Some(self.column(start + content.len() - 1));
            }
            end = start.checked_sub(1).filter(|_| content.is_empty())?;
        }
    }

    /// Lines behind the last line of a block collection.
    fn after_block(&self, node: &Node, lines: &str) -> Splice {
        let mut end = self.content_end(node);
        if self.text.get(..end).is_some_and(|before| before.ends_with('\n')) && end > node.range.start {
            // A block of text ends with its last line.
            return (end..end, format!("{lines}\n"));
        }
        end = self.line_end(end);
        (end..end, format!("\n{lines}"))
    }

    /// Where the content of a node ends; for a key without a value behind its colon.
    fn content_end(&self, node: &Node) -> usize {
        match &node.kind {
            Kind::Mapping { entries, is_flow: false } => match entries.last() {
                Some((key, value))
                    if value.range.is_empty() && !matches!(value.kind, Kind::Mapping { .. }) =>
                {
                    // An anchor or a tag may stand for nothing.
                    self.after_colon(key).map_or(key.range.end, |range| range.end)
                }
                Some((_, value)) => self.content_end(value),
                None => node.range.end,
            },
            Kind::Sequence { items, is_flow: false } => {
                items.last().map_or(node.range.end, |item| self.content_end(item))
            }
            _ => node.range.end,
        }
    }

    /// Content behind the last entry or item of a flow collection that has some; on a line of its own if that is.
    fn after_flow(&self, node: &Node, new: &str) -> Splice {
        let (first, last) = match &node.kind {
            Kind::Mapping { entries, .. } => {
                let ends = entries.iter().map(|(key, value)| key.range.end.max(value.range.end));
                (entries.last().map(|(key, _)| key.range.start), ends.max())
            }
            Kind::Sequence { items, .. } => {
                (items.last().map(|item| item.range.start), items.last().map(|item| item.range.end))
            }
            _ => (None, None),
        };
        let (first, end) = (first.unwrap_or(node.range.start), last.unwrap_or(node.range.end));
        let line = self.line_start(first);
        let before = self.text.get(line..first).unwrap_or_default();
        let gap = if before.trim().is_empty() && line > node.range.start {
            format!("\n{before}")
        } else {
            " ".to_owned()
        };
        (end..end, format!(",{gap}{new}"))
    }

    fn remove(&self) -> Result<Option<Splice>, EditError> {
        let Some((last, way)) = self.path.split_last() else { return Err(self.error("the document itself")) };
        let Some(node) = self.document.root.at(way) else {
            return Err(self.error("it comes through an alias or is not there"));
        };
        let (Step::Key(key), Kind::Mapping { entries, is_flow }) = (last, &node.kind) else {
            return Err(self.error("only an entry of a mapping can be removed"));
        };
        let Some(at) = entries.iter().position(|(it, _)| it.text() == Some(key)) else {
            return Err(self.error("it comes through a merge key or is not there"));
        };
        let Some((own, value)) = entries.get(at) else { return Ok(None) };
        if value.ends_with_empty_item() {
            return Err(self.error("an empty item is there"));
        }
        let end = self.content_end(value).max(self.after_colon(own).map_or(own.range.end, |range| range.end));
        let next = entries.get(at + 1).map(|(key, _)| key.range.start);
        if entries.len() == 1 {
            if *is_flow {
                return Ok(Some((node.range.clone(), "{}".to_owned())));
            }
            // The line of the only entry becomes an empty mapping behind the key above.
            return Err(self.error("it is the only entry: remove the mapping"));
        }
        if *is_flow {
            // With the comma behind it, or, at the end, with the one before it.
            return Ok(Some(match (next, at.checked_sub(1).and_then(|before| entries.get(before))) {
                (Some(next), _) => (own.range.start..next, String::new()),
                (None, Some((key, value))) => (key.range.end.max(value.range.end)..end, String::new()),
                (None, None) => (own.range.start..end, String::new()),
            }));
        }
        let line = self.line_start(own.range.start);
        let before = self.text.get(line..own.range.start).unwrap_or_default();
        if !before.trim().is_empty() {
            // Behind a dash: the next key takes its place.
            return match next {
                Some(next) => Ok(Some((own.range.start..next, String::new()))),
                None => Err(self.error("it stands on the line of another node")),
            };
        }
        let ends_block = self.text.get(..end).is_some_and(|before| before.ends_with('\n'));
        let to = if ends_block { end } else { self.line_end(end) };
        let after = self.text.get(to..).unwrap_or_default();
        let eol = if ends_block {
            0
        } else {
            after.len() - after.strip_prefix("\r\n").or(after.strip_prefix('\n')).unwrap_or(after).len()
        };
        if eol == 0 && !ends_block {
            // The last line has no end: the line before it loses its own.
            let from =
                self.text.get(..line).map_or(line, |before| before.trim_end_matches(['\r', '\n']).len());
            return Ok(Some((from..to, String::new())));
        }
        Ok(Some((line..to + eol, String::new())))
    }

    /// The empty range behind the colon of a key.
    fn after_colon(&self, key: &Node) -> Result<Range<usize>, EditError> {
        let rest = self.text.get(key.range.end..).unwrap_or_default();
        let gap = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if !rest.trim_start_matches([' ', '\t']).starts_with(':') {
            return Err(self.error("its key is on a line of its own"));
        }
        let end = key.range.end + gap + 1;
        Ok(end..end)
    }

    fn line_start(&self, at: usize) -> usize {
        self.text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1)
    }

    /// The end of the line, before its break.
    fn line_end(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        at + line.strip_suffix('\r').unwrap_or(line).len()
    }

    /// Characters before a byte on its line.
    fn column(&self, at: usize) -> usize {
        self.text
            .get(self.line_start(at)..at)
            .map_or(0, |before| before.trim_start_matches('\u{feff}').chars().count())
    }

    fn is_json(&self) -> bool {
        self.text.trim_start_matches(['\u{feff}', ' ', '\n', '\r', '\t']).starts_with('{')
    }
}

/// Content below further steps.
fn wrap(rest: &[Step], new: &New) -> Result<New, EditError> {
    rest.iter().rev().try_fold(new.clone(), |new, step| match step {
        Step::Key(key) => Ok(New::entry(key, new)),
        Step::Index(0) => Ok(New::List(vec![new])),
        Step::Index(_) | Step::Text => Err(unsupported(rest, "there is no such item")),
    })
}
