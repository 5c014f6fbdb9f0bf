//! YAML with the position of every node, and an editor that leaves all other bytes as they are.

mod content;
pub mod edit;
mod embedded;
mod value;

use std::{collections::HashMap, ops::Range};

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

pub use self::{content::New, value::Value};

/// Nodes of a file, aliases included: a few lines of aliases can stand for billions of nodes.
const MAX_NODES: usize = 2_000_000;

/// One step from a node to a node below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The value of this key of a mapping.
    Key(String),
    /// An item of a sequence, from 0.
    Index(usize),
    /// Into the text of a scalar, which is YAML itself.
    Text,
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A path as people write it: `spec.template.spec.containers[0].resources`.
pub fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) => {
                let gap = if text.is_empty() { "" } else { "." };
                text += gap;
                text += key;
            }
            Step::Index(index) => text += &format!("[{index}]"),
            Step::Text => {}
        }
    }
    text
}

/// Why a text is no YAML that can be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    #[error("line {line}: {why}")]
    Syntax { line: usize, why: String },
    #[error("line {line}: a key that is no text")]
    Key { line: usize },
    #[error("line {line}: the key {key} a second time")]
    Duplicate { line: usize, key: String },
    #[error("it is not UTF-8")]
    Encoding,
    #[error("aliases stand for more than {MAX_NODES} nodes")]
    Aliases,
}

/// A document of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it is in the file, with the comments and the `---` before it.
    pub range: Range<usize>,
    pub root: Node,
    anchors: HashMap<usize, Node>,
}

/// A node with its position.
#[derive(Clone, Debug)]
pub struct Node {
    /// Bytes in the file, without anchor, tag and comments.
    pub range: Range<usize>,
    /// From 1.
    pub line: usize,
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    Scalar { text: String, style: ScalarStyle },
    Mapping { entries: Vec<(Node, Node)>, is_flow: bool },
    Sequence { items: Vec<Node>, is_flow: bool },
    Alias { anchor: usize },
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether it is a plain scalar that stands for nothing.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, style: ScalarStyle::Plain } if is_null(text))
    }

    /// The key and the value of an entry of a mapping.
    pub fn entry(&self, key: &str) -> Option<&(Self, Self)> {
        match &self.kind {
            Kind::Mapping { entries, .. } => entries.iter().find(|(it, _)| it.text() == Some(key)),
            _ => None,
        }
    }

    /// Whether its last line is a dash without an item, whose place is not known.
    fn ends_with_empty_item(&self) -> bool {
        let last = match &self.kind {
            Kind::Mapping { entries, is_flow: false } => entries.last().map(|(_, value)| value),
            Kind::Sequence { items, is_flow: false } => items.last(),
            _ => None,
        };
        let is_item = matches!(self.kind, Kind::Sequence { .. });
        last.is_some_and(|last| (is_item && last.range.is_empty()) || last.ends_with_empty_item())
    }

    /// The node at a path, without following aliases and texts.
    pub fn at(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| match (step, &node.kind) {
            (Step::Key(key), _) => node.entry(key).map(|(_, value)| value),
            (Step::Index(index), Kind::Sequence { items, .. }) => items.get(*index),
            _ => None,
        })
    }
}

/// Whether a plain scalar stands for nothing.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

impl Document {
    /// The line of the node at a path, or of the last one on the way to it that there is; from 1.
    pub fn line(&self, path: &[Step]) -> usize {
        let mut line = self.root.line;
        let mut node = Some(&self.root);
        for step in path {
            node = match (step, node.map(|node| &node.kind)) {
                (Step::Key(key), Some(Kind::Mapping { .. })) => {
                    let entry = node.and_then(|node| node.entry(key));
                    line = entry.map_or(line, |(key, _)| key.line);
                    entry.map(|(_, value)| value)
                }
                (Step::Index(index), Some(Kind::Sequence { items, .. })) => {
                    let item = items.get(*index);
                    line = item.map_or(line, |item| item.line);
                    item
                }
                _ => None,
            };
        }
        line
    }
}

/// Reads the documents of a file.
///
/// # Errors
/// When it is no YAML, or has keys that are no texts or twice in a mapping.
pub fn parse(text: &str) -> Result<Vec<Document>, YamlError> {
    let mut builder = Builder::default();
    let options = granit_parser::options! { emit_comments: false };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| YamlError::Syntax {
            line: error.marker().line(),
            why: error.info().to_owned(),
        })?;
        builder.take(event, &span)?;
    }
    let mut documents = builder.documents;
    // Each begins where the one before it ends; the first and the last have what is around them.
    let starts: Vec<usize> = documents.iter().map(|document| document.range.start).skip(1).collect();
    let mut from = 0;
    for (document, to) in documents.iter_mut().zip(starts.into_iter().chain([text.len()])) {
        document.range = from..to;
        from = to;
    }
    Ok(documents)
}

/// Makes trees of events.
#[derive(Default)]
struct Builder {
    documents: Vec<Document>,
    start: usize,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    open: Vec<Open>,
    nodes: usize,
}

/// A collection that is not closed yet.
struct Open {
    start: usize,
    line: usize,
    anchor: usize,
    is_flow: bool,
    is_mapping: bool,
    key: Option<Node>,
    entries: Vec<(Node, Node)>,
    items: Vec<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), YamlError> {
        let range = span.byte_range().unwrap_or(0..0);
        let line = span.start.line();
        match event {
            Event::DocumentStart(..) => self.start = range.start,
            Event::DocumentEnd => {
                if let Some(root) = self.root.take() {
                    let anchors = std::mem::take(&mut self.anchors);
                    self.documents.push(Document { range: self.start..self.start, root, anchors });
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let kind = Kind::Scalar { text: text.into_owned(), style };
                self.add(Node { range, line, kind }, anchor)?;
            }
            Event::Alias(anchor) => self.add(Node { range, line, kind: Kind::Alias { anchor } }, 0)?,
            Event::MappingStart(style, anchor, _) => self.open(range.start, line, anchor, style, true),
            Event::SequenceStart(style, anchor, _) => self.open(range.start, line, anchor, style, false),
            Event::MappingEnd | Event::SequenceEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let Open { start, line, anchor, is_flow, is_mapping, entries, items, .. } = open;
                let last = entries.last().map(|(_, value)| value).or(items.last());
                let end = if is_flow { range.end } else { last.map_or(start, |last| last.range.end) };
                let kind = if is_mapping {
                    Kind::Mapping { entries, is_flow }
                } else {
                    Kind::Sequence { items, is_flow }
                };
                self.add(Node { range: start..end.max(start), line, kind }, anchor)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, start: usize, line: usize, anchor: usize, style: StructureStyle, is_mapping: bool) {
        let (is_flow, entries, items) = (style == StructureStyle::Flow, Vec::new(), Vec::new());
        self.open.push(Open { start, line, anchor, is_flow, is_mapping, key: None, entries, items });
    }

    /// Adds a complete node to the collection that is open.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(YamlError::Aliases);
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        if !open.is_mapping {
            open.items.push(node);
            return Ok(());
        }
        match open.key.take() {
            Some(key) => open.entries.push((key, node)),
            None => {
                let line = node.line;
                let Some(key) = node.text() else { return Err(YamlError::Key { line }) };
                if key != "<<" && open.entries.iter().any(|(it, _)| it.text() == Some(key)) {
                    return Err(YamlError::Duplicate { line, key: key.to_owned() });
                }
                open.key = Some(node);
            }
        }
        Ok(())
    }
}
