//! New content, in the style of what is around it.

use super::Value;

/// Content to insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum New {
    /// A text; quoted where it would be read as anything else.
    Text(String),
    Null,
    Map(Vec<(String, New)>),
    List(Vec<New>),
    /// A text of several lines, as a literal block.
    Literal(String),
}

impl New {
    /// A mapping of one entry.
    pub fn entry(key: &str, value: Self) -> Self {
        Self::Map(vec![(key.to_owned(), value)])
    }

    /// As a document in block style.
    pub fn document(&self) -> String {
        match self {
            Self::Map(entries) if !entries.is_empty() => format!("{}\n", Self::block_map(entries, 0)),
            other => format!("{}\n", other.flow(false)),
        }
    }

    /// As JSON, with all scalars as texts.
    pub fn json(&self) -> String {
        self.flow(true)
    }

    /// What it says.
    pub fn value(&self) -> Value {
        match self {
            Self::Text(text) | Self::Literal(text) => Value::Text(text.clone()),
            Self::Null => Value::Null,
            Self::Map(entries) => {
                Value::Map(entries.iter().map(|(key, new)| (key.clone(), new.value())).collect())
            }
            Self::List(items) => Value::List(items.iter().map(Self::value).collect()),
        }
    }

    /// In flow style; `is_json` quotes all texts.
    pub(super) fn flow(&self, is_json: bool) -> String {
        let quoted = |text: &str| if is_json { double_quoted(text) } else { scalar(text) };
        match self {
            Self::Text(text) => quoted(text),
            Self::Literal(text) => double_quoted(text),
            Self::Null => "null".to_owned(),
            Self::Map(entries) => {
                let all: Vec<String> = entries
                    .iter()
                    .map(|(key, new)| format!("{}: {}", quoted(key), new.flow(is_json)))
                    .collect();
                format!("{{{}}}", all.join(", "))
            }
            Self::List(items) => {
                let all: Vec<String> = items.iter().map(|new| new.flow(is_json)).collect();
                format!("[{}]", all.join(", "))
            }
        }
    }

    /// What stands behind `key:`, in block style, with a break or a space before it and none at its end. `indent` is that of the key.
    pub(super) fn after_key(&self, indent: usize) -> String {
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                format!("\n{}", Self::block_map(entries, indent + 2))
            }
            Self::List(items) if !items.is_empty() => {
                let all: Vec<String> = items.iter().map(|item| item.item(indent)).collect();
                format!("\n{}", all.join("\n"))
            }
            Self::Literal(text) => {
                let pad = " ".repeat(indent + 2);
                let lines: Vec<String> = text
                    .lines()
                    .map(|line| if line.is_empty() { String::new() } else { format!("{pad}{line}") })
                    .collect();
                format!(" |{}\n{}", if text.ends_with('\n') { "" } else { "-" }, lines.join("\n"))
            }
            other => format!(" {}", other.flow(false)),
        }
    }

    /// Entries of a mapping in block style, each on lines of its own.
    pub(super) fn block_map(entries: &[(String, Self)], indent: usize) -> String {
        let pad = " ".repeat(indent);
        let all: Vec<String> = entries
            .iter()
            .map(|(key, new)| format!("{pad}{}:{}", scalar(key), new.after_key(indent)))
            .collect();
        all.join("\n")
    }

    /// An item of a sequence in block style, whose dash is at `indent`.
    pub(super) fn item(&self, indent: usize) -> String {
        let pad = " ".repeat(indent);
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                let text = Self::block_map(entries, indent + 2);
                format!("{pad}- {}", text.trim_start())
            }
            other => format!("{pad}-{}", other.after_key(indent)),
        }
    }
}

impl From<Value> for New {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Text(text) => Self::Text(text),
            Value::Map(entries) => {
                Self::Map(entries.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
            Value::List(items) => Self::List(items.into_iter().map(Self::from).collect()),
        }
    }
}

/// Whether a text, written plain, is read as itself and as a text, in YAML 1.1 and 1.2. Fewer than possible are.
fn is_plain(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_number = text.parse::<f64>().is_ok()
        || text.starts_with("0x")
        || text.starts_with("0o")
        // In YAML 1.1, 1_000 and 190:20:30 are numbers, and 2001-01-01 is a date.
        || text.chars().all(|c| c.is_ascii_digit() || matches!(c, '_' | '-' | '.'));
    let lower = text.to_ascii_lowercase();
    let is_keyword = matches!(
        lower.as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "nan" | "inf"
    );
    begins && text.chars().all(is_word) && !is_number && !is_keyword
}

pub(super) fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { double_quoted(text) }
}

/// A text in double quotes. What JSON escapes, YAML reads.
pub(super) fn double_quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
