//! Kinds of values: their allowed values, parsers and display.

use std::{fmt::Debug, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tracing_subscriber::EnvFilter;

use crate::patterns::{DroppableLabel, NotDroppable, Pattern};

/// An unparsed value from a flag, an environment variable or the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// One text. A list is split at its commas.
    Text(String),
    /// An array of the file, or a flag given several times.
    List(Vec<String>),
}

impl Raw {
    /// The value as error messages show it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::List(items) => format!("{items:?}"),
        }
    }

    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text.trim()),
            Self::List(_) => Err("expected one value, not a list".to_owned()),
        }
    }

    /// The items; an empty text is an empty list.
    pub(super) fn items(&self) -> Vec<&str> {
        match self {
            Self::Text(text) if text.trim().is_empty() => Vec::new(),
            Self::Text(text) => text.split(',').map(str::trim).collect(),
            Self::List(items) => items.iter().map(|item| item.trim()).collect(),
        }
    }
}

/// A kind of value.
pub(super) trait Kind {
    /// The parsed type.
    type Value;

    /// Whether it takes several values.
    const LIST: bool = false;

    /// The allowed values, as a phrase.
    fn allowed(&self) -> String;

    /// Parses a value. The error is a reason, such as `too short`.
    fn parse(&self, raw: &Raw) -> Result<Self::Value, String>;

    /// The value in the form of the file; `None` when it is not set. Without its secrets.
    fn show(&self, value: &Self::Value) -> Option<toml::Value>;

    /// A refused value as error messages show it. Without its secrets.
    fn refused(&self, raw: &Raw) -> String {
        raw.shown()
    }
}

/// An address to listen on.
pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn allowed(&self) -> String {
        "IP address and port, such as 127.0.0.1:9750, 0.0.0.0:9750 or [::]:9750".to_owned()
    }

    fn parse(&self, raw: &Raw) -> Result<SocketAddr, String> {
        raw.text()?.parse().map_err(|_| "not an IP address with a port".to_owned())
    }

    fn show(&self, value: &SocketAddr) -> Option<toml::Value> {
        Some(value.to_string().into())
    }
}

/// A path. It need not exist.
pub(super) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn allowed(&self) -> String {
        "path".to_owned()
    }

    fn parse(&self, raw: &Raw) -> Result<PathBuf, String> {
        let path = PathBuf::from(raw.text()?);
        if path.as_os_str().is_empty() {
            return Err("the path is empty".to_owned());
        }
        Ok(path)
    }

    fn show(&self, value: &PathBuf) -> Option<toml::Value> {
        Some(value.display().to_string().into())
    }
}

/// The name of a node. Kubernetes calls this format a DNS-1123 subdomain.
pub(super) struct NodeName;

impl Kind for NodeName {
    type Value = String;

    fn allowed(&self) -> String {
        "letters, digits, '-' and '.', at most 253".to_owned()
    }

    fn parse(&self, raw: &Raw) -> Result<String, String> {
        let name = raw.text()?;
        if name.len() > 253 {
            return Err(format!("{} characters long", name.len()));
        }
        if let Some(bad) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.')) {
            return Err(format!("has the character {bad:?}"));
        }
        Ok(name.to_owned())
    }

    fn show(&self, value: &String) -> Option<toml::Value> {
        Some(value.clone().into())
    }
}

/// A value that may be absent; an empty text means absent.
pub(super) struct Optional<K>(pub(super) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn allowed(&self) -> String {
        format!("{}; empty for none", self.0.allowed())
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, String> {
        match raw {
            Raw::Text(text) if text.trim().is_empty() => Ok(None),
            raw => self.0.parse(raw).map(Some),
        }
    }

    fn show(&self, value: &Self::Value) -> Option<toml::Value> {
        value.as_ref().and_then(|value| self.0.show(value))
    }

    fn refused(&self, raw: &Raw) -> String {
        self.0.refused(raw)
    }
}

/// A value, or the word `off`.
pub(super) struct OrOff<K>(pub(super) K);

impl<K: Kind> Kind for OrOff<K> {
    type Value = Option<K::Value>;

    fn allowed(&self) -> String {
        format!("{}; or off", self.0.allowed())
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, String> {
        if raw.text() == Ok("off") { Ok(None) } else { self.0.parse(raw).map(Some) }
    }

    fn show(&self, value: &Self::Value) -> Option<toml::Value> {
        value.as_ref().map_or_else(|| Some("off".into()), |value| self.0.show(value))
    }

    fn refused(&self, raw: &Raw) -> String {
        self.0.refused(raw)
    }
}

/// Texts without white space.
pub(super) struct Words {
    /// What the texts are, in the plural.
    pub(super) subject: &'static str,
}

impl Kind for Words {
    type Value = Vec<String>;
    const LIST: bool = true;

    fn allowed(&self) -> String {
        format!("list of {}", self.subject)
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, String> {
        let word = |item: &str| match item {
            "" => Err("one item is empty".to_owned()),
            item if item.contains(char::is_whitespace) => Err(format!("{item:?} has white space")),
            item => Ok(item.to_owned()),
        };
        raw.items().into_iter().map(word).collect()
    }

    fn show(&self, value: &Self::Value) -> Option<toml::Value> {
        Some(toml::Value::Array(value.iter().map(|word| word.as_str().into()).collect()))
    }
}

/// A duration within bounds.
pub(super) struct DurationRange(pub(super) RangeInclusive<Duration>);

impl Kind for DurationRange {
    type Value = Duration;

    fn allowed(&self) -> String {
        let [low, high] = [self.0.start(), self.0.end()].map(|d| humantime::format_duration(*d));
        format!("duration with its unit (ms, s, m), from {low} to {high}")
    }

    fn parse(&self, raw: &Raw) -> Result<Duration, String> {
        let duration = humantime::parse_duration(raw.text()?).map_err(|error| error.to_string())?;
        if duration < *self.0.start() {
            return Err("too short".to_owned());
        }
        if duration > *self.0.end() {
            return Err("too long".to_owned());
        }
        Ok(duration)
    }

    fn show(&self, value: &Duration) -> Option<toml::Value> {
        Some(humantime::format_duration(*value).to_string().into())
    }
}

/// A duration within bounds; a number alone is milliseconds, as in OpenTelemetry's variables.
pub(super) struct Millis(pub(super) RangeInclusive<Duration>);

impl Kind for Millis {
    type Value = Duration;

    fn allowed(&self) -> String {
        format!("milliseconds, or {}", DurationRange(self.0.clone()).allowed())
    }

    fn parse(&self, raw: &Raw) -> Result<Duration, String> {
        let text = raw.text()?;
        let with_unit = text.parse().map(|number: u64| format!("{number}ms"));
        DurationRange(self.0.clone()).parse(&Raw::Text(with_unit.unwrap_or_else(|_| text.to_owned())))
    }

    fn show(&self, value: &Duration) -> Option<toml::Value> {
        DurationRange(self.0.clone()).show(value)
    }
}

/// Names with values, percent-encoded as in W3C's Baggage.
pub(super) struct Pairs;

impl Kind for Pairs {
    type Value = Vec<(String, String)>;
    const LIST: bool = true;

    fn allowed(&self) -> String {
        "list of name=value; commas, spaces and percent signs in values as %2C, %20, %25".to_owned()
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, String> {
        let pair = |item: &str| {
            let (name, value) = item.split_once('=').ok_or("an item has no equals sign")?;
            let (name, value) = (name.trim(), value.trim());
            if name.is_empty() {
                return Err("an item has no name".to_owned());
            }
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| format!("the value of {name} is not UTF-8"))?;
            Ok((name.to_owned(), value.into_owned()))
        };
        raw.items().into_iter().map(pair).collect()
    }

    fn show(&self, value: &Self::Value) -> Option<toml::Value> {
        let pair = |(name, value): &(String, String)| {
            format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)).into()
        };
        Some(toml::Value::Array(value.iter().map(pair).collect()))
    }
}

/// A whole number within bounds.
pub(super) struct Count(pub(super) RangeInclusive<u32>);

impl Kind for Count {
    type Value = u32;

    fn allowed(&self) -> String {
        format!("whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn parse(&self, raw: &Raw) -> Result<u32, String> {
        let text = raw.text()?;
        let count: u32 = text.parse().map_err(|_| "not a whole number that fits".to_owned())?;
        if !self.0.contains(&count) {
            return Err(if count < *self.0.start() { "too small" } else { "too large" }.to_owned());
        }
        Ok(count)
    }

    fn show(&self, value: &u32) -> Option<toml::Value> {
        Some(i64::from(*value).into())
    }
}

/// One of several words.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq + Debug> Kind for Choice<T> {
    type Value = T;

    fn allowed(&self) -> String {
        self.0.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
    }

    fn parse(&self, raw: &Raw) -> Result<T, String> {
        let text = raw.text()?;
        let found = self.0.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| "no such choice".to_owned())
    }

    fn show(&self, value: &T) -> Option<toml::Value> {
        self.0.iter().find(|(_, known)| known == value).map(|(word, _)| (*word).into())
    }
}

/// On or off.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn allowed(&self) -> String {
        "on, off (also true, false)".to_owned()
    }

    fn parse(&self, raw: &Raw) -> Result<bool, String> {
        match raw.text()? {
            "on" | "true" => Ok(true),
            "off" | "false" => Ok(false),
            _ => Err("neither on nor off".to_owned()),
        }
    }

    fn show(&self, value: &bool) -> Option<toml::Value> {
        Some((*value).into())
    }
}

/// Patterns over a set of characters.
pub(super) struct Patterns {
    /// The things that the patterns match, in the plural.
    pub(super) subject: &'static str,
    /// Whether a character is allowed in such names.
    pub(super) allows: fn(char) -> bool,
}

impl Kind for Patterns {
    type Value = Vec<Pattern>;
    const LIST: bool = true;

    fn allowed(&self) -> String {
        format!("list of {}; * and ? are wildcards", self.subject)
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, String> {
        let pattern = |item: &str| {
            if item.is_empty() {
                return Err("one item is empty".to_owned());
            }
            match item.chars().find(|c| !matches!(c, '*' | '?') && !(self.allows)(*c)) {
                Some(bad) => Err(format!(
                    "{item:?} has the character {bad:?}, which none of the {} can contain",
                    self.subject
                )),
                None => Ok(Pattern::new(item)),
            }
        };
        raw.items().into_iter().map(pattern).collect()
    }

    fn show(&self, value: &Self::Value) -> Option<toml::Value> {
        Some(toml::Value::Array(value.iter().map(|pattern| pattern.as_text().into()).collect()))
    }
}

/// Names of labels that may be dropped.
pub(super) struct Labels;

impl Kind for Labels {
    type Value = Vec<DroppableLabel>;
    const LIST: bool = true;

    fn allowed(&self) -> String {
        format!("list of {}", DroppableLabel::names())
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, String> {
        raw.items()
            .into_iter()
            .map(|item| item.parse().map_err(|error: NotDroppable| error.to_string()))
            .collect()
    }

    fn show(&self, value: &Self::Value) -> Option<toml::Value> {
        Some(toml::Value::Array(value.iter().map(|label| label.as_str().into()).collect()))
    }
}

/// Directives for `tracing_subscriber::EnvFilter`.
pub(super) struct Directives;

impl Kind for Directives {
    type Value = String;

    fn allowed(&self) -> String {
        "off, error, warn, info, debug or trace, or directives such as info,snug_agent::identity=debug"
            .to_owned()
    }

    fn parse(&self, raw: &Raw) -> Result<String, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let text = raw.text()?;
        // EnvFilter takes any lone word as a target, so a misspelt level would silence all other targets.
        let lone =
            |item: &&str| !item.contains(['=', '[']) && !LEVELS.contains(&item.to_ascii_lowercase().as_str());
        if let Some(item) = text.split(',').map(str::trim).find(lone) {
            return Err(format!("{item:?} is not a log level"));
        }
        EnvFilter::try_new(text).map_err(|error| error.to_string())?;
        Ok(text.to_owned())
    }

    fn show(&self, value: &String) -> Option<toml::Value> {
        Some(value.clone().into())
    }
}
