//! The Elastic Common Schema, as far as events need it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

/// From <https://github.com/elastic/ecs>, with its source in `fixtures/README.md`.
const SCHEMA: &str = include_str!("../fixtures/ecs-9.0.0.json");
/// Namespaces of further fields: of OpenTelemetry's semantic conventions, and Snug's own.
const OTHERS: [&str; 6] = ["k8s.", "container.", "host.", "os.", "process.", "snug."];

#[derive(Debug, Deserialize)]
pub struct Schema {
    /// The values that are allowed, by field.
    allowed: BTreeMap<String, Vec<String>>,
    /// The values of `event.type` that a value of `event.category` expects.
    types_by_category: BTreeMap<String, Vec<String>>,
    fields: BTreeMap<String, Field>,
}

#[derive(Debug, Deserialize)]
struct Field {
    r#type: String,
    /// Whether its value is always an array.
    #[serde(default)]
    array: bool,
}

impl Schema {
    /// The schema of version 9.0.0.
    ///
    /// # Errors
    /// When the fixture cannot be read.
    pub fn read() -> Result<Self> {
        serde_json::from_str(SCHEMA).context("the fixture of the Elastic Common Schema")
    }

    /// Checks a document with flat names.
    ///
    /// # Errors
    /// When a field or a value is not as the schema has it.
    pub fn check(&self, document: &Map<String, Value>) -> Result<()> {
        for name in ["@timestamp", "message", "ecs.version", "event.kind", "event.category", "event.type"] {
            ensure!(document.contains_key(name), "no {name}");
        }
        for (name, value) in document {
            match self.fields.get(name) {
                Some(field) => field.check(value).with_context(|| format!("{name}: {value}"))?,
                None if name == "severity" || OTHERS.iter().any(|prefix| name.starts_with(prefix)) => {}
                None => bail!("{name} is no field"),
            }
        }
        for (name, allowed) in &self.allowed {
            for value in texts(&document[name]) {
                ensure!(allowed.iter().any(|one| one == value), "{name}: {value:?} is not allowed");
            }
        }
        for category in texts(&document["event.category"]) {
            let expected = &self.types_by_category[category];
            for kind in texts(&document["event.type"]) {
                ensure!(expected.iter().any(|one| one == kind), "{kind:?} is no event.type of {category:?}");
            }
        }
        Ok(())
    }
}

/// The texts of a value that may be an array.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    }
}

impl Field {
    fn check(&self, value: &Value) -> Result<()> {
        let values = match value {
            Value::Array(values) => {
                ensure!(self.array, "one value");
                values.iter().collect()
            }
            value => {
                ensure!(!self.array, "an array");
                vec![value]
            }
        };
        let fits = |value: &&Value| match self.r#type.as_str() {
            "long" => value.is_i64() || value.is_u64(),
            "float" | "scaled_float" => value.is_number(),
            "boolean" => value.is_boolean(),
            "object" | "flattened" => value.is_object(),
            "date" => value.as_str().is_some_and(is_date),
            _ => value.is_string(),
        };
        ensure!(values.iter().all(fits), "expected the type {}", self.r#type);
        Ok(())
    }
}

/// Whether it is a time in UTC by RFC 3339.
fn is_date(text: &str) -> bool {
    let digits = text.replace(|c: char| c.is_ascii_digit(), "0");
    matches!(digits.as_str(), "0000-00-00T00:00:00Z" | "0000-00-00T00:00:00.000Z")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_of_the_schema_is_refused() {
        let good = json!({
            "@timestamp": "2026-01-01T00:00:00.250Z", "message": "text", "ecs.version": "9.0.0", "event.kind": "event",
            "event.category": ["process"], "event.type": ["end"], "process.pid": 7, "k8s.pod.name": "web-1",
        });
        let schema = Schema::read().unwrap();
        schema.check(good.as_object().unwrap()).unwrap();
        for (name, value) in [
            ("@timestamp", json!("yesterday")),
            ("process.pid", json!("7")),
            ("event.category", json!("process")),
            ("event.category", json!(["pod"])),
            ("event.type", json!(["error"])),
            ("event.type", json!(["stop"])),
            ("message", json!(["text"])),
            ("event.what", json!("x")),
        ] {
            let mut bad = good.as_object().unwrap().clone();
            bad.insert(name.to_owned(), value.clone());
            assert!(schema.check(&bad).is_err(), "{name}: {value}");
        }
    }
}
