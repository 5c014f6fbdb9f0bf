//! What a document says: aliases and merge keys followed, styles and positions left out.

use super::{Document, Kind, MAX_NODES, Node, Step, YamlError};

/// Aliases within aliases. An alias within its own anchor has no end.
const MAX_DEPTH: usize = 512;

/// A node without style and position. Numbers and booleans are texts: for quantities and names that is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Text(String),
    Map(Vec<(String, Value)>),
    List(Vec<Value>),
}

impl Value {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(it, _)| it == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value below several keys.
    pub fn below(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The text below several keys.
    pub fn text_at(&self, keys: &[&str]) -> Option<&str> {
        self.below(keys)?.text()
    }

    /// The items of a sequence; none of anything else.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[(String, Self)] {
        match self {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value at a path that has no text on its way.
    pub fn at(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.items().get(*index),
            Step::Text => None,
        })
    }

    /// Sets the value at a path. Mappings on the way that are missing or null are made; an item after the last one is added.
    /// Whether there was a way.
    pub fn set(&mut self, path: &[Step], new: Self) -> bool {
        let Some((step, rest)) = path.split_first() else {
            *self = new;
            return true;
        };
        match step {
            Step::Key(key) => {
                if self.is_null() {
                    *self = Self::Map(Vec::new());
                }
                let Self::Map(entries) = self else { return false };
                let at = entries.iter().position(|(it, _)| it == key).unwrap_or_else(|| {
                    entries.push((key.clone(), Self::Null));
                    entries.len() - 1
                });
                entries.get_mut(at).is_some_and(|(_, value)| value.set(rest, new))
            }
            Step::Index(index) => {
                if self.is_null() {
                    *self = Self::List(Vec::new());
                }
                let Self::List(items) = self else { return false };
                if *index == items.len() {
                    items.push(Self::Null);
                }
                items.get_mut(*index).is_some_and(|item| item.set(rest, new))
            }
            Step::Text => false,
        }
    }

    /// Removes the entry at a path. Whether there was one.
    pub fn remove(&mut self, path: &[Step]) -> bool {
        let (Some((Step::Key(key), rest)), Self::Map(entries)) = (path.split_first(), &mut *self) else {
            return match (path.split_first(), self) {
                (Some((Step::Index(index), rest)), Self::List(items)) => {
                    items.get_mut(*index).is_some_and(|item| item.remove(rest))
                }
                _ => false,
            };
        };
        let Some(at) = entries.iter().position(|(it, _)| it == key) else { return false };
        if rest.is_empty() {
            entries.remove(at);
            return true;
        }
        entries.get_mut(at).is_some_and(|(_, value)| value.remove(rest))
    }
}

impl Document {
    /// What the document says.
    ///
    /// # Errors
    /// When aliases have no end, or stand for too many nodes.
    pub fn value(&self) -> Result<Value, YamlError> {
        self.value_of(&self.root)
    }

    /// What one of its nodes says.
    ///
    /// # Errors
    /// As [`Self::value`].
    pub fn value_of(&self, node: &Node) -> Result<Value, YamlError> {
        self.resolve(node, 0, &mut { MAX_NODES })
    }

    fn resolve(&self, node: &Node, depth: usize, left: &mut usize) -> Result<Value, YamlError> {
        *left = left.checked_sub(1).filter(|_| depth < MAX_DEPTH).ok_or(YamlError::Aliases)?;
        Ok(match &node.kind {
            Kind::Scalar { .. } if node.is_null() => Value::Null,
            Kind::Scalar { text, .. } => Value::Text(text.clone()),
            Kind::Alias { anchor } => {
                let node = self.anchors.get(anchor).ok_or(YamlError::Aliases)?;
                self.resolve(node, depth + 1, left)?
            }
            Kind::Sequence { items, .. } => {
                let items = items.iter().map(|item| self.resolve(item, depth + 1, left));
                Value::List(items.collect::<Result<_, _>>()?)
            }
            Kind::Mapping { entries, .. } => {
                let mut all: Vec<(String, Value)> = Vec::new();
                let mut merged = Vec::new();
                for (key, value) in entries {
                    let value = self.resolve(value, depth + 1, left)?;
                    match (key.text().unwrap_or_default(), value) {
                        ("<<", Value::List(maps)) => merged.extend(maps),
                        ("<<", map @ Value::Map(_)) => merged.push(map),
                        (key, value) => all.push((key.to_owned(), value)),
                    }
                }
                // Keys of the mapping itself win, then those of the first mapping that is merged.
                for (key, value) in merged.into_iter().flat_map(|map| map.entries().to_vec()) {
                    if all.iter().all(|(it, _)| *it != key) {
                        all.push((key, value));
                    }
                }
                Value::Map(all)
            }
        })
    }
}
